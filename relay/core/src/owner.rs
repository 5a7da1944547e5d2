//! Whose a session is.

use crate::address::{AddressKey, Network};

/// An organisation's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrganisationId([u8; 16]);

impl OrganisationId {
    /// From its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// Who is charged for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whoever is at this address: nobody has said who that is.
    Address(AddressKey),
    /// An organisation, wherever its agents and clients are.
    Organisation(OrganisationId),
}

/// What has a count of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// All addresses of a network.
    Network(Network),
    /// An organisation.
    Organisation(OrganisationId),
}

impl From<AddressKey> for Owner {
    fn from(address: AddressKey) -> Self {
        Self::Address(address)
    }
}

impl Owner {
    /// What counts its sessions, and how many times an owner's limit each has.
    pub fn counted(self) -> impl Iterator<Item = (Counted, usize)> {
        let (address, organisation) = match self {
            Self::Address(address) => (Some(address), None),
            Self::Organisation(organisation) => (None, Some((Counted::Organisation(organisation), 1))),
        };
        let networks = address.into_iter().flat_map(AddressKey::networks);
        networks.map(|(network, times)| (Counted::Network(network), times)).chain(organisation)
    }
}
