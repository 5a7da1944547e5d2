//! Identifiers with one fixed shape: 16 random bytes, written as 32 lower-case hexadecimal digits, some kinds after a prefix.

/// A text that is not written as identifiers of its kind are. It shows nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an identifier is {0}")]
pub struct IdError(#[doc(hidden)] pub &'static str);

/// What [`id!`](crate::id!) uses where it is called.
#[doc(hidden)]
pub mod used {
    pub use data_encoding::HEXLOWER;
    pub use rand_core::CryptoRng;
    pub use serde;
}

/// A kind of identifier: `id! { /// What it is of. Name }`, or `id! { /// ... Name, "prefix_" }`.
#[macro_export]
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $crate::id! { @ $(#[$doc])* $name, "", "32 lower-case hexadecimal digits" }
    };
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $crate::id! { @ $(#[$doc])* $name, $prefix, concat!("`", $prefix, "` and 32 lower-case hexadecimal digits") }
    };
    (@ $(#[$doc:meta])* $name:ident, $prefix:literal, $form:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Draws a fresh identifier.
            pub fn random(rng: &mut impl $crate::id::used::CryptoRng) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// From its 16 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&$crate::id::used::HEXLOWER.encode(&self.0))
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::id::IdError;

            fn from_str(text: &str) -> Result<Self, $crate::id::IdError> {
                let hex = text.strip_prefix($prefix);
                let bytes = hex.and_then(|hex| $crate::id::used::HEXLOWER.decode(hex.as_bytes()).ok());
                bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or($crate::id::IdError($form))
            }
        }

        impl $crate::id::used::serde::Serialize for $name {
            fn serialize<S: $crate::id::used::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> $crate::id::used::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::id::used::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <::std::borrow::Cow<'_, str> as $crate::id::used::serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(<D::Error as $crate::id::used::serde::de::Error>::custom)
            }
        }
    };
}

id! {
    /// One session between an agent and its client, as the relay names it. Public: it grants nothing without a ticket.
    SessionId
}

id! {
    /// One claim of a nameplate by one client. Drawn by the relay for each `POST /api/pair`.
    Attempt
}

impl Attempt {
    /// Wire form in `peer:here:` once the session is paired.
    pub const SESSION: &'static str = "session";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_shape() {
        let id: SessionId = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        assert_eq!(id.as_bytes()[15], 15);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
        for bad in ["", "00", "000102030405060708090A0B0C0D0E0F", "000102030405060708090a0b0c0d0e0f00", "../etc"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
