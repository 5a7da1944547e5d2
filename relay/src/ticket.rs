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
    /// The directory or file cannot be used, others may read the key, or it is damaged.
    pub(crate) fn load_or_create(data_dir: &Path) -> Result<Self, KeyError> {
        create_private_dir(data_dir).map_err(|source| KeyError::Io { path: data_dir.to_owned(), source })?;
        let path = data_dir.join(KEY_FILE);
        let at = |source| KeyError::Io { path: path.clone(), source };
        match fs::File::open(&path) {
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
                        Self::read(&path, fs::File::open(&path).map_err(at)?)
                    }
                    Err(error) => Err(at(error)),
                }
            }
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
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = metadata.permissions().mode() & 0o7777;
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
