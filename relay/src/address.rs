//! Whose request it is: addresses as quotas see them, and what a trusted proxy says about them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// What quotas count by: an IPv4 address, or the /64 of an IPv6 address (one customer has a whole /64, many a /56, some
/// a /48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressKey(u128);

/// A network that is charged for its addresses: one IPv4 address, or a /64, /56 or /48 (its length in the last byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Network(u128);

/// IPv6 networks by length, and how many times an address's limit each has. A /56 is a household's and a /48 a company's
/// (RIPE-690), which have several users, but also all that one attacker needs; and behind a /48 may be a provider's many
/// customers with a /64 each.
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
    pub(crate) fn networks(self) -> impl Iterator<Item = (Network, usize)> {
        // Only a mapped IPv4 address has any of its last 64 bits.
        let is_v6 = self.0 & u128::from(u64::MAX) == 0;
        let v6 = IPV6_NETWORKS.into_iter().filter(move |_| is_v6).map(move |(len, times)| {
            let mask = u128::MAX << (128 - len);
            (Network(self.0 & mask | u128::from(len)), times)
        });
        v6.chain((!is_v6).then_some((Network(self.0), 1)))
    }
}

/// Proxies whose word about an address is believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// From networks in CIDR form.
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this address is one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Who is behind `peer`: the last address in `X-Forwarded-For` that is not a trusted proxy itself. The header of
    /// anybody else is not looked at, nor what stands before an entry that is no address: the client itself wrote that.
    pub(crate) fn client<'a>(&self, peer: IpAddr, forwarded_for: impl Iterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = peer;
        let entries = forwarded_for.flat_map(|line| line.split(|byte| *byte == b','));
        for entry in entries.collect::<Vec<_>>().into_iter().rev() {
            if !self.contains(client) {
                break;
            }
            match std::str::from_utf8(entry).ok().and_then(|entry| parse(entry.trim())) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`.
fn parse(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = entry.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|v6| IpAddr::V6(v6).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn quotas_count_ipv4_addresses_and_ipv6_networks() {
        let key = |text| AddressKey::from(ip(text));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn an_ipv6_address_is_charged_to_three_networks() {
        let networks = |text| AddressKey::from(ip(text)).networks().collect::<Vec<_>>();
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

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let client = |peer, lines: &[&'static str]| trusted.client(ip(peer), lines.iter().map(|line| line.as_bytes()));
        assert_eq!(client("192.0.2.9", &["203.0.113.1"]), ip("192.0.2.9"), "not a proxy of ours");
        assert_eq!(client("10.1.1.1", &["203.0.113.1"]), ip("203.0.113.1"));
        assert_eq!(client("10.1.1.1", &["1.1.1.1, 203.0.113.1"]), ip("203.0.113.1"), "what the client itself wrote");
        assert_eq!(client("10.1.1.1", &["1.1.1.1, 203.0.113.1", "10.2.2.2"]), ip("203.0.113.1"), "two proxies");
        assert_eq!(client("::1", &["[2001:db8::1]:443"]), ip("2001:db8::1"));
        assert_eq!(client("10.1.1.1", &["nonsense"]), ip("10.1.1.1"));
        assert_eq!(client("10.1.1.1", &[]), ip("10.1.1.1"));
    }
}
