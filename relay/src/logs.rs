//! Where log lines go: standard error, for a person or for a machine.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

mod lines;

pub(crate) use lines::dropped;
pub use lines::{Lines, Logs};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging: `verbosity` is the number of `-v` less the number of `-q`. `MYKUBE_LOG` overrides it. Whenever more than the
/// default is asked for, every line is written; otherwise their rate is limited ([`Lines::start`]).
///
/// # Errors
/// The thread that writes cannot be started.
pub fn init(format: LogFormat, verbosity: i16) -> io::Result<Logs> {
    let level = match verbosity {
        ..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "info,mykube_relay=debug",
        2 => "debug",
        _ => "trace",
    };
    let asked = EnvFilter::try_from_env("MYKUBE_LOG");
    let (lines, writing) = Lines::start(std::io::stderr(), verbosity > 0 || asked.is_ok())?;
    let logs = fmt().with_env_filter(asked.unwrap_or_else(|_| EnvFilter::new(level))).with_writer(lines);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => logs.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(writing)
}
