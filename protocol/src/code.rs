//! The pairing code: a nameplate the relay hands out, and a secret that never leaves the two ends.
//!
//! `483 20417`: all but the last five digits are the nameplate, the last five the secret. A relay that knew the whole
//! code could sit in the middle unseen; that is the reason for the split (docs/protocol.md, "The pairing code").

use std::{fmt, str::FromStr};

use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::limits::{NAMEPLATE_MAX_DIGITS, NAMEPLATE_MIN_DIGITS, SECRET_DIGITS};

/// Why a text is not a pairing code. Never holds the text: it may be a mistyped secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Nothing but separators.
    #[error("no code was given: type the digits that `mykube server` shows, like 483 20417")]
    Empty,
    /// Something that is neither a digit nor a separator.
    #[error("a pairing code has digits only, like 483 20417: check what was typed")]
    NotDigits,
    /// Too few or too many digits.
    #[error(
        "a pairing code has 8 digits, 10 at the most, and {0} were typed: check the code that `mykube server` shows"
    )]
    Length(usize),
    /// Not a nameplate: 3 to 5 digits.
    #[error("a nameplate has 3 to 5 digits")]
    Nameplate,
}

/// The public part of a code: 3 to 5 digits, by which the relay finds the session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nameplate(String);

impl Nameplate {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nameplate {
    type Err = CodeError;

