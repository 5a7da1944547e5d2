//! The published `relay.yaml`: a server with its address and TLS files; hooks and the broker, which are not built.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;
use zeroize::Zeroizing;

use super::{
    error::{ConfigError, Problem},
    value::Value,
};

/// Longest file that is read.
const LONGEST: u64 = 64 * 1024;

/// Keys that mean what a published variable means.
const NAMES: [(&str, &str); 4] = [
    ("server.port", "PORT"),
    ("server.base_url", "BASE_URL"),
    ("server.tls.cert_file", "TLS_CERT_FILE"),
    ("server.tls.key_file", "TLS_KEY_FILE"),
];

/// Tables, and keys of tables, of what is not built, and what that is.
const NOT_BUILT: [(&str, &str); 5] = [
    ("broker", "the broker"),
    ("relay", "hooks of daemons"),
    ("server.mtls", "a port of its own for daemons with certificates"),
    ("server.multi_instance", "a relay of many nodes"),
    ("status", "the status page"),
];

/// Any value: no error of the parser's quotes one then.
enum Node {
    Text(Zeroizing<String>),
    Table(Vec<(String, Spanned<Self>)>),
    List,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.visit_str("")
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.visit_str("")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        while list.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(Node::List)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(pair) = map.next_entry()? {
            table.push(pair);
        }
        Ok(Node::Table(table))
    }
}

/// What the file says, under the names of published variables. `${NAME}` stands for a variable, and for nothing where it is
/// not set.
///
/// # Errors
/// It cannot be read, is no YAML, or each key that is unknown or not built.
pub(super) fn read(
    file: &Path,
    variable: impl Fn(&str) -> Option<Zeroizing<String>>,
) -> Result<Vec<(String, Value)>, ConfigError> {
    let failed = |line: Option<u64>, text: String| {
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        ConfigError { problems: vec![Problem { place: format!("{}{line}", file.display()), text }] }
    };
    let unreadable = |error: std::io::Error| failed(None, format!("cannot be read: {error}"));
    if fs::metadata(file).map_err(unreadable)?.len() > LONGEST {
        return Err(failed(None, format!("it is longer than {LONGEST} bytes")));
    }
    let text = Zeroizing::new(fs::read_to_string(file).map_err(unreadable)?);
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let root: Node = serde_saphyr::from_str(&text).map_err(|error| {
        // Its own message shows the lines around.
        failed(error.location().map(|at| at.line()), "this is no YAML, or a key stands here twice".to_owned())
    })?;
    let Node::Table(table) = root else { return Err(failed(None, "it is no table of keys".to_owned())) };
    let mut walk = Walk { file, variable, values: Vec::new(), problems: Vec::new() };
    walk.table("", table);
    ConfigError::unless_empty(walk.problems)?;
    Ok(walk.values)
}

struct Walk<'a, V> {
    file: &'a Path,
    variable: V,
    values: Vec<(String, Value)>,
    problems: Vec<Problem>,
}

impl<V: Fn(&str) -> Option<Zeroizing<String>>> Walk<'_, V> {
    fn table(&mut self, above: &str, table: Vec<(String, Spanned<Node>)>) {
        for (key, node) in table {
            let key = if above.is_empty() { key } else { format!("{above}.{key}") };
            let place = format!("{}:{}: {key}", self.file.display(), node.referenced.line());
            if let Some((_, what)) = NOT_BUILT.iter().find(|(name, _)| *name == key) {
                self.problems.push(Problem { place, text: format!("{what} is not built yet: remove it") });
                continue;
            }
            match (node.value, NAMES.iter().find(|(name, _)| *name == key)) {
                (Node::Text(text), Some((_, name))) => {
                    let text = self.filled_in(&text);
                    if !text.is_empty() {
                        self.values.push(((*name).to_owned(), Value { text, place }));
                    }
                }
                (Node::Table(inner), None) if NAMES.iter().any(|(name, _)| name.starts_with(&format!("{key}."))) => {
                    self.table(&key, inner);
                }
                (_, Some(_)) => self.problems.push(Problem { place, text: "it is one value".to_owned() }),
                (_, None) => self.problems.push(Problem { place, text: "there is no such key".to_owned() }),
            }
        }
    }

    fn filled_in(&self, text: &str) -> Zeroizing<String> {
        let mut parts = text.split("${");
        let mut filled = Zeroizing::new(parts.next().unwrap_or_default().to_owned());
        for part in parts {
            match part.split_once('}') {
                Some((name, rest)) => {
                    filled.push_str(&(self.variable)(name).unwrap_or_default());
                    filled.push_str(rest);
                }
                None => {
                    filled.push_str("${");
                    filled.push_str(part);
                }
            }
        }
        filled
    }
}
