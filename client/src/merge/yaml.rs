//! YAML as nodes that know the position of their text. The notation of a value does not matter here.

use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

use super::error::DocumentError;

/// The first document of a text, which is all that kubectl reads.
pub(super) struct Read {
    /// `None` for an empty document.
    pub(super) root: Option<Node>,
    /// The end of the line on which it starts, if that has a `---`.
    pub(super) start: Option<usize>,
}

pub(super) fn read(text: &str) -> Result<Read, DocumentError> {
    Reader { text, events: Parser::new_from_str(text) }.document()
}

/// A node with the position of its own text.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Scalar { value: String, plain: bool, tag: Option<String> },
    Seq { flow: bool, items: Vec<Node> },
    Map { flow: bool, entries: Vec<(Node, Node)> },
    Alias(usize),
}

impl Node {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, start: 0, end: 0 }
    }

    /// Our own items, read back: every string in them is quoted.
    pub(super) fn from_json(value: &Value) -> Self {
        let scalar = |value: String, plain| Kind::Scalar { value, plain, tag: None };
        Self::new(match value {
            Value::String(text) => scalar(text.clone(), false),
            Value::Array(items) => Kind::Seq { flow: true, items: items.iter().map(Self::from_json).collect() },
            Value::Object(map) => {
                let entries = map
                    .iter()
                    .map(|(key, value)| (Self::new(scalar(key.clone(), false)), Self::from_json(value)))
                    .collect();
                Kind::Map { flow: true, entries }
            }
            other => scalar(other.to_string(), true),
        })
    }

    /// The last value of that name: the one that kubectl uses.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map { entries, .. } = &self.kind else { return None };
        entries.iter().rfind(|(name, _)| name.scalar() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Seq { items, .. } => items,
            _ => &[],
        }
    }

    /// A null (YAML 1.2 core schema, section 10.3.2).
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { value, plain: true, tag: None }
            if matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether it has a text of its own; an empty value has none.
    pub(super) fn is_written(&self) -> bool {
        self.end > self.start
    }

    /// Keys and values of a map.
    pub(super) fn entries_mut(&mut self) -> &mut Vec<(Node, Node)> {
        let Kind::Map { entries, .. } = &mut self.kind else { unreachable!("the root is a map") };
        entries
    }

    /// The items of a list; makes an empty one if there is none.
    pub(super) fn list_mut(&mut self, list: &str) -> &mut Vec<Node> {
        let entries = self.entries_mut();
        let at = entries.iter().rposition(|(key, _)| key.scalar() == Some(list)).unwrap_or_else(|| {
            let key = Kind::Scalar { value: list.to_owned(), plain: true, tag: None };
            entries.insert(0, (Self::new(key), Self::new(Kind::Seq { flow: true, items: vec![] })));
            0
        });
        let value = &mut entries[at].1;
        if !matches!(value.kind, Kind::Seq { .. }) {
            value.kind = Kind::Seq { flow: true, items: vec![] };
        }
        let Kind::Seq { items, .. } = &mut value.kind else { unreachable!("it was made a list") };
        items
    }

    /// Whether two nodes mean the same. Their notation does not matter, but for whether a scalar is quoted.
    pub(super) fn says(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            _ if self.is_null() && other.is_null() => true,
            (Kind::Scalar { value, plain, tag }, Kind::Scalar { value: other, plain: other_plain, tag: other_tag }) => {
                value == other && plain == other_plain && tag == other_tag
            }
            (Kind::Seq { items, .. }, Kind::Seq { items: other, .. }) => {
                items.len() == other.len() && items.iter().zip(other).all(|(one, other)| one.says(other))
            }
            (Kind::Map { entries, .. }, Kind::Map { entries: other, .. }) => {
                let same = |((key, value), (other_key, other_value)): (&(Node, Node), &(Node, Node))| {
                    key.scalar() == other_key.scalar()
                        && (key.scalar().is_some() || key.says(other_key))
                        && value.says(other_value)
                };
                entries.len() == other.len() && entries.iter().zip(other).all(same)
            }
            (Kind::Alias(one), Kind::Alias(other)) => one == other,
            _ => false,
        }
    }
}

