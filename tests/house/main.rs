//! The shape of the source: no two files import each other in a circle, and a long file says why it is long.
//!
//! A file over 500 lines has a line with "lines because" in its head comment (`//!`), like
//! `//! Over 500 lines because the table of kinds is read in one piece.`
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{imports::Imports, modules::Sources};

mod circles;
mod examples;
mod imports;
mod modules;

const LONG: usize = 500;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let (sources, roots) = workspace();
    let (mut imports, mut read) = (Imports::new(), BTreeSet::new());
    for root in &roots {
        let modules = modules::read(&sources, root).unwrap();
        imports::collect(&modules, &mut imports);
        read.extend(modules.into_iter().map(|module| module.file));
    }
    assert!(read.len() > 200, "only {} files were read", read.len());
    let circles: String = circles::find(&imports).iter().map(|circle| circles::describe(circle, &imports)).collect();
    assert!(circles.is_empty(), "{circles}");
}

#[test]
fn long_files_say_why() {
    let (sources, _) = workspace();
    let long: Vec<String> = sources
        .iter()
        .map(|(file, text)| (file, text.lines().count(), text))
        .filter(|(_, lines, text)| *lines > LONG && !says_why(text))
        .map(|(file, lines, _)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "over {LONG} lines, with no \"lines because\" at the head:\n{}", long.join("\n"));
}

#[test]
fn the_reason_stands_at_the_head() {
    assert!(says_why("//! All kinds.\n//!\n//! Over 500 lines because they are one table.\n\nuse x;\n"));
    assert!(!says_why("//! All kinds.\n\n// Over 500 lines because they are one table.\n"));
    assert!(!says_why("use x;\n//! Over 500 lines because they are one table.\n"));
}

fn says_why(text: &str) -> bool {
    text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains("lines because"))
}

/// Every Rust file of the repository, and which of them are roots of crates.
fn workspace() -> (Sources, Vec<PathBuf>) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut packages) = (Sources::new(), Vec::new());
    let mut open = vec![repository.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                open.push(path);
            } else if kind.is_file() && name == "Cargo.toml" {
                packages.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.insert(path.strip_prefix(repository).unwrap().to_owned(), text);
            }
        }
    }
    let roots = packages.iter().flat_map(|manifest| {
        let package = manifest.parent().unwrap().strip_prefix(repository).unwrap();
        roots_of(package, &fs::read_to_string(manifest).unwrap(), &sources)
    });
    let roots = roots.collect();
    (sources, roots)
}

/// The paths where Cargo looks for targets, and those that the manifest names.
fn roots_of(package: &Path, manifest: &str, sources: &Sources) -> BTreeSet<PathBuf> {
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
    let named: BTreeSet<PathBuf> = named.map(|path| package.join(path)).collect();
    let is_root = |file: &Path| {
        let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
        matches!(
            parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..],
            ["build.rs"]
                | ["src", "lib.rs" | "main.rs"]
                | ["src", "bin", _]
                | ["src", "bin", _, "main.rs"]
                | ["tests" | "benches" | "examples", _]
                | ["tests" | "benches" | "examples", _, "main.rs"]
        )
    };
    let found = sources.keys().filter(|file| file.strip_prefix(package).is_ok_and(is_root));
    named.into_iter().chain(found.cloned()).filter(|file| sources.contains_key(file)).collect()
}
