//! The address of the API server, from a cluster's `server`.

use mykube_protocol::text::is_plain_path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use url::{Host, Url};

use crate::error::{KubeconfigError, Place};

/// The characters that Go escapes in a path (`net/url`, `encodePath`): all but letters, digits and these.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Host, port and path of an `https://` server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `/prefix`, if the API server is behind one, as kubectl writes it into its requests.
    pub(crate) path: Option<String>,
}

/// Parses `server`. Without a scheme it is https if the cluster has TLS settings, as kubectl's documentation says.
pub(crate) fn parse(server: Option<&str>, has_tls: bool, place: &Place) -> Result<ServerUrl, KubeconfigError> {
    let bad = |problem| KubeconfigError::Field { field: "server", place: place.clone(), problem };
    let text = server.filter(|text| !text.is_empty()).ok_or_else(|| KubeconfigError::NoServer(place.clone()))?;
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None if has_tls => ("https", text),
        None => ("http", text),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // Go parses it as a request's URI, which has no fragment: `#` is one more character of the path.
    let path = if path.starts_with('/') { path.split('?').next().unwrap_or_default() } else { "" };
    if text.chars().any(char::is_control) || [scheme, authority].iter().any(|part| part.contains([' ', '%', '\\'])) {
        return Err(bad(
            "has a control character, or a space, `%` or backslash before its path: write it like https://HOST:PORT",
        ));
    }
    let url = Url::parse(&format!("{scheme}://{authority}"))
        .map_err(|_| bad("is not a URL: write it like https://HOST:PORT"))?;
    match url.scheme() {
        "https" => {}
        "http" => return Err(KubeconfigError::Unencrypted(place.clone())),
        _ => return Err(bad("is not an https:// URL: write it like https://HOST:PORT")),
    }
    if authority.contains('@') {
        return Err(bad("has a user name in it: move it to the user's `username` and `password`"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) if is_host_name(name) => name.to_owned(),
        // Browsers take 10.1 and 167772161 for addresses too; kubectl takes them for names.
        Some(Host::Ipv4(ip)) if authority.split(':').next() == Some(&ip.to_string()) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().to_string(),
        _ => return Err(bad("has no usable host: write it like https://HOST:PORT")),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or_else(|| bad("has no usable port"))?;
    let path = written(path).ok_or_else(|| bad("has a `%` that escapes nothing: write it as %25"))?;
    if !path.is_empty() && !is_plain_path(&path) {
        return Err(bad(
            "has a path that mykube cannot carry (with a control character or a backslash, or of over 1024 bytes)",
        ));
    }
    Ok(ServerUrl { host, port, path: Some(path).filter(|path| !path.is_empty()) })
}

/// A path as kubectl writes it: unescaped, cleaned (`path.Join`) and escaped again; `None` for `/`. kubectl too drops
/// the query and fragment of a server.
fn written(path: &str) -> Option<String> {
    let mut escapes = path.split('%').skip(1);
    if !escapes.all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit)) {
        return None;
    }
    let plain: Vec<u8> = percent_decode_str(path).collect();
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in plain.split(|b| *b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Some(segments.iter().map(|segment| format!("/{}", percent_encode(segment, &ESCAPED))).collect())
}

/// A DNS name as in a certificate, or an IP address without brackets.
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
            ("https://h/../a//b/./", "h", 443, Some("/a/b")),
            ("https://h/%2e%2e/a%2Fb/%41", "h", 443, Some("/a/b/A")),
            ("HTTPS://h:6443/clusters/root:org", "h", 6443, Some("/clusters/root:org")),
            ("https://h/v1/teleport/cm9vdA/a3ViZQ==", "h", 443, Some("/v1/teleport/cm9vdA/a3ViZQ==")),
            ("https://h/a+b@c,d$e&f;g=h~", "h", 443, Some("/a+b@c,d$e&f;g=h~")),
            // The right column is how Go writes them.
            ("https://h/!'(*)", "h", 443, Some("/%21%27%28%2A%29")),
            ("https://h/a b/%20/ä/%C3%A4/%25", "h", 443, Some("/a%20b/%20/%C3%A4/%C3%A4/%25")),
            ("https://h/p?q=%zz#f", "h", 443, Some("/p")),
            ("https://h/p#f", "h", 443, Some("/p%23f")),
            ("https://h#f/g", "h", 443, None),
            ("https://[::ffff:10.0.0.1]:6443", "10.0.0.1", 6443, None),
            ("https://h?q", "h", 443, None),
            ("https://h:", "h", 443, None),
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
            "https://user@h/hunter2",
            " https://h/hunter2",
            "https://h /hunter2",
            "https://h\\hunter2",
            "https://h/hunter2%",
            "https://h/hunter2%2",
            "https://h/hunter2%zz",
            "https://h/hunter2\n",
            "https://h/hunter2%0a",
            "https://h/hunter2%5c",
            "https://$(hunter2)",
            "https://10.1/hunter2",
            "https://%61/hunter2",
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
