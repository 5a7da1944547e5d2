//! asciicast v2: a header line of JSON, then a line for each event. No I/O: the functions return or append lines.

use std::{borrow::Cow, str, time::Duration};

use serde::Deserialize;
use serde_json::json;

/// The size of a terminal that never said one.
const SIZE: Size = Size { width: 80, height: 24 };
/// Longest size or status that is read; real ones are small.
const JSON_MAX: usize = 4096;

/// Columns and lines, as the resize channel has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// What a recording is of.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) title: String,
    pub(super) command: String,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    /// A recording without one gets line ends as a terminal would have shown them.
    pub(super) terminal: bool,
}

/// Writes one recording.
#[derive(Debug)]
pub(super) struct Cast {
    about: About,
    size: Size,
    /// Bytes of a character that is not whole yet: of the output, and of the errors.
    split: [Vec<u8>; 2],
    resizes: Vec<u8>,
    status: Vec<u8>,
}

impl Cast {
    pub(super) fn new(about: About) -> Self {
        Self { about, size: SIZE, split: Default::default(), resizes: Vec::new(), status: Vec::new() }
    }

    /// The header line.
    pub(super) fn header(&self) -> String {
        let mut header = json!({
            "version": 2,
            "width": self.size.width,
            "height": self.size.height,
            "timestamp": self.about.timestamp,
            "title": self.about.title,
        });
        if !self.about.command.is_empty() {
            header["command"] = self.about.command.as_str().into();
        }
        format!("{header}\n")
    }

