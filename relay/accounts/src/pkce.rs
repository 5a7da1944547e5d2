//! Proof key for code exchange (RFC 7636), `S256` only: who redeems a code is who asked for it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What came with the request: SHA-256 of the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// The one of a verifier.
    #[must_use]
    pub fn of(verifier: &str) -> Self {
        Self(Sha256::digest(verifier).into())
    }

    /// `code_challenge`, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

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

    /// `code_challenge`.
    #[must_use]
    pub fn encode(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Whether this is its verifier: 43 to 128 unreserved characters.
    #[must_use]
    pub fn accepts(self, verifier: &str) -> bool {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let has_form = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
        has_form && bool::from(Self::of(verifier).0.ct_eq(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_example_of_the_rfc() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        assert!(challenge.accepts(verifier));
        assert_eq!(challenge, Challenge::of(verifier));
        assert_eq!(Challenge::parse(&challenge.encode()), Some(challenge));
        for other in ["", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK", &format!("{verifier}=")] {
            assert!(!challenge.accepts(other), "{other}");
        }
    }

    #[test]
    fn what_has_not_the_form_of_a_verifier_is_none() {
        for (verifier, good) in [("a".repeat(42), false), ("a".repeat(43), true), ("a".repeat(128), true)] {
            assert_eq!(Challenge::of(&verifier).accepts(&verifier), good);
        }
        for verifier in ["a".repeat(129), format!("{} ", "a".repeat(43)), format!("{}+", "a".repeat(43))] {
            assert!(!Challenge::of(&verifier).accepts(&verifier), "{verifier}");
        }
        for challenge in ["", "AAAA", &"A".repeat(44), &format!("{}=", "A".repeat(43))] {
            assert_eq!(Challenge::parse(challenge), None, "{challenge}");
        }
    }
}
