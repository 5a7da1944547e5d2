//! The address of the API server, out of a cluster's `server`.

use mykube_protocol::text::is_plain_path;
use url::{Host, Url};

use crate::{KubeconfigError, error::Place};

/// Host, port and path of an `https://` server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `/prefix`, where the API server stands behind one.
    pub(crate) path: Option<String>,
}

/// Reads `server`. Without a scheme it is https where the cluster has TLS settings, as kubectl takes it.
pub(crate) fn parse(server: Option<&str>, has_tls: bool, place: &Place) -> Result<ServerUrl, KubeconfigError> {
    let bad = |problem| KubeconfigError::Field { field: "server", place: place.clone(), problem };
    let text = server.map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| KubeconfigError::NoServer(place.clone()))?;
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false if has_tls => format!("https://{text}"),
        false => format!("http://{text}"),
    };
    let url = Url::parse(&whole).map_err(|_| bad("is not a URL: write it like https://HOST:PORT"))?;
    match url.scheme() {
        "https" => {}
        "http" => return Err(KubeconfigError::Unencrypted(place.clone())),
        _ => return Err(bad("is not an https:// URL: write it like https://HOST:PORT")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("has a user name in it: move it to the user's `username` and `password`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has a `?` or `#` in it: write it like https://HOST:PORT/PATH"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) if is_host_name(name) => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        _ => return Err(bad("has no usable host: write it like https://HOST:PORT")),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or_else(|| bad("has no usable port"))?;
    let path = url.path().trim_end_matches('/');
    if !path.is_empty() && !is_plain_path(path) {
        return Err(bad("has a path that mykube cannot carry (letters, digits and ._~- up to 256 characters)"));
    }
    Ok(ServerUrl { host, port, path: Some(path.to_owned()).filter(|path| !path.is_empty()) })
}

/// A DNS name as a certificate has it, or an IP address without brackets.
pub(crate) fn is_host_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str, has_tls: bool) -> Result<ServerUrl, KubeconfigError> {
        parse(Some(text), has_tls, &Place::named("cluster", "c", Path::new("/k")))
    }

    #[test]
    fn servers() {
        for (text, host, port, path) in [
            ("https://10.0.0.1:6443", "10.0.0.1", 6443, None),
            ("https://api.example", "api.example", 443, None),
            ("https://API.example/", "api.example", 443, None),
            ("https://[fd00::1]:6443", "fd00::1", 6443, None),
            ("https://rancher.example/k8s/clusters/c-x1/", "rancher.example", 443, Some("/k8s/clusters/c-x1")),
            ("https://h/a/../b", "h", 443, Some("/b")),
            ("api.example:6443", "api.example", 6443, None),
        ] {
            let expected = ServerUrl { host: host.into(), port, path: path.map(Into::into) };
            assert_eq!(read(text, true), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_server_is_refused_and_not_echoed() {
        for text in [
            "",
            "https://",
            "ftp://h",
            "https://h:0",
            "https://h:99999",
            "https://user:hunter2@h",
            "https://h?hunter2",
            "https://h#hunter2",
            "https://h/%2e%2e%2fhunter2",
            "https://h//hunter2",
            "https://h/hunter2 $(x)",
            "https://$(hunter2)",
        ] {
            let error = read(text, true).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("`server`"), "{error}");
        }
        for text in ["http://127.0.0.1:8080", "http://h"] {
            assert!(matches!(read(text, true), Err(KubeconfigError::Unencrypted(_))), "{text}");
        }
        assert!(matches!(read("10.0.0.1:8080", false), Err(KubeconfigError::Unencrypted(_))));
    }
}
