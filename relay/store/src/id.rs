//! What an organisation is known by.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use rand::CryptoRng;

/// An organisation: `org_` and 32 hex digits. No secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrganisationId([u8; 16]);

/// No such id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of an organisation")]
pub struct InvalidOrganisationId;

impl OrganisationId {
    /// One that nobody else has.
    #[must_use]
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "org_{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for OrganisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OrganisationId {
    type Err = InvalidOrganisationId;

    fn from_str(text: &str) -> Result<Self, InvalidOrganisationId> {
        let hex = text.strip_prefix("org_").ok_or(InvalidOrganisationId)?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| InvalidOrganisationId)?;
        bytes.try_into().map(Self).map_err(|_| InvalidOrganisationId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = OrganisationId::random(&mut rand::rng());
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in ["", "org_", "user_00000000000000000000000000000000", "org_0000000000000000000000000000000G"] {
            assert_eq!(other.parse::<OrganisationId>(), Err(InvalidOrganisationId), "{other}");
        }
    }
}
