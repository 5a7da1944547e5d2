//! Headers on their way to the API server and back.
//!
//! Headers that belong to one hop are rebuilt (RFC 9110 section 7.6.1). Headers that say who the sender is are removed,
//! whichever program wrote them: the agent's credentials decide, and a `--token` must not silently act as someone else. Cookies
//! that a proxy before the API server sets are between it and the agent.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use percent_encoding::percent_decode_str;

use crate::{inner::Wanted, room::FREE};

/// Headers of one hop only.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What `Connection` may name. A header that it names is lost on the way: `Impersonate-User`, for example.
const CONNECTION_OPTIONS: [&str; 8] =
    ["close", "keep-alive", "upgrade", "te", "trailer", "trailers", "http2-settings", "proxy-connection"];

/// A bearer token among a WebSocket's subprotocols: how browsers authenticate.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Protocols that a connection may become: WebSocket exec and port-forward, and SPDY before it.
const UPGRADES: [&str; 2] = ["websocket", "spdy/3.1"];

/// Patches that change an existing object only. Server-side apply and unknown types may create it.
const PATCHES: [&[u8]; 3] =
    [b"application/json-patch+json", b"application/merge-patch+json", b"application/strategic-merge-patch+json"];

/// Bytes of a head with these fields, without its first line.
pub(crate) fn head_len(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len()).sum()
}

/// Most fields of an answer after which a client's idle connection is kept: hyper keeps memory for them, some KiB.
pub(crate) const FIELDS_KEPT: usize = 64;

/// Whether hyper would hold more of an answer with these fields than an idle connection may: the memory that it wrote
/// the head from, and the map.
/// map.
pub(crate) fn is_long(answer: &HeaderMap) -> bool {
    head_len(answer) > FREE || answer.len() > FIELDS_KEPT
}

/// A request's headers, ready to be forwarded.
#[derive(Debug, Default)]
pub(crate) struct RequestHeaders {
    /// Without length, host and credentials, which are set when the request is sent.
    pub(crate) forwarded: HeaderMap,
    /// The protocol asked for.
    pub(crate) upgrade: Option<HeaderValue>,
    /// Names of the headers that were removed because they say who the sender is.
    pub(crate) removed: Vec<&'static str>,
    /// Which user the request is to be made as, if it has `Impersonate-*` headers.
    pub(crate) impersonates: Option<Wanted>,
    /// It has such headers written with `_` for `-`, which the API server ignores.
    pub(crate) disguised: bool,
    /// It is a PATCH that may create its object.
    pub(crate) applies: bool,
}

/// Sorts a request's headers. With `cookies` the request is for a program behind the API server, which may use them.
///
/// # Errors
/// What is wrong with the headers, as the end of a sentence.
pub(crate) fn request(headers: &HeaderMap, version: Version, cookies: bool) -> Result<RequestHeaders, &'static str> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err("has more than one Host");
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (encodings.next().is_some() || !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err("has a Transfer-Encoding that is not exactly `chunked`");
    }
    let options = tokens(headers, &header::CONNECTION).ok_or("has a Connection header that is no text")?;
    if options.iter().any(|option| !CONNECTION_OPTIONS.contains(&option.as_str())) {
        return Err("has a Connection header that names another header");
    }
    let once = |name| headers.get_all(name).iter().count() < 2;
    if !once("impersonate-user") || !once("impersonate-uid") {
        return Err("has more than one Impersonate-User or Impersonate-Uid");
    }
    let mut out = RequestHeaders { applies: applies(headers), ..RequestHeaders::default() };
    if options.iter().any(|option| option == "upgrade") && version == Version::HTTP_11 {
        out.upgrade = upgrade(headers)?;
    }
    for (name, value) in headers {
        let plain = name.as_str().replace('_', "-");
        // The API server ignores names with `_`, but a proxy before it may not.
        let disguised = plain.starts_with("impersonate-") && !name.as_str().starts_with("impersonate-");
        out.disguised |= disguised;
        let removed = match () {
            () if disguised => Some("impersonate_*"),
            () if plain == "cookie" && !cookies => Some("cookie"),
            () => speaks_for_somebody(&plain),
        };
        if let Some(removed) = removed {
            if !out.removed.contains(&removed) {
                out.removed.push(removed);
            }
        } else if *name == header::SEC_WEBSOCKET_PROTOCOL {
            let kept = without_bearer(value, &mut out.removed)?;
            if let Some(kept) = kept {
                out.forwarded.append(name, kept);
            }
        } else if !is_rebuilt(name) {
            if let Some(what) = name.as_str().strip_prefix("impersonate-") {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                let wanted = out.impersonates.get_or_insert_default();
                match what {
                    "user" => wanted.user = value,
                    "uid" => wanted.uid = value,
                    "group" => wanted.groups.push(value),
                    _ => {
                        let key = what.strip_prefix("extra-").unwrap_or(what);
                        wanted.extra.push((percent_decode_str(key).decode_utf8_lossy().into_owned(), value));
                    }
                }
            }
            out.forwarded.append(name, value.clone());
        }
    }
    Ok(out)
}

