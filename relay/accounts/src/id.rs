//! Ids: 16 random bytes each, written as lower-case hex, an account's after `user_`. None of them is a secret.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

/// No id of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the expected form")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// One that nobody else has.
            #[must_use]
            pub fn random(rng: &mut impl CryptoRng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// From its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let hex = text.strip_prefix($prefix).ok_or(InvalidId)?;
                let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| InvalidId)?;
                bytes.try_into().map(Self).map_err(|_| InvalidId)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

id! {
    /// An account: claim `sub`, `user_` and 32 hex digits.
    AccountId, "user_"
}
id! {
    /// A sign-in, and all tokens that come of it: claim `sid`. Those of the tunnel's tickets have its 16 bytes.
    SignInId, ""
}
id! {
    /// One JWT: claim `jti`.
    TokenId, ""
}
id! {
    /// One start of the relay: claim `boot`.
    BootId, ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_in_one_way() {
        let text = "user_000102030405060708090a0b0c0d0e0f";
        let id: AccountId = text.parse().unwrap();
        assert_eq!(id, AccountId::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap())));
        assert_eq!((id.to_string(), format!("{id:?}")), (text.to_owned(), text.to_owned()));
        assert_eq!(serde_json::from_str::<AccountId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        for other in [&text[5..], &text[..36], &text.to_uppercase(), &format!("{text}00"), "user_", ""] {
            assert_eq!(other.parse::<AccountId>(), Err(InvalidId), "{other}");
        }
        assert_eq!(text[5..].parse::<SignInId>().unwrap().to_bytes(), id.to_bytes());
    }
}
