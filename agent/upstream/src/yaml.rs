//! YAML as kubectl reads it: as `sigs.k8s.io/yaml` converts the first document to JSON, by the rules of go-yaml v2.
//!
//! Those are YAML 1.1's: `yes` and `off` are booleans, the last of two equal keys wins, `<<` merges where it stands.
//! The syntax is the parser's (YAML 1.2, `docs/decisions/0005-yaml.md`).

use std::{collections::HashMap, ops::Range, rc::Rc};

use base64::Engine as _;
use mykube_protocol::text;
use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use zeroize::{Zeroize as _, Zeroizing};

use crate::sourced::BASE64;

/// How much memory aliases may add to a document, in bytes: a few lines of them can mean terabytes. kubectl has a limit
/// too, of 400,000 nodes.
const ALIASED_MAX: usize = 16 * 1024 * 1024;
/// About what a node takes beside its text.
const NODE: usize = 32;
/// Most values of a document: each takes far more memory than the two bytes in which it may be written.
pub(crate) const NODES_MAX: usize = 1_000_000;
/// How deep values may be nested, aliases followed. The parser has a limit for what is written (255), but an alias may
/// stand at the bottom of the value that the next one names, and code that walks through a document does so on the
/// stack.
const DEPTH_MAX: usize = 256;

/// A document as JSON, wiped when dropped: it may hold secrets.
pub(crate) struct Document(Value);

impl std::ops::Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

pub(crate) fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        _ => {}
    }
}

/// Why a text cannot be read. Never holds any part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum YamlError {
    /// The text is not UTF-8 or UTF-16, or has control characters, which YAML forbids.
    NotText,
    /// A syntax error, at this line and column, from 1.
    Syntax(usize, usize),
    /// The YAML cannot be JSON: a tag that does not fit, a list as a key, an infinity.
    Meaning,
    /// Aliases would fill the memory, or the stack.
    Aliases,
    /// More than [`NODES_MAX`] values.
    TooMany,
}

/// Reads the first document; null if there is none. UTF-8, or UTF-16 with its byte order mark.
pub(crate) fn read(bytes: &[u8]) -> Result<Document, YamlError> {
    let text = Zeroizing::new(text::decode(bytes).ok_or(YamlError::NotText)?);
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}') || matches!(c, '\u{fffe}' | '\u{ffff}'))
    {
        return Err(YamlError::NotText);
    }
    let Some(root) = document(&text, NODES_MAX)? else { return Ok(Document(Value::Null)) };
    Ok(Document(Converter { left: ALIASED_MAX }.value(&root.node)?))
}

/// The position in a text, in bytes, of the scalar that a JSON pointer (RFC 6901, without escapes) names; `None` if it,
/// or a value around it, is an alias.
pub(crate) fn span(text: &str, pointer: &str) -> Option<Range<usize>> {
    let mut found = document(text, NODES_MAX).ok()??;
    for step in pointer.split('/').skip(1) {
        found = match &*found.node {
            Node::List(items) => items.get(step.parse::<usize>().ok()?)?.clone(),
            Node::Map(entries) => {
                entries.iter().rev().find(|(key, _)| name(&key.node).is_ok_and(|name| name == step))?.1.clone()
            }
            Node::Scalar(_) => return None,
        };
        if found.is_alias {
            return None;
        }
    }
    if matches!(*found.node, Node::Scalar(_)) { found.span } else { None }
}

/// The first document of a text; fails if it has more values than `nodes`.
fn document(text: &str, nodes: usize) -> Result<Option<Child>, YamlError> {
    Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), left: nodes }.document()
}

/// Reads a text that is JSON, in which the last of equal keys wins; `None` if it is not all JSON.
pub(crate) fn json(bytes: &[u8]) -> Option<Document> {
    serde_json::from_slice(bytes).ok().map(Document)
}

/// A parsed node. Aliases share the node that they name.
enum Node {
    Scalar(Scalar),
    List(Vec<Child>),
    Map(Vec<(Child, Child)>),
}

#[derive(Clone)]
struct Child {
    node: Rc<Node>,
    /// Its depth: 1 for a scalar, else one more than its deepest child.
    depth: usize,
    is_alias: bool,
    span: Option<Range<usize>>,
}

enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// Above what `Int` holds.
    Large(u64),
    Float(f64),
    Text(Zeroizing<String>),
    /// A plain `<<`: as a key it merges, elsewhere it is a text.
    Merge,
}

