//! Addresses of people, in one spelling.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Host;

/// Bytes of an address at most (RFC 5321, section 4.5.3.1, and its erratum 1690), and of what is before the `@`.
const MAX: usize = 254;
const LOCAL_MAX: usize = 64;

/// An address: trimmed, in lower case, its domain as DNS has it. Only addresses that can be written without quotes are
/// taken, so that none is read in two ways by a mail server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Email(String);

/// No address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no address like ada@example.com")]
pub struct InvalidEmail;

impl Email {
    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is after the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for Email {
    type Err = InvalidEmail;

    fn from_str(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        let (local, domain) = text.split_once('@').filter(|_| text.len() <= MAX).ok_or(InvalidEmail)?;
        // `atext` of RFC 5322, section 3.2.3.
        let atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-".contains(&byte);
        let atom = |atom: &str| !atom.is_empty() && atom.bytes().all(atext);
        if local.len() > LOCAL_MAX || !local.split('.').all(atom) {
            return Err(InvalidEmail);
        }
        // The parser would decode percent signs.
        let domain = Some(domain).filter(|domain| !domain.contains('%') && !domain.ends_with('.'));
        let Ok(Host::Domain(domain)) = Host::parse(domain.ok_or(InvalidEmail)?) else { return Err(InvalidEmail) };
        let label = |label: &str| {
            let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
        };
        let address = format!("{}@{domain}", local.to_ascii_lowercase());
        if domain.split('.').all(label) && address.len() <= MAX { Ok(Self(address)) } else { Err(InvalidEmail) }
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl TryFrom<String> for Email {
    type Error = InvalidEmail;

    fn try_from(text: String) -> Result<Self, InvalidEmail> {
        text.parse()
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        for (written, kept) in [
            (" Ada.Lovelace+x@Example.COM\n", "ada.lovelace+x@example.com"),
            ("dev@localhost", "dev@localhost"),
            ("o'hara@b\u{fc}cher.example", "o'hara@xn--bcher-kva.example"),
            ("a@\u{ff45}xample.com", "a@example.com"),
        ] {
            let email: Email = written.parse().unwrap();
            assert_eq!((email.as_str(), format!("{email:?}")), (kept, kept.to_owned()));
            let json = serde_json::to_string(&email).unwrap();
            assert_eq!(
                (json.as_str(), serde_json::from_str(&json).ok()),
                (&*format!("\"{kept}\""), Some(email.clone()))
            );
            assert_eq!(email.as_str().parse::<Email>().unwrap(), email, "and keeps it");
        }
        format!("{}@x.de", "a".repeat(64)).parse::<Email>().unwrap();
        assert_eq!("Ada@Example.com".parse::<Email>().unwrap().domain(), "example.com");
    }

    #[test]
    fn what_is_no_address_or_could_be_read_as_two_is_refused() {
        let long_local = format!("{}@x.de", "a".repeat(65));
        let long = format!("a@{}", "b".repeat(63) + &format!(".{}", "c".repeat(63)).repeat(3));
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b.de",
            "a@@b.de",
            "a@b@c.de",
            "a b@c.de",
            "\"a b\"@c.de",
            "\"a@b\"@c.de",
            ".a@b.de",
            "a.@b.de",
            "a..b@c.de",
            "a@b..de",
            "a@.de",
            "a@b.de.",
            "a@-b.de",
            "a@b_c.de",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@%65xample.com",
            "a@b.de,c@d.de",
            "a@b.de>",
            "<a@b.de>",
            "a@b.de\r\nBcc: c@d.de",
            "a\0@b.de",
            "\u{e4}@b.de",
            "a@b.de/x",
            "a@b.de:25",
            "a@b\u{202e}.de",
            &long_local,
            &long,
        ] {
            assert_eq!(text.parse::<Email>(), Err(InvalidEmail), "{text:?}");
        }
    }
}
