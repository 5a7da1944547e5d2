//! A kubeconfig as text: single items of its lists are added and removed, and every other byte stays, comments too.
//!
//! The YAML parser gives the positions; the change is made in the text; the parser then reads the result, which must
//! mean what the old text meant, plus or minus the one item. If it does not, nothing is written. Only the first
//! document counts, and of equal keys the last one, as for kubectl.

use std::ops::Range;

use serde_json::Value;

use super::{
    error::DocumentError,
    yaml::{self, Kind, Node, Read, one_line},
};

/// The lists, each with the key under which its items have their content.
pub(super) const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// In place of a list: not even its key exists.
const NO_KEY: &str = "none";

/// A parsed kubeconfig.
#[derive(Clone, Debug)]
pub(super) struct Document<'t> {
    text: &'t str,
    /// `None` for an empty file.
    root: Option<Node>,
    /// Where the first line of an empty document may begin.
    start: usize,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, DocumentError> {
        let Read { root, start } = yaml::read(text)?;
        match root.as_ref().map(|root| &root.kind) {
            Some(Kind::Map { entries, .. }) if entries.iter().any(|(key, _)| key.scalar().is_none()) => {
                return Err(DocumentError::Shape("a key of it is not a word"));
            }
            None | Some(Kind::Map { .. }) => {}
            Some(_) => return Err(DocumentError::Shape("it has no keys")),
        }
        let document = Self { text, root, start: start.unwrap_or_default() };
        for (list, _) in LISTS {
            document.list(list)?;
        }
        Ok(document)
    }

    /// Names of all items of all lists.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        LISTS.iter().flat_map(|(list, _)| self.items(list)).filter_map(|item| item.get("name")?.scalar())
    }

    /// Items of a list, in order.
    pub(super) fn items(&self, list: &str) -> &[Node] {
        match self.root.as_ref().and_then(|root| root.get(list)).map(|node| &node.kind) {
            Some(Kind::Seq { items, .. }) => items,
            _ => &[],
        }
    }

    pub(super) fn current_context(&self) -> Option<&str> {
        self.root.as_ref()?.get("current-context")?.scalar()
    }

    /// What is written in place of a missing list: `none`, or a null as it is written. Give it to [`Document::remove`],
    /// which restores it.
    pub(super) fn absence(&self, list: &'static str) -> Option<&'t str> {
        match self.list(list) {
            Ok(None) => Some(NO_KEY),
            Ok(Some((_, value))) if value.is_null() => Some(&self.text[value.start..value.end]),
            _ => None,
        }
    }

    /// The text with one more item at the head of a list. `item` is JSON on one line.
    pub(super) fn insert(&self, list: &'static str, item: &Value) -> Result<String, DocumentError> {
        let json = one_line(item);
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let found = self.list(list)?;
        if self.root.as_ref().is_some_and(|root| root.get("<<").is_some()) {
            // The text may have that list at a place where ours would hide it, or be hidden by it.
            return Err(DocumentError::Unsafe(list));
        }
        let (at, new) = match (&self.root, found) {
            (None, _) => (self.start..self.start, format!("{list}: [{json}]{newline}")),
            (Some(root), None) => match &root.kind {
                Kind::Map { flow: true, entries } => {
                    let comma = if entries.is_empty() { "" } else { ", " };
                    (root.start + 1..root.start + 1, format!("\"{list}\": [{json}]{comma}"))
                }
                Kind::Map { entries, .. } => {
                    let first = entries.first().map_or(root.start, |(key, _)| key.start);
                    let line = self.line_start(first);
                    (line..line, format!("{}{list}: [{json}]{newline}", self.blank(line..first, list)?))
                }
                _ => return Err(DocumentError::Unsafe(list)),
            },
            (Some(_), Some((key, value))) => match &value.kind {
                Kind::Seq { flow: true, items } => {
                    let comma = if items.is_empty() { "" } else { ", " };
                    (value.start + 1..value.start + 1, format!("{json}{comma}"))
                }
                Kind::Seq { items, .. } => {
                    let dash = self.dash(items.first().ok_or(DocumentError::Unsafe(list))?, list)?;
                    let line = self.line_start(dash);
                    (line..line, format!("{}- {json}{newline}", self.blank(line..dash, list)?))
                }
                _ if value.is_written() => (value.start..value.end, format!("[{json}]")),
                _ => {
                    let colon = self.colon(key, list)?;
                    (colon..colon, format!(" [{json}]"))
                }
            },
        };
        let mut expected = self.root.clone().unwrap_or_else(|| Node::new(Kind::Map { flow: false, entries: vec![] }));
        expected.list_mut(list).insert(0, Node::from_json(item));
        self.checked(at, &new, &expected, list)
    }

    /// The text without one item of a list. With its last item the list is removed too, if the mark in `was` says that
    /// it did not exist before.
    pub(super) fn remove(&self, list: &'static str, index: usize, was: Option<&str>) -> Result<String, DocumentError> {
        let (Some(root), Some((key, value))) = (&self.root, self.list(list)?) else {
            return Err(DocumentError::Unsafe(list));
        };
        let Kind::Seq { flow, items } = &value.kind else { return Err(DocumentError::Unsafe(list)) };
        let item = items.get(index).ok_or(DocumentError::Unsafe(list))?;
        // kubectl has rewritten it: now it is a list like any other.
        if let (true, [_], Some(was)) = (flow, items.as_slice(), was)
            && let Ok(text) = self.without(list, key, value, was)
        {
            return Ok(text);
        }
        let mut expected = root.clone();
        expected.list_mut(list).remove(index);
        let (previous, next) = (index.checked_sub(1).map(|at| &items[at]), items.get(index + 1));
        let (at, new) = match (flow, previous, next) {
            (true, _, Some(_)) => {
                let rest = &self.text[item.end..];
                let comma =
                    rest.find(',').filter(|at| rest[..*at].trim().is_empty()).ok_or(DocumentError::Unsafe(list))?;
                let end = item.end + comma + 1;
                (item.start..end + usize::from(self.text[end..].starts_with(' ')), "")
            }
            (true, Some(previous), None) => (previous.end..item.end, ""),
            (true, None, None) => (item.start..item.end, ""),
            (false, None, None) => {
                let end = self.line_end(item.end);
                let colon = self.colon(key, list)?;
                let dash = self.line_start(self.dash(item, list)?);
                // Between the key and its items there is a comment, or nothing.
                let text = format!("{} []{}{}", &self.text[..colon], &self.text[colon..dash], &self.text[end..]);
                return Self::verified(text, &expected, list);
            }
            (false, _, _) => (self.line_start(self.dash(item, list)?)..self.line_end(item.end), ""),
        };
        self.checked(at, new, &expected, list)
    }

    /// The text as it was before a list was made.
    fn without(&self, list: &'static str, key: &Node, value: &Node, was: &str) -> Result<String, DocumentError> {
        let Some(root) = &self.root else { return Err(DocumentError::Unsafe(list)) };
        let mut expected = root.clone();
        let at = expected.entries_mut().iter().rposition(|(key, _)| key.scalar() == Some(list));
        let at = at.ok_or(DocumentError::Unsafe(list))?;
        if was != NO_KEY {
            let null = Node::new(Kind::Scalar { value: was.to_owned(), plain: true, tag: None });
            if !null.is_null() {
                return Err(DocumentError::Unsafe(list));
            }
            expected.entries_mut()[at].1 = null;
            let start = if was.is_empty() { self.colon(key, list)? } else { value.start };
            return self.checked(start..value.end, was, &expected, list);
        }
        expected.entries_mut().remove(at);
        let Kind::Map { flow, entries } = &root.kind else { return Err(DocumentError::Unsafe(list)) };
        let rest = &self.text[value.end..];
        let range = match (flow, at.checked_sub(1).map(|at| &entries[at].1)) {
            (true, _) if rest.starts_with(", ") => key.start..value.end + 2,
            (true, Some(previous)) => previous.end..value.end,
            (true, None) => key.start..value.end,
            (false, _) => {
                let (start, end) = (self.line_start(key.start), self.line_end(value.end));
                self.blank(start..key.start, list)?;
                self.blank(value.end..end, list)?;
                start..end
            }
        };
        self.checked(range, "", &expected, list)
    }

    /// Key and value of a list; `None` if it does not exist.
    fn list(&self, list: &'static str) -> Result<Option<(&Node, &Node)>, DocumentError> {
        let Some(Node { kind: Kind::Map { entries, .. }, .. }) = &self.root else { return Ok(None) };
        let found = entries.iter().rfind(|(key, _)| key.scalar() == Some(list));
        match found {
            Some((_, value)) if !value.is_null() && !matches!(value.kind, Kind::Seq { .. }) => {
                Err(DocumentError::NotAList(list))
            }
            found => Ok(found.map(|(key, value)| (key, value))),
        }
    }

    fn checked(
        &self,
        at: Range<usize>,
        new: &str,
        expected: &Node,
        list: &'static str,
    ) -> Result<String, DocumentError> {
        let (Some(before), Some(after)) = (self.text.get(..at.start), self.text.get(at.end..)) else {
            return Err(DocumentError::Unsafe(list));
        };
        Self::verified(format!("{before}{new}{after}"), expected, list)
    }

    fn verified(text: String, expected: &Node, list: &'static str) -> Result<String, DocumentError> {
        let says = match Document::parse(&text).map_err(|_| DocumentError::Unsafe(list))?.root {
            Some(root) => root.says(expected),
            None => matches!(&expected.kind, Kind::Map { entries, .. } if entries.is_empty()),
        };
        if says { Ok(text) } else { Err(DocumentError::Unsafe(list)) }
    }

    /// Where an item's dash is: before the item on its line, or on a line before, alone or with the item's properties.
    fn dash(&self, item: &Node, list: &'static str) -> Result<usize, DocumentError> {
        let mut end = item.start;
        loop {
            let line = self.line_start(end);
            let lead = &self.text[line..end];
            let word = lead.trim_start();
            match word.chars().next() {
                Some('-') => return Ok(line + lead.len() - word.len()),
                None | Some('#' | '&' | '!') => end = line.checked_sub(1).ok_or(DocumentError::Unsafe(list))?,
                Some(_) => return Err(DocumentError::Unsafe(list)),
            }
        }
    }

    /// The position just after the colon of a key.
    fn colon(&self, key: &Node, list: &'static str) -> Result<usize, DocumentError> {
        let rest = self.text.get(key.end..).unwrap_or_default();
        let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[gap..].starts_with(':') { Ok(key.end + gap + 1) } else { Err(DocumentError::Unsafe(list)) }
    }

    /// A line's indentation; an error if anything else is there.
    fn blank(&self, lead: Range<usize>, list: &'static str) -> Result<&str, DocumentError> {
        self.text.get(lead).filter(|lead| lead.trim().is_empty()).ok_or(DocumentError::Unsafe(list))
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// The position after the line break, or the end of the text.
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline + 1)
    }
}

#[cfg(test)]
mod tests;
