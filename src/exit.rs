//! The exit codes, on which docs and scripts rely, and failures.

use std::process;

use mykube_client::ShellError;

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Any other failure.
    Failed = 1,
    /// The command line asks for something impossible.
    Usage = 2,
    /// Wrong or expired code.
    WrongCode = 3,
    /// The relay cannot be reached, or the address answers but is not a trusted relay (login page, untrusted
    /// certificate).
    RelayUnreachable = 4,
    /// The session was lost, or ended by the other end.
    SessionLost = 5,
    /// The command after `--` cannot be run.
    NotExecutable = 126,
    /// The command after `--` does not exist.
    NotFound = 127,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A failure with its exit code. The message says what failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(code: ExitCode, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new(ExitCode::Failed, message)
    }

    /// The failure of a shell or command that does not run.
    pub(crate) fn shell(error: &ShellError) -> Self {
        let code = match error.exit_code() {
            Some(127) => ExitCode::NotFound,
            Some(_) => ExitCode::NotExecutable,
            None => ExitCode::Failed,
        };
        Self::new(code, error)
    }

    pub(crate) fn usage(message: impl ToString) -> Self {
        Self::new(ExitCode::Usage, message)
    }
}
