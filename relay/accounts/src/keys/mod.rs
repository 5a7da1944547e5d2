//! The relay's secrets, from which every key is derived that signs or hashes for people and programs. They stand in one
//! file, the same on every node, and never in the database or a backup of it.
//!
//! The file is text ([`file`]). A node reads it when it starts, and when it has changed. It is never changed in place: whoever
//! writes it writes a draft beside it (0600, synced) and renames that over it, and at the first start links the draft, so
//! that of two nodes which start at once on one directory both use the secrets of the one that was first.
//!
//! **Rotation** has an overlap. A new secret is written with the moment from which it signs, late enough for every node to
//! have read the file by then; each node accepts what any secret in its file has made. Those before it stay until they
//! are retired, [`OVERLAP`] after their successor took over: by then nothing that lasts less is left of them, and what
//! lasts longer (tokens of agents and apps) has been hashed anew when it was shown. A secret that others may have read is
//! retired at once.

use std::{fmt, str::FromStr, time::Duration};

use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::time::UnixTime;

mod file;

pub use file::KeysFileError;

/// Bytes of a derived key, and of a secret that the relay makes.
pub const KEY_LEN: usize = 32;
/// Bytes that a secret of the configuration has at least: what HMAC-SHA256 is worth.
pub const CONFIGURED_MIN: usize = 32;
/// Secrets in a file at most: each one is tried where what is shown does not say which it was made with.
pub const KEYS_MAX: usize = 8;
/// How long a secret is accepted after its successor took over: a refresh family lives no longer.
pub const OVERLAP: Duration = Duration::from_hours(90 * 24);
const DAY: Duration = Duration::from_hours(24);

/// What a key is derived for. No two of them share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Tickets of the tunnel's sockets.
    Tickets,
    /// Signatures of JWTs.
    Jwt,
    /// Hashes of the portal's session cookies, and of those that bind a sign-in to its browser.
    Cookies,
    /// What proves that a form came from the portal's own page.
    Csrf,
    /// Hashes of refresh tokens.
    Refresh,
    /// Hashes of tokens of apps and agents.
    Tokens,
    /// Hashes of what lives for minutes: codes of sign-ins, devices and emails, states of providers.
    Codes,
}

impl Purpose {
    /// The HKDF label.
    const fn label(self) -> &'static str {
        match self {
            Self::Tickets => "mykube/2 keys tickets",
            Self::Jwt => "mykube/2 keys jwt",
            Self::Cookies => "mykube/2 keys cookies",
            Self::Csrf => "mykube/2 keys csrf",
            Self::Refresh => "mykube/2 keys refresh",
            Self::Tokens => "mykube/2 keys tokens",
            Self::Codes => "mykube/2 keys codes",
        }
    }
}

/// Which secret: the first 8 bytes of what HKDF gives for `mykube/2 keys kid`, in lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kid([u8; 8]);

/// No key id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 16 lower-case hex digits")]
pub struct InvalidKid;

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Kid {
    type Err = InvalidKid;

    fn from_str(text: &str) -> Result<Self, InvalidKid> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidKid)?;
        bytes.try_into().map(Self).map_err(|_| InvalidKid)
    }
}

/// One secret. Wiped on drop, prints its id only.
pub struct Key {
    kid: Kid,
    signs_from: UnixTime,
    secret: Zeroizing<Vec<u8>>,
}

impl Key {
    fn new(secret: Zeroizing<Vec<u8>>, signs_from: UnixTime) -> Self {
        let mut kid = [0; 8];
        expand(&secret, "mykube/2 keys kid", &mut kid);
        Self { kid: Kid(kid), signs_from, secret }
    }

    /// Which one it is.
    #[must_use]
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// When it begins to sign.
    #[must_use]
    pub fn signs_from(&self) -> UnixTime {
        self.signs_from
    }

    /// The key for one purpose: HKDF-SHA256 with no salt and the purpose's label.
    #[must_use]
    pub fn derive(&self, purpose: Purpose) -> Zeroizing<[u8; KEY_LEN]> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        expand(&self.secret, purpose.label(), key.as_mut());
        key
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.kid)
    }
}

fn expand(secret: &[u8], label: &str, out: &mut [u8]) {
    let hkdf = Hkdf::<Sha256>::new(None, secret);
    hkdf.expand(label.as_bytes(), out).expect("HKDF-SHA256 gives up to 8160 bytes");
}

/// A secret of the configuration that is too short to sign anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret has {0} bytes and needs at least {CONFIGURED_MIN}: `openssl rand -base64 48` prints a good one")]
pub struct WeakSecret(pub usize);

