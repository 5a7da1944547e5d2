//! What ends a command: signals, and events that are not read. Signals that were ignored when it was started stay
//! ignored: `nohup` works, and Ctrl-C does not reach a command that a script runs in the background.
//!
//! From then on a command has five seconds, whatever it waits for. A client: 3.5 s for its programs (3 s until they are
//! killed), 0.8 s for its goodbye, 0.5 s for another program's lock on the kubeconfig. A server: 3.8 s, and 1 s for the
//! audit log. The last output has the rest, up to 0.5 s and at least 0.1 s, and threads that hang have 0.1 s.

use std::{io, sync::OnceLock};

use mykube_client::signals::ignored_at_start;
use rustix::process::Signal as Number;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use crate::output::Output;

/// The reason to stop that is no signal: the command fails, with another message.
const UNREAD: &str = "standard output that nobody reads";

/// When the first signal came.
static CAME: OnceLock<Instant> = OnceLock::new();

/// Waits for Ctrl-C, SIGTERM and SIGHUP. Once this exists, none of them kills the process.
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
    output: Output,
}

impl Signals {
    pub(crate) fn new(output: Output) -> io::Result<Self> {
        Ok(Self {
            interrupt: unless_ignored(SignalKind::interrupt(), Number::INT)?,
            hang_up: unless_ignored(SignalKind::hangup(), Number::HUP)?,
            terminate: unless_ignored(SignalKind::terminate(), Number::TERM)?,
            output,
        })
    }

    /// Waits for one of the three; returns its name.
    pub(crate) async fn any(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
            () = self.output.unread() => {
                came();
                UNREAD
            }
        }
    }

    /// Waits for one of the others, while Ctrl-C goes to a child on the terminal.
    pub(crate) async fn but_interrupt(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
            () = self.output.unread() => {
                came();
                UNREAD
            }
        }
    }
}

/// Waits for a signal, unless one came already, and returns when it came. For code that can be stopped because it waits
/// only for readers.
pub(crate) async fn first() -> Instant {
    if let Some(came) = CAME.get() {
        return *came;
    }
    let [mut interrupt, mut terminate, mut hang_up] = [
        (SignalKind::interrupt(), Number::INT),
        (SignalKind::terminate(), Number::TERM),
        (SignalKind::hangup(), Number::HUP),
    ]
    .map(|(kind, number)| unless_ignored(kind, number).ok().flatten());
    tokio::select! {
        () = received(&mut interrupt) => {}
        () = received(&mut terminate) => {}
        () = received(&mut hang_up) => {}
    }
    came()
}

fn came() -> Instant {
    *CAME.get_or_init(Instant::now)
}

fn unless_ignored(kind: SignalKind, number: Number) -> io::Result<Option<Signal>> {
    (!ignored_at_start(number)).then(|| signal(kind)).transpose()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
            came();
        }
        None => std::future::pending().await,
    }
}
