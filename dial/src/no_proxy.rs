//! `NO_PROXY`, read as Go's `golang.org/x/net/http/httpproxy` reads it.

use std::net::IpAddr;

use ::url::Host;
use ipnet::IpNet;

/// The hosts that are reached directly.
#[derive(Debug)]
pub(crate) struct NoProxy(Vec<Rule>);

#[derive(Debug)]
enum Rule {
    All,
    Net(IpNet),
    Ip(IpAddr, Option<u16>),
    /// `suffix` begins with a dot; `itself`: whether the name without the dot matches too.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl NoProxy {
    /// Comma-separated: `*`, addresses, CIDR blocks, `name` (and what is under it), `.name` or `*.name` (only what is
    /// under it); addresses and names may have a port.
    pub(crate) fn parse(list: &str) -> Self {
        Self(list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).filter_map(rule).collect())
    }

    /// Whether a target is reached directly. Loopback always is.
    pub(crate) fn matches(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches([']', '.']).to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        self.0.iter().any(|rule| match rule {
            Rule::All => true,
            Rule::Net(net) => ip.is_some_and(|ip| net.contains(&ip)),
            Rule::Ip(only, p) => ip == Some(*only) && p.is_none_or(|p| p == port),
            Rule::Domain { suffix, itself, port: p } => {
                ip.is_none()
                    && p.is_none_or(|p| p == port)
                    && (host.ends_with(suffix) || (*itself && host == suffix[1..]))
            }
        })
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if entry == "*" {
        return Some(Rule::All);
    }
    if let Ok(net) = entry.parse::<IpNet>() {
        return Some(Rule::Net(net));
    }
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Some(Rule::Ip(ip.to_canonical(), None));
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Rule::Ip(ip.to_canonical(), port));
    }
    let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
    let itself = !host.starts_with('.');
    let name = host.trim_start_matches('.');
    if name.is_empty() {
        return None;
    }
    let name = Host::parse(name).map_or_else(|_| name.to_ascii_lowercase(), |host| host.to_string());
    Some(Rule::Domain { suffix: format!(".{name}"), itself, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for (list, host, direct) in [
            ("", "relay.example.com", false),
            ("", "localhost", true),
            ("", "127.0.0.1", true),
            ("", "127.8.9.1", true),
            ("", "::1", true),
            ("", "[::1]", true),
            ("", "::ffff:127.0.0.1", true),
            ("*", "relay.example.com", true),
            ("*", "10.0.0.1", true),
            ("a, * ,b", "relay.example.com", true),
            ("example.com", "example.com", true),
            ("example.com", "relay.example.com", true),
            ("example.com", "RELAY.Example.COM", true),
            ("EXAMPLE.com", "example.com.", true),
            ("example.com", "notexample.com", false),
            ("example.com", "example.com.evil.org", false),
            (".example.com", "example.com", false),
            (".example.com", "relay.example.com", true),
            ("*.example.com", "relay.example.com", true),
            ("*.example.com", "example.com", false),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("example.com:443", "example.com", true),
            ("example.com:8443", "example.com", false),
            ("example.com:x", "example.com", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1:443", "10.0.0.1", true),
            ("10.0.0.1:80", "10.0.0.1", false),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.255.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "relay.example.com", false),
            ("fd00::/8", "fd12::1", true),
            ("2001:db8::1", "2001:db8::1", true),
            ("[2001:db8::1]:443", "2001:db8::1", true),
            ("0.1", "10.0.0.1", false),
            (" , ,.,:", "example.com", false),
            ("a.org\texample.com", "example.com", false),
            ("a.org, example.com", "example.com", true),
        ] {
            assert_eq!(NoProxy::parse(list).matches(host, 443), direct, "NO_PROXY={list:?} {host}");
        }
    }
}
