//! How a server ends, well or not.

use mykube_agent_upstream::KubeconfigError;
use mykube_dial::DialError;
use mykube_link::End;

use super::config::BURNED_MAX;

/// Why a server ended, when not by its client's or its operator's word.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The relay.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The kubeconfig or its credentials.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// A code was burned, and the operator wanted no other.
    #[error("the code was burned, and no new one was wanted")]
    Burned,
    /// Too many burned codes, unattended.
    #[error("{BURNED_MAX} codes were burned by wrong guesses: somebody is guessing; start again when you know who")]
    Guessing,
    /// The words differ, or nobody could say.
    #[error("the four words were not confirmed as equal, so nothing was shared: someone may be in the middle")]
    WordsDiffer,
    /// Words to compare and nobody to compare them.
    #[error("the four words must be compared, and there is no terminal to ask at: start the server on a terminal")]
    NobodyToAsk,
    /// The session was lost: exit code 5.
    #[error("the session is lost: {0}; start both ends again with a new code")]
    Lost(End),
    /// The audit log takes no more lines, and nothing is done unlogged.
    #[error("the audit log takes no more lines: is its disk full?")]
    Audit,
    /// The welcome cannot be sent.
    #[error("{0}")]
    Welcome(String),
}

/// How a server, or the session of one client, ended well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The client said bye.
    #[error("{0}")]
    Client(String),
    /// `stop` came.
    #[error("the server was stopped")]
    Stopped,
    /// The server ended it: its operator did, its access expired, or another client replaced this one.
    #[error("{0}")]
    ByServer(String),
}
