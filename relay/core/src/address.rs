//! Addresses as quotas count them.

use std::net::IpAddr;

/// The unit in which quotas count: an IPv4 address, or the /64 of an IPv6 address (one customer has a whole /64, many have a /56,
/// some a /48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKey(u128);

/// A network to which its addresses are charged: one IPv4 address, or a /64, /56 or /48 (its length in the last byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(u128);

/// IPv6 networks by length, and how many times an address's limit each has. A /56 is a household's and a /48 a company's
/// (RIPE-690), so that it has several users, or one attacker with many addresses; and a provider may serve many
/// customers with a /64 each out of one /48.
const IPV6_NETWORKS: [(u32, usize); 3] = [(64, 1), (56, 4), (48, 16)];

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() & !u128::from(u64::MAX)),
        }
    }
}

impl AddressKey {
    /// The networks it is charged to, and how many times an address's limit each has.
    pub fn networks(self) -> impl Iterator<Item = (Network, usize)> {
        // An IPv6 key has its last 64 bits cleared; only a mapped IPv4 address has any of them set.
        let is_v6 = self.0 & u128::from(u64::MAX) == 0;
        let v6 = IPV6_NETWORKS.into_iter().filter(move |_| is_v6).map(move |(len, times)| {
            let mask = u128::MAX << (128 - len);
            (Network(self.0 & mask | u128::from(len)), times)
        });
        v6.chain((!is_v6).then_some((Network(self.0), 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AddressKey {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn quotas_count_ipv4_addresses_and_ipv6_networks() {
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn an_ipv6_address_is_charged_to_three_networks() {
        let networks = |text| key(text).networks().collect::<Vec<_>>();
        assert_eq!(networks("192.0.2.1").len(), 1);
        let (one, other) = (networks("2001:db8:1:0::1"), networks("2001:db8:1:ff::1"));
        assert_ne!(one[0], other[0]);
        assert_eq!(one[1..], other[1..], "of one /56");
        let far = networks("2001:db8:1:100::1");
        assert_ne!(one[1], far[1]);
        assert_eq!(one[2], far[2], "of one /48");
        assert_ne!(one[2], networks("2001:db8:2::1")[2]);
        let all: std::collections::HashSet<_> =
            networks("2001:db8::").into_iter().map(|(network, _)| network).collect();
        assert_eq!(all.len(), 3, "the first /64 of a /48 is not the /48");
    }
}
