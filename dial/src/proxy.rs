//! Proxies: which one to use, and how to get a connection through it.
//!
//! The rules are those of Go's `net/http`, which kubectl users know: `HTTPS_PROXY` for TLS targets, `HTTP_PROXY` for
//! plain ones, lower case accepted, `NO_PROXY` excepts hosts, and loopback is never proxied. `ALL_PROXY` is used
//! where the variable of the scheme is not set (as in curl). [`crate::connect_tcp_via_proxy`] serves any caller with a target and
//! perhaps a proxy, such as a kubeconfig's `proxy-url`.

use std::fmt;

use ::url::{Host, Url};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::{error::DialError, no_proxy::NoProxy};

/// The proxy variables of an environment. `Debug` shows their names only: the values may hold passwords.
#[derive(Clone, Default)]
pub struct ProxyEnv {
    vars: Vec<(&'static str, Zeroizing<String>)>,
}

const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NO: [&str; 2] = ["NO_PROXY", "no_proxy"];

impl ProxyEnv {
    /// This process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_vars(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))),
        )
    }

    /// From `(name, value)` pairs; other variables are ignored, empty ones count as not set.
    pub fn from_vars<N: AsRef<str>, V: Into<String>>(vars: impl IntoIterator<Item = (N, V)>) -> Self {
        let known = [HTTPS, HTTP, ALL, NO].concat();
        let vars = vars.into_iter().filter_map(|(name, value)| {
            let name = known.iter().find(|known| **known == name.as_ref())?;
            Some((*name, Zeroizing::new(value.into())))
        });
        Self { vars: vars.filter(|(_, value)| !value.trim().is_empty()).collect() }
    }

    /// The proxy for a target, `None` for a direct connection.
    ///
    /// # Errors
    /// [`DialError::ProxySetting`] where the variable that applies cannot be read: never a silent direct connection.
    pub fn select(&self, tls: bool, host: &str, port: u16) -> Result<Option<ProxyTarget>, DialError> {
        let own = if tls { HTTPS } else { HTTP };
        let Some((setting, value)) = self.first(&own).or_else(|| self.first(&ALL)) else { return Ok(None) };
        let except = self.first(&NO).map_or("", |(_, value)| value);
        if NoProxy::parse(except).matches(host, port) {
            return Ok(None);
        }
        ProxyTarget::parse(value, setting).map(Some)
    }

    fn first(&self, names: &[&str]) -> Option<(&'static str, &str)> {
        names.iter().find_map(|name| {
            self.vars.iter().find(|(known, _)| known == name).map(|(known, value)| (*known, value.as_str()))
        })
    }
}

impl fmt::Debug for ProxyEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.vars.iter().map(|(name, _)| name)).finish()
    }
}

/// The protocol that a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyScheme {
    /// CONNECT in plain text.
    Http,
    /// CONNECT inside TLS.
    Https,
    /// SOCKS version 5 (RFC 1928); names are resolved by the proxy.
    Socks5,
}

/// A proxy, with its credentials. `Debug` and `Display` show no credentials.
#[derive(Clone)]
pub struct ProxyTarget {
    pub(crate) scheme: ProxyScheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, Zeroizing<String>)>,
    pub(crate) setting: String,
}

impl ProxyTarget {
    /// Reads a proxy URL; without a scheme it is `http`. `setting` is the name of its source in messages, such as `HTTPS_PROXY`.
    ///
    /// # Errors
    /// [`DialError::ProxySetting`], which does not show the URL.
    pub fn parse(text: &str, setting: &str) -> Result<Self, DialError> {
        let failed = |reason| DialError::ProxySetting { setting: setting.to_owned(), reason };
        let text = text.trim();
        let whole = Zeroizing::new(if text.contains("://") { text.to_owned() } else { format!("http://{text}") });
        let url = Url::parse(&whole).map_err(|_| failed("it is not a URL"))?;
        let (scheme, port) = match url.scheme() {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            "socks5" | "socks5h" => (ProxyScheme::Socks5, 1080),
            _ => return Err(failed("its scheme is not http, https or socks5")),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(failed("something follows host and port"));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err(failed("it has no host")),
        };
        let decode = |part: &str| percent_decode_str(part).decode_utf8().map(|text| text.into_owned());
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((
                decode(user).map_err(|_| failed("its user name is not UTF-8"))?,
                Zeroizing::new(decode(password.unwrap_or("")).map_err(|_| failed("its password is not UTF-8"))?),
            )),
        };
        Ok(Self { scheme, host, port: url.port().unwrap_or(port), credentials, setting: setting.to_owned() })
    }

    /// The protocol that it speaks.
    #[must_use]
    pub fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    /// `host:port`, and where the setting came from.
    pub(crate) fn address(&self) -> String {
        format!("the proxy {} (from {})", host_port(&self.host, self.port), self.setting)
    }

    /// The `Proxy-Authorization` header (RFC 7617), marked as sensitive.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let basic = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&basic).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Display for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{} (from {})", host_port(&self.host, self.port), self.setting)
    }
}

