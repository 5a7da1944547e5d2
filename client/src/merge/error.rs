//! Why a kubeconfig is not changed, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use super::limits::FILE_MAX;
use crate::kubeconfig::WelcomeError;

/// Why the kubeconfig cannot be changed, or its entries not be removed.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is no `KUBECONFIG` and no home, or a `KUBECONFIG` without a file.
    #[error(
        "there is no kubeconfig to merge into, as KUBECONFIG names no file or there is no home directory: set KUBECONFIG or HOME"
    )]
    NoHome,
    /// It is a directory or a device, mostly `/dev/null`.
    #[error("cannot merge into {}: it is not a regular file; name another with KUBECONFIG, or leave --merge out", .0.display())]
    NotAFile(PathBuf),
    /// It is too long.
    #[error("cannot merge into {}: it is longer than {} MiB and no kubeconfig; check KUBECONFIG", .0.display(), FILE_MAX >> 20)]
    TooLarge(PathBuf),
    /// It is not text.
    #[error("cannot merge into {}: it is not text in UTF-8, or in UTF-16 with a byte order mark, and no kubeconfig; check KUBECONFIG", .0.display())]
    NotText(PathBuf),
    /// It is no kubeconfig, or one that cannot be changed without risk.
    #[error("cannot merge into {}: {problem}; correct it (`kubectl config view` reads it too), or leave --merge out", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: DocumentError,
    },
    /// The file is not writable: its owner does not want it changed.
    #[error("cannot merge into {}: it is read-only; make it writable, name another with KUBECONFIG, or leave --merge out", .0.display())]
    ReadOnly(PathBuf),
    /// Replacing it would change its owner.
    #[error("cannot merge into {}: it belongs to somebody else, which could not be kept; leave --merge out", .0.display())]
    Owner(PathBuf),
    /// Another program is changing the file, or died while it did.
    #[error(
        "{} was there for {} s: another program is changing that kubeconfig. If none is, it died: remove the .lock file and try again",
        lock.display(), wait.as_secs_f32()
    )]
    Locked {
        /// The lock.
        lock: PathBuf,
        /// How long we waited for it.
        wait: Duration,
    },
    /// Another program, which ignores the lock, changes the file all the time.
    #[error("{} is being changed by another program all the time: try again", .0.display())]
    Busy(PathBuf),
    /// The system's error.
    #[error("cannot {what} {}: {source}; --merge must be able to write there, leave it out otherwise", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The agent sent credentials that kubectl reads from the kubeconfig only.
    #[error(
        "this cluster's credentials are a password, which kubectl reads from no other file, and --merge writes none into your kubeconfig: leave --merge out"
    )]
    Password,
    /// The other end sent a field that cannot go into a kubeconfig.
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
}

/// Why a text cannot be changed. Never holds the text: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is not YAML.
    #[error("it is not valid YAML (line {line}, column {column})")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// It is YAML, but no kubeconfig.
    #[error("it is no kubeconfig: {0}")]
    Shape(&'static str),
    /// The value of one of the three lists is not a list.
    #[error("its `{0}` is not a list")]
    NotAList(&'static str),
    /// The result would mean something else.
    #[error("`{0}` is written in a way that mykube cannot change safely")]
    Unsafe(&'static str),
}