/// Builds nodes out of the parser's events. The parser bounds their depth (255).
struct Reader<'t, P> {
    text: &'t str,
    events: P,
}

impl<'t, P: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Reader<'t, P> {
    fn document(&mut self) -> Result<Read, DocumentError> {
        let mut start = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart => {}
                Event::DocumentStart(explicit, _) => {
                    let end = self.place(span)?.1;
                    let rest = &self.text[end..];
                    start = explicit.then(|| rest.find('\n').map_or(self.text.len(), |newline| end + newline + 1));
                }
                Event::DocumentEnd | Event::StreamEnd => return Ok(Read { root: None, start }),
                event => {
                    let root = self.node(event, span)?;
                    return match self.next()? {
                        (Event::DocumentEnd | Event::StreamEnd, _) => {
                            Ok(Read { root: Some(root).filter(|root| root.is_written() || !root.is_null()), start })
                        }
                        _ => Err(DocumentError::Shape("it does not end where it should")),
                    };
                }
            }
        }
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'t>, Span), DocumentError> {
        loop {
            match self.events.next() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    let mark = error.marker();
                    return Err(DocumentError::Syntax { line: mark.line(), column: mark.col() + 1 });
                }
                None => return Err(DocumentError::Shape("it ends early")),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Node, DocumentError> {
        let (start, mut end) = self.place(span)?;
        let kind = match event {
            Event::Scalar(value, style, _, tag) => {
                let plain = style == ScalarStyle::Plain;
                let tag = tag.map(|tag| tag.to_string());
                // The parser's span may include white space.
                end = start + self.text[start..end].trim_end().len();
                Kind::Scalar { value: value.into_owned(), plain, tag }
            }
            Event::Alias(id) => Kind::Alias(id),
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                let last = loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break span,
                        (event, span) => items.push(self.node(event, span)?),
                    }
                };
                let flow = style == StructureStyle::Flow;
                end = if flow { self.place(last)?.1 } else { items.iter().map(|item| item.end).max().unwrap_or(end) };
                Kind::Seq { flow, items }
            }
            Event::MappingStart(style, ..) => {
                let mut entries = Vec::new();
                let last = loop {
                    match self.next()? {
                        (Event::MappingEnd, span) => break span,
                        (event, span) => {
                            let key = self.node(event, span)?;
                            let (event, span) = self.next()?;
                            entries.push((key, self.node(event, span)?));
                        }
                    }
                };
                let flow = style == StructureStyle::Flow;
                // An empty value has a position, but no text there.
                let inner = |(key, value): &(Node, Node)| if value.is_written() { value.end } else { key.end };
                end = if flow { self.place(last)?.1 } else { entries.iter().map(inner).max().unwrap_or(end) };
                Kind::Map { flow, entries }
            }
            _ => return Err(DocumentError::Shape("it ends early")),
        };
        Ok(Node { kind, start, end })
    }

    fn place(&self, span: Span) -> Result<(usize, usize), DocumentError> {
        let (Some(start), Some(end)) = (span.start.byte_offset(), span.end.byte_offset()) else {
            return Err(DocumentError::Shape("its parts cannot be placed"));
        };
        let fits = start <= end && self.text.is_char_boundary(start) && self.text.is_char_boundary(end);
        if fits { Ok((start, end)) } else { Err(DocumentError::Shape("its parts cannot be placed")) }
    }
}

/// JSON with a space after each colon and comma, which makes it YAML for the oldest readers too.
pub(super) fn one_line(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(key, value)| format!("{}: {}", quoted(key), one_line(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(one_line).collect::<Vec<_>>().join(", ")),
        Value::String(string) => quoted(string),
        other => other.to_string(),
    }
}

/// A JSON string with what YAML does not take raw escaped too (YAML 1.2 section 5.1).
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string always serialises");
    let raw = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if raw(c) { out.push(c) } else { out.push_str(&format!("\\u{:04x}", u32::from(c))) }
    }
    out
}