    fn from_str(s: &str) -> Result<Self, CodeError> {
        let fits = (NAMEPLATE_MIN_DIGITS..=NAMEPLATE_MAX_DIGITS).contains(&s.len());
        if fits && s.bytes().all(|b| b.is_ascii_digit()) { Ok(Self(s.to_owned())) } else { Err(CodeError::Nameplate) }
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Nameplate {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Nameplate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// The secret part of a code: five digits. Wiped on drop, prints nothing.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_DIGITS]);

impl Secret {
    /// Draws five digits, each of the 100,000 values equally likely.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        const VALUES: u32 = {
            let (mut values, mut digits) = (1, 0);
            while digits < SECRET_DIGITS {
                (values, digits) = (values * 10, digits + 1);
            }
            values
        };
        const FAIR: u32 = u32::MAX - u32::MAX % VALUES;
        let mut value = loop {
            let drawn = rng.next_u32();
            if drawn < FAIR {
                break drawn % VALUES;
            }
        };
        let mut digits = [b'0'; SECRET_DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit += u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
        Self(digits)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A whole code: nameplate and secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode {
    /// What the relay knows.
    pub nameplate: Nameplate,
    /// What only the two ends know.
    pub secret: Secret,
}

impl PairingCode {
    /// All digits of the code without separators: the password of the PAKE.
    #[must_use]
    pub fn digits(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.nameplate.0.as_bytes(), &self.secret.0].concat())
    }

    /// The code for people: `483 20417`.
    #[must_use]
    pub fn to_display(&self) -> Zeroizing<String> {
        let digits = self.secret.0.map(char::from);
        Zeroizing::new(std::iter::once(' ').chain(digits).fold(self.nameplate.0.clone(), |mut text, c| {
            text.push(c);
            text
        }))
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    /// Forgives white space and dashes of every kind anywhere.
    fn from_str(s: &str) -> Result<Self, CodeError> {
        let is_separator = |c: char| c.is_whitespace() || matches!(c, '-' | '_' | '\u{2010}'..='\u{2015}' | '\u{2212}');
        let digits: Zeroizing<String> = Zeroizing::new(s.chars().filter(|c| !is_separator(*c)).collect());
        if digits.is_empty() {
            return Err(CodeError::Empty);
        }
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CodeError::NotDigits);
        }
        let nameplate_len = digits
            .len()
            .checked_sub(SECRET_DIGITS)
            .filter(|n| (NAMEPLATE_MIN_DIGITS..=NAMEPLATE_MAX_DIGITS).contains(n));
        let Some((nameplate, secret)) = nameplate_len.map(|n| digits.split_at(n)) else {
            return Err(CodeError::Length(digits.len()));
        };
        let secret = Secret(secret.as_bytes().try_into().map_err(|_| CodeError::Length(digits.len()))?);
        Ok(Self { nameplate: nameplate.parse()?, secret })
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingCode({} ...)", self.nameplate)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rand_core::{TryCryptoRng, TryRng};

    use super::*;

    /// A random generator that gives these values, in this order.
    struct Listed(Vec<u32>);

    impl TryRng for Listed {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok(self.0.remove(0))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            unreachable!("a secret is drawn from 32 bits")
        }

        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Infallible> {
            unreachable!("a secret is drawn from 32 bits")
        }
    }

    impl TryCryptoRng for Listed {}

    /// The secret that `Secret::random` makes of these draws, all of which it must use.
    fn drawn(values: &[u32]) -> String {
        let mut rng = Listed(values.to_vec());
        let secret = Secret::random(&mut rng);
        assert_eq!(rng.0, [0; 0], "draws that were not looked at");
        secret.0.map(char::from).iter().collect()
    }

    /// Of the 2^32 values of a draw the first 42,949 blocks of 100,000 count, and each block holds every secret once.
    #[test]
    fn every_secret_is_drawn_as_often_as_every_other() {
        const BLOCKS: u32 = u32::MAX / 100_000;
        for secret in 0..100_000 {
            assert_eq!(drawn(&[secret]), format!("{secret:05}"));
        }
        for block in [1, 2, 10, 1000, BLOCKS / 2, BLOCKS - 1] {
            for secret in [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 20_417, 54_321, 99_999] {
                assert_eq!(drawn(&[block * 100_000 + secret]), format!("{secret:05}"), "block {block}");
            }
        }
    }

    #[test]
    fn what_is_left_after_the_last_whole_block_is_drawn_again() {
        let first_unfair = u32::MAX / 100_000 * 100_000;
        assert_eq!(drawn(&[first_unfair - 1]), "99999");
        assert_eq!(drawn(&[first_unfair, 20_417]), "20417");
        assert_eq!(drawn(&[first_unfair + 1, u32::MAX, u32::MAX - 1, first_unfair, 7]), "00007");
    }

    #[test]
    fn a_code_has_8_to_10_digits_and_a_nameplate_3_to_5() {
        for (digits, fits) in [(7, false), (8, true), (10, true), (11, false)] {
            assert_eq!("7".repeat(digits).parse::<PairingCode>().is_ok(), fits, "{digits}");
        }
        for (digits, fits) in [(2, false), (3, true), (5, true), (6, false)] {
            assert_eq!("7".repeat(digits).parse::<Nameplate>().is_ok(), fits, "{digits}");
        }
        assert!("48x".parse::<Nameplate>().is_err());
    }

    #[test]
    fn input_is_forgiving() {
        for text in ["48320417", "483 20417", " 483-204-17\n", "4 8 3 2 0 4 1 7", "483\u{2013}20417"] {
            let code: PairingCode = text.parse().unwrap();
            assert_eq!(code.nameplate.as_str(), "483");
            assert_eq!(code.to_display().as_str(), "483 20417");
            assert_eq!(code.digits().as_slice(), b"48320417");
        }
    }

    #[test]
    fn the_code_grows_with_its_nameplate() {
        let code: PairingCode = "4831 20417".parse().unwrap();
        assert_eq!(code.nameplate.as_str(), "4831");
        assert_eq!("48312 20417".parse::<PairingCode>().unwrap().nameplate.as_str(), "48312");
    }

    #[test]
    fn what_is_no_code_says_why() {
        assert_eq!("".parse::<PairingCode>(), Err(CodeError::Empty));
        assert_eq!(" - ".parse::<PairingCode>(), Err(CodeError::Empty));
        assert_eq!("4832041x".parse::<PairingCode>(), Err(CodeError::NotDigits));
        assert_eq!("٤٨٣٢٠٤١٧".parse::<PairingCode>(), Err(CodeError::NotDigits));
        assert_eq!("4832041".parse::<PairingCode>(), Err(CodeError::Length(7)));
        assert_eq!("48320417123".parse::<PairingCode>(), Err(CodeError::Length(11)));
    }

    #[test]
    fn debug_shows_no_secret() {
        let code: PairingCode = "483 20417".parse().unwrap();
        assert!(!format!("{code:?}{:?}", code.secret).contains("204"));
    }
}
