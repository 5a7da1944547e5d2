//! Why a kubeconfig is not changed, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use super::limits::FILE_MAX;
use crate::kubeconfig::WelcomeError;

/// Why the kubeconfig is not, or no longer, as it should be.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// No `KUBECONFIG` and no home, or a `KUBECONFIG` without a file.
    #[error(
        "there is no kubeconfig to merge into, as KUBECONFIG names no file or there is no home directory: set KUBECONFIG or HOME"
    )]
    NoHome,
    /// A directory or a device, `/dev/null` mostly.
    #[error("cannot merge into {}: it is not a regular file; name another with KUBECONFIG, or leave --merge out", .0.display())]
    NotAFile(PathBuf),
    /// Too long.
    #[error("cannot merge into {}: it is longer than {} MiB and no kubeconfig; check KUBECONFIG", .0.display(), FILE_MAX >> 20)]
    TooLarge(PathBuf),
    /// Not text.
    #[error("cannot merge into {}: it is not text in UTF-8, or in UTF-16 with a byte order mark, and no kubeconfig; check KUBECONFIG", .0.display())]
    NotText(PathBuf),
    /// Not a kubeconfig, or one that cannot be changed without risk.
    #[error("cannot merge into {}: {problem}; correct it (`kubectl config view` reads it too), or leave --merge out", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: DocumentError,
    },
    /// Its owner, or whoever took the write bit away, does not want it changed.
    #[error("cannot merge into {}: it is read-only; make it writable, name another with KUBECONFIG, or leave --merge out", .0.display())]
    ReadOnly(PathBuf),
    /// Replacing it would change its owner.
    #[error("cannot merge into {}: it belongs to somebody else, which could not be kept; leave --merge out", .0.display())]
    Owner(PathBuf),
    /// Another program changes the file, or died while it did.
    #[error(
        "{} was there for {} s: another program is changing that kubeconfig. If none is, it died: remove the .lock file and try again",
        lock.display(), wait.as_secs_f32()
    )]
    Locked {
        /// The lock.
        lock: PathBuf,
        /// How long it was waited for.
        wait: Duration,
    },
    /// Another program, which knows no lock, changes the file all the time.
    #[error("{} is being changed by another program all the time: try again", .0.display())]
    Busy(PathBuf),
    /// What the system said.
    #[error("cannot {what} {}: {source}; --merge must be able to write there, leave it out otherwise", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Credentials that kubectl takes from the kubeconfig alone.
    #[error(
        "this cluster's credentials are a password, which kubectl reads from no other file, and --merge writes none into your kubeconfig: leave --merge out"
    )]
    Password,
    /// The other end sent something that cannot go into a kubeconfig.
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
}

/// Why a text cannot be changed. Never holds the text: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not YAML.
    #[error("it is not valid YAML (line {line}, column {column})")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// YAML, but not a kubeconfig.
    #[error("it is no kubeconfig: {0}")]
    Shape(&'static str),
    /// One of the three lists is something else.
    #[error("its `{0}` is not a list")]
    NotAList(&'static str),
    /// The result would say something else.
    #[error("`{0}` is written in a way that mykube cannot change safely")]
    Unsafe(&'static str),
}
