//! The signals that end a command. A command has five seconds from there. What it was started to ignore it ignores:
//! `nohup` holds, and Ctrl-C is not for what a script has put into the background.

use std::io;

use mykube_client::signals::ignored_at_start;
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for Ctrl-C, SIGTERM and SIGHUP. From its making none of them kills the process.
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: unless_ignored(SignalKind::interrupt(), Number::INT)?,
            hang_up: unless_ignored(SignalKind::hangup(), Number::HUP)?,
            terminate: unless_ignored(SignalKind::terminate(), Number::TERM)?,
        })
    }

    /// The first of the three, by name.
    pub(crate) async fn any(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
        }
    }

    /// The same, while Ctrl-C belongs to a child on the terminal.
    pub(crate) async fn but_interrupt(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
        }
    }
}

fn unless_ignored(kind: SignalKind, number: Number) -> io::Result<Option<Signal>> {
    (!ignored_at_start(number)).then(|| signal(kind)).transpose()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
