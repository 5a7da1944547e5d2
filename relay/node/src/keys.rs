//! The keys file: made at the first start, read at every other one, and nobody else's.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mykube_relay::private_file::{self, NotPrivate};
use mykube_relay_accounts::{
    keys::{Keys, KeysFileError},
    time::UnixTime,
};
use tracing::{error, info};
use zeroize::Zeroizing;

/// How often a relay looks whether its keys file is another one.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// After how long every relay on the file has read it: a new secret signs from then on.
const TAKEN: Duration = Duration::from_secs(60);
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

/// Which file it is: another one since, if this differs.
type Version = (u64, i64, i64, u64);

/// A keys file that is looked at again and again.
pub(crate) struct Watched {
    path: PathBuf,
    keys: Keys,
    /// Of the file that was read last.
    version: Option<Version>,
    /// Of the one that could not be read, which was said.
    told: Option<Option<Version>>,
}

impl Watched {
    pub(crate) fn new(path: PathBuf, keys: Keys) -> Self {
        // What was written between reading it and now is read again, for nothing.
        Self { path, keys, version: None, told: None }
    }

    /// The keys, if the file is another one than when it was looked at last, or one of them is over since. One that cannot be
    /// read changes nothing: that it cannot is said once.
    pub(crate) fn look(&mut self, now: UnixTime) -> Option<&Keys> {
        let version = version(&self.path);
        let mut is_read = false;
        if version != self.version {
            let is_told = self.told.replace(version) == Some(version);
            match open(&self.path).and_then(|file| file.map(|file| read(&self.path, file)).transpose()) {
                Ok(Some(keys)) => (self.keys, self.version, self.told, is_read) = (keys, version, None, true),
                // What is wrong may be mended without another version of the file: it is tried again.
                _ if is_told => {}
                Ok(None) => {
                    error!(file = %self.path.display(), "the keys file is gone; its keys count until the relay stops")
                }
                Err(error) => error!(%error, "the keys that were read before go on"),
            }
        }
        (self.keys.forget_over(now) || is_read).then_some(&self.keys)
    }
}

#[cfg(unix)]
fn version(path: &Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
}

/// Adds a secret, which signs from `signs_from` on, and forgets those that are over; `leaked`: all before it. Says what is to
/// be told.
pub(crate) fn rotate(path: &Path, now: UnixTime, leaked: bool) -> Result<String, KeysError> {
    let at = |source| KeysError::File { path: path.to_owned(), source };
    if path.is_symlink() {
        return Err(KeysError::NoFile { path: path.to_owned() });
    }
    let file = open(path)?.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
    // Of two that rotate at once one would lose what the other has written.
    file.try_lock().map_err(|_| at(io::Error::other("another rotation of its keys is going on")))?;
    let before = version(path);
    let mut keys = read(path, file.try_clone().map_err(at)?)?;
    let told = if leaked {
        keys = Keys::generate(&mut rand::rng());
        format!("secret {} is the only one from now on: everybody signs in again", keys.signing(now).kid())
    } else {
        keys.forget_over(now);
        let kid = keys.rotate(now + TAKEN, &mut rand::rng());
        let kid = kid.map_err(|error| at(io::Error::other(error.to_string())))?;
        let seconds = TAKEN.as_secs();
        format!(
            "secret {kid} signs in {seconds} seconds, when every relay has read it; what those before it made goes on"
        )
    };
    if version(path) != before {
        return Err(at(io::Error::other("it has changed meanwhile: try again")));
    }
    private_file::replace(path, keys.serialise().as_bytes()).map_err(at)?;
    Ok(told)
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

    #[test]
    fn a_new_secret_is_noticed_beside_a_running_relay_and_a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let now = UnixTime::from_secs(1_800_000_000);
        let mut watched = Watched::new(path.clone(), load_or_create(&path).unwrap());
        let kids = |keys: &Keys| keys.accepted().map(|key| key.kid()).collect::<Vec<_>>();
        let first = kids(watched.look(now).unwrap());
        assert!(watched.look(now).is_none(), "it is the same");
        let told = rotate(&path, now, false).unwrap();
        let both = kids(watched.look(now).unwrap());
        assert!(both.len() == 2 && both[1] == first[0] && told.contains(&both[0].to_string()), "{told}");
        assert_eq!(watched.keys.signing(now).kid(), first[0], "until all have read it");
        assert_eq!(watched.keys.signing(now + TAKEN).kid(), both[0]);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, fs::read_dir(&dir).unwrap().count()), (0o600, 1));

        let good = fs::read(&path).unwrap();
        private_file::replace(&path, b"nonsense").unwrap();
        assert!(watched.look(now).is_none());
        assert_eq!(kids(&watched.keys), both);
        private_file::replace(&path, &good).unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(watched.look(now).is_none(), "others may read it");
        mode(0o600);
        assert!(watched.look(now).is_some(), "it is mended, and the same file");
        let over = now + TAKEN + mykube_relay_accounts::keys::OVERLAP;
        assert_eq!(kids(watched.look(over).unwrap()), both[..1], "what is over is forgotten without anybody's doing");
        assert!(rotate(&path, over, false).is_ok());
        assert_eq!(kids(watched.look(over).unwrap()).len(), 2, "and in the file by the next rotation");

        rotate(&path, over, true).unwrap();
        let only = kids(watched.look(over).unwrap());
        assert!(only.len() == 1 && !both.contains(&only[0]));
        let held = fs::File::open(&path).unwrap();
        held.try_lock().unwrap();
        assert!(rotate(&path, over, false).unwrap_err().to_string().contains("another rotation"));
        assert!(matches!(rotate(&dir.path().join("none"), over, false), Err(KeysError::File { .. })));
    }
}
