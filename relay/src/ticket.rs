//! Signing and checking tickets: HMAC-SHA256 over the claims, with a key that never leaves the data directory.
//!
//! A relay that starts again with the same key admits both ends of a session without having kept anything of it.

use std::{
    fmt, fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use mykube_protocol::{Claims, Ticket, ticket::MAC_LEN};
use rand::Rng as _;
use sha2::Sha256;
use zeroize::Zeroizing;

const DOMAIN: &[u8] = b"mykube/2 ticket";
const KEY_LEN: usize = 32;
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
    /// Somebody else put it there.
    #[error("{path} belongs to another user (uid {owner}), who could read or replace the ticket key: run the relay as that user, `chown` it, or choose another directory with --data-dir", path = path.display())]
    Foreign {
        /// The key file, the data directory, or a link to it.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A link may lead to somebody else's file.
    #[error("the ticket key {path} is not a regular file (a symbolic link, say): put the key itself there, or delete it to have a new one (running sessions then need new codes)", path = path.display())]
    NoFile {
        /// The key file.
        path: PathBuf,
    },
    /// Others could put a key there.
    #[error("other users may write to the relay's data directory {path} (mode {mode:o}): run `chmod o-w {path}`, or choose another with --data-dir", path = path.display())]
    Open {
        /// The data directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not 32 bytes.
    #[error("the ticket key {path} is damaged (not 32 bytes): delete it to have a new one (running sessions then need new codes)", path = path.display())]
    Damaged {
        /// The key file.
        path: PathBuf,
    },
}

/// A ticket that does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TicketError {
    /// Not signed by this relay's key, or no ticket at all.
    #[error("this ticket was not given out by this relay: a new code is needed")]
    Forged,
    /// Its time is over.
    #[error("this ticket has expired: a new code is needed")]
    Expired,
}

/// The relay's ticket key. Wiped on drop, prints nothing.
pub(crate) struct TicketKey(Zeroizing<[u8; KEY_LEN]>);

impl TicketKey {
    /// Reads the key of this data directory, or makes directory (0700) and key (0600) where there are none.
    ///
    /// # Errors
    /// The directory or file cannot be used, others may read the key or put another in its place, or it is damaged.
    pub(crate) fn load_or_create(data_dir: &Path) -> Result<Self, KeyError> {
        create_private_dir(data_dir).map_err(|source| KeyError::Io { path: data_dir.to_owned(), source })?;
        #[cfg(unix)]
        check_dir(data_dir)?;
        let path = data_dir.join(KEY_FILE);
        let at = |source| KeyError::Io { path: path.clone(), source };
        match open_file(&path) {
            Ok(file) => Self::read(&path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; KEY_LEN]);
                rand::rng().fill_bytes(key.as_mut());
                // Another relay may start on the same directory: whoever links first wins, and both use that key.
                let draft = data_dir.join(format!(".{KEY_FILE}.{}", std::process::id()));
                write_private(&draft, key.as_ref()).map_err(at)?;
                let linked = fs::hard_link(&draft, &path);
                fs::remove_file(&draft).map_err(at)?;
                match linked {
                    Ok(()) => Ok(Self(key)),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Self::read(&path, open_file(&path).map_err(at)?)
                    }
                    Err(error) => Err(at(error)),
                }
            }
            Err(_) if path.is_symlink() => Err(KeyError::NoFile { path }),
            Err(error) => Err(at(error)),
        }
    }

    /// A key from its bytes.
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &Claims) -> Ticket {
        let mut bytes = claims.encode();
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        Ticket::from_bytes(&bytes)
    }

    /// Checks the signature in constant time, then the time. `unix` is seconds since the epoch.
    ///
    /// # Errors
    /// Forged or expired.
    pub(crate) fn verify(&self, ticket: &Ticket, unix: u64) -> Result<Claims, TicketError> {
        let bytes = ticket.to_bytes();
        let at = bytes.len().checked_sub(MAC_LEN).ok_or(TicketError::Forged)?;
        let (claims, mac) = bytes.split_at(at);
        self.mac(claims).verify_slice(mac).map_err(|_| TicketError::Forged)?;
        let claims = Claims::decode(claims).map_err(|_| TicketError::Forged)?;
        if claims.expires_at <= unix { Err(TicketError::Expired) } else { Ok(claims) }
    }

    fn mac(&self, claims: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_ref()).expect("HMAC takes a key of any length");
        mac.update(DOMAIN);
        mac.update(claims);
        mac
    }

    fn read(path: &Path, mut file: fs::File) -> Result<Self, KeyError> {
        let at = |source| KeyError::Io { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(at)?;
        if !metadata.is_file() {
            return Err(KeyError::NoFile { path: path.to_owned() });
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            if metadata.uid() != own_uid() {
                return Err(KeyError::Foreign { path: path.to_owned(), owner: metadata.uid() });
            }
            let mode = metadata.mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed { path: path.to_owned(), mode });
            }
        }
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        if metadata.len() != KEY_LEN as u64 {
            return Err(damaged());
        }
        let mut key = Zeroizing::new([0; KEY_LEN]);
        file.read_exact(key.as_mut()).map_err(|_| damaged())?;
        Ok(Self(key))
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The directory, and a link that leads to it, are this user's or root's. Its group may write, as the groups of volumes do:
/// a key of another owner is refused in any case.
#[cfg(unix)]
fn check_dir(dir: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::MetadataExt as _;
    let at = |source| KeyError::Io { path: dir.to_owned(), source };
    let (itself, it) = (fs::symlink_metadata(dir).map_err(at)?, fs::metadata(dir).map_err(at)?);
    if let Some(owner) = [itself.uid(), it.uid()].into_iter().find(|owner| ![0, own_uid()].contains(owner)) {
        return Err(KeyError::Foreign { path: dir.to_owned(), owner });
    }
    let (mode, sticky) = (it.mode() & 0o7777, 0o1000);
    if mode & 0o002 != 0 && mode & sticky == 0 {
        return Err(KeyError::Open { path: dir.to_owned(), mode });
    }
    Ok(())
}

