//! The file of the ticket key, which never leaves the data directory.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use mykube_relay_core::ticket::{KEY_LEN, TicketKey};
use rand::Rng as _;
use tracing::warn;
use zeroize::Zeroizing;

#[cfg(unix)]
use crate::private_file::own_uid;
use crate::private_file::{self, NotPrivate};

const KEY_FILE: &str = "ticket.key";

/// Why the ticket key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The data directory or the key file cannot be read or written.
    #[error("cannot use the relay's data directory: {path}: {source}; choose another with --data-dir")]
    Io {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could forge tickets.
    #[error("other users may read the ticket key {path} (mode {mode:o}): run `chmod 600 {path}`, or delete it to have a new one (running sessions then need new codes)", path = path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user made it, or the file system gives root's files to another user (NFS with `root_squash`).
    #[error("the ticket key {path} belongs to another user (uid {owner}), who can read and replace it: run the relay as that user, `chown` it, or choose another directory with --data-dir", path = path.display())]
    Foreign {
        /// The key file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// A link may lead to somebody else's file.
    #[error("the ticket key {path} is not a regular file of its directory (a symbolic link out of it, say): put the key itself there, or delete it to have a new one (running sessions then need new codes)", path = path.display())]
    NoFile {
        /// The key file.
        path: PathBuf,
    },
    /// Not 32 bytes.
    #[error("the ticket key {path} is damaged (not 32 bytes): delete it to have a new one (running sessions then need new codes)", path = path.display())]
    Damaged {
        /// The key file.
        path: PathBuf,
    },
}

/// Reads the key of this data directory, or makes the directory (0700) and the key (0600) if they do not exist. Where other
/// users may write to the directory, as is common for volumes, that is logged; a key that another user put there is refused.
///
/// # Errors
/// The directory or file cannot be used, the file is another user's, others may read it, or it is damaged.
pub(crate) fn load_or_create(data_dir: &Path) -> Result<TicketKey, KeyError> {
    let at_dir = |source| KeyError::Io { path: data_dir.to_owned(), source };
    create_private_dir(data_dir).map_err(at_dir)?;
    #[cfg(unix)]
    warn_of_others(data_dir).map_err(at_dir)?;
    let path = data_dir.join(KEY_FILE);
    let at = |source| KeyError::Io { path: path.clone(), source };
    if let Some(file) = open(&path)? {
        private_file::remove_drafts(&path).map_err(at)?;
        return read(&path, file);
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::rng().fill_bytes(key.as_mut());
    // Another relay may start on the same directory: the key of the one that wins is used by both.
    private_file::create(&path, key.as_ref()).map_err(at)?;
    // Read it back, so that a file that later starts would refuse is refused now.
    let file = open(&path)?.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
    read(&path, file)
}

fn open(path: &Path) -> Result<Option<fs::File>, KeyError> {
    let path = path.to_owned();
    private_file::open(&path).map_err(|error| match error {
        NotPrivate::Io(source) => KeyError::Io { path, source },
        NotPrivate::Exposed(mode) => KeyError::Exposed { path, mode },
        NotPrivate::Foreign(owner) => KeyError::Foreign { path, owner },
        NotPrivate::NoFile => KeyError::NoFile { path },
    })
}

fn read(path: &Path, mut file: fs::File) -> Result<TicketKey, KeyError> {
    let at = |source| KeyError::Io { path: path.to_owned(), source };
    let damaged = || KeyError::Damaged { path: path.to_owned() };
    if file.metadata().map_err(at)?.len() != KEY_LEN as u64 {
        return Err(damaged());
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    file.read_exact(key.as_mut()).map_err(|_| damaged())?;
    Ok(TicketKey::new(key))
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Logs which other users may write to the directory. They can delete the key, but a key that they put there is refused as
/// theirs.
#[cfg(unix)]
fn warn_of_others(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let (link, itself) = (fs::symlink_metadata(dir)?, fs::metadata(dir)?);
    let dir = dir.display();
    if let Some(owner) = [link.uid(), itself.uid()].into_iter().find(|owner| ![0, own_uid()].contains(owner)) {
        warn!(
            "the relay's data directory {dir} is another user's (uid {owner}): they can delete the ticket key, not replace it"
        );
    }
    // In a sticky directory users cannot delete each other's files.
    let (mode, others, sticky) = (itself.mode() & 0o7777, 0o002, 0o1000);
    if mode & others != 0 && mode & sticky == 0 {
        warn!(
            "other users may write to the relay's data directory {dir} (mode {mode:o}): they can delete the ticket key, not replace it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mykube_protocol::{Claims, Class, Role, SessionId};

    use super::*;

    fn claims() -> Claims {
        Claims {
            session: SessionId::from_bytes([1; 16]),
            role: Role::Agent,
            class: Class::Session,
            confirmed: None,
            nameplate: Some("483".parse().unwrap()),
            expires_at: 1000,
        }
    }

    #[test]
    fn the_key_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("relay");
        let ticket = load_or_create(&data).unwrap().sign(&claims());
        assert!(load_or_create(&data).unwrap().verify(&ticket, 0).is_ok());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no draft is left behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&data), 0o700);
            assert_eq!(mode(&data.join(KEY_FILE)), 0o600);
            fs::set_permissions(data.join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
            let error = load_or_create(&data).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_somebody_else_may_have_put_there_is_refused() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let load = |name: &str| load_or_create(&dir.path().join(name));
        load("own").unwrap();
        let (own, linked) = (dir.path().join("own"), dir.path().join("linked"));
        fs::create_dir(&linked).unwrap();
        symlink(own.join(KEY_FILE), linked.join(KEY_FILE)).unwrap();
        let error = load("linked").unwrap_err();
        assert!(matches!(error, KeyError::NoFile { .. }), "{error}");
        fs::remove_file(linked.join(KEY_FILE)).unwrap();
        // The relay makes no key at the target of a link either.
        symlink(dir.path().join("elsewhere"), linked.join(KEY_FILE)).unwrap();
        assert!(matches!(load("linked"), Err(KeyError::NoFile { .. })));
        assert!(!dir.path().join("elsewhere").exists());
        let pipe = dir.path().join("pipe");
        fs::create_dir(&pipe).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe.join(KEY_FILE), rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(load("pipe"), Err(KeyError::NoFile { .. })), "and not waited for");

        // A service manager's link to the directory is followed.
        symlink(&own, dir.path().join("own-link")).unwrap();
        load("own-link").unwrap();
    }

    /// Kubelet makes an emptyDir 0777, with fsGroup 2777; a bind mount may be another user's.
    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_may_write_to_does_and_a_key_of_theirs_does_not() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let owners = if own_uid() == 0 { &[0, 65_534][..] } else { &[own_uid()] };
        for (owner, mode) in owners.iter().flat_map(|owner| [0o700, 0o777, 0o2777, 0o1777, 0o2770].map(|m| (*owner, m)))
        {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            chown(&dir, Some(owner), None).unwrap();
            let load = || load_or_create(dir.path());
            let ticket = load().unwrap().sign(&claims());
            assert!(load().unwrap().verify(&ticket, 0).is_ok(), "{owner} {mode:o}");
            if own_uid() == 0 {
                chown(dir.path().join(KEY_FILE), Some(65_534), None).unwrap();
                assert!(matches!(load(), Err(KeyError::Foreign { owner: 65_534, .. })), "{owner} {mode:o}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_stays_in_the_directory_is_followed() {
        use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        // As a Kubernetes Secret is mounted.
        let (mount, version) = (dir.path().join("mount"), dir.path().join("mount/..2026"));
        fs::create_dir_all(&version).unwrap();
        let file = version.join(KEY_FILE);
        private_file::create(&file, &[7; KEY_LEN]).unwrap();
        symlink("..2026", mount.join("..data")).unwrap();
        symlink(format!("..data/{KEY_FILE}"), mount.join(KEY_FILE)).unwrap();
        let load = || load_or_create(&mount);
        let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o400);
        assert!(load().unwrap().verify(&TicketKey::new([7; KEY_LEN].into()).sign(&claims()), 0).is_ok());
        mode(0o440);
        assert!(matches!(load(), Err(KeyError::Exposed { mode: 0o440, .. })));
        mode(0o400);
        if own_uid() == 0 {
            chown(&file, Some(65_534), None).unwrap();
            assert!(matches!(load(), Err(KeyError::Foreign { owner: 65_534, .. })));
            chown(&file, Some(0), None).unwrap();
        }
        // No part of a link's path may lead out of the directory.
        fs::rename(&version, dir.path().join("elsewhere")).unwrap();
        assert!(matches!(load(), Err(KeyError::NoFile { .. })), "to nothing");
        fs::remove_file(mount.join("..data")).unwrap();
        symlink("../elsewhere", mount.join("..data")).unwrap();
        assert!(matches!(load(), Err(KeyError::NoFile { .. })));
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        private_file::create(&dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(matches!(load_or_create(dir.path()), Err(KeyError::Damaged { .. })));
    }
}
