//! Private files: only the user's, whole or not at all.

use std::{
    convert::Infallible,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use tracing::debug;
use zeroize::Zeroizing;

use crate::error::SignInError;

/// Longest file that is read.
const LONGEST: u64 = 64 * 1024;

/// Who may be able to read a file that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// This user alone.
    User,
    /// Anybody: what is in it is about to be ended.
    Anybody,
}

/// A private file's content; nothing where there is none.
pub(crate) fn read(path: &Path, readers: Readers) -> Result<Option<Zeroizing<Vec<u8>>>, SignInError> {
    let at = |source| SignInError::File { path: path.to_owned(), source };
    let file = match OpenOptions::new().read(true).custom_flags(flags()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link would be replaced at the next write, and what it led to would keep the old tokens.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            return Err(SignInError::NoFile { path: path.to_owned() });
        }
        file => file.map_err(at)?,
    };
    let metadata = file.metadata().map_err(at)?;
    if !metadata.is_file() {
        return Err(SignInError::NoFile { path: path.to_owned() });
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(SignInError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    let mode = metadata.mode() & 0o7777;
    if readers == Readers::User && mode & 0o077 != 0 {
        return Err(SignInError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(4096));
    file.take(LONGEST).read_to_end(&mut content).map_err(at)?;
    Ok(Some(content))
}

/// No link is followed; and of a pipe that somebody put there, no other end is waited for.
fn flags() -> i32 {
    (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW).bits().cast_signed()
}

/// Writes a private file in the place of what was there: after a crash it is the one or the other.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), SignInError> {
    let at = |source| SignInError::File { path: path.to_owned(), source };
    let directory = path.parent().ok_or_else(|| at(io::ErrorKind::InvalidInput.into()))?;
    create_directory(directory).map_err(at)?;
    let mut draft =
        tempfile::Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(directory).map_err(at)?;
    draft.write_all(content).and_then(|()| draft.as_file().sync_all()).map_err(at)?;
    draft.persist(path).map_err(|error| at(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at)
}

/// Whether files can be made in this directory.
pub(crate) fn may_write(directory: &Path) -> Result<(), SignInError> {
    match tempfile::tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(source) => Err(SignInError::File { path: directory.to_owned(), source }),
    }
}

/// Removes a file that may not be there.
pub(crate) fn remove(path: &Path) -> Result<(), SignInError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SignInError::File { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Waits until no other process of this user holds it, but no longer than `most`; it is let go of with the file.
pub(crate) async fn lock(path: &Path, most: Duration) -> Result<File, SignInError> {
    match lock_unless(path, most, || None::<Infallible>).await? {
        ControlFlow::Continue(lock) => Ok(lock),
    }
}

/// The same, unless what it is wanted for is found meanwhile: who holds it may have that long before it lets go.
pub(crate) async fn lock_unless<T>(
    path: &Path,
    most: Duration,
    mut found: impl FnMut() -> Option<T>,
) -> Result<ControlFlow<T, File>, SignInError> {
    const AGAIN: Duration = Duration::from_millis(50);
    let at = |source| SignInError::File { path: path.to_owned(), source };
    path.parent().map_or(Ok(()), create_directory).map_err(at)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags());
    let file = options.open(path).map_err(at)?;
    let until = Instant::now() + most;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(ControlFlow::Continue(file)),
            Err(TryLockError::Error(error)) => return Err(at(error)),
            Err(TryLockError::WouldBlock) => {
                if let Some(found) = found() {
                    return Ok(ControlFlow::Break(found));
                }
                if Instant::now() >= until {
                    return Err(SignInError::Busy { path: path.to_owned() });
                }
                if !std::mem::replace(&mut told, true) {
                    debug!(path = %path.display(), "another process has the lock");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/credentials");
        let read = |readers| super::read(&path, readers);
        assert!(read(Readers::User).unwrap().is_none());
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read(Readers::User).unwrap().unwrap().as_slice(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft stays behind");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(Readers::User), Err(SignInError::Exposed { mode: 0o640, .. })));
        assert_eq!(read(Readers::Anybody).unwrap().unwrap().as_slice(), b"two");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read(Readers::User).unwrap().is_none());
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(read(Readers::User), Err(SignInError::NoFile { .. })), "and not waited for");
        remove(&path).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        write(&elsewhere, b"one").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(read(Readers::Anybody), Err(SignInError::NoFile { .. })), "no link is followed");
        remove(&path).unwrap();
        if rustix::process::geteuid().is_root() {
            write(&path, b"one").unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(matches!(read(Readers::Anybody), Err(SignInError::Foreign { owner: 65_534, .. })));
        }
    }

    #[tokio::test]
    async fn who_holds_a_lock_for_too_long_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay/lock");
        let held = lock(&path, Duration::ZERO).await.unwrap();
        assert!(matches!(lock(&path, Duration::ZERO).await, Err(SignInError::Busy { .. })));
        drop(held);
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert!(matches!(lock(&pipe, Duration::ZERO).await, Err(SignInError::File { .. })), "and not waited for");
        lock(&path, Duration::ZERO).await.unwrap();
    }
}