impl fmt::Debug for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> ProxyTarget {
        ProxyTarget::parse(text, "HTTPS_PROXY").unwrap()
    }

    #[test]
    fn proxy_urls() {
        for (text, scheme, host, port) in [
            ("http://proxy.corp:3128", ProxyScheme::Http, "proxy.corp", 3128),
            ("proxy.corp:3128", ProxyScheme::Http, "proxy.corp", 3128),
            ("proxy.corp", ProxyScheme::Http, "proxy.corp", 80),
            ("10.0.0.1:8080/", ProxyScheme::Http, "10.0.0.1", 8080),
            ("https://proxy.corp", ProxyScheme::Https, "proxy.corp", 443),
            ("http://[::1]:3128", ProxyScheme::Http, "::1", 3128),
            ("socks5://h", ProxyScheme::Socks5, "h", 1080),
            ("socks5h://h:1", ProxyScheme::Socks5, "h", 1),
        ] {
            let target = target(text);
            assert_eq!((target.scheme, target.host.as_str(), target.port), (scheme, host, port), "{text}");
            assert!(target.authorization().is_none());
        }
    }

    #[test]
    fn credentials_are_decoded_for_the_header_and_shown_nowhere() {
        let target = target("http://ann%40corp:p%3Aw%2F@proxy.corp:3128");
        let header = target.authorization().unwrap();
        assert_eq!(header, "Basic YW5uQGNvcnA6cDp3Lw==");
        assert_eq!(format!("{target} {target:?} {header:?}").matches("ann").count(), 0);
        assert_eq!(target.to_string(), "http://proxy.corp:3128 (from HTTPS_PROXY)");
        let env = ProxyEnv::from_vars([("HTTPS_PROXY", "http://ann:hunter2@proxy.corp")]);
        assert_eq!(format!("{env:?}"), "[\"HTTPS_PROXY\"]");
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_an_error_that_hides_it() {
        for text in [
            "http://",
            "http://ann:hun#ter2@proxy.corp:3128",
            "http://ann:12/hunter2@proxy.corp:3128",
            "http://ann:12?hunter2@proxy.corp:3128",
            "http://ann:hunter2@proxy.corp:notaport",
            "ftp://ann:hunter2@proxy.corp",
            "http://ann:%ff@proxy.corp",
        ] {
            let error = ProxyTarget::parse(text, "https_proxy").unwrap_err();
            assert!(error.to_string().starts_with("https_proxy is not a usable proxy URL"), "{error}");
            assert!(!format!("{error} {error:?}").contains("ter2"), "{error}");
        }
        let env = ProxyEnv::from_vars([("HTTPS_PROXY", "ftp://x")]);
        assert!(env.select(true, "relay.example", 443).is_err());
    }

    #[test]
    fn the_variable_fits_the_target() {
        let env = |vars: &[(&'static str, &'static str)]| ProxyEnv::from_vars(vars.iter().copied());
        let both = [("HTTPS_PROXY", "s"), ("HTTP_PROXY", "p")];
        for (vars, tls, expected) in [
            (&both[..], true, Some("http://s:80 (from HTTPS_PROXY)")),
            (&both[..], false, Some("http://p:80 (from HTTP_PROXY)")),
            (&[("http_proxy", "p")], true, None),
            (&[("https_proxy", "s")], true, Some("http://s:80 (from https_proxy)")),
            (&[("https_proxy", "low"), ("HTTPS_PROXY", "up")], true, Some("http://up:80 (from HTTPS_PROXY)")),
            (&[("https_proxy", "low"), ("HTTPS_PROXY", "")], true, Some("http://low:80 (from https_proxy)")),
            (&[("all_proxy", "a"), ("HTTPS_PROXY", "s")], true, Some("http://s:80 (from HTTPS_PROXY)")),
            (&[("all_proxy", "a")], true, Some("http://a:80 (from all_proxy)")),
            (&[("ALL_PROXY", "a"), ("NO_PROXY", ".example")], true, None),
            (&[("PROXY", "a"), ("PATH", "/bin")], true, None),
        ] {
            let chosen = env(vars).select(tls, "relay.example", 443).unwrap();
            assert_eq!(chosen.map(|t| t.to_string()).as_deref(), expected, "{vars:?}");
        }
    }
}
