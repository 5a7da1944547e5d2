//! The modules of a crate as its files declare them: what each defines, imports and names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item, ItemMod, ItemUse, Meta, UseTree, Visibility, spanned::Spanned as _, visit::Visit};

/// File contents by path.
pub(crate) type Sources = BTreeMap<PathBuf, String>;

/// A module, in a file of its own or within another's.
pub(crate) struct Module {
    pub(crate) file: PathBuf,
    /// Index of the module above; the crate's root has none.
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// Names that it defines.
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    /// Paths in code, single names included.
    pub(crate) paths: Vec<Named>,
}

/// One name that a `use` brings in.
pub(crate) struct Use {
    pub(crate) path: Named,
    /// The name it gets here; `None` for `*`.
    pub(crate) name: Option<String>,
    /// `pub`, `pub(crate)` and the like.
    pub(crate) public: bool,
}

/// A path as it is written in the code.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// The modules of the crate with this root; the root is the first. Code under `#[cfg(test)]` is left out.
pub(crate) fn read(sources: &Sources, root: &Path) -> Result<Vec<Module>, String> {
    let mut reader = Reader { sources, modules: Vec::new() };
    reader.file(root.to_owned(), None, true)?;
    Ok(reader.modules)
}

struct Reader<'a> {
    sources: &'a Sources,
    modules: Vec<Module>,
}

/// The directories of a module's children.
struct Place {
    /// For a `#[path]`.
    paths: PathBuf,
    /// For `child.rs` or `child/mod.rs`.
    children: PathBuf,
}

impl Reader<'_> {
    /// A file's module. `owns_directory` is true for roots, `mod.rs`, and what a `#[path]` names.
    fn file(&mut self, file: PathBuf, parent: Option<usize>, owns_directory: bool) -> Result<usize, String> {
        let text = self.sources.get(&file).ok_or_else(|| format!("there is no {}", file.display()))?;
        let parsed = syn::parse_file(text).map_err(|error| format!("{}: {error}", file.display()))?;
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        let children = if owns_directory { directory.clone() } else { file.with_extension("") };
        self.module(file, parent, &parsed.items, &Place { paths: directory, children })
    }

    fn module(&mut self, file: PathBuf, parent: Option<usize>, items: &[Item], place: &Place) -> Result<usize, String> {
        let mut seen = Seen::default();
        items.iter().for_each(|item| seen.visit_item(item));
        let Seen { items, uses, paths, modules } = seen;
        let index = self.modules.len();
        self.modules.push(Module { file: file.clone(), parent, children: BTreeMap::new(), items, uses, paths });
        for declared in modules {
            let name = name(&declared.ident);
            let path = path_attribute(&declared.attrs).map(|path| normal(&place.paths.join(path)));
            let child = match (&declared.content, path) {
                (Some((_, items)), path) => {
                    let directory = path.unwrap_or_else(|| place.children.join(&name));
                    let place = Place { paths: directory.clone(), children: directory };
                    self.module(file.clone(), Some(index), items, &place)?
                }
                (None, Some(path)) => self.file(path, Some(index), true)?,
                (None, None) => {
                    let own = place.children.join(&name).join("mod.rs");
                    let owns_directory = self.sources.contains_key(&own);
                    let beside = place.children.join(format!("{name}.rs"));
                    self.file(if owns_directory { own } else { beside }, Some(index), owns_directory)?
                }
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }
}

/// Collects the names and paths of one module, without those of its inner modules.
#[derive(Default)]
struct Seen<'ast> {
    items: BTreeSet<String>,
    uses: Vec<Use>,
    paths: Vec<Named>,
    modules: Vec<&'ast ItemMod>,
}

/// Visits an item, unless it exists for tests only.
macro_rules! outside_of_tests {
    ($($name:ident: $item:ident),*) => {
        $(fn $name(&mut self, item: &'ast syn::$item) {
            if !for_tests(&item.attrs) {
                syn::visit::$name(self, item);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Seen<'ast> {
    outside_of_tests!(
        visit_item_fn: ItemFn,
        visit_item_impl: ItemImpl,
        visit_item_struct: ItemStruct,
        visit_item_const: ItemConst,
        visit_impl_item_fn: ImplItemFn,
        visit_impl_item_const: ImplItemConst
    );

    fn visit_item(&mut self, item: &'ast Item) {
        let ident = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        self.items.extend(ident.map(name));
        syn::visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !for_tests(&item.attrs) {
            self.modules.push(item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() && !for_tests(&item.attrs) {
            let public = !matches!(item.vis, Visibility::Inherited);
            self.tree(&item.tree, &[], public);
        }
    }

    /// `pub(in super::super)` imports nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| name(&segment.ident)).collect();
            self.paths.push(Named { segments, line: path.span().start().line });
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

impl Seen<'_> {
    fn tree(&mut self, tree: &UseTree, above: &[String], public: bool) {
        let line = tree.span().start().line;
        let mut add = |last: Option<String>, name| {
            let segments = above.iter().cloned().chain(last).collect();
            self.uses.push(Use { path: Named { segments, line }, name, public });
        };
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &[above, &[name(&path.ident)]].concat(), public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, above, public)),
            UseTree::Glob(_) => add(None, None),
            UseTree::Name(one) if one.ident == "self" => add(None, above.last().cloned()),
            UseTree::Name(one) => add(Some(name(&one.ident)), Some(name(&one.ident))),
            UseTree::Rename(one) if one.ident == "self" => add(None, Some(name(&one.rename))),
            UseTree::Rename(one) => add(Some(name(&one.ident)), Some(name(&one.rename))),
        }
    }

    /// The paths among the tokens of a macro or an attribute, whose syntax is unknown.
    fn tokens(&mut self, tokens: TokenStream) {
        // The next segment of a path: `a::` had both colons.
        let (mut path, mut colons): (Option<Named>, usize) = (None, 0);
        let mut after_dot = false;
        for token in tokens {
            let dot = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.');
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    let continues = colons == 2;
                    if !continues {
                        self.paths.extend(path.take());
                    }
                    match &mut path {
                        Some(path) => path.segments.push(name(&ident)),
                        None if continues || after_dot => {}
                        None => path = Some(Named { segments: vec![name(&ident)], line: ident.span().start().line }),
                    }
                    colons = 0;
                }
                other => {
                    self.paths.extend(path.take());
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            after_dot = dot;
        }
        self.paths.extend(path);
    }
}

/// An identifier's name, without `r#`.
fn name(ident: &proc_macro2::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|one| one.path().is_ident("cfg")).any(|one| {
        let Meta::List(list) = &one.meta else { return false };
        let words: Vec<_> = list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect();
        words.iter().any(|word| word == "test") && !words.iter().any(|word| word == "not")
    })
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find(|one| one.path().is_ident("path")).and_then(|one| {
        let Meta::NameValue(pair) = &one.meta else { return None };
        let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
        Some(text.value())
    })
}

/// The path with its `..` resolved.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut so_far, part| {
        match part {
            Component::ParentDir => drop(so_far.pop()),
            Component::CurDir => {}
            part => so_far.push(part),
        }
        so_far
    })
}
