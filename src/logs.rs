//! What `-v` shows on standard error. No secret is logged at any level; that is the callers' duty.

use std::io;

use mykube_relay::logs::{Lines, Logs};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::waiting;

/// Starts logging at the level of this many `-v`. Zero: warnings and errors only. A stopped terminal (Ctrl-S) stops no
/// session.
///
/// # Errors
/// No thread can be started for it.
pub(crate) fn start(verbose: u8, color: bool) -> io::Result<Logs> {
    let filter = EnvFilter::new(directives(verbose));
    let (writer, logs) = Lines::start(Around, true)?;
    let lines = fmt::layer().with_writer(writer).with_ansi(color).with_target(verbose > 1);
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(logs)
}

/// Standard error; moves the spinner out of the way.
struct Around;

impl io::Write for Around {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        waiting::around(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Our own crates log at the level asked for; others one step less, and never more than debug, so that no library
/// prints the data that it handles.
fn directives(verbose: u8) -> &'static str {
    match verbose {
        0 => {
            "off,mykube=warn,mykube_agent=warn,mykube_client=warn,mykube_dial=warn,mykube_link=warn,mykube_relay=warn,mykube_sign_in=warn,mykube_tunnel=warn"
        }
        1 => {
            "warn,mykube=info,mykube_agent=info,mykube_client=info,mykube_dial=info,mykube_link=info,mykube_relay=info,mykube_sign_in=info,mykube_tunnel=info"
        }
        2 => {
            "info,mykube=debug,mykube_agent=debug,mykube_client=debug,mykube_dial=debug,mykube_link=debug,mykube_relay=debug,mykube_sign_in=debug,mykube_tunnel=debug"
        }
        _ => {
            "debug,mykube=trace,mykube_agent=trace,mykube_client=trace,mykube_dial=trace,mykube_link=trace,mykube_relay=trace,mykube_sign_in=trace,mykube_tunnel=trace"
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn libraries_never_go_past_debug() {
        let expected = [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
        for (verbose, ours) in expected.into_iter().enumerate() {
            let text = directives(u8::try_from(verbose).unwrap());
            let filter: EnvFilter = text.parse().unwrap();
            assert_eq!(filter.max_level_hint(), Some(ours));
            assert!(!text.split(',').any(|directive| directive == "trace"));
        }
    }
}
