//! Every statement there is, on both databases. None can be forgotten: they are looked for in the sources.

use std::{collections::BTreeSet, fs, path::Path};

use proc_macro2::{TokenStream, TokenTree};
use sqlx::Executor as _;

use super::place::Place;

/// What a statement begins with.
const VERBS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];

/// Every text of this crate that is a statement, its tests apart, in the order of files.
fn statements() -> Vec<String> {
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}

fn read(directory: &Path, found: &mut Vec<String>) {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            read(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            for made in ["AssertSqlSafe", "QueryBuilder", "concat!"] {
                assert!(!text.contains(made), "{}: a statement is one text, not made of parts", path.display());
            }
            look(text.parse().unwrap(), found);
        }
    }
}

fn look(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => look(group.stream(), found),
            TokenTree::Literal(literal) => {
                let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { continue };
                let text = text.value();
                // What a comment says begins with a space.
                if text.starts_with(' ') {
                    continue;
                }
                let word = text.split_ascii_whitespace().next().unwrap_or_default();
                if VERBS.iter().any(|verb| word.eq_ignore_ascii_case(verb)) {
                    found.push(text);
                }
            }
            _ => {}
        }
    }
}

async fn prepare(place: Place) {
    let store = place.open().await;
    let mut wrong = Vec::new();
    for statement in statements() {
        let is_theirs = statement.contains("pg_") || statement.contains("set_config");
        if is_theirs && !place.is_postgres() {
            continue;
        }
        let sql = sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(statement.clone()));
        if let Err(error) = store.pool.prepare(sql).await {
            wrong.push(format!("{statement}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn sqlite_understands_every_statement() {
    assert!(statements().len() > 40, "they are where they are looked for");
    prepare(Place::sqlite()).await;
}

#[tokio::test]
async fn postgresql_understands_every_statement() {
    if let Some(place) = Place::postgres() {
        prepare(place).await;
    }
}

/// The tables of an organisation's rows, as the migrations make them: `organisation` is in their primary key.
pub(super) fn tables_of_organisations() -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    for file in fs::read_dir(migrations).unwrap() {
        let sql = fs::read_to_string(file.unwrap().path()).unwrap();
        for table in sql.split("CREATE TABLE ").skip(1) {
            let (head, body) = (table.split_whitespace().next().unwrap(), table.split(");").next().unwrap());
            let key = body.split("PRIMARY KEY (").nth(1).and_then(|key| key.split(')').next());
            if key.is_some_and(|key| key.split(',').any(|column| column.trim() == "organisation")) {
                tables.insert(head.to_owned());
            }
        }
    }
    tables
}

#[test]
fn each_statement_about_an_organisations_rows_names_it() {
    let tables = tables_of_organisations();
    assert!(tables.contains("audit") && tables.contains("members"), "{tables:?}");
    for statement in statements() {
        let words = statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let about: Vec<_> = words.filter(|word| tables.contains(*word)).collect();
        assert!(about.is_empty() || statement.contains("organisation"), "{about:?} of all: {statement}");
    }
}
