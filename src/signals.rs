//! What ends a command: signals, and events that nobody reads. A command has five seconds from there. What it was started to ignore it ignores:
//! `nohup` holds, and Ctrl-C is not for what a script has put into the background.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use mykube_client::signals::ignored_at_start;
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output::Output;

/// What stops a command instead of a signal. It fails, and says more then.
const UNREAD: &str = "standard output that nobody reads";

static CAME: AtomicBool = AtomicBool::new(false);

/// Waits for Ctrl-C, SIGTERM and SIGHUP. From its making none of them kills the process.
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

    /// The first of the three, by name.
    pub(crate) async fn any(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "SIGINT",
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
            () = self.output.unread() => UNREAD,
        }
    }

    /// The same, while Ctrl-C belongs to a child on the terminal.
    pub(crate) async fn but_interrupt(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.terminate) => "SIGTERM",
            () = received(&mut self.hang_up) => "SIGHUP",
            () = self.output.unread() => UNREAD,
        }
    }
}

/// Waits for the first signal of the process, or for a further one: whoever waits for nothing else may be stopped.
pub(crate) async fn another() {
    if CAME.load(Relaxed) {
        return;
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
}

fn unless_ignored(kind: SignalKind, number: Number) -> io::Result<Option<Signal>> {
    (!ignored_at_start(number)).then(|| signal(kind)).transpose()
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
            CAME.store(true, Relaxed);
        }
        None => std::future::pending().await,
    }
}
