//! Small trees with known imports.

use std::path::{Path, PathBuf};

use crate::{circles, imports, imports::Imports, modules, modules::Sources};

/// `from -> to` of each import of a crate whose root is `lib.rs`.
fn imports(files: &[(&str, &str)]) -> Vec<String> {
    let found = read(files);
    let pairs = found.iter().flat_map(|(from, to)| to.keys().map(move |to| (from, to)));
    pairs.map(|(from, to)| format!("{} -> {}", from.display(), to.display())).collect()
}

fn read(files: &[(&str, &str)]) -> Imports {
    let sources: Sources = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    let mut found = Imports::new();
    imports::collect(&modules::read(&sources, Path::new("lib.rs")).unwrap(), &mut found);
    found
}

#[test]
fn paths_lead_to_the_file_that_defines_the_name() {
    for (text, expected) in [
        ("use crate::b::c::C;", &["a.rs -> b/c.rs"][..]),
        ("use crate::b::{B, c::{C as D, self}};", &["a.rs -> b/c.rs", "a.rs -> b.rs"]),
        ("use super::b::B;", &["a.rs -> b.rs"]),
        ("use super::b::c::*;", &["a.rs -> b/c.rs"]),
        ("fn f() { crate::b::c::C; }", &["a.rs -> b/c.rs"]),
        ("fn f() -> Vec<super::b::B> { todo!() }", &["a.rs -> b.rs"]),
        ("fn f() { use super::b::c; c::C; }", &["a.rs -> b/c.rs"]),
        ("use super::b; fn f() { b::c::C; }", &["a.rs -> b/c.rs", "a.rs -> b.rs"]),
        ("use super::b as d; fn f() { d::c::C; }", &["a.rs -> b/c.rs", "a.rs -> b.rs"]),
        ("fn f() { println!(\"{}\", 1 + crate::b::c::C); }", &["a.rs -> b/c.rs"]),
        ("#[arg(value_parser = crate::b::parse)] struct A;", &["a.rs -> b.rs"]),
        ("mod inner { use super::super::b::B; }", &["a.rs -> b.rs"]),
        ("use crate::Root;", &["a.rs -> lib.rs"]),
        ("use std::fmt; use b::B; use ::b::c::C; struct A; fn f(a: A) { self::A; }", &[]),
        ("fn f() { println!(\"{}\", self.crate_, ::b::c); }", &[]),
        ("pub(crate) struct A; pub(super) struct D; pub(in super::super) struct E;", &[]),
    ] {
        let files = [
            ("lib.rs", "mod a; mod b; struct Root;"),
            ("a.rs", text),
            ("b.rs", "pub mod c; pub struct B; pub fn parse() {}"),
            ("b/c.rs", "pub struct C;"),
        ];
        assert_eq!(imports(&files), expected, "{text}");
    }
}

#[test]
fn a_name_that_is_passed_on_counts_for_both_files() {
    let files = |root| {
        [("lib.rs", root), ("a.rs", "use crate::B;"), ("b/mod.rs", "mod c; pub use c::B;"), ("b/c.rs", "pub struct B;")]
    };
    for root in ["mod a; mod b; pub use b::B;", "mod a; mod b; pub(crate) use self::b::*;"] {
        let found = imports(&files(root));
        assert!(found.contains(&"a.rs -> lib.rs".to_owned()), "{root}: {found:?}");
    }
    assert_eq!(
        imports(&files("mod a; mod b; pub use b::B;")),
        ["a.rs -> b/c.rs", "a.rs -> b/mod.rs", "a.rs -> lib.rs"]
    );
}

#[test]
fn a_parent_may_name_its_children() {
    for (root, expected) in [
        ("mod a; pub use a::A;", &[][..]),
        ("mod a; pub use a::*;", &[]),
        ("mod a; pub use a::A; #[cfg(test)] mod tests { use super::*; use super::a::A; }", &[]),
        ("mod a; #[cfg(test)] use a::A; #[cfg(all(unix, test))] fn f() { a::A; }", &[]),
        ("mod a; use a::A;", &["lib.rs -> a.rs"]),
        ("mod a; pub use a::A; struct B(A);", &["lib.rs -> a.rs"]),
        ("mod a; pub use a::A; fn f() { println!(\"{}\", A); }", &["lib.rs -> a.rs"]),
        ("mod a; fn f() { a::A; }", &["lib.rs -> a.rs"]),
        ("mod a; #[cfg(not(test))] fn f() { a::A; }", &["lib.rs -> a.rs"]),
    ] {
        assert_eq!(imports(&[("lib.rs", root), ("a.rs", "pub struct A;")]), expected, "{root}");
    }
    // Re-exporting a neighbour's name is not a circle.
    let files = [("lib.rs", "mod a; mod b;"), ("a.rs", "pub struct A;"), ("b.rs", "pub use super::a::A;")];
    assert_eq!(imports(&files), ["b.rs -> a.rs"]);
}

#[test]
fn files_are_where_rustc_looks() {
    for (files, expected) in [
        (
            &[("lib.rs", "mod a;"), ("a/mod.rs", "mod b; use b::B;"), ("a/b.rs", "pub struct B;")][..],
            "a/mod.rs -> a/b.rs",
        ),
        (
            &[("lib.rs", "mod a;"), ("a.rs", "mod b { mod c; use c::C; }"), ("a/b/c.rs", "pub struct C;")],
            "a.rs -> a/b/c.rs",
        ),
        (&[("lib.rs", "#[path = \"x/y.rs\"] mod a; use a::A;"), ("x/y.rs", "pub struct A;")], "lib.rs -> x/y.rs"),
        (
            &[("lib.rs", "#[path = \"x/y.rs\"] mod a;"), ("x/y.rs", "mod b; use b::B;"), ("x/b.rs", "pub struct B;")],
            "x/y.rs -> x/b.rs",
        ),
        (
            &[
                ("lib.rs", "#[path = \"x/z/..\"] mod a { mod b; #[path = \"../c.rs\"] mod c; } use a::{b::B, c::C};"),
                ("x/b.rs", "pub struct B;"),
                ("c.rs", "pub struct C;"),
            ],
            "lib.rs -> c.rs lib.rs -> x/b.rs",
        ),
    ] {
        assert_eq!(imports(files).join(" "), expected);
    }
    let sources = Sources::from([(PathBuf::from("lib.rs"), "mod a;".to_owned())]);
    assert!(modules::read(&sources, Path::new("lib.rs")).is_err());
}

#[test]
fn circles_are_found_and_told() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use c::C;"),
        ("a.rs", "\nuse crate::C;\nuse crate::d::D;"),
        ("b.rs", "fn f() { crate::a::A; }"),
        ("c.rs", "use crate::b::B; pub struct C;"),
        ("d.rs", "pub struct D;"),
    ];
    let found = read(&files);
    let circles = circles::find(&found);
    assert_eq!(circles.len(), 1);
    let told = circles::describe(&circles[0], &found);
    assert_eq!(
        told,
        "3 files import each other:\n  a.rs:2 imports c.rs: crate::C\n  b.rs:1 imports a.rs: crate::a::A\n  c.rs:1 imports b.rs: crate::b::B\n"
    );
    assert!(
        circles::find(&read(&files[..1].iter().chain(&files[2..]).copied().chain([("a.rs", "")]).collect::<Vec<_>>()))
            .is_empty()
    );
    // A child needs its parent, whose code needs the child.
    let pair = read(&[("lib.rs", "mod a; use a::A; struct B;"), ("a.rs", "use super::B; pub struct A;")]);
    assert_eq!(circles::find(&pair).len(), 1);
}
