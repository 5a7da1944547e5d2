//! The owner of a session.

use crate::address::{AddressKey, Network};

mykube_protocol::id! {
    /// An organisation: `org_` and 32 hex digits. No secret.
    OrganisationId, "org_"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = OrganisationId::from_bytes([0xa7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in ["", "org_", "user_00000000000000000000000000000000", "org_0000000000000000000000000000000G"] {
            assert!(other.parse::<OrganisationId>().is_err(), "{other}");
        }
    }
}