/// Whether a PATCH of this type may create its object.
fn applies(headers: &HeaderMap) -> bool {
    let known = |value: &HeaderValue| {
        let kind = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        PATCHES.contains(&kind)
    };
    let mut types = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    types.peek().is_none() || !types.all(known)
}

/// Removes headers that belong to the hop to the API server, and the cookies of a proxy before it. With `cookies` they
/// are those of a program behind it.
pub(crate) fn clean_response(headers: &mut HeaderMap, cookies: bool) {
    if !cookies {
        headers.remove(header::SET_COOKIE);
    }
    // Names another address of the same server, in the cluster's network.
    headers.remove(header::ALT_SVC);
    for named in tokens(headers, &header::CONNECTION).unwrap_or_default() {
        headers.remove(named);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the header is written anew for the next hop.
fn is_rebuilt(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
        || [header::HOST, header::CONTENT_LENGTH, header::EXPECT].contains(name)
        || matches!(name.as_str(), "audit-id" | "http2-settings")
}

/// The header's name, or its family's, if it says who the sender is, where it comes from, or what it really asks for.
fn speaks_for_somebody(plain: &str) -> Option<&'static str> {
    const NAMES: [&str; 10] = [
        "authorization",
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-webauth-user",
    ];
    // Those of the API server's own front proxy, and of common proxies that pass on which user they have authenticated.
    const FAMILIES: [(&str, &str); 14] = [
        ("x-remote-", "x-remote-*"),
        ("x-forwarded-", "x-forwarded-*"),
        ("x-auth-request-", "x-auth-request-*"),
        ("x-authenticated-", "x-authenticated-*"),
        ("x-original-", "x-original-*"),
        ("x-rewrite-", "x-rewrite-*"),
        ("x-ssl-client-", "x-ssl-client-*"),
        ("ssl-client-", "ssl-client-*"),
        ("remote-", "remote-*"),
        ("x-amzn-oidc-", "x-amzn-oidc-*"),
        ("x-goog-authenticated-user-", "x-goog-authenticated-user-*"),
        ("x-goog-iap-", "x-goog-iap-*"),
        ("x-ms-client-principal", "x-ms-client-principal*"),
        ("cf-access-", "cf-access-*"),
    ];
    NAMES
        .into_iter()
        .find(|name| *name == plain)
        .or_else(|| FAMILIES.into_iter().find(|(prefix, _)| plain.starts_with(prefix)).map(|(_, family)| family))
}

/// The one protocol of `Upgrade` that can be forwarded. Any other upgrade is ignored, as HTTP allows.
fn upgrade(headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
    let offered = tokens(headers, &header::UPGRADE).ok_or("has an Upgrade header that is no text")?;
    match offered.iter().filter(|protocol| UPGRADES.contains(&protocol.as_str())).count() {
        0 => Ok(None),
        1 if offered.len() == 1 => Ok(headers.get(header::UPGRADE).cloned()),
        _ => Err("asks for several protocols in Upgrade"),
    }
}

fn without_bearer(value: &HeaderValue, removed: &mut Vec<&'static str>) -> Result<Option<HeaderValue>, &'static str> {
    const NAME: &str = "sec-websocket-protocol (bearer)";
    const BAD: &str = "has a Sec-WebSocket-Protocol header that is no text";
    let text = value.to_str().map_err(|_| BAD)?;
    let is_bearer = |protocol: &&str| {
        protocol.get(..BEARER_PROTOCOL.len()).is_some_and(|start| start.eq_ignore_ascii_case(BEARER_PROTOCOL))
    };
    let all = || text.split(',').map(str::trim).filter(|protocol| !protocol.is_empty());
    if !all().any(|protocol| is_bearer(&protocol)) {
        return Ok(Some(value.clone()));
    }
    removed.push(NAME);
    let kept = all().filter(|protocol| !is_bearer(protocol)).collect::<Vec<_>>().join(", ");
    if kept.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_str(&kept).map(Some).map_err(|_| BAD)
}

/// The comma-separated tokens of all headers of a name, in lower case.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let mut out = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().ok()?;
        out.extend(text.split(',').map(|token| token.trim().to_ascii_lowercase()).filter(|token| !token.is_empty()));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(HeaderName, HeaderValue)>>()
            .into_iter()
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_says_who_is_removed_and_named() {
        let out = request(
            &headers(&[
                ("host", "localhost"),
                ("accept", "application/json"),
                ("authorization", "Bearer x"),
                ("x-remote-user", "admin"),
                ("x-remote-group", "system:masters"),
                ("X_Remote_Extra-Foo", "x"),
                ("x-forwarded-for", "1.2.3.4"),
                ("forwarded", "for=1"),
                ("x-http-method-override", "DELETE"),
                ("audit-id", "mine"),
                ("content-length", "3"),
                ("keep-alive", "1"),
                ("te", "trailers"),
            ]),
            Version::HTTP_11,
            false,
        )
        .unwrap();
        assert_eq!(names(&out.forwarded), ["accept"]);
        let mut removed = out.removed;
        removed.sort_unstable();
        assert_eq!(removed, ["authorization", "forwarded", "x-forwarded-*", "x-http-method-override", "x-remote-*"]);
        assert!(out.upgrade.is_none() && out.impersonates.is_none());
    }

    #[test]
    fn the_bearer_subprotocol_is_taken_out_of_the_list() {
        let protocol = |value| {
            let out = request(&headers(&[("sec-websocket-protocol", value)]), Version::HTTP_11, false).unwrap();
            let kept = out.forwarded.get("sec-websocket-protocol").map(|kept| kept.to_str().unwrap().to_owned());
            (kept, !out.removed.is_empty())
        };
        assert_eq!(protocol("v5.channel.k8s.io"), (Some("v5.channel.k8s.io".into()), false));
        assert_eq!(
            protocol("base64url.bearer.authorization.k8s.io.abc, v5.channel.k8s.io"),
            (Some("v5.channel.k8s.io".into()), true)
        );
        assert_eq!(protocol("BASE64URL.bearer.authorization.k8s.io.abc"), (None, true));
    }

    #[test]
    fn upgrades() {
        let upgrade = |pairs: &[(&str, &str)]| {
            request(&headers(pairs), Version::HTTP_11, false)
                .map(|out| out.upgrade.map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(upgrade(&[("connection", "Upgrade"), ("upgrade", "websocket")]), Ok(Some("websocket".into())));
        assert_eq!(
            upgrade(&[("connection", "keep-alive, UPGRADE"), ("upgrade", "SPDY/3.1")]),
            Ok(Some("SPDY/3.1".into()))
        );
        assert_eq!(upgrade(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")]), Ok(None));
        assert_eq!(upgrade(&[("upgrade", "websocket")]), Ok(None));
        assert!(upgrade(&[("connection", "upgrade"), ("upgrade", "h2c, websocket")]).is_err());
    }

    #[test]
    fn what_is_refused() {
        for pairs in [
            &[("connection", "impersonate-user")][..],
            &[("connection", "close, Authorization")],
            &[("connection", "close"), ("connection", "x-anything")],
            &[("transfer-encoding", "chunked, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "identity")],
            &[("host", "a"), ("host", "b")],
        ] {
            assert!(request(&headers(pairs), Version::HTTP_11, false).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn impersonation_is_seen_however_it_is_written() {
        let seen = |name| request(&headers(&[(name, "x")]), Version::HTTP_11, false).unwrap().impersonates;
        let wanted = |user: &str, group: &str, uid: &str, extra: &[(&str, &str)]| Wanted {
            user: user.into(),
            groups: Some(group.to_owned()).filter(|group| !group.is_empty()).into_iter().collect(),
            uid: uid.into(),
            extra: extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        assert_eq!(seen("impersonate-user"), Some(wanted("x", "", "", &[])));
        assert_eq!(seen("Impersonate-Group"), Some(wanted("", "x", "", &[])));
        assert_eq!(seen("impersonate-uid"), Some(wanted("", "", "x", &[])));
        assert_eq!(
            seen("Impersonate-Extra-Example.org%2fScopes"),
            Some(wanted("", "", "", &[("example.org/scopes", "x")]))
        );
        assert_eq!(seen("impersonate-extra-a_b"), Some(wanted("", "", "", &[("a_b", "x")])));
        assert_eq!(seen("impersonate-else"), Some(wanted("", "", "", &[("else", "x")])));
        // The user of a name with `_`, which the API server ignores, is not taken for the one that it reads.
        let both = headers(&[("impersonate-user", "ann"), ("impersonate_user", "admin"), ("impersonate_group", "g")]);
        let out = request(&both, Version::HTTP_11, false).unwrap();
        assert_eq!((out.impersonates, out.disguised), (Some(wanted("ann", "", "", &[])), true));
        assert_eq!((names(&out.forwarded), out.removed), (vec!["impersonate-user"], vec!["impersonate_*"]));
        for name in ["impersonate-user", "Impersonate-Uid"] {
            assert!(request(&headers(&[(name, "a"), (name, "b")]), Version::HTTP_11, false).is_err(), "{name}");
        }
    }

    #[test]
    fn a_patch_of_another_type_may_make_its_object() {
        let applies = |pairs: &[(&str, &str)]| request(&headers(pairs), Version::HTTP_11, false).unwrap().applies;
        for kind in [
            "application/merge-patch+json",
            "application/json-patch+json",
            "application/strategic-merge-patch+json; charset=utf-8",
        ] {
            assert!(!applies(&[("content-type", kind)]), "{kind}");
        }
        for kind in [
            "application/apply-patch+yaml",
            "application/apply-patch+cbor",
            "application/apply-patch+yaml; charset=utf-8",
            "Application/Apply-Patch+YAML",
            "application/json",
            "application/merge-patch+json ; x",
            ";application/merge-patch+json",
            "",
        ] {
            assert!(applies(&[("content-type", kind)]), "{kind}");
        }
        assert!(applies(&[]));
        let two = ["application/merge-patch+json", "application/apply-patch+yaml"];
        assert!(applies(&[("content-type", two[0]), ("content-type", two[1])]));
    }

    #[test]
    fn what_a_front_keeps_with_a_client_is_the_agents() {
        let sent = headers(&[
            ("cookie", "session=1"),
            ("X-Auth-Request-User", "admin"),
            ("x_auth_request_email", "a"),
            ("x-app", "1"),
        ]);
        let out = request(&sent, Version::HTTP_11, false).unwrap();
        assert_eq!(names(&out.forwarded), ["x-app"]);
        assert_eq!(out.removed, ["cookie", "x-auth-request-*"]);
        let out = request(&sent, Version::HTTP_11, true).unwrap();
        assert_eq!(names(&out.forwarded), ["cookie", "x-app"]);
        for (cookies, expected) in [(false, vec!["etag"]), (true, vec!["etag", "set-cookie"])] {
            let mut answer =
                headers(&[("set-cookie", "a=b"), ("set-cookie", "c=d"), ("etag", "1"), ("alt-svc", "h3=\":443\"")]);
            clean_response(&mut answer, cookies);
            assert_eq!(names(&answer), expected);
        }
    }

    #[test]
    fn an_answer_keeps_nothing_of_its_hop() {
        let mut map = headers(&[
            ("connection", "x-private, close"),
            ("x-private", "1"),
            ("keep-alive", "1"),
            ("content-length", "5"),
        ]);
        clean_response(&mut map, false);
        assert_eq!(names(&map), ["content-length"]);
    }
}
