//! The text of a refresh token: `mkr_`, the sign-in's id in 32 hex digits, `_`, and 32 random bytes in base64url.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::id::SignInId;

const PREFIX: &str = "mkr_";
const SECRET_LEN: usize = 32;

/// A refresh token. Wiped on drop, prints its sign-in only.
pub struct RefreshToken {
    sid: SignInId,
    text: Zeroizing<String>,
}

impl RefreshToken {
    /// A new one of this sign-in.
    #[must_use]
    pub fn random(sid: SignInId, rng: &mut impl CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        rng.fill_bytes(secret.as_mut());
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 32 + 1 + 43));
        text.push_str(PREFIX);
        text.push_str(&sid.to_string());
        text.push('_');
        BASE64_URL_SAFE_NO_PAD.encode_string(secret.as_slice(), &mut text);
        Self { sid, text }
    }

    /// What somebody shows, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sid, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let sid = sid.parse().ok()?;
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        let len = BASE64_URL_SAFE_NO_PAD.decode_slice(secret, bytes.as_mut()).ok()?;
        (len == SECRET_LEN).then(|| Self { sid, text: Zeroizing::new(text.to_owned()) })
    }

    /// The sign-in, by which its family is found.
    #[must_use]
    pub fn sid(&self) -> SignInId {
        self.sid
    }

    /// The text, for its holder and for hashing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefreshToken({})", self.sid)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_token_has_one_form() {
        let sid = SignInId::from_bytes([0xab; 16]);
        let token = RefreshToken::random(sid, &mut StdRng::seed_from_u64(1));
        let text = token.expose();
        assert!(text.starts_with("mkr_abababababababababababababababab_") && text.len() == 80, "{text}");
        assert_eq!(RefreshToken::parse(text).unwrap().sid(), sid);
        for other in [&text[1..], &text[..79], &text.to_uppercase(), &format!("{text}="), &format!("{text}AA"), ""] {
            assert!(RefreshToken::parse(other).is_none(), "{other}");
        }
        assert_eq!(format!("{token:?}"), "RefreshToken(abababababababababababababababab)");
        assert_ne!(RefreshToken::random(sid, &mut StdRng::seed_from_u64(2)).expose(), text);
    }
}
