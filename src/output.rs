//! Text goes to a person on standard error, JSON events to a script on standard output.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
};

use mykube_protocol::text::printable;
use rustix::termios::{OutputModes, tcgetattr};
use serde::Serialize;

use crate::{
    cli::{Format, Global, When},
    waiting,
};

/// Longest line of foreign text that is shown.
const LINE_MAX: usize = 2048;

/// How to talk. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    pub(crate) color: bool,
    /// Standard error is a terminal.
    pub(crate) terminal: bool,
    /// Nothing else writes to standard error: a spinner may stand on its last line.
    pub(crate) spinner: bool,
    /// A child has the terminal, and its cursor may be anywhere.
    beside: bool,
}

/// One line of `--output json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum JsonEvent<'a> {
    /// The server's code, and the seconds it waits.
    Code {
        code: &'a str,
        expires_in: u64,
        client: &'a str,
        /// Who has been away for so long that whoever types it gets its place.
        #[serde(skip_serializing_if = "Option::is_none")]
        replaces: Option<&'a str>,
    },
    /// The code is of no use any more: the client it would have replaced is back.
    Withdrawn { client: &'a str },
    /// Somebody typed a wrong code, or was refused otherwise; so many more tries and it is burned.
    CodeRefused { client: &'a str, reason: &'a str, left: u32 },
    /// The code is burned, expired or lost.
    CodeEnded { client: &'a str, reason: &'a str },
    /// The server has its client.
    Paired { client: &'a str },
    /// The client said goodbye, was lost, ended or replaced.
    ClientGone { client: &'a str, reason: &'a str },
    /// The connection is lost, and the session waits for another; of the server, which client's.
    Lost {
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        reason: &'a str,
    },
    /// It is back after so many seconds; nothing was lost.
    Back {
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<&'a str>,
        after: f64,
    },
    /// The server ends.
    Stopped { reason: &'a str },
    /// A code that was asked for.
    Invited { code: &'a str },
    /// One client of a server.
    Session { server: u32, id: u64, name: &'a str, state: &'a str, seconds: u64, may: &'a str },
    /// The client's kubeconfig works.
    Connected {
        kubeconfig: &'a str,
        listen: &'a str,
        cluster: &'a str,
        /// Variables that kubectl needs to outlive an outage.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        environment: BTreeMap<&'a str, &'a str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        recorded: bool,
    },
    /// The client's context stands in the user's own kubeconfig too.
    Merged { kubeconfig: &'a str, context: &'a str },
    /// The client ends.
    Closed { reason: &'a str },
}

impl Output {
    /// Events go to standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn new(global: &Global) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !dumb && !no_color,
        };
        let spinner = terminal && !dumb && !global.quiet && global.verbose == 0;
        Self { format: global.output, quiet: global.quiet, color, terminal, spinner, beside: false }
    }

    /// While a child has the terminal: what is said begins a line of its own.
    pub(crate) fn beside_a_child(self) -> Self {
        Self { beside: self.terminal, ..self }
    }

    /// What happened, for a person.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            self.essential(text);
        }
    }

    /// What a person must see even with `--quiet`.
    pub(crate) fn essential(self, text: &str) {
        self.stderr(&printable(text, LINE_MAX));
    }

    /// Something that works, but not as the person may think.
    pub(crate) fn warn(self, text: &str) {
        if !self.quiet {
            self.stderr(&format!("{}: {}", self.paint("warning", "1;33"), printable(text, LINE_MAX)));
        }
    }

    /// One line of a check: its verdict, and what was seen. Quiet hides all but failures.
    pub(crate) fn verdict(self, verdict: &str, colour: &str, text: &str, essential: bool) {
        if essential || !self.quiet {
            let gap = " ".repeat(4_usize.saturating_sub(verdict.len()));
            self.stderr(&format!("{}{gap}  {}", self.paint(verdict, colour), printable(text, LINE_MAX)));
        }
    }

    /// Why the command failed.
    pub(crate) fn error(self, text: &str) {
        self.stderr(&format!("{}: {}", self.paint("error", "1;31"), printable(text, LINE_MAX)));
    }

    /// A label and what a person is to read off, also with `--quiet`. Where a script reads events and nobody reads
    /// standard error, a code would only end up in a log.
    pub(crate) fn show(self, label: &str, text: &str) {
        if self.format == Format::Json && !self.terminal {
            return;
        }
        self.stderr(&format!("{}{}", printable(label, LINE_MAX), self.paint(&printable(text, LINE_MAX), "1")));
    }

    /// Lines as they are: ours alone, never foreign text.
    pub(crate) fn drawing(self, lines: &str) {
        self.stderr(lines);
    }

    /// One event for a script; nothing in text form.
    pub(crate) fn event(self, event: &impl Serialize) {
        if self.format == Format::Json {
            let line = serde_json::to_string(event).expect("events are strings and numbers, which always serialise");
            self.stdout(&line);
        }
    }

    /// What a script wants in text form.
    pub(crate) fn result(self, text: &str) {
        if self.format == Format::Text {
            self.stdout(text);
        }
    }

    /// A reader that has gone away is none of our trouble.
    fn stderr(self, line: &str) {
        let raw = self.terminal && is_raw();
        waiting::around(|| std::io::stderr().lock().write_all(lines(line, raw, self.beside).as_bytes())).unwrap_or(());
    }

    fn stdout(self, line: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether a line's end does not take the terminal back to the first column: a child has made it so.
fn is_raw() -> bool {
    tcgetattr(rustix::stdio::stderr()).is_ok_and(|modes| !modes.output_modes.contains(OutputModes::OPOST))
}

fn lines(text: &str, raw: bool, beside: bool) -> String {
    let text = format!("{}{text}\n", if beside { "\r\n" } else { "" });
    if raw { text.replace("\r\n", "\n").replace('\n', "\r\n") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_at_the_first_column() {
        assert_eq!(lines("a\nb", false, false), "a\nb\n");
        assert_eq!(lines("a\nb", true, false), "a\r\nb\r\n");
        assert_eq!(lines("a", true, true), "\r\na\r\n");
        assert_eq!(lines("a", false, true), "\r\na\n");
    }

    #[test]
    fn events_are_what_scripts_rely_on() {
        let line = |event: JsonEvent<'_>| serde_json::to_string(&event).unwrap();
        assert_eq!(
            line(JsonEvent::Code { code: "04820417", expires_in: 120, client: "client-1", replaces: None }),
            r#"{"event":"code","code":"04820417","expires_in":120,"client":"client-1"}"#
        );
        assert_eq!(
            line(JsonEvent::Code { code: "04820417", expires_in: 9, client: "b", replaces: Some("a") }),
            r#"{"event":"code","code":"04820417","expires_in":9,"client":"b","replaces":"a"}"#
        );
        assert_eq!(line(JsonEvent::Withdrawn { client: "b" }), r#"{"event":"withdrawn","client":"b"}"#);
        assert_eq!(
            line(JsonEvent::CodeRefused { client: "b", reason: "r", left: 2 }),
            r#"{"event":"code_refused","client":"b","reason":"r","left":2}"#
        );
        assert_eq!(
            line(JsonEvent::CodeEnded { client: "b", reason: "r" }),
            r#"{"event":"code_ended","client":"b","reason":"r"}"#
        );
        assert_eq!(line(JsonEvent::Paired { client: "alice" }), r#"{"event":"paired","client":"alice"}"#);
        assert_eq!(
            line(JsonEvent::ClientGone { client: "a", reason: "r" }),
            r#"{"event":"client_gone","client":"a","reason":"r"}"#
        );
        assert_eq!(line(JsonEvent::Stopped { reason: "a\nb" }), r#"{"event":"stopped","reason":"a\nb"}"#);
        let connected = |environment: &[(&'static str, &'static str)], recorded| {
            let environment = environment.iter().copied().collect();
            line(JsonEvent::Connected { kubeconfig: "/k", listen: "127.0.0.1:1", cluster: "c", environment, recorded })
        };
        assert_eq!(
            connected(&[], false),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c"}"#
        );
        assert_eq!(
            connected(&[("A", "0")], false),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c","environment":{"A":"0"}}"#
        );
        assert_eq!(
            connected(&[], true),
            r#"{"event":"connected","kubeconfig":"/k","listen":"127.0.0.1:1","cluster":"c","recorded":true}"#
        );
        assert_eq!(
            line(JsonEvent::Merged { kubeconfig: "/k", context: "mykube-c" }),
            r#"{"event":"merged","kubeconfig":"/k","context":"mykube-c"}"#
        );
        assert_eq!(line(JsonEvent::Closed { reason: "r" }), r#"{"event":"closed","reason":"r"}"#);
    }
}
