//! The client's address of a request, as a trusted proxy names it.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Proxies that are believed when they name a client's address.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// From networks in CIDR form.
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether this address is a trusted proxy's.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client behind `peer`: the last address in `X-Forwarded-For` that is not a trusted proxy itself, or `peer` where that
    /// is not a trusted proxy. Entries before one that is not an address are ignored: the client itself may have written them.
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
