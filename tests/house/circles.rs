//! Files that import each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use crate::imports::Imports;

/// Each group of files in which every file reaches every other by imports.
pub(crate) fn find(imports: &Imports) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<_, _> = imports.keys().map(|file| (file, reach(imports, file))).collect();
    let together = |a: &PathBuf, b: &PathBuf| reached[a].contains(b) && reached.get(b).is_some_and(|r| r.contains(a));
    let mut circles = BTreeSet::new();
    for file in imports.keys().filter(|file| reached[*file].contains(*file)) {
        circles.insert(reached[file].iter().filter(|other| together(file, other)).cloned().collect());
    }
    circles.into_iter().collect()
}

fn reach(imports: &Imports, from: &PathBuf) -> BTreeSet<PathBuf> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(file) = open.pop() {
        for next in imports.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}

/// The import lines that make the circle.
pub(crate) fn describe(circle: &BTreeSet<PathBuf>, imports: &Imports) -> String {
    let mut text = format!("{} files import each other:\n", circle.len());
    for from in circle {
        for (to, reason) in imports[from].iter().filter(|(to, _)| circle.contains(*to)) {
            let (from, to) = (from.display(), to.display());
            writeln!(text, "  {from}:{} imports {to}: {}", reason.line, reason.path).expect("a String takes all");
        }
    }
    text
}
