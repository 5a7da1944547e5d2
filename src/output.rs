//! Text goes to a person on standard error, JSON events to a script on standard output.
//!
//! Printing never waits for a reader. Up to 4 MiB wait to be read. If more events come, the command ends as after a
//! signal, and says why, so that no event is lost in silence. Lines for a person are left out then, and counted.

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

/// Longest line of other programs' text that is shown.
const LINE_MAX: usize = 2048;

/// How long a reader has, after a signal, to take what was printed; and a terminal before a child gets it.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Output ends within this time after the signal, a little less than the five seconds that a command has, ...
const ALL: Duration = Duration::from_millis(4900);
/// ... but a reader always has at least this long, and as long again for the error that something was not read.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Where and how a command prints. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    out: &'static Outlet,
    err: &'static Outlet,
    /// There was no room for an event.
    unread: &'static watch::Sender<bool>,
    format: Format,
    quiet: bool,
    pub(crate) color: bool,
    /// Standard error is a terminal.
    pub(crate) terminal: bool,
    /// No other program writes to standard error, so that a spinner may be on its last line.
    pub(crate) spinner: bool,
    /// A child has the terminal, and its cursor may be in any column.
    beside: bool,
}

impl Output {
    /// Events go to standard output.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// # Errors
    /// No thread can be started to write.
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
        // Output to the same terminal, file or pipe shares one thread, to stay in order; else one reader does not hold
        // up the other.
        let out = if is_one_place(io::stdout(), io::stderr()) { err } else { Outlet::start()? };
        let unread: &'static _ = Box::leak(Box::new(watch::Sender::new(false)));
        let (format, quiet) = (global.output, global.quiet);
        Ok(Self { out, err, unread, format, quiet, color, terminal, spinner, beside: false })
    }

    /// For the time in which a child has the terminal: every text begins a line of its own.
    pub(crate) fn beside_a_child(self) -> Self {
        Self { beside: self.terminal, ..self }
    }

    /// Tells a person of an event.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            self.essential(text);
        }
    }

    /// Tells a person what they must see even with `--quiet`.
    pub(crate) fn essential(self, text: &str) {
        self.stderr(&printable(text, LINE_MAX));
    }

    /// Warns of something that works, but maybe not as expected.
    pub(crate) fn warn(self, text: &str) {
        if !self.quiet {
            self.stderr(&format!("{}: {}", self.paint("warning", "1;33"), printable(text, LINE_MAX)));
        }
    }

    /// One line of a check: its verdict and details. With `--quiet` only failures are shown.
    pub(crate) fn verdict(self, verdict: &str, colour: &str, text: &str, essential: bool) {
        if essential || !self.quiet {
            let gap = " ".repeat(4_usize.saturating_sub(verdict.len()));
            self.stderr(&format!("{}{gap}  {}", self.paint(verdict, colour), printable(text, LINE_MAX)));
        }
    }

    /// Tells why the command failed.
    pub(crate) fn error(self, text: &str) {
        self.stderr(&format!("{}: {}", self.paint("error", "1;31"), printable(text, LINE_MAX)));
    }

    /// Shows a label with a text that a person reads off, also with `--quiet`. Not where a script reads events and
    /// standard error is no terminal: a code would only end up in a log.
    pub(crate) fn show(self, label: &str, text: &str) {
        if self.format == Format::Json && !self.terminal {
            return;
        }
        self.stderr(&format!("{}{}", printable(label, LINE_MAX), self.paint(&printable(text, LINE_MAX), "1")));
    }

    /// Prints lines as they are: for our own text only.
    pub(crate) fn drawing(self, lines: &str) {
        self.stderr(lines);
    }

    /// Prints an event for a script; nothing in text form.
    pub(crate) fn event(self, event: &JsonEvent<'_>) {
        if self.format == Format::Json {
            let line = serde_json::to_string(event).expect("events are strings and numbers, which always serialise");
            self.stdout(line);
        }
    }

    /// Prints a result for a script in text form.
    pub(crate) fn result(self, text: &str) {
        if self.format == Format::Text {
            self.stdout(text.to_owned());
        }
    }

    /// Shows a question, as it is; calls `open` as soon as the terminal shows some of it.
    pub(crate) fn question(self, text: String, open: impl FnOnce() + Send + 'static) {
        self.err.push(text.len().max(1), move || {
            waiting::around(|| {
                let _ = show(&mut io::stderr().lock(), &text, open);
            });
        });
    }

    /// Standard error, for what is not a line.
    pub(crate) fn screen(self) -> &'static Outlet {
        self.err
    }

    /// Returns once there was no room for an event.
    pub(crate) async fn unread(self) {
        // The sender lives as long as the process.
        let _ = self.unread.subscribe().wait_for(|unread| *unread).await;
    }

    /// Waits until the person's terminal has everything, before a child gets it. Not for long: nobody may be reading.
    pub(crate) async fn settle(self) {
        let _ = spawn_blocking(move || self.err.wait(Some(LAST_WORDS)) && self.out.wait(Some(LAST_WORDS))).await;
    }

    /// Prints how the command ended, and waits until everything is written; once `hurry` returns (with the time of the
    /// signal), not for long. If output could not be written, that is the command's failure, too.
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

    /// Waits until everything is written.
    pub(crate) fn wait(self, limit: Option<Duration>) -> bool {
        self.out.wait(limit) && self.err.wait(limit)
    }

    /// A reader that has gone away is no failure.
    fn stderr(self, line: &str) {
        let refused = self.err.take_refused();
        let line = after_refused(refused, line);
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

/// A line, after the number of those before it for which there was no room.
fn after_refused(refused: usize, line: &str) -> String {
    if refused == 0 { line.to_owned() } else { format!("({refused} lines were not shown)\n{line}") }
}

/// When to stop waiting, if the hurry began at `since`.
fn over(since: Instant, now: Instant) -> Instant {
    (now + LAST_WORDS).min(since + ALL).max(now + 2 * LAST_WORD)
}

/// Shows a question, and calls `open` once its first character is shown. A stopped terminal shows nothing of it, so what
/// is typed before that is typed blind; a person who sees all of the question answers the open one.
fn show(terminal: &mut impl io::Write, text: &str, open: impl FnOnce()) -> io::Result<()> {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let shown = terminal.write_all(first.as_bytes()).and_then(|()| terminal.flush());
    open();
    shown?;
    terminal.write_all(rest.as_bytes())?;
    terminal.flush()
}

/// Whether two descriptors are of the same terminal, file or pipe.
fn is_one_place(one: impl AsFd, other: impl AsFd) -> bool {
    let place = |fd: &dyn AsFd| {
        let meta = File::from(fd.as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    };
    place(&one).is_some_and(|one| Some(one) == place(&other))
}

/// Whether a child has set the terminal so that a line feed does not go to the first column.
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
        assert_eq!(after(4900), ALL + 2 * LAST_WORD, "a reader that reads at all gets them");
    }

    #[test]
    fn lines_that_find_no_room_are_counted_before_the_next_one() {
        let output = unread();
        stuff(output.err);
        for _ in 0..3 {
            output.error("nobody sees this");
        }
        assert_eq!(output.err.take_refused(), 3);
        assert_eq!(after_refused(3, "seen"), "(3 lines were not shown)\nseen");
        assert_eq!(after_refused(0, "seen"), "seen");
    }

    /// Leaves no room in an outlet, which is never read.
    fn stuff(outlet: &Outlet) {
        assert!(outlet.push(WAITING_MAX, || loop {
            std::thread::park()
        }));
    }

    /// Its standard output is an outlet that is full, and is never read.
    fn unread() -> Output {
        let [out, err] = [Outlet::start(), Outlet::start()].map(Result::unwrap);
        stuff(out);
        let unread: &'static _ = Box::leak(Box::new(watch::Sender::new(false)));
        let (format, quiet, color, terminal, spinner, beside) = (Format::Json, true, false, false, false, false);
        Output { out, err, unread, format, quiet, color, terminal, spinner, beside }
    }

    /// The end waits for none of it: a stuck outlet stays stuck.
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
