//! `--relay-url`: a relay's address and nothing else, no credentials and no query.

use std::{fmt, net::IpAddr, str::FromStr};

use ::url::{Host, Url};
use mykube_protocol::text::printable;

/// Why a text is not a relay's address. Never holds the text's user, password or query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayUrlError {
    /// Not a URL.
    #[error("the relay's address is not a URL ({0}): give it like https://relay.example.com")]
    Invalid(String),
    /// Another scheme than http, https, ws or wss.
    #[error(
        "a relay is reached by https (or http on this machine), not by {0}: give it like https://relay.example.com"
    )]
    Scheme(String),
    /// Plain text over a network.
    #[error(
        "refusing to reach {0} without TLS, where others could take tickets and cut the session: use https://{0} \
         (plain http is for localhost only)"
    )]
    PlainText(String),
    /// `https://user:password@...`
    #[error("the relay's address takes no user name or password: remove what stands before the @")]
    UserInfo,
    /// `?...` or `#...`
    #[error("the relay's address takes no `?` or `#`: give it like https://relay.example.com")]
    Extra,
}

/// A relay's address: scheme, host, port, and the path prefix it is served under.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayUrl {
    tls: bool,
    host: Host<String>,
    port: u16,
    prefix: String,
}

impl RelayUrl {
    /// Whether the relay is reached by TLS; if not, it is on this machine.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is on this machine by its name or address: 127.0.0.0/8, ::1 and `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        }
    }

    /// The port, 443 or 80 where none was given.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port` for messages, an IPv6 address in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The `Host` header (RFC 9110 section 7.2): the port only where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == default_port(self.tls) { self.host.to_string() } else { self.address() }
    }

    /// The request path of a call, under the relay's prefix; `call` begins with a slash.
    #[must_use]
    pub fn path(&self, call: &str) -> String {
        format!("{}{call}", self.prefix)
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

impl FromStr for RelayUrl {
    type Err = RelayUrlError;

    fn from_str(text: &str) -> Result<Self, RelayUrlError> {
        let text = text.trim();
        if !text.contains("://") {
            return Err(RelayUrlError::Invalid("it does not begin with https://".into()));
        }
        let url = Url::parse(text).map_err(|e| RelayUrlError::Invalid(e.to_string()))?;
        let tls = match url.scheme() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            other => return Err(RelayUrlError::Scheme(printable(other, 32))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(RelayUrlError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RelayUrlError::Extra);
        }
        let host = url.host().ok_or_else(|| RelayUrlError::Invalid("it has no host".into()))?.to_owned();
        if !tls && !is_loopback(&host) {
            return Err(RelayUrlError::PlainText(host.to_string()));
        }
        let port = url.port().unwrap_or_else(|| default_port(tls));
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host, port, prefix })
    }
}

/// 127.0.0.0/8, ::1 and `localhost`.
fn is_loopback(host: &Host<String>) -> bool {
    match host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => IpAddr::V6(*ip).to_canonical().is_loopback(),
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl fmt::Debug for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RelayUrl, RelayUrlError> {
        text.parse()
    }

    #[test]
    fn addresses_have_one_form() {
        for (given, canonical, address) in [
            ("https://relay.example.com", "https://relay.example.com", "relay.example.com:443"),
            ("wss://Relay.Example.com/", "https://relay.example.com", "relay.example.com:443"),
            ("https://relay.example.com:443", "https://relay.example.com", "relay.example.com:443"),
            (" https://r.example:8443/a/b// ", "https://r.example:8443/a/b", "r.example:8443"),
            ("https://[2001:db8::1]:9", "https://[2001:db8::1]:9", "[2001:db8::1]:9"),
            ("https://bücher.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example:443"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://127.9.9.9", "http://127.9.9.9", "127.9.9.9:80"),
            ("ws://localhost:80/x", "http://localhost/x", "localhost:80"),
            ("http://[::1]:8000", "http://[::1]:8000", "[::1]:8000"),
            ("http://[::ffff:127.0.0.1]:1", "http://[::ffff:7f00:1]:1", "[::ffff:7f00:1]:1"),
        ] {
            let url = parse(given).unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(url.to_string(), canonical);
            assert_eq!(url.address(), address);
            assert_eq!(parse(canonical), Ok(url));
        }
    }

    #[test]
    fn the_prefix_stands_before_each_call() {
        assert_eq!(parse("https://r.example").unwrap().path("/api/pair"), "/api/pair");
        assert_eq!(parse("https://r.example/kube/").unwrap().path("/api/pair"), "/kube/api/pair");
        assert_eq!(parse("https://r.example/a/../b").unwrap().path("/x"), "/b/x");
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        for text in [
            "http://relay.example.com",
            "ws://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[2001:db8::1]",
            "http://0.0.0.0:8000",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, RelayUrlError::PlainText(_)), "{text}: {error}");
            assert!(error.to_string().contains("use https://"), "{error}");
        }
    }

    #[test]
    fn anything_else_is_refused_without_showing_secrets() {
        assert_eq!(parse("https://u:hunter2@r.example"), Err(RelayUrlError::UserInfo));
        assert_eq!(parse("https://u@r.example"), Err(RelayUrlError::UserInfo));
        assert_eq!(parse("https://r.example/?token=1"), Err(RelayUrlError::Extra));
        assert_eq!(parse("https://r.example/#x"), Err(RelayUrlError::Extra));
        assert!(matches!(parse("ftp://r.example"), Err(RelayUrlError::Scheme(_))));
        for text in
            ["", "relay.example.com", "relay.example.com:8000", "https://", "https://r.example:99999", "https://a b"]
        {
            assert!(matches!(parse(text), Err(RelayUrlError::Invalid(_))), "{text}");
        }
    }
}