/// Why no secret was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// There are as many as there may be.
    #[error("the keys file has {KEYS_MAX} secrets already: retire the oldest first")]
    Full,
    /// It would sign before the newest one does.
    #[error("a new secret may not sign before the newest one does")]
    Order,
}

/// Why a secret stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetireError {
    /// No such secret.
    #[error("the keys file has no secret {0}")]
    Unknown(Kid),
    /// Nothing could be signed without it.
    #[error("secret {0} signs at present: add another first")]
    Signs(Kid),
    /// What it made may still be in use.
    #[error(
        "secret {kid} may have made what is in use until {days} days from now; retiring it signs those people and programs out"
    )]
    InUse {
        /// Which one.
        kid: Kid,
        /// Days left of the overlap, rounded up.
        days: u128,
    },
}

/// All secrets, the newest last. There is always one that signs.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// A first secret, made from `rng`. It signs from the beginning of time, so that a clock which is set back signs too.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(vec![Key::new(random(rng), UnixTime::default())])
    }

    /// One secret that stands in the configuration (`JWT_SECRET`, `RELAY_JWT_SECRET`), as its bytes.
    ///
    /// # Errors
    /// It has fewer than [`CONFIGURED_MIN`] bytes.
    pub fn from_configured(secret: &[u8]) -> Result<Self, WeakSecret> {
        if secret.len() < CONFIGURED_MIN {
            return Err(WeakSecret(secret.len()));
        }
        Ok(Self(vec![Key::new(Zeroizing::new(secret.to_vec()), UnixTime::default())]))
    }

    /// Adds a secret that signs from `signs_from`: now for a relay of one node, otherwise when all have read the file.
    ///
    /// # Errors
    /// There are too many, or it would sign before the newest.
    pub fn rotate(&mut self, signs_from: UnixTime, rng: &mut impl CryptoRng) -> Result<Kid, RotateError> {
        if self.0.len() >= KEYS_MAX {
            return Err(RotateError::Full);
        }
        // The file has whole seconds.
        let signs_from = UnixTime::from_secs(signs_from.secs());
        if self.0.last().is_some_and(|newest| newest.signs_from >= signs_from) {
            return Err(RotateError::Order);
        }
        let key = Key::new(random(rng), signs_from);
        let kid = key.kid;
        self.0.push(key);
        Ok(kid)
    }

    /// Forgets a secret, and with it all that it made. `leaked` retires one that may still be in use.
    ///
    /// # Errors
    /// There is none such, it signs, or it may be in use.
    pub fn retire(&mut self, kid: Kid, now: UnixTime, leaked: bool) -> Result<(), RetireError> {
        let at = self.0.iter().position(|key| key.kid == kid).ok_or(RetireError::Unknown(kid))?;
        if self.signing(now).kid == kid {
            return Err(RetireError::Signs(kid));
        }
        // One that is yet to sign has made nothing.
        if let Some(successor) = self.0.get(at + 1).filter(|_| self.0[at].signs_from <= now) {
            let left = OVERLAP.saturating_sub(now.since(successor.signs_from));
            if !leaked && !left.is_zero() {
                return Err(RetireError::InUse { kid, days: left.as_millis().div_ceil(DAY.as_millis()) });
            }
        }
        self.0.remove(at);
        Ok(())
    }

    /// Forgets every secret whose overlap is over. Says whether there was one.
    pub fn forget_over(&mut self, now: UnixTime) -> bool {
        let before = self.0.len();
        // The newest that signs for so long: nothing that those before it made is left.
        let successor = self.0.iter().rposition(|key| key.signs_from + OVERLAP <= now && key.signs_from <= now);
        self.0.drain(..successor.unwrap_or(0));
        self.0.len() < before
    }

    /// The one that signs at this moment: the newest that has begun to.
    #[must_use]
    pub fn signing(&self, now: UnixTime) -> &Key {
        let begun = self.0.iter().rev().find(|key| key.signs_from <= now);
        begun.or(self.0.first()).expect("there is always one")
    }

    /// All whose work is accepted, the newest first; one that another node may already sign with among them.
    pub fn accepted(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().rev()
    }
}