/// Builds nodes out of the parser's events. The parser bounds the depth of what is written (255).
struct Reader<P> {
    events: P,
    anchors: HashMap<usize, Child>,
    /// How many more values there may be.
    left: usize,
}

impl<'t, P: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Reader<P> {
    fn document(&mut self) -> Result<Option<Child>, YamlError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                Event::StreamEnd | Event::DocumentEnd => return Ok(None),
                event => {
                    let root = self.child(event, span)?;
                    // A syntax error later in the same document makes all of it unreadable.
                    return match self.next()?.0 {
                        Event::DocumentEnd | Event::StreamEnd => Ok(Some(root)),
                        _ => Err(YamlError::Meaning),
                    };
                }
            }
        }
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'t>, Span), YamlError> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    let mark = error.marker();
                    return Err(YamlError::Syntax(mark.line(), mark.col() + 1));
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn child(&mut self, event: Event<'t>, span: Span) -> Result<Child, YamlError> {
        self.left = self.left.checked_sub(1).ok_or(YamlError::TooMany)?;
        let mut depth = 0;
        let mut inner = |child: Child| {
            depth = depth.max(child.depth);
            if depth < DEPTH_MAX { Ok(child) } else { Err(YamlError::Aliases) }
        };
        let (anchor, node) = match event {
            Event::Alias(id) => {
                // An alias within the node that it names would have no end.
                let named = self.anchors.get(&id).cloned().ok_or(YamlError::Meaning)?;
                return Ok(Child { is_alias: true, ..named });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (anchor, Node::Scalar(scalar(Zeroizing::new(text.into_owned()), plain, tag.as_deref())?))
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break (anchor, Node::List(items)),
                        (event, span) => items.push(inner(self.child(event, span)?)?),
                    }
                }
            }
            Event::MappingStart(_, anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    match self.next()? {
                        (Event::MappingEnd, _) => break (anchor, Node::Map(entries)),
                        (event, span) => {
                            let key = inner(self.child(event, span)?)?;
                            let (event, span) = self.next()?;
                            entries.push((key, inner(self.child(event, span)?)?));
                        }
                    }
                }
            }
            _ => return Err(YamlError::Meaning),
        };
        let child = Child { node: Rc::new(node), depth: depth + 1, is_alias: false, span: span.byte_range() };
        // No anchor has the number 0.
        if anchor != 0 {
            self.anchors.insert(anchor, child.clone());
        }
        Ok(child)
    }
}

/// The meaning of a scalar (go-yaml v2 `resolve.go`).
fn scalar(text: Zeroizing<String>, plain: bool, tag: Option<&Tag>) -> Result<Scalar, YamlError> {
    let tag = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix())).filter(|tag| tag != "!");
    let kind = match &tag {
        None if !plain => return Ok(Scalar::Text(text)),
        None => return Ok(word(&text).unwrap_or(Scalar::Text(text))),
        Some(tag) => tag.strip_prefix("tag:yaml.org,2002:").unwrap_or_default(),
    };
    match (kind, word(&text)) {
        ("bool", Some(found @ Scalar::Bool(_)))
        | ("int", Some(found @ (Scalar::Int(_) | Scalar::Large(_))))
        | ("float", Some(found @ Scalar::Float(_)))
        | ("null", Some(found @ Scalar::Null)) => Ok(found),
        #[allow(clippy::cast_precision_loss, reason = "that is what the tag asks for")]
        ("float", Some(Scalar::Int(number))) => Ok(Scalar::Float(number as f64)),
        ("bool" | "int" | "float" | "null", _) => Err(YamlError::Meaning),
        ("merge", _) if *text == "<<" => Ok(Scalar::Merge),
        ("binary", _) => {
            let bytes = Zeroizing::new(BASE64.decode(text.replace(['\r', '\n'], "")).map_err(|_| YamlError::Meaning)?);
            Ok(Scalar::Text(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())))
        }
        _ => Ok(Scalar::Text(text)),
    }
}

/// A plain scalar that is not a text. Dates stay texts, and base 60 does not exist there.
fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        "<<" => Scalar::Merge,
        _ => number(text)?,
    })
}

