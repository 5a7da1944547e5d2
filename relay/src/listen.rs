//! The address a relay listens on: how it is written, and the URL to announce for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// `127.0.0.1:9443`, `[::1]:9443`, `localhost:9443`; `:9443` and `9443` are every address of this machine.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, String> {
    let wrong =
        "an address to listen on looks like 0.0.0.0:9443, [::]:9443, localhost:9443, or :9443 for all addresses";
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port: u16 = port.parse().map_err(|_| wrong.to_owned())?;
    if host.is_empty() {
        return Ok((Ipv6Addr::UNSPECIFIED, port).into());
    }
    // An IPv6 address without its brackets would lose its end to the port.
    if host.contains([':', '[', ']', '/']) {
        return Err(wrong.to_owned());
    }
    let found = (host, port).to_socket_addrs().map_err(|error| format!("{host} cannot be resolved: {error}"))?;
    let found: Vec<_> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("{host} has no address"))
}

/// The URL that ends use for a relay that listens on `local`, and a hint for its operator, if there is one. `certificate`: with
/// TLS, the host that its certificate names, if it names one.
pub(crate) fn announced(local: SocketAddr, certificate: Option<Option<&str>>) -> (String, Option<String>) {
    let (ip, port) = (local.ip().to_canonical(), local.port());
    match certificate {
        None if ip.is_loopback() => (format!("http://{local}"), None),
        None => {
            let (here, there) = if ip.is_unspecified() {
                (SocketAddr::new(loopback(ip), port), SocketAddr::new(outgoing(ip).unwrap_or(ip), port))
            } else {
                (local, local)
            };
            let hint = format!(
                "Plain HTTP is for this machine alone: others need https, by --tls-cert and --tls-key, or by a proxy in \
                 front of http://{there} that has it."
            );
            (format!("http://{here}"), Some(hint))
        }
        Some(_) if ip.is_loopback() => (format!("https://{local}"), None),
        Some(Some(host)) => (format!("https://{host}:{port}"), None),
        Some(None) => {
            let known = if ip.is_unspecified() { outgoing(ip).unwrap_or(loopback(ip)) } else { ip };
            (format!("https://{}", SocketAddr::new(known, port)), None)
        }
    }
}

fn loopback(unspecified: IpAddr) -> IpAddr {
    if unspecified.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// The address from which this machine reaches others. Nothing is sent: connecting a UDP socket only chooses its route.
fn outgoing(unspecified: IpAddr) -> Option<IpAddr> {
    let from = |own: IpAddr, other: IpAddr| {
        let socket = UdpSocket::bind((own, 0)).ok()?;
        socket.connect((other, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    // Addresses for documentation, which only a default route matches (RFC 5737, RFC 3849).
    let v4 = || from(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = || from(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4().or_else(|| v6().filter(|_| unspecified.is_ipv6()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_written_as_people_do() {
        for (text, address) in [
            ("127.0.0.1:9443", "127.0.0.1:9443"),
            ("[::1]:0", "[::1]:0"),
            (":9443", "[::]:9443"),
            ("9443", "[::]:9443"),
            ("localhost:9443", "127.0.0.1:9443"),
        ] {
            assert_eq!(parse(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", ":", "relay", "::1", "::1:9443", "localhost", "127.0.0.1", ":99999", "http://localhost:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_told_can_be_used() {
        let told = |local: &str, certificate| announced(local.parse().unwrap(), certificate);
        assert_eq!(told("127.0.0.1:80", None), ("http://127.0.0.1:80".to_owned(), None));
        assert_eq!(told("127.0.0.1:80", Some(Some("relay.test"))), ("https://127.0.0.1:80".to_owned(), None));
        for any in ["0.0.0.0:443", "[::]:443", "192.0.2.9:443"] {
            assert_eq!(told(any, Some(Some("relay.test"))), ("https://relay.test:443".to_owned(), None), "{any}");
            let (_, hint) = told(any, None);
            assert!(hint.is_some_and(|hint| hint.contains("--tls-cert")), "ends take plain HTTP of loopback only");
        }
        assert_eq!(told("0.0.0.0:80", None).0, "http://127.0.0.1:80");
        assert_eq!(told("[::]:80", None).0, "http://[::1]:80");
        assert_eq!(told("192.0.2.9:443", Some(None)).0, "https://192.0.2.9:443");
        assert!(!told("0.0.0.0:443", Some(None)).0.contains("0.0.0.0"));
    }
}
