//! The signals of a relay. A signal that was ignored at its start stays ignored: nohup(1), and `&` in a shell without job
//! control, ignore it so that the relay survives it.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for signals. Once it is made, none of them kills the process.
#[cfg(unix)]
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hang_up: Option<Signal>,
}

#[cfg(unix)]
impl Signals {
    /// # Errors
    /// The system refuses to install a handler.
    pub(crate) fn new() -> io::Result<Self> {
        let ignored = ignored();
        let heard = |kind: SignalKind| {
            let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
            if is_ignored { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            interrupt: heard(SignalKind::interrupt())?,
            terminate: heard(SignalKind::terminate())?,
            hang_up: heard(SignalKind::hangup())?,
        })
    }

    /// Resolves at SIGTERM or Ctrl-C, and calls `reload` at every SIGHUP before that.
    pub(crate) async fn stop(mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                () = next(&mut self.terminate) => return,
                () = next(&mut self.interrupt) => return,
                () = next(&mut self.hang_up) => reload(),
            }
        }
    }
}

#[cfg(unix)]
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The ignored signals, a bit for each, that of signal 1 the lowest (proc_pid_status(5)). 0 where the system does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn stop(self, _: impl Fn()) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
