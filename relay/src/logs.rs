//! Where a relay's log lines go: standard error, for a person or for a machine.

use tracing_subscriber::{EnvFilter, fmt};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging: `verbosity` is the number of `-v` less the number of `-q`. `MYKUBE_LOG` overrides it.
pub fn init(format: LogFormat, verbosity: i16) {
    let level = match verbosity {
        ..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "info,mykube_relay=debug",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("MYKUBE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => {
            logs.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
}
