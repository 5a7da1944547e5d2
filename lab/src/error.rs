//! What can go wrong with a lab, and what to do about it.

use std::io;

/// Why a network, a link or a proxy could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and TUN devices are for root.
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
    /// The system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A command or a value was not understood.
    #[error("{0}")]
    Words(String),
}

impl LabError {
    /// For `map_err`: names what was tried.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what: what.into(), source: source.into() }
    }
}