#[cfg(unix)]
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Opens what is there itself: no link is followed, and no pipe waited for.
fn open_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use mykube_protocol::{Class, Role, SessionId};

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
    fn a_ticket_admits_until_it_expires() {
        let key = TicketKey::from_bytes([7; 32]);
        let ticket = key.sign(&claims());
        assert_eq!(key.verify(&ticket, 999), Ok(claims()));
        assert_eq!(key.verify(&ticket, 1000), Err(TicketError::Expired));
    }

    #[test]
    fn no_bit_of_a_ticket_can_be_changed() {
        let key = TicketKey::from_bytes([7; 32]);
        let bytes = key.sign(&claims()).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&Ticket::from_bytes(&forged), 0), Err(TicketError::Forged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(key.verify(&Ticket::from_bytes(&bytes[..len]), 0), Err(TicketError::Forged));
        }
        assert_eq!(TicketKey::from_bytes([8; 32]).verify(&Ticket::from_bytes(&bytes), 0), Err(TicketError::Forged));
    }

    #[test]
    fn the_key_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("relay");
        let ticket = TicketKey::load_or_create(&data).unwrap().sign(&claims());
        assert!(TicketKey::load_or_create(&data).unwrap().verify(&ticket, 0).is_ok());
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "no draft is left behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&data), 0o700);
            assert_eq!(mode(&data.join(KEY_FILE)), 0o600);
            fs::set_permissions(data.join(KEY_FILE), fs::Permissions::from_mode(0o640)).unwrap();
            let error = TicketKey::load_or_create(&data).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode: 0o640, .. }), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_somebody_else_may_have_put_there_is_refused() {
        use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        let load = |name: &str| TicketKey::load_or_create(&dir.path().join(name));
        load("own").unwrap();
        let (own, linked) = (dir.path().join("own"), dir.path().join("linked"));
        fs::create_dir(&linked).unwrap();
        symlink(own.join(KEY_FILE), linked.join(KEY_FILE)).unwrap();
        let error = load("linked").unwrap_err();
        assert!(matches!(error, KeyError::NoFile { .. }), "{error}");
        fs::remove_file(linked.join(KEY_FILE)).unwrap();
        // Nor is anything made where a link leads.
        symlink(dir.path().join("elsewhere"), linked.join(KEY_FILE)).unwrap();
        assert!(matches!(load("linked"), Err(KeyError::NoFile { .. })));
        assert!(!dir.path().join("elsewhere").exists());
        let pipe = dir.path().join("pipe");
        fs::create_dir(&pipe).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe.join(KEY_FILE), rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(load("pipe"), Err(KeyError::NoFile { .. })), "and not waited for");

        // A service manager's link to the directory is root's, or one's own.
        symlink(&own, dir.path().join("own-link")).unwrap();
        load("own-link").unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(load("own"), Err(KeyError::Open { mode: 0o777, .. })));
        for fits in [0o1777, 0o2770] {
            fs::set_permissions(&own, fs::Permissions::from_mode(fits)).unwrap();
            load("own").unwrap();
        }
        if own_uid() == 0 {
            chown(own.join(KEY_FILE), Some(65_534), None).unwrap();
            assert!(matches!(load("own"), Err(KeyError::Foreign { owner: 65_534, .. })));
            chown(own.join(KEY_FILE), Some(0), None).unwrap();
            chown(&own, Some(65_534), None).unwrap();
            assert!(matches!(load("own"), Err(KeyError::Foreign { owner: 65_534, .. })));
        }
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_private(&dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(matches!(TicketKey::load_or_create(dir.path()), Err(KeyError::Damaged { .. })));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", TicketKey::from_bytes([7; 32])), "TicketKey");
    }
}
