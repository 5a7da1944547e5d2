//! The owner of a session.

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

/// The one to whom a session is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An address, where no organisation is known.
    Address(AddressKey),
    /// An organisation, wherever its agents and clients are.
    Organisation(OrganisationId),
}

/// A network or organisation whose sessions are counted together.
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
    /// The counts that a session of this owner goes into, and how many times an owner's limit each may hold.
    pub fn counted(self) -> impl Iterator<Item = (Counted, usize)> {
        let (address, organisation) = match self {
            Self::Address(address) => (Some(address), None),
            Self::Organisation(organisation) => (None, Some((Counted::Organisation(organisation), 1))),
        };
        let networks = address.into_iter().flat_map(AddressKey::networks);
        networks.map(|(network, times)| (Counted::Network(network), times)).chain(organisation)
    }
}
