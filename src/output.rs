//! Text goes to a person on standard error, JSON events to a script on standard output.
//!
//! Nobody who prints waits for whoever reads. Up to 4 MiB wait to be read. After that no event is lost in silence: the command
//! ends as after a signal, and says why. Lines for a person are left out then, and counted.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::{fd::AsFd, unix::fs::MetadataExt as _},
    time::Duration,
};

use mykube_protocol::text::printable;
use rustix::termios::{OutputModes, tcgetattr};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{self, Instant},
};

use crate::{
    cli::{Format, Global, When},
    events::JsonEvent,
    exit::Failure,
    outlet::{Outlet, WAITING_MAX},
    waiting,
};

/// Longest line of foreign text that is shown.
const LINE_MAX: usize = 2048;

/// What whoever reads has, after a signal, to take what was printed; and a terminal before a child gets it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Within so long after the signal, a little less than the five seconds that a command has, ...
const ALL: Duration = Duration::from_millis(4900);
/// ... but no less than this, and as much again for the word that something was not read.
const LAST_WORD: Duration = Duration::from_millis(50);

/// How to talk. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    out: &'static Outlet,
    err: &'static Outlet,
    /// An event found no room.
    unread: &'static watch::Sender<bool>,
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

impl Output {
    /// Events go to standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// # Errors
    /// There is no thread that writes.
    pub(crate) fn new(global: &Global) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !dumb && !no_color,
        };
        let spinner = terminal && !dumb && !global.quiet && global.verbose == 0;
        let err = Outlet::start()?;
        // Where both come to the same place they come in order; elsewhere neither waits for the other's reader.
        let out = if is_one_place(io::stdout(), io::stderr()) { err } else { Outlet::start()? };
        let unread: &'static _ = Box::leak(Box::new(watch::Sender::new(false)));
        let (format, quiet) = (global.output, global.quiet);
        Ok(Self { out, err, unread, format, quiet, color, terminal, spinner, beside: false })
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
    pub(crate) fn event(self, event: &JsonEvent<'_>) {
        if self.format == Format::Json {
            let line = serde_json::to_string(event).expect("events are strings and numbers, which always serialise");
            self.stdout(line);
        }
    }

    /// What a script wants in text form.
    pub(crate) fn result(self, text: &str) {
        if self.format == Format::Text {
            self.stdout(text.to_owned());
        }
    }

    /// Something to answer, as it is; `open` is called as soon as the terminal shows some of it.
    pub(crate) fn question(self, text: String, open: impl FnOnce() + Send + 'static) {
        self.err.push(text.len().max(1), move || {
            waiting::around(|| {
                let _ = show(&mut io::stderr().lock(), &text, open);
            });
        });
    }

    /// Where a person reads, for what is not a line.
    pub(crate) fn screen(self) -> &'static Outlet {
        self.err
    }

    /// Once events find no room.
    pub(crate) async fn unread(self) {
        // It lives as long as the process.
        let _ = self.unread.subscribe().wait_for(|unread| *unread).await;
    }

    /// Waits until a person has all that was said, before a child has the terminal. Not for long: nobody may read.
    pub(crate) async fn settle(self) {
        let _ = spawn_blocking(move || self.err.wait(Some(LAST_WORDS)) && self.out.wait(Some(LAST_WORDS))).await;
    }

    /// Tells how the command ended, and waits until all is written; not for long once `hurry` is over, which tells when that was.
    /// Gives the failure of what could not be written too.
    pub(crate) async fn finish(
        self,
        result: Result<u8, Failure>,
        hurry: impl Future<Output = Instant>,
    ) -> Result<u8, Failure> {
        let full = *self.unread.borrow();
        let result = if full {
            Err(Failure::failed(format!(
                "nobody reads standard output: {} MiB of it waited, and nothing of it may be lost in silence; read it, or \
                 leave out --output json",
                WAITING_MAX >> 20
            )))
        } else {
            result
        };
        if let Err(failure) = &result {
            self.error(&failure.message);
        }
        let written = spawn_blocking(move || self.wait(None));
        let late = async {
            let since = tokio::select! {
                biased;
                since = hurry => since,
                () = std::future::ready(()), if full => Instant::now(),
            };
            let until = over(since, Instant::now());
            time::sleep_until(until - LAST_WORD).await;
            until
        };
        tokio::select! {
            _ = written => {}
            until = late => {
                let told = spawn_blocking(move || {
                    if !self.out.wait(Some(Duration::ZERO)) {
                        self.error("the last of what was printed on standard output was not read, and is lost");
                    }
                    self.err.wait(Some(until.saturating_duration_since(Instant::now())))
                });
                let _ = told.await;
            }
        }
        result
    }

    /// Waits until all is written.
    pub(crate) fn wait(self, limit: Option<Duration>) -> bool {
        self.out.wait(limit) && self.err.wait(limit)
    }

    /// A reader that has gone away is none of our trouble.
    fn stderr(self, line: &str) {
        let refused = self.err.take_refused();
        let line = if refused == 0 { line.to_owned() } else { format!("({refused} lines were not shown)\n{line}") };
        let taken = self.err.push(line.len(), move || {
            let raw = self.terminal && is_raw();
            waiting::around(|| io::stderr().lock().write_all(lines(&line, raw, self.beside).as_bytes())).unwrap_or(());
        });
        if !taken {
            self.err.refused(refused);
        }
    }

    fn stdout(self, line: String) {
        let taken = self.out.push(line.len(), move || {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        });
        if !taken {
            self.unread.send_replace(true);
        }
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// When nobody is waited for any more, where the hurry began at `since`.
fn over(since: Instant, now: Instant) -> Instant {
    (now + LAST_WORDS).min(since + ALL).max(now + 2 * LAST_WORD)
}

/// Shows a question. A terminal that is stopped takes nothing of it: what is typed until its first character is there is typed
/// blind. Whoever sees all of it answers what is open.
fn show(terminal: &mut impl io::Write, text: &str, open: impl FnOnce()) -> io::Result<()> {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let shown = terminal.write_all(first.as_bytes()).and_then(|()| terminal.flush());
    open();
    shown?;
    terminal.write_all(rest.as_bytes())?;
    terminal.flush()
}

/// Whether two descriptors are of one terminal, file or pipe.
fn is_one_place(one: impl AsFd, other: impl AsFd) -> bool {
    let place = |fd: &dyn AsFd| {
        let meta = File::from(fd.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    };
    place(&one).is_some_and(|one| Some(one) == place(&other))
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
    fn a_question_is_open_once_some_of_it_is_shown_and_before_all_of_it_is() {
        use std::cell::RefCell;

        struct Terminal<'a>(&'a RefCell<String>);

        impl io::Write for Terminal<'_> {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.borrow_mut().push_str(std::str::from_utf8(text).unwrap());
                Ok(text.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        for (question, shown) in [("Code: ", "C|ode: "), ("\u{bf}S\u{ed}? ", "\u{bf}|S\u{ed}? "), ("", "|")] {
            let log = RefCell::default();
            show(&mut Terminal(&log), question, || log.borrow_mut().push('|')).unwrap();
            assert_eq!(*log.borrow(), shown);
        }
    }

    #[test]
    fn last_words_end_within_five_seconds_of_the_signal() {
        let since = Instant::now();
        let after = |ms| over(since, since + Duration::from_millis(ms)) - since;
        assert_eq!([0, 3000, 4400, 4700, 4800].map(|ms| after(ms).as_millis()), [500, 3500, 4900, 4900, 4900]);
        assert_eq!(after(4900), ALL + 2 * LAST_WORD, "whoever reads at all gets them");
    }

    /// Its standard output is an outlet that is full, and is never read.
    fn unread() -> Output {
        let [out, err] = [Outlet::start(), Outlet::start()].map(Result::unwrap);
        assert!(out.push(WAITING_MAX, || loop {
            std::thread::park()
        }));
        let unread: &'static _ = Box::leak(Box::new(watch::Sender::new(false)));
        let (format, quiet, color, terminal, spinner, beside) = (Format::Json, true, false, false, false, false);
        Output { out, err, unread, format, quiet, color, terminal, spinner, beside }
    }

    /// Nothing of it is waited for at the end: what is stuck stays so.
    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
        runtime.shutdown_background();
    }

    #[test]
    fn an_event_for_which_there_is_no_room_ends_the_command_and_says_so() {
        run(async {
            let output = unread();
            let full = output.unread();
            tokio::pin!(full);
            assert!(time::timeout(Duration::ZERO, &mut full).await.is_err());
            output.event(&JsonEvent::Paired { client: "alice" });
            full.await;
            let failure = output.finish(Ok(0), std::future::pending()).await.unwrap_err();
            assert!(failure.message.starts_with("nobody reads standard output: 4 MiB of it waited"));
        });
    }

    #[test]
    fn the_last_events_are_waited_for_until_there_is_hurry() {
        run(async {
            let output = unread();
            let finish = output.finish(Ok(7), std::future::pending());
            tokio::pin!(finish);
            assert!(time::timeout(Duration::ZERO, &mut finish).await.is_err());
            assert_eq!(output.finish(Ok(7), std::future::ready(Instant::now())).await.ok(), Some(7));
            assert!(time::timeout(Duration::ZERO, &mut finish).await.is_err());
        });
    }
}
