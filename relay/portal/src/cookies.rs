//! The two cookies of a browser: the published one, which browsers of other clients know, and the portal's own.

use http::{HeaderMap, HeaderValue, header};
use mykube_relay_accounts::{provider_state::LIFE, secret::Secret};

/// The published one holds a token of class `browser`.
pub(crate) const PUBLISHED: &str = "lukan_token";
/// The portal's own: no page of another host can set it, nor one without TLS (RFC 6265bis section 4.1.3.2).
pub(crate) const OWN: &str = "__Host-mykube";

/// What a browser is known by that is at a provider.
pub(crate) const STATE: &str = "__Host-mykube-state";

/// How long the published one is kept, in seconds: as long as its token lives.
const PUBLISHED_AGE: u64 = 30 * 24 * 3600;
/// How long the portal's own is kept, in seconds: a session in a browser lasts no longer.
const OWN_AGE: u64 = 30 * 24 * 3600;

/// The values under a name that are not empty, each once.
pub(crate) fn read_all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    // A neighbouring host's cookie may be no text: it takes nothing from those beside it.
    let pairs =
        headers.get_all(header::COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let pairs = pairs.filter_map(|pair| str::from_utf8(pair).ok()?.trim().split_once('='));
    let mut values = Vec::new();
    for (_, value) in pairs.filter(|(key, value)| *key == name && !value.is_empty()) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// Two values under one name: a page of a neighbouring host has set one of them, and nobody knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// The value under a name, if there is one that is not empty.
pub(crate) fn read<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Ambiguous> {
    match read_all(headers, name)[..] {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        _ => Err(Ambiguous),
    }
}

/// Whether there is one of ours.
pub(crate) fn has_any(headers: &HeaderMap) -> bool {
    [PUBLISHED, OWN].iter().any(|name| !read_all(headers, name).is_empty())
}

/// Both, for a browser that signs in; or, with empty values, for one that signs out. `foreign`: pages of other origins use
/// the published one, which other sites' requests carry too then.
pub(crate) fn set(published: &str, own: &str, foreign: bool) -> [HeaderValue; 2] {
    let age = |value: &str, age| if value.is_empty() { 0 } else { age };
    let site = if foreign { "None" } else { "Lax" };
    let published = format!(
        "{PUBLISHED}={published}; HttpOnly; SameSite={site}; Path=/; Max-Age={}; Secure",
        age(published, PUBLISHED_AGE)
    );
    let own = format!("{OWN}={own}; HttpOnly; SameSite=Lax; Path=/; Max-Age={}; Secure", age(own, OWN_AGE));
    [published, own].map(|cookie| {
        let mut value = HeaderValue::try_from(cookie).expect("tokens are of letters, digits and signs");
        value.set_sensitive(true);
        value
    })
}

/// The one for a browser that goes to a provider. `Lax`: it comes back from another site.
pub(crate) fn state(secret: &Secret) -> HeaderValue {
    let cookie =
        format!("{STATE}={}; HttpOnly; SameSite=Lax; Path=/; Max-Age={}; Secure", secret.expose(), LIFE.as_secs());
    let mut value = HeaderValue::try_from(cookie).expect("a secret is of letters, digits and signs");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_that_is_not_empty_and_the_only_one() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; lukan_token=; xlukan_token=no"));
        headers.append(header::COOKIE, HeaderValue::from_static("lukan_token=first;lukan_token=first"));
        assert_eq!(read(&headers, PUBLISHED), Ok(Some("first")));
        assert_eq!(read(&headers, OWN), Ok(None));
        assert!(has_any(&headers));
        headers.append(header::COOKIE, HeaderValue::from_static("lukan_token=second"));
        assert_eq!(read(&headers, PUBLISHED), Err(Ambiguous));
        assert_eq!(read_all(&headers, PUBLISHED), ["first", "second"]);
        assert!(!has_any(&HeaderMap::new()));
        let line = HeaderValue::from_bytes(b"n=\xc3\xa9; m=\xff; lukan_token=first").unwrap();
        let headers = HeaderMap::from_iter([(header::COOKIE, line)]);
        assert_eq!(read(&headers, PUBLISHED), Ok(Some("first")));
    }

    #[test]
    fn cookies_are_for_https_and_scripts_never_see_them() {
        let [published, own] = set("a.b", "c", false).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(published, "lukan_token=a.b; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000; Secure");
        assert_eq!(own, "__Host-mykube=c; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000; Secure");
        let [published, own] = set("", "", true).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(published, "lukan_token=; HttpOnly; SameSite=None; Path=/; Max-Age=0; Secure");
        assert_eq!(own, "__Host-mykube=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0; Secure");
    }
}