fn random(rng: &mut impl CryptoRng) -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(vec![0; KEY_LEN]);
    rng.fill_bytes(&mut secret);
    secret
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const PURPOSES: [Purpose; 7] = [
        Purpose::Tickets,
        Purpose::Jwt,
        Purpose::Cookies,
        Purpose::Csrf,
        Purpose::Refresh,
        Purpose::Tokens,
        Purpose::Codes,
    ];

    fn day(n: u64) -> UnixTime {
        UnixTime::from_secs(n * 24 * 3600)
    }

    #[test]
    fn the_newest_secret_that_has_begun_signs_and_all_are_accepted() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Keys::generate(&mut rng);
        let first = keys.signing(day(1)).kid();
        let second = keys.rotate(day(10), &mut rng).unwrap();
        assert_eq!(keys.signing(day(10) - Duration::from_millis(1)).kid(), first);
        assert_eq!(keys.signing(day(10)).kid(), second);
        assert_eq!(keys.signing(UnixTime::from_millis(-1)).kid(), first, "whatever the clock says");
        assert_eq!(keys.accepted().map(Key::kid).collect::<Vec<_>>(), [second, first]);
        assert_eq!(keys.rotate(day(10), &mut rng), Err(RotateError::Order));
        for n in 2..KEYS_MAX as u64 {
            keys.rotate(day(10 + n), &mut rng).unwrap();
        }
        assert_eq!(keys.rotate(day(99), &mut rng), Err(RotateError::Full));
    }

    #[test]
    fn a_secret_is_retired_when_nothing_of_it_is_left_or_it_leaked() {
        let mut rng = StdRng::seed_from_u64(1);
        let make = |rng: &mut StdRng| {
            let mut keys = Keys::generate(rng);
            let first = keys.signing(day(0)).kid();
            let second = keys.rotate(day(10), rng).unwrap();
            (keys, first, second)
        };
        let (mut keys, first, second) = make(&mut rng);
        assert_eq!(keys.retire(first, day(9), true), Err(RetireError::Signs(first)));
        assert_eq!(keys.retire(second, day(9), false), Ok(()), "one that has not begun has made nothing");
        assert_eq!(keys.retire(second, day(9), false), Err(RetireError::Unknown(second)));

        let (mut keys, first, second) = make(&mut rng);
        assert_eq!(keys.retire(second, day(10), true), Err(RetireError::Signs(second)));
        assert_eq!(keys.retire(first, day(10), false), Err(RetireError::InUse { kid: first, days: 90 }));
        let last = day(100) - Duration::from_millis(1);
        assert_eq!(keys.retire(first, last, false), Err(RetireError::InUse { kid: first, days: 1 }));
        keys.retire(first, day(100), false).unwrap();
        assert_eq!(keys.accepted().map(Key::kid).collect::<Vec<_>>(), [second]);

        let (mut keys, first, _) = make(&mut rng);
        keys.retire(first, day(10), true).unwrap();
    }

    #[test]
    fn what_is_over_is_forgotten_and_nothing_else() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Keys::generate(&mut rng);
        assert!(!keys.forget_over(day(1000)), "it signs");
        let second = keys.rotate(day(1000), &mut rng).unwrap();
        let third = keys.rotate(day(1050), &mut rng).unwrap();
        assert!(!keys.forget_over(day(1090) - Duration::from_millis(1)));
        assert!(keys.forget_over(day(1090)));
        assert_eq!(keys.accepted().map(Key::kid).collect::<Vec<_>>(), [third, second]);
        assert!(!keys.forget_over(day(1139)), "there is one day left of it");
        assert!(keys.forget_over(day(1140)));
        assert_eq!(keys.accepted().map(Key::kid).collect::<Vec<_>>(), [third]);
    }

    #[test]
    fn each_purpose_and_each_secret_has_a_key_of_its_own() {
        let keys = [[7; 32], [8; 32]].map(|secret| Keys::from_configured(&secret).unwrap());
        let derived: std::collections::HashSet<[u8; KEY_LEN]> =
            keys.iter().flat_map(|keys| PURPOSES.map(|purpose| *keys.signing(day(0)).derive(purpose))).collect();
        assert_eq!(derived.len(), 2 * PURPOSES.len());
    }

    #[test]
    fn derived_keys_are_these() {
        let keys = Keys::from_configured(&[7; 32]).unwrap();
        let key = keys.signing(day(0));
        assert_eq!(key.kid().to_string(), "170a71f89c9f0205");
        let hex = |purpose| HEXLOWER.encode(key.derive(purpose).as_ref());
        assert_eq!(hex(Purpose::Tickets), "1388bddf6e1a9610172648088ac12411d27e71709fdd78f1aa489c51d66ad091");
        assert_eq!(hex(Purpose::Jwt), "cc51fb47738eb62c22cbf3172f79a19a18a26b6f2aee6e4561af903012c1d01d");
    }

    #[test]
    fn a_short_secret_of_the_configuration_is_refused() {
        let error = Keys::from_configured(&[b'x'; 31]).unwrap_err();
        assert_eq!(error, WeakSecret(31));
        assert!(error.to_string().contains("at least 32"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let keys = Keys::from_configured(&[b'S'; 32]).unwrap();
        let kid = keys.signing(day(0)).kid();
        assert_eq!(format!("{keys:?} {kid:?}"), format!("Keys([Key({kid})]) {kid}"));
    }
}
