//! The keys file: made at the first start, read at every other one, and nobody else's.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use mykube_relay::private_file::{self, NotPrivate};
use mykube_relay_accounts::keys::{Keys, KeysFileError};
use tracing::info;
use zeroize::Zeroizing;

/// Longest file that is read: far more than it may hold.
const LONGEST: usize = 64 * 1024;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file, or its directory.
    #[error("cannot use the relay's keys file {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could sign in as anybody.
    #[error("other users may read the relay's keys file {path} (mode {mode:o}): run `chmod 600 {path}`, and have its secrets replaced if anybody did", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user made it, who can read and replace it.
    #[error("the relay's keys file {path} belongs to another user (uid {owner}): run the relay as that user, `chown` it, or name another one with `keys_file`", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// A link may lead to somebody else's file.
    #[error("the relay's keys file {path} is not a regular file of its directory (a symbolic link out of it, say): put the file itself there", path = path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// It is not as it was written.
    #[error("the relay's keys file {path} cannot be used: {source}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeysFileError,
    },
}

/// Reads the keys, or makes them where there are none.
pub(crate) fn load_or_create(path: &Path) -> Result<Keys, KeysError> {
    let at = |source| KeysError::File { path: path.to_owned(), source };
    if let Some(file) = open(path)? {
        private_file::remove_drafts(path).map_err(at)?;
        return read(path, file);
    }
    path.parent().map_or(Ok(()), create_private_directory).map_err(at)?;
    // Another node may start on the same file: both use the keys of the one that wins.
    if private_file::create(path, Keys::generate(&mut rand::rng()).serialise().as_bytes()).map_err(at)? {
        info!(file = %path.display(), "keys made");
    }
    let file = open(path)?.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
    read(path, file)
}

fn open(path: &Path) -> Result<Option<fs::File>, KeysError> {
    let path = path.to_owned();
    private_file::open(&path).map_err(|error| match error {
        NotPrivate::Io(source) => KeysError::File { path, source },
        NotPrivate::Exposed(mode) => KeysError::Exposed { path, mode },
        NotPrivate::Foreign(owner) => KeysError::Foreign { path, owner },
        NotPrivate::NoFile => KeysError::NoFile { path },
    })
}

fn read(path: &Path, file: fs::File) -> Result<Keys, KeysError> {
    // All at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    let read = file.take(LONGEST as u64).read_to_string(&mut text);
    read.map_err(|source| KeysError::File { path: path.to_owned(), source })?;
    Keys::parse(&text).map_err(|source| KeysError::Content { path: path.to_owned(), source })
}

fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if path.as_os_str().is_empty() { Ok(()) } else { builder.create(path) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/keys");
        let made = load_or_create(&path).unwrap().serialise();
        assert_eq!(*load_or_create(&path).unwrap().serialise(), *made);
        assert_eq!(fs::read_dir(dir.path().join("data")).unwrap().count(), 1, "no draft stays");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_create(&path), Err(KeysError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(load_or_create(&path), Err(KeysError::Content { .. })));
    }

    #[test]
    fn keys_that_somebody_else_may_have_put_there_are_refused_and_a_draft_of_a_crash_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("data/keys"), dir.path().join("other/keys"));
        let made = load_or_create(&path).unwrap().serialise();
        let stale = dir.path().join("data/.keys.a1B2c3.draft");
        fs::hard_link(&path, &stale).unwrap();
        assert_eq!(*load_or_create(&path).unwrap().serialise(), *made);
        assert!(!stale.exists(), "it is another name of live secrets");

        fs::create_dir(other.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&path, &other).unwrap();
        assert!(matches!(load_or_create(&other), Err(KeysError::NoFile { .. })));
        fs::remove_file(&other).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &other, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(load_or_create(&other), Err(KeysError::NoFile { .. })), "and not waited for");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(matches!(load_or_create(&path), Err(KeysError::Foreign { owner: 65_534, .. })));
        }
    }
}
