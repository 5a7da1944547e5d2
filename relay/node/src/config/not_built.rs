//! Settings that are designed and not built yet: each is refused by its name, as one that is taken and does nothing would
//! pass for a setting.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Tables, and keys of tables.
const NOT_BUILT: [&str; 7] = ["broker", "browser.static_dir", "devices", "events", "hooks", "mail", "status"];

/// Every one in this file, with where it stands.
pub(super) fn find(file: &DeTable<'_>) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    look(file, "", &mut found);
    found
}

fn look(table: &DeTable<'_>, above: &str, found: &mut Vec<(String, Range<usize>)>) {
    for (key, value) in table.iter() {
        let name = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
        if NOT_BUILT.contains(&name.as_str()) {
            found.push((name, key.span()));
        } else if let DeValue::Table(inner) = value.get_ref() {
            look(inner, &name, found);
        }
    }
}
