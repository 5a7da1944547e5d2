//! What a machine signs with its key for this relay, so that a copied token alone is worth nothing:
//!
//! ```text
//! domain || 00 || SHA-256(base URL) || SHA-256(what is shown) || time:u64        ECDSA-P256-SHA256, r || s
//! ```
//!
//! Each act has a domain of its own. `what is shown` is the text of the token or code as it is sent; `time` is milliseconds
//! since 1970, big-endian. The base URL is the relay's as the machine knows it: scheme, lower-case host, port if it is not
//! the scheme's, path prefix, no slash at the end.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use sha2::{Digest as _, Sha256};

/// Bytes of a public key: an uncompressed point.
pub const PUBLIC_KEY_LEN: usize = 65;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What is signed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Registering the key at `/auth/exchange`, over the code.
    SignIn,
    /// Asking for the successor of a refresh token, over that token.
    Refresh,
    /// Saying that a successor has arrived and is kept, over the successor.
    Received,
}

impl Act {
    const fn domain(self) -> &'static [u8] {
        match self {
            Self::SignIn => b"mykube/2 sign-in",
            Self::Refresh => b"mykube/2 refresh",
            Self::Received => b"mykube/2 received",
        }
    }
}

/// A machine's public key for this relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MachineKey([u8; PUBLIC_KEY_LEN]);

/// No public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is an uncompressed point of P-256, 65 bytes")]
pub struct InvalidKey;

impl MachineKey {
    /// From the bytes of an uncompressed point.
    ///
    /// # Errors
    /// It is no point of P-256, or in another form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidKey> {
        let bytes: [u8; PUBLIC_KEY_LEN] = bytes.try_into().map_err(|_| InvalidKey)?;
        if bytes[0] != 4 {
            return Err(InvalidKey);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).map_err(|_| InvalidKey)?;
        Ok(Self(bytes))
    }

    /// For the database.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; PUBLIC_KEY_LEN] {
        self.0
    }

    /// Whether the machine has signed this, for a relay of one of these base URLs.
    #[must_use]
    pub fn has_signed(&self, statement: &Statement<'_>, signature: &[u8], base_urls: &[String]) -> bool {
        let Ok(key) = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.0) else { return false };
        signature.len() == SIGNATURE_LEN
            && base_urls.iter().any(|url| key.verify_sig(&statement.bytes(url), signature).is_ok())
    }
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MachineKey")
    }
}

/// What is signed.
pub struct Statement<'a> {
    /// What for.
    pub act: Act,
    /// The text of the token or code.
    pub shown: &'a str,
    /// When it was signed by the machine's clock, in milliseconds since 1970.
    pub time: u64,
}

impl Statement<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self, base_url: &str) -> Vec<u8> {
        let mut bytes = self.act.domain().to_vec();
        bytes.push(0);
        bytes.extend_from_slice(&Sha256::digest(base_url));
        bytes.extend_from_slice(&Sha256::digest(self.shown));
        bytes.extend_from_slice(&self.time.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use data_encoding::HEXLOWER;

    use super::*;

    const ACTS: [Act; 3] = [Act::SignIn, Act::Refresh, Act::Received];
    const URL: &str = "https://relay.example.com";
    const TIME: u64 = 1_800_000_000_000;

    fn statement(act: Act) -> Statement<'static> {
        Statement { act, shown: "mkr_token", time: TIME }
    }

    fn key() -> (EcdsaKeyPair, MachineKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = MachineKey::from_bytes(pair.public_key().as_ref()).unwrap();
        (pair, public)
    }

    #[test]
    fn a_signature_counts_for_what_was_signed_and_for_nothing_else() {
        let (pair, public) = key();
        let urls = ["https://other.example".to_owned(), URL.to_owned()];
        for act in ACTS {
            let signature = pair.sign(&SystemRandom::new(), &statement(act).bytes(URL)).unwrap();
            let signature = signature.as_ref();
            for other in ACTS {
                assert_eq!(public.has_signed(&statement(other), signature, &urls), act == other);
            }
            assert!(!public.has_signed(&statement(act), signature, &urls[..1]), "another relay's");
            assert!(!public.has_signed(&Statement { shown: "mkr_tokem", ..statement(act) }, signature, &urls));
            assert!(!public.has_signed(&Statement { time: TIME + 1, ..statement(act) }, signature, &urls));
            assert!(!key().1.has_signed(&statement(act), signature, &urls), "another machine's");
            assert!(!public.has_signed(&statement(act), &signature[..63], &urls));
            assert!(!public.has_signed(&statement(act), &[0; 64], &urls));
        }
    }

    #[test]
    fn only_a_point_in_its_one_form_is_a_key() {
        let bytes = key().1.to_bytes();
        let mut off = bytes;
        off[64] ^= 1;
        let mut compressed = bytes[..33].to_vec();
        compressed[0] = 2 + (bytes[64] & 1);
        let mut hybrid = bytes;
        hybrid[0] = 6 + (bytes[64] & 1);
        assert_eq!(format!("{:?}", key().1), "MachineKey");
        for wrong in [&off[..], &compressed, &hybrid, &bytes[1..], &[0], &[]] {
            assert_eq!(MachineKey::from_bytes(wrong), Err(InvalidKey));
        }
    }

    /// Made by another program.
    #[test]
    fn the_statement_and_its_signature_are_these() {
        let bytes = statement(Act::Refresh).bytes(URL);
        assert_eq!(
            HEXLOWER.encode(&bytes),
            "6d796b7562652f322072656672657368001f5de126b7a88d9379ca970e2ff26148ae9366dd7a1588bf9bcab6c5a37ec0795121aad7cb89e6928c19d5ce5d247745b33a377bf18ae2d1216e5990d776456b000001a3185c5000"
        );
        let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
        let key = MachineKey::from_bytes(&hex("041e18532fd4754c02f3041d9c75ceb33b83ffd81ac7ce4fe882ccb1c98bc5896ea46c311c4e2ff40dd96a3653e6e45445d32dfe486eced75c7a90c6a18881c0a3")).unwrap();
        let signature = hex(
            "f5ade5d69cfce0ba64f4fd2cb9ef70a7708d54e7e3f576fcb0ccbcd713e91be229b0cb396fc506be6f6f0fd3b1edaa1b0b526e4d8664d8230d693605d5ad0c9e",
        );
        assert!(key.has_signed(&statement(Act::Refresh), &signature, &[URL.to_owned()]));
    }
}
