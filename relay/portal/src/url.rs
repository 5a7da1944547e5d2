//! The address that people reach a relay by.

use std::net::IpAddr;

use url::{Host, Url};

/// A relay's base URL: scheme, lower-case host, port where it is not the scheme's own, path prefix; nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    whole: String,
    /// Length of scheme, host and port in it.
    origin: usize,
    is_tls: bool,
    is_loopback: bool,
}

/// Why a text is no base URL. It does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicUrlError {
    /// Not one at all.
    #[error("a relay's address looks like https://relay.example.com, with nothing before the host or behind the path")]
    Invalid,
    /// Tokens would cross a network in the clear.
    #[error("a relay that people sign in at is reached by https (http is for this machine alone)")]
    PlainText,
}

impl PublicUrl {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or not safe to sign in at.
    pub fn parse(text: &str) -> Result<Self, PublicUrlError> {
        let url = Url::parse(text).map_err(|_| PublicUrlError::Invalid)?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(PublicUrlError::Invalid),
        };
        let has_more = !url.username().is_empty() || url.password().is_some();
        if has_more || url.query().is_some() || url.fragment().is_some() {
            return Err(PublicUrlError::Invalid);
        }
        let is_loopback = match url.host().ok_or(PublicUrlError::Invalid)? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => IpAddr::V6(ip).to_canonical().is_loopback(),
        };
        if !is_tls && !is_loopback {
            return Err(PublicUrlError::PlainText);
        }
        let origin = url.origin().ascii_serialization();
        let whole = format!("{origin}{}", url.path().trim_end_matches('/'));
        Ok(Self { origin: origin.len(), whole, is_tls, is_loopback })
    }

    /// The whole of it, in its one form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// Scheme, host and port: what a browser calls an origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.whole[..self.origin]
    }

    /// Its path, with no slash at the end: what stands before every path of the relay's.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.whole[self.origin..]
    }

    /// Whether it has no path.
    #[must_use]
    pub fn is_origin(&self) -> bool {
        self.origin == self.whole.len()
    }

    /// Whether it is https.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Whether it leads to this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_form() {
        for (given, whole, origin, loopback) in [
            ("https://Relay.Example.com/", "https://relay.example.com", "https://relay.example.com", false),
            ("https://r.example:443/a/b//", "https://r.example/a/b", "https://r.example", false),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000", true),
            ("http://[::1]:8000/x", "http://[::1]:8000/x", "http://[::1]:8000", true),
        ] {
            let url = PublicUrl::parse(given).unwrap();
            assert_eq!((url.as_str(), url.origin(), url.is_loopback()), (whole, origin, loopback));
            assert_eq!(format!("{origin}{}", url.prefix()), whole);
        }
        assert_eq!(PublicUrl::parse("http://relay.example"), Err(PublicUrlError::PlainText));
        for bad in ["", "relay.example", "ftp://r", "https://u@r", "https://r/?a", "https://r/#a", "data:x"] {
            assert_eq!(PublicUrl::parse(bad), Err(PublicUrlError::Invalid), "{bad}");
        }
    }
}
