//! Addresses of providers: https, or http that stays on this machine.

use http::Uri;
use url::{Host, Url};

/// Why a text is no address of a provider. Continues the name of what has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// No URL with a host.
    #[error("is no address like https://accounts.example.com")]
    NoUrl,
    /// Codes and secrets would go over a network in plain text.
    #[error("does not begin with https:// (plain http is for this machine only)")]
    PlainText,
    /// `user:password@`, or a fragment.
    #[error("has a user, a password or a `#`, which no address of a provider has")]
    Extra,
}

/// Reads an address that a provider may be asked at. A query may stand there (RFC 6749, section 3.1).
pub(crate) fn parse(text: &str) -> Result<Url, InvalidAddress> {
    let url = Url::parse(text).map_err(|_| InvalidAddress::NoUrl)?;
    let host = url.host().ok_or(InvalidAddress::NoUrl)?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&host) => {}
        _ => return Err(InvalidAddress::PlainText),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(InvalidAddress::Extra);
    }
    Ok(url)
}

/// Reads an issuer (OpenID Connect Discovery, section 3): as an address, without a query.
pub(crate) fn parse_issuer(text: &str) -> Result<Url, InvalidAddress> {
    let url = parse(text)?;
    if url.query().is_some() { Err(InvalidAddress::Extra) } else { Ok(url) }
}

/// Reads an address that a document of the issuer names. An issuer reached by https never leads to plain http.
pub(crate) fn parse_named(text: &str, issuer: &Url) -> Result<Url, InvalidAddress> {
    let url = parse(text)?;
    if issuer.scheme() == "https" && url.scheme() != "https" { Err(InvalidAddress::PlainText) } else { Ok(url) }
}

/// A path under a base address, whether or not that ends with a slash.
pub(crate) fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// For a request.
pub(crate) fn uri(url: &Url) -> Uri {
    url.as_str().parse().expect("a URL with a host is a URI")
}

/// 127.0.0.0/8, `::1` and `localhost`.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.to_canonical().is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_reached_by_https_or_on_this_machine() {
        for text in [
            "https://accounts.google.com",
            "https://x.example/realms/a/",
            "http://127.0.0.1:9/",
            "http://localhost:1",
            "http://[::1]/",
        ] {
            assert!(parse_issuer(text).is_ok(), "{text}");
        }
        for (text, why) in [
            ("", InvalidAddress::NoUrl),
            ("accounts.google.com", InvalidAddress::NoUrl),
            ("https://", InvalidAddress::NoUrl),
            ("http://accounts.google.com", InvalidAddress::PlainText),
            ("http://10.0.0.1", InvalidAddress::PlainText),
            ("http://localhost.example", InvalidAddress::PlainText),
            ("http://0.0.0.0", InvalidAddress::PlainText),
            ("ftp://x.example", InvalidAddress::PlainText),
            ("https://u:p@x.example", InvalidAddress::Extra),
            ("https://x.example/#a", InvalidAddress::Extra),
            ("https://x.example/?a", InvalidAddress::Extra),
        ] {
            assert_eq!(parse_issuer(text), Err(why), "{text}");
        }
        assert!(parse("https://x.example/authorize?tenant=1").is_ok(), "an endpoint may have a query");
    }

    #[test]
    fn https_leads_to_https() {
        let issuer = |text| parse_issuer(text).unwrap();
        let plain = "http://127.0.0.1:9/token";
        assert_eq!(parse_named(plain, &issuer("https://x.example")), Err(InvalidAddress::PlainText));
        assert!(parse_named(plain, &issuer("http://127.0.0.1:8")).is_ok());
        assert!(parse_named("https://x.example/token", &issuer("http://127.0.0.1:8")).is_ok());
    }

    #[test]
    fn a_path_stands_under_the_issuers_own() {
        for (base, all) in [
            ("https://x.example", "https://x.example/a/b"),
            ("https://x.example/", "https://x.example/a/b"),
            ("https://x.example/realms/r/", "https://x.example/realms/r/a/b"),
        ] {
            assert_eq!(under(&parse_issuer(base).unwrap(), "a/b").as_str(), all);
        }
    }
}
