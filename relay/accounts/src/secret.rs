//! Random text that only its holder has: codes, states, cookies. What is kept of it is a [keyed hash](crate::keyed_hash).

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::CryptoRng;
use zeroize::Zeroizing;

/// 32 random bytes in base64url. Wiped on drop, prints nothing.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Characters of one.
    pub const LEN: usize = 43;

    /// A new one.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Self::encode(&bytes)
    }

    /// From its bytes.
    #[must_use]
    pub fn encode(bytes: &[u8; 32]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(Self::LEN));
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Self(text)
    }

    /// What somebody shows, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        let len = BASE64_URL_SAFE_NO_PAD.decode_slice(text, bytes.as_mut()).ok()?;
        (len == bytes.len()).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for its holder and for hashing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_secret_has_one_form() {
        let secret = Secret::random(&mut StdRng::seed_from_u64(1));
        let text = secret.expose();
        assert_eq!((text.len(), Secret::parse(text).unwrap().expose()), (Secret::LEN, text));
        for other in [&text[1..], &format!("{text}="), &format!("{text}AA"), "", &"=".repeat(43), &"~".repeat(43)] {
            assert!(Secret::parse(other).is_none(), "{other}");
        }
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
