//! Names of organisations, agents, apps and providers.

use std::{fmt, str::FromStr};

/// Characters of a name at most.
pub const NAME_MAX: usize = 63;

/// What the relay's own addresses begin with: no provider, daemon or organisation is called so.
pub const RESERVED: [&str; 23] = [
    "api",
    "auth",
    "v1",
    "ws",
    "u",
    "connect",
    "callback",
    "oauth",
    "device",
    "devices",
    "status",
    "providers",
    "health",
    "metrics",
    "console",
    "assets",
    "dev",
    "exchange",
    "logout",
    "refresh",
    "revoke",
    "otp",
    "portal",
];

/// `[a-z0-9][a-z0-9_-]{0,62}` with at least one letter, so that no name is taken for a code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// What is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not of the form.
    #[error(
        "a name has 1 to {NAME_MAX} lower-case letters, digits, - and _, at least one letter, and begins with a letter or digit"
    )]
    Form,
    /// The relay's own.
    #[error("this name is the relay's own: choose another")]
    Reserved,
}

impl Name {
    /// A name that none of the relay's own addresses begins with: for providers and organisations.
    ///
    /// # Errors
    /// It is no name, or reserved.
    pub fn parse_unreserved(text: &str) -> Result<Self, InvalidName> {
        let name: Self = text.parse()?;
        if RESERVED.contains(&text) { Err(InvalidName::Reserved) } else { Ok(name) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        let form = (1..=NAME_MAX).contains(&text.len())
            && text.bytes().all(allowed)
            && text.bytes().any(|byte| byte.is_ascii_lowercase())
            && !text.starts_with(['_', '-']);
        if form { Ok(Self(text.to_owned())) } else { Err(InvalidName::Form) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_can_stand_in_an_address_and_is_no_code() {
        let longest = "a".repeat(NAME_MAX);
        for name in ["a", "prod", "0prod", "acme-eu_1", "4x3", &longest] {
            let read: Name = name.parse().unwrap();
            assert_eq!((read.as_str(), format!("{read:?}").as_str()), (name, name));
        }
        let too_long = "a".repeat(NAME_MAX + 1);
        for text in [
            "", "483", "4-83", "-prod", "_prod", "Prod", "pröd", "a b", "a/b", "a.b", "..", "a\n", "a%2f", "а",
            &too_long,
        ] {
            assert_eq!(text.parse::<Name>(), Err(InvalidName::Form), "{text}");
        }
    }

    #[test]
    fn the_relays_own_names_are_nobodys() {
        for name in RESERVED {
            assert_eq!(Name::parse_unreserved(name), Err(InvalidName::Reserved));
            name.parse::<Name>().unwrap();
        }
        Name::parse_unreserved("google").unwrap();
    }
}