/// Parses a number as Go does (`strconv.ParseInt` with base 0, `ParseFloat`); underscores are ignored.
fn number(text: &str) -> Option<Scalar> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix(['+', '-']) {
        Some(rest) => (&plain[..1], rest),
        None => ("", plain.as_str()),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some(two) if two.starts_with('0') && two != "0." && two != "0e" => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        if let Ok(number) = i64::from_str_radix(&format!("{sign}{digits}"), radix) {
            return Some(Scalar::Int(number));
        }
        if let (false, Ok(number)) = (sign == "-", u64::from_str_radix(digits, radix)) {
            return Some(Scalar::Large(number));
        }
    }
    let is_float = plain.bytes().any(|b| b.is_ascii_digit())
        && plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    plain.parse().ok().filter(|number: &f64| is_float && number.is_finite()).map(Scalar::Float)
}

/// Makes JSON of nodes.
struct Converter {
    /// How many more bytes aliases may add.
    left: usize,
}

impl Converter {
    fn value(&mut self, node: &Node) -> Result<Value, YamlError> {
        Ok(match node {
            Node::Scalar(scalar) => match scalar {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(*value),
                Scalar::Int(number) => (*number).into(),
                Scalar::Large(number) => (*number).into(),
                Scalar::Float(number) => Value::Number(Number::from_f64(*number).ok_or(YamlError::Meaning)?),
                Scalar::Text(text) => Value::String(String::clone(text)),
                Scalar::Merge => Value::String("<<".into()),
            },
            Node::List(items) => {
                Value::Array(items.iter().map(|item| self.child(item)).collect::<Result<_, YamlError>>()?)
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                self.fill(&mut map, entries)?;
                Value::Object(map)
            }
        })
    }

    fn child(&mut self, child: &Child) -> Result<Value, YamlError> {
        if child.is_alias {
            self.pay(&child.node)?;
        }
        self.value(&child.node)
    }

    fn fill(&mut self, map: &mut Map<String, Value>, entries: &[(Child, Child)]) -> Result<(), YamlError> {
        for (key, value) in entries {
            if matches!(*key.node, Node::Scalar(Scalar::Merge)) && !key.is_alias {
                self.merge(map, value)?;
            } else {
                let key = name(&key.node)?;
                let value = self.child(value)?;
                map.insert(key, value);
            }
        }
        Ok(())
    }

    /// Merges a map into another, or each of several, the first of which wins.
    fn merge(&mut self, map: &mut Map<String, Value>, from: &Child) -> Result<(), YamlError> {
        if from.is_alias {
            self.pay(&from.node)?;
        }
        match &*from.node {
            Node::Map(entries) => self.fill(map, entries),
            Node::List(items) if !from.is_alias => {
                for item in items.iter().rev() {
                    match &*item.node {
                        Node::Map(_) => self.merge(map, item)?,
                        _ => return Err(YamlError::Meaning),
                    }
                }
                Ok(())
            }
            _ => Err(YamlError::Meaning),
        }
    }

    fn pay(&mut self, node: &Node) -> Result<(), YamlError> {
        self.left = match node {
            Node::Scalar(Scalar::Text(text)) => self.left.checked_sub(NODE + text.len()),
            _ => self.left.checked_sub(NODE),
        }
        .ok_or(YamlError::Aliases)?;
        match node {
            Node::Scalar(_) => Ok(()),
            // An alias within an aliased value is counted when it is met, and here for being met again.
            Node::List(items) => items.iter().try_for_each(|item| self.pay(&item.node)),
            Node::Map(entries) => {
                entries.iter().flat_map(|(key, value)| [key, value]).try_for_each(|item| self.pay(&item.node))
            }
        }
    }
}

/// A key as JSON writes it.
fn name(key: &Node) -> Result<String, YamlError> {
    match key {
        Node::Scalar(Scalar::Text(text)) => Ok(String::clone(text)),
        Node::Scalar(Scalar::Merge) => Ok("<<".into()),
        Node::Scalar(Scalar::Bool(value)) => Ok(value.to_string()),
        Node::Scalar(Scalar::Int(number)) => Ok(number.to_string()),
        #[allow(clippy::cast_possible_truncation, reason = "kubectl's own precision for keys")]
        Node::Scalar(Scalar::Float(number)) if number.is_finite() => Ok((*number as f32).to_string()),
        _ => Err(YamlError::Meaning),
    }
}

#[cfg(test)]
mod tests;
