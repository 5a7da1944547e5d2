//! Keyed hashes: what the database keeps of what people and programs show. Without the keys file they are worth nothing.

use std::{
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    keys::{KEY_LEN, Key, Keys, Kid, Purpose},
    time::UnixTime,
};

/// HMAC-SHA256 of what was shown. Compared in constant time.
#[derive(Clone, Copy, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From the database.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the database.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

/// Hashes for one purpose with each secret there is.
pub struct KeyedHash {
    purpose: Purpose,
    keys: RwLock<Vec<HashKey>>,
}

struct HashKey {
    kid: Kid,
    signs_from: UnixTime,
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl KeyedHash {
    /// The hash for a purpose.
    #[must_use]
    pub fn new(keys: &Keys, purpose: Purpose) -> Self {
        Self { purpose, keys: RwLock::new(derive(keys, purpose)) }
    }

    /// With these secrets from now on.
    pub fn replace(&self, keys: &Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = derive(keys, self.purpose);
    }

    fn keys(&self) -> RwLockReadGuard<'_, Vec<HashKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept: the hash under the secret that signs now, and which that is. What is hashed with a secret is lost
    /// when that is retired.
    #[must_use]
    pub fn hash(&self, now: UnixTime, parts: &[&[u8]]) -> (Kid, Digest) {
        let keys = self.keys();
        let signing = keys.iter().find(|key| key.signs_from <= now).or(keys.last());
        let key = signing.expect("there is always one");
        (key.kid, key.hash(parts))
    }

    /// The hash under one secret, if it is still there: for what is derived, and must be the same again.
    #[must_use]
    pub fn hash_with(&self, kid: Kid, parts: &[&[u8]]) -> Option<Digest> {
        self.keys().iter().find(|key| key.kid == kid).map(|key| key.hash(parts))
    }

    /// What to look for, the newest secret's first. Who is found by another than that of [`Self::hash`] is kept anew.
    #[must_use]
    pub fn candidates(&self, parts: &[&[u8]]) -> Vec<(Kid, Digest)> {
        self.keys().iter().map(|key| (key.kid, key.hash(parts))).collect()
    }

    /// Whether this is what was hashed.
    #[must_use]
    pub fn verify(&self, kept: Digest, parts: &[&[u8]]) -> bool {
        self.keys().iter().any(|key| key.hash(parts) == kept)
    }
}

fn derive(keys: &Keys, purpose: Purpose) -> Vec<HashKey> {
    let derive = |key: &Key| HashKey { kid: key.kid(), signs_from: key.signs_from(), key: key.derive(purpose) };
    keys.accepted().map(derive).collect()
}

impl HashKey {
    /// Each part is preceded by its length, so that no two lists of parts are the same bytes.
    fn hash(&self, parts: &[&[u8]]) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_ref()).expect("HMAC takes a key of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Digest(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for KeyedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_encoding::HEXLOWER;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn what_was_kept_under_an_old_secret_is_found_until_it_is_retired() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Keys::generate(&mut rng);
        let (before, rotated) = (UnixTime::from_secs(1000), UnixTime::from_secs(2000));
        let (old_kid, old) = KeyedHash::new(&keys, Purpose::Tokens).hash(before, &[b"token"]);
        let kid = keys.rotate(rotated, &mut rng).unwrap();

        let hash = KeyedHash::new(&keys, Purpose::Tokens);
        assert_eq!(hash.hash(rotated - Duration::from_millis(1), &[b"token"]), (old_kid, old));
        let (new_kid, new) = hash.hash(rotated, &[b"token"]);
        assert_eq!((new_kid, new != old), (kid, true));
        assert_eq!(hash.candidates(&[b"token"]), [(new_kid, new), (old_kid, old)]);
        assert!(hash.verify(old, &[b"token"]) && hash.verify(new, &[b"token"]));
        assert!(!hash.verify(new, &[b"tokeN"]));
        assert!(!KeyedHash::new(&keys, Purpose::Refresh).verify(new, &[b"token"]), "of another purpose");

        keys.retire(old_kid, rotated, true).unwrap();
        assert!(!KeyedHash::new(&keys, Purpose::Tokens).verify(old, &[b"token"]));
    }

    #[test]
    fn parts_do_not_run_together() {
        let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes);
        let now = UnixTime::default();
        assert_ne!(hash.hash(now, &[b"ab", b"c"]).1, hash.hash(now, &[b"a", b"bc"]).1);
        assert_ne!(hash.hash(now, &[b"abc"]).1, hash.hash(now, &[b"abc", b""]).1);
    }

    #[test]
    fn the_hash_is_this() {
        let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Tokens);
        let (_, digest) = hash.hash(UnixTime::default(), &[b"rla_prod_x"]);
        assert_eq!(
            HEXLOWER.encode(&digest.to_bytes()),
            "3876937e6ee96225c0a1dc1cf749cf1269acabdf28b670a76f5ed13cb172af08"
        );
        assert_eq!((format!("{hash:?}"), format!("{digest:?}")), ("KeyedHash".into(), "Digest".into()));
    }
}
