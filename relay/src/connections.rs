//! Open connections: the client of each, and how many may be open, in all and of one address and its networks.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use mykube_relay_core::address::{AddressKey, Network};

use crate::{address::TrustedProxies, lock::lock};

/// One connection, counted until its last user lets go of it.
pub(crate) struct Connection {
    /// The client's address: the other side's, or the one that a trusted proxy named.
    pub(crate) peer: IpAddr,
    _occupies: Occupies,
    /// A trusted proxy's own connection is charged to no address.
    _share: Option<Share>,
}

/// The slot that a connection keeps from others while it is open.
enum Occupies {
    /// One of its own.
    Slot { _slot: ConnectionSlot },
    /// A proxy's: the client's requests arrive on the proxy's connection.
    Proxy { _proxy: Arc<Connection> },
}

/// How many connections are open, and how many may be.
pub(crate) struct ConnectionSlots {
    all_max: usize,
    address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_network: HashMap<Network, usize>,
}

/// Too many connections, by this setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) &'static str);

/// One slot among all, until it is dropped.
pub(crate) struct ConnectionSlot(Arc<ConnectionSlots>);

/// One slot of an address, until it is dropped.
pub(crate) struct Share {
    slots: Arc<ConnectionSlots>,
    address: AddressKey,
}

impl Connection {
    /// A connection that has its slot, and has been charged to its address.
    pub(crate) fn new(peer: IpAddr, slot: ConnectionSlot, share: Option<Share>) -> Arc<Self> {
        Arc::new(Self { peer, _occupies: Occupies::Slot { _slot: slot }, _share: share })
    }

    /// The connection of a client that a trusted proxy's request names, charged to the client.
    ///
    /// # Errors
    /// The client has as many as it may.
    pub(crate) fn named(
        slots: &Arc<ConnectionSlots>,
        proxies: &TrustedProxies,
        proxy: Arc<Self>,
        client: IpAddr,
    ) -> Result<Arc<Self>, TooMany> {
        if client == proxy.peer {
            return Ok(proxy);
        }
        let share = slots.charge(proxies, client)?;
        Ok(Arc::new(Self { peer: client, _occupies: Occupies::Proxy { _proxy: proxy }, _share: share }))
    }
}

impl ConnectionSlots {
    /// `all_max` connections, and `address_max` of an address.
    pub(crate) fn new(all_max: usize, address_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max, address_max, taken: Mutex::default() })
    }

    /// A slot for a connection.
    ///
    /// # Errors
    /// There is none left.
    pub(crate) fn take(self: &Arc<Self>) -> Result<ConnectionSlot, TooMany> {
        let taken = &mut *lock(&self.taken);
        if taken.all >= self.all_max {
            return Err(TooMany("--max-connections"));
        }
        taken.all += 1;
        Ok(ConnectionSlot(self.clone()))
    }

    /// How many connections there are.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        lock(&self.taken).all
    }

    /// Charges a connection to an address.
    ///
    /// # Errors
    /// The address, or a network it is in, has as many as it may.
    pub(crate) fn share(self: &Arc<Self>, address: AddressKey) -> Result<Share, TooMany> {
        let taken = &mut *lock(&self.taken);
        let has_room = |(network, times): (Network, usize)| {
            taken.by_network.get(&network).is_none_or(|count| *count < self.address_max.saturating_mul(times))
        };
        if self.address_max == 0 || !address.networks().all(has_room) {
            return Err(TooMany("--connections-per-address"));
        }
        for (network, _) in address.networks() {
            *taken.by_network.entry(network).or_default() += 1;
        }
        Ok(Share { slots: self.clone(), address })
    }

    /// The same, unless the address is a trusted proxy's, from which the connections of many clients come.
    ///
    /// # Errors
    /// See [`ConnectionSlots::share`].
    pub(crate) fn charge(
        self: &Arc<Self>,
        proxies: &TrustedProxies,
        address: IpAddr,
    ) -> Result<Option<Share>, TooMany> {
        if proxies.contains(address) { Ok(None) } else { self.share(address.into()).map(Some) }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        lock(&self.0.taken).all -= 1;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let taken = &mut *lock(&self.slots.taken);
        for (network, _) in self.address.networks() {
            if let Some(count) = taken.by_network.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    taken.by_network.remove(&network);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;

    /// An address of the n-th /64.
    fn network(n: u64) -> AddressKey {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64 | 1)).into()
    }

    #[test]
    fn many_addresses_of_one_network_do_not_have_as_many_connections() {
        for (addresses, times) in [(256, 4), (65_536, 16)] {
            let slots = ConnectionSlots::new(usize::MAX, 10);
            let held: Vec<_> = (0..addresses)
                .flat_map(|n| (0..20).map_while(|_| slots.share(network(n)).ok()).collect::<Vec<_>>())
                .collect();
            assert_eq!(held.len(), 10 * times);
            assert!(slots.share(network(1 << 20)).is_ok(), "of another /48");
            drop(held);
            assert!(slots.share(network(0)).is_ok());
            assert!(lock(&slots.taken).by_network.is_empty(), "nothing is left of those that are gone");
        }
    }

    #[test]
    fn all_together_have_a_limit_too() {
        let slots = ConnectionSlots::new(1, 10);
        let slot = slots.take();
        assert_eq!(slots.take().err(), Some(TooMany("--max-connections")));
        drop(slot);
        assert!(slots.take().is_ok());
    }
}
