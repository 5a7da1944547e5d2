//! Which file imports which: every path of a module, followed to the files it names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::modules::{Module, Named, Use};

/// More renamings than that are a loop.
const DEPTH: usize = 8;

/// What a file imports: the other file, and the first place that makes it so.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, Reason>>;

/// `line: path`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reason {
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// Adds the imports of one crate. A name counts as its definer's and as that of each file on the way that passes it on
/// by `use`. Three things are no imports: `mod child;`, a parent's `pub use child::Name` that it does not use itself,
/// and what stands under `#[cfg(test)]`.
pub(crate) fn collect(modules: &[Module], imports: &mut Imports) {
    let tree = Tree(modules);
    for (index, module) in modules.iter().enumerate() {
        let passed_on = |one: &Use| one.public && !one.name.as_deref().is_some_and(|name| module.names(name));
        for one in &module.uses {
            for target in tree.follow(index, &one.path.segments, DEPTH) {
                if !(passed_on(one) && tree.is_below(target, index)) {
                    add(imports, &module.file, &modules[target].file, &one.path);
                }
            }
        }
        for path in &module.paths {
            // A name alone is either defined here, or has been counted with its `use`.
            if path.segments.len() > 1 {
                for target in tree.follow(index, &path.segments, DEPTH) {
                    add(imports, &module.file, &modules[target].file, path);
                }
            }
        }
    }
}

fn add(imports: &mut Imports, from: &Path, to: &Path, path: &Named) {
    if from != to {
        let reason = || Reason { line: path.line, path: path.segments.join("::") };
        imports.entry(from.to_owned()).or_default().entry(to.to_owned()).or_insert_with(reason);
    }
}

impl Module {
    /// Whether its code has a path that begins so.
    fn names(&self, name: &str) -> bool {
        self.paths.iter().any(|path| path.segments.first().is_some_and(|first| first == name))
    }
}

struct Tree<'a>(&'a [Module]);

impl Tree<'_> {
    /// The modules that a path leads to: where its name is looked for, and, if it is only passed on there, all those up to
    /// its definer. None if it leads out of the crate, or is only keywords.
    fn follow(&self, from: usize, path: &[String], depth: usize) -> Vec<usize> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        let Some(deeper) = depth.checked_sub(1) else { return Vec::new() };
        let module = &self.0[from];
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(from),
            "super" => module.parent,
            name => module.children.get(name).copied(),
        };
        match start {
            Some(start) => self.below(start, rest, deeper),
            None => module.renamed(first, rest).map_or_else(Vec::new, |path| self.follow(from, &path, deeper)),
        }
    }

    fn below(&self, mut at: usize, path: &[String], depth: usize) -> Vec<usize> {
        for (done, name) in path.iter().enumerate() {
            let module = &self.0[at];
            let next = if name == "super" { module.parent } else { module.children.get(name).copied() };
            if let Some(next) = next {
                at = next;
                continue;
            }
            let mut found = vec![at];
            if !module.items.contains(name) {
                match module.renamed(name, &path[done + 1..]) {
                    Some(path) => found.extend(self.follow(at, &path, depth)),
                    None => found.extend(self.through_globs(at, name, depth)),
                }
            }
            return found;
        }
        vec![at]
    }

    /// The module that defines what `use module::*` brings.
    fn through_globs(&self, at: usize, name: &str, depth: usize) -> Option<usize> {
        let globs = self.0[at].uses.iter().filter(|one| one.name.is_none());
        let mut modules = globs.flat_map(|one| self.follow(at, &one.path.segments, depth));
        modules.find(|module| self.0[*module].items.contains(name))
    }

    fn is_below(&self, mut module: usize, above: usize) -> bool {
        while let Some(parent) = self.0[module].parent {
            if parent == above {
                return true;
            }
            module = parent;
        }
        false
    }
}

impl Module {
    /// The path behind a name that a `use` brought here, with what follows it.
    fn renamed(&self, name: &str, rest: &[String]) -> Option<Vec<String>> {
        let used = self.uses.iter().find(|one| one.name.as_deref() == Some(name))?;
        Some([&used.path.segments, rest].concat())
    }
}