    /// Adds the lines for bytes that a channel carried to the client: 1 and 2 are shown, 3 says how the session ended.
    pub(super) fn output(&mut self, at: Duration, channel: u8, bytes: &[u8], lines: &mut String) {
        match channel {
            1 | 2 => {
                let text = decode(&mut self.split[usize::from(channel - 1)], bytes);
                self.shown(at, &text, lines);
            }
            3 => {
                let room = JSON_MAX.saturating_sub(self.status.len());
                self.status.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            _ => {}
        }
    }

    /// Adds the lines for bytes that channel 4 carried to the pod: sizes of the terminal, one after the other. Returns
    /// whether one was new.
    pub(super) fn resize(&mut self, at: Duration, bytes: &[u8], lines: &mut String) -> bool {
        self.resizes.extend_from_slice(bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&self.resizes).into_iter::<Size>();
        let (mut used, mut changed) = (0, false);
        let unfinished = loop {
            match sizes.next() {
                Some(Ok(size)) => {
                    used = sizes.byte_offset();
                    if size.width > 0 && size.height > 0 && size != self.size {
                        (self.size, changed) = (size, true);
                        event(at, "r", &format!("{}x{}", size.width, size.height), lines);
                    }
                }
                Some(Err(error)) => break error.is_eof(),
                None => break true,
            }
        };
        match unfinished && self.resizes.len() - used <= JSON_MAX {
            true => drop(self.resizes.drain(..used)),
            false => self.resizes.clear(),
        }
        changed
    }

    /// Adds the last lines: a character that is not whole, and how the session ended: in the pod's words, or else
    /// `otherwise`.
    pub(super) fn end(&mut self, at: Duration, otherwise: &str, lines: &mut String) {
        for split in std::mem::take(&mut self.split) {
            self.shown(at, &String::from_utf8_lossy(&split), lines);
        }
        event(at, "m", outcome(&self.status).as_deref().unwrap_or(otherwise), lines);
    }

    fn shown(&self, at: Duration, text: &str, lines: &mut String) {
        if !text.is_empty() {
            let text = if self.about.terminal { text.into() } else { Cow::from(text.replace('\n', "\r\n")) };
            event(at, "o", &text, lines);
        }
    }
}

fn event(at: Duration, kind: &str, data: &str, lines: &mut String) {
    use std::fmt::Write as _;
    let _ = writeln!(lines, r#"[{}.{:06}, "{kind}", {}]"#, at.as_secs(), at.subsec_micros(), json!(data));
}

/// Decodes as far as the last whole character; bytes that are no UTF-8 become U+FFFD.
fn decode(split: &mut Vec<u8>, bytes: &[u8]) -> String {
    let mut held = std::mem::take(split);
    held.extend_from_slice(bytes);
    let mut text = String::with_capacity(held.len());
    let mut rest = &held[..];
    loop {
        let error = match str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => error,
        };
        let (valid, bad) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        let Some(wrong) = error.error_len() else {
            split.extend_from_slice(bad);
            return text;
        };
        text.push(char::REPLACEMENT_CHARACTER);
        rest = &bad[wrong..];
    }
}

/// How the session ended, from the `Status` on the error channel.
fn outcome(status: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct CommandStatus {
        #[serde(default)]
        status: String,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        details: Details,
    }
    #[derive(Deserialize, Default)]
    struct Details {
        #[serde(default)]
        causes: Vec<Cause>,
    }
    #[derive(Deserialize)]
    struct Cause {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: String,
    }
    let status: CommandStatus = serde_json::from_slice(status).ok()?;
    if status.status == "Success" {
        return Some("exit code 0".to_owned());
    }
    let code = status.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    Some(match code {
        Some(cause) if status.reason == "NonZeroExitCode" => format!("exit code {}", cause.message),
        _ => format!("failed: {}", status.message),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const AT: Duration = Duration::from_micros(1_000_007);

    fn cast(terminal: bool) -> Cast {
        Cast::new(About { title: "ns/pod".into(), command: "sh".into(), timestamp: 1_700_000_000, terminal })
    }

    fn events(lines: &str) -> Vec<(f64, String, String)> {
        assert!(lines.is_empty() || lines.ends_with('\n'));
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The data of all `o` events.
    fn shown(lines: &str) -> String {
        events(lines).into_iter().filter(|(_, kind, _)| kind == "o").map(|(.., data)| data).collect()
    }

    #[test]
    fn the_header_says_what_it_is() {
        let header = cast(true).header();
        assert!(header.ends_with("}\n") && header.matches('\n').count() == 1);
        let header: Value = serde_json::from_str(&header).unwrap();
        let expected = json!({"version": 2, "width": 80, "height": 24, "timestamp": 1_700_000_000, "title": "ns/pod", "command": "sh"});
        assert_eq!(header, expected);
    }

    #[test]
    fn characters_split_anywhere_are_whole() {
        let text = "é € 😀 \x1b[1m\0\"\\\u{7f}";
        for at in 0..=text.len() {
            let (mut cast, mut lines) = (cast(true), String::new());
            cast.output(AT, 1, &text.as_bytes()[..at], &mut lines);
            // Bytes of the errors in between do not end the character of the output.
            cast.output(AT, 2, b"!", &mut lines);
            cast.output(AT, 1, &text.as_bytes()[at..], &mut lines);
            let got = shown(&lines);
            assert_eq!(got.replacen('!', "", 1), text, "{at}");
        }
        let (mut bytewise, mut lines) = (cast(true), String::new());
        text.as_bytes().chunks(1).for_each(|byte| bytewise.output(AT, 1, byte, &mut lines));
        assert_eq!(shown(&lines), text);
        assert!(events(&lines).iter().all(|(at, ..)| *at == 1.000_007));
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let (mut cast, mut lines) = (cast(true), String::new());
        cast.output(AT, 1, b"a\xff\xfeb\xc3(\xf0\x9f", &mut lines);
        assert_eq!(shown(&lines), "a\u{fffd}\u{fffd}b\u{fffd}(");
        cast.end(AT, "cut", &mut lines);
        assert_eq!(shown(&lines), "a\u{fffd}\u{fffd}b\u{fffd}(\u{fffd}");
        assert_eq!(events(&lines).last().unwrap().2, "cut");
    }

    #[test]
    fn lines_without_a_terminal_end_as_on_one() {
        let mut lines = String::new();
        cast(false).output(AT, 1, b"a\nb\n", &mut lines);
        cast(true).output(AT, 1, b"a\nb\n", &mut lines);
        assert_eq!(shown(&lines), "a\r\nb\r\na\nb\n");
    }

    #[test]
    fn sizes_are_read_from_a_stream() {
        let (mut cast, mut lines) = (cast(true), String::new());
        assert!(!cast.resize(AT, br#"{"Width":120,"#, &mut lines));
        assert!(cast.resize(AT, br#""Height":40} {"Width":120,"Height":40}{"Width":0,"Height":9}{"Wid"#, &mut lines));
        assert!(cast.resize(AT, br#"th":90,"Height":30}"#, &mut lines));
        let sizes: Vec<_> = events(&lines).into_iter().map(|(_, kind, data)| kind + " " + &data).collect();
        assert_eq!(sizes, ["r 120x40", "r 90x30"]);
        assert!(cast.header().contains(r#""width":90"#));
        // Neither nonsense nor a value without an end is kept, and what comes later is read.
        assert!(!cast.resize(AT, b"nonsense", &mut lines));
        for _ in 0..100 {
            assert!(!cast.resize(AT, &[b' '; 1000], &mut lines));
            assert!(cast.resizes.len() <= JSON_MAX);
        }
        cast.resizes.clear();
        assert!(cast.resize(AT, br#"{"Width":1,"Height":2}"#, &mut lines));
    }

    #[test]
    fn the_end_is_the_pods_word() {
        for (status, expected) in [
            (r#"{"metadata":{},"status":"Success"}"#, "exit code 0"),
            (
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#,
                "exit code 7",
            ),
            (r#"{"status":"Failure","message":"no such \"thing\"","code":500}"#, "failed: no such \"thing\""),
            ("", "cut"),
            ("{", "cut"),
        ] {
            let (mut cast, mut lines) = (cast(true), String::new());
            let (first, second) = status.as_bytes().split_at(status.len() / 2);
            cast.output(AT, 3, first, &mut lines);
            cast.output(AT, 3, second, &mut lines);
            cast.end(AT, "cut", &mut lines);
            assert_eq!(events(&lines), [(1.000_007, "m".into(), expected.into())]);
        }
    }
}
