//! This machine's key for one relay: it signs that a refresh token is used here.

use std::path::Path;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::BASE64URL_NOPAD;
use mykube_dial::RelayUrl;
use mykube_protocol::account::{Act, statement};
use sha2::{Digest as _, Sha256};

use crate::{
    error::SignInError,
    files::{self, Readers},
};

/// A P-256 key that lies in a private file. It says nothing of itself.
pub(crate) struct MachineKey(EcdsaKeyPair);

impl MachineKey {
    /// Reads it, or makes it on first use.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, SignInError> {
        let damaged = || SignInError::Damaged { path: path.to_owned() };
        if let Some(content) = files::read(path, Readers::User)? {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &content);
            return Ok(Self(key.map_err(|_| damaged())?));
        }
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let made = made.expect("the system gives random numbers");
        files::write(path, made.as_ref())?;
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref()).map(Self).map_err(|_| damaged())
    }

    /// Uncompressed point, base64url.
    pub(crate) fn public(&self) -> String {
        BASE64URL_NOPAD.encode(self.0.public_key().as_ref())
    }

    /// Signs what is done with `token` at `relay`; `time` in milliseconds since 1970.
    pub(crate) fn sign(&self, act: Act, relay: &RelayUrl, token: &str, time: u64) -> String {
        let hash = |text: &str| Sha256::digest(text).into();
        let message = statement(act, &hash(&relay.to_string()), &hash(token), time);
        let signature = self.0.sign(&SystemRandom::new(), &message).expect("the system gives random numbers");
        BASE64URL_NOPAD.encode(signature.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn the_key_stays_the_same_and_its_signature_is_for_one_relay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.key");
        let public = MachineKey::load_or_create(&path).unwrap().public();
        let key = MachineKey::load_or_create(&path).unwrap();
        assert_eq!(key.public(), public);
        let point = BASE64URL_NOPAD.decode(public.as_bytes()).unwrap();
        assert_eq!((point.len(), point[0]), (65, 4));
        let signature = key.sign(Act::Refresh, &"https://relay.example".parse().unwrap(), "token", 7);
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert_eq!(signature.len(), 64);
        let verifies = |relay: &str| {
            let message = statement(Act::Refresh, &Sha256::digest(relay).into(), &Sha256::digest("token").into(), 7);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(&message, &signature).is_ok()
        };
        assert!(verifies("https://relay.example") && !verifies("https://relay.example/"));
        files::write(&path, b"nonsense").unwrap();
        assert!(matches!(MachineKey::load_or_create(&path), Err(SignInError::Damaged { .. })));
    }
}
