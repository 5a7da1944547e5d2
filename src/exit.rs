//! How a command ends: docs and scripts rely on these codes.

use std::process::ExitCode;

use mykube_client::ShellError;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Status {
    /// Anything that is none of the others.
    Failed = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// Wrong or expired code.
    WrongCode = 3,
    /// The relay cannot be reached, or is none.
    RelayUnreachable = 4,
    /// The session was lost, or ended by the other end.
    SessionLost = 5,
    /// The command after `--` cannot be run.
    NotExecutable = 126,
    /// The command after `--` is not there.
    NotFound = 127,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// A failure with the code it exits with. The message says what failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl ToString) -> Self {
        Self { status, message: message.to_string() }
    }

    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new(Status::Failed, message)
    }

    /// Of a shell or command that does not run.
    pub(crate) fn shell(error: &ShellError) -> Self {
        let status = match error.exit_code() {
            Some(127) => Status::NotFound,
            Some(_) => Status::NotExecutable,
            None => Status::Failed,
        };
        Self::new(status, error)
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::new(Status::Usage, message)
    }
}
