//! Tables over every route of the real router: a new route without a row fails. Each is written to `target/accounts-*.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use super::*;

mod classes;
mod forged;
mod limited;
mod origins;

/// Every call that the router has, as `POST /auth/dev`, from what the router says of itself.
fn routes(site: &Site) -> BTreeSet<String> {
    let told = format!("{:?}", site.portal.router());
    let told = told.split("fallback_router").next().unwrap_or_default();
    let (mut methods, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for part in told.split("RouteId(").skip(1) {
        let (id, rest) = part.split_once("): ").unwrap();
        if let Some(path) = rest.strip_prefix('"') {
            paths.insert(id, path.split('"').next().unwrap());
        } else {
            let has = |method: &&str| !rest.split(&format!("{method}: ")).nth(1).unwrap().starts_with("None");
            let own: Vec<_> = ["get", "delete", "patch", "post", "put"].into_iter().filter(has).collect();
            methods.insert(id, own);
        }
    }
    let calls = methods.iter().flat_map(|(id, methods)| methods.iter().map(|it| (it.to_uppercase(), paths[id])));
    let found: BTreeSet<_> = calls.map(|(method, path)| format!("{method} {path}")).collect();
    assert!(found.contains("POST /auth/dev") && found.contains("GET /auth/dev") && found.len() > 10, "{found:?}");
    assert!(!found.contains("POST /health"), "{found:?}");
    found
}

/// Method and path of a call; a name in braces is one that nobody has.
fn call_of(route: &str) -> (Method, String) {
    let (method, path) = route.split_once(' ').unwrap();
    let path = path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part });
    (method.parse().unwrap(), path.collect::<Vec<_>>().join("/"))
}

/// From where nobody has called before.
fn anywhere() -> Arrival {
    Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true }
}

/// Writes a table for people.
fn write(name: &str, title: &str, head: &[&str], rows: &[Vec<String>]) {
    let mut text = format!("# {title}\n\n");
    let mut line = |cells: &[String]| writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    line(&head.iter().map(ToString::to_string).collect::<Vec<_>>());
    line(&head.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from);
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join(format!("accounts-{name}.md")), text).unwrap();
}
