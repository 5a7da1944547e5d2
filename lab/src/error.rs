//! The errors of a lab, and what to do about them.

use std::io;

/// Why a network, a link or a proxy could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Only root may make namespaces and TUN devices.
    #[error("network namespaces and TUN devices need root: run this as root, or leave these tests out")]
    NotRoot,
    /// A program of iproute2 refused.
    #[error("`{command}` failed: {said}")]
    Command {
        /// The whole command line.
        command: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's error.
        source: io::Error,
    },
    /// A command or a value cannot be parsed.
    #[error("{0}")]
    Words(String),
}

impl LabError {
    /// For `map_err`: adds what was being done.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what: what.into(), source: source.into() }
    }
}
