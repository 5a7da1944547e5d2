//! Which file imports which: every path in a module, followed to the files that it names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::modules::{Module, Named, Use};

/// A chain of more renamings is a loop.
const DEPTH: usize = 8;

/// An import of a file: the other file, and the first line with it.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, Reason>>;

/// `line: path`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reason {
    pub(crate) line: usize,
    pub(crate) path: String,
}

/// Adds the imports of one crate. Importing a name imports the file that defines it, and every file on the way that
/// re-exports it by `use`. Not counted are `mod child;`, a parent's `pub use child::Name` that it does not use itself,
/// and code under `#[cfg(test)]`.
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
            // A single name is either defined in this module, or was counted with its `use`.
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
    /// Whether its code has a path that begins with `start`.
    fn names(&self, name: &str) -> bool {
        self.paths.iter().any(|path| path.segments.first().is_some_and(|first| first == name))
    }
}

struct Tree<'a>(&'a [Module]);

impl Tree<'_> {
    /// The modules that a path leads to: the one in which its name is looked up, and, if that only re-exports it, all
    /// those up to its definer. `None` if it leads out of the crate, or has only keywords.
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

    /// The module that defines a name that `use module::*` brings in.
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
    /// The path that a `use` in this module gave this name, with the rest of the path.
    fn renamed(&self, name: &str, rest: &[String]) -> Option<Vec<String>> {
        let used = self.uses.iter().find(|one| one.name.as_deref() == Some(name))?;
        Some([&used.path.segments, rest].concat())
    }
}
