//! Pages in browsers, and what they may do here: a page says where it is from, and what it may not do, it may not do in its
//! visitor's name either.

use http::{HeaderMap, HeaderValue, Method, header};

use crate::{cookies, pages::paths, url::PublicUrl};

/// Origins whose pages may use published calls; our own API and pages are for our own origin alone.
pub(crate) struct Origins {
    own: Vec<String>,
    foreign: Vec<String>,
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");
/// The published ones, and the one that published clients of other origins need and cannot send there.
const HEADERS: HeaderValue = HeaderValue::from_static("authorization, content-type, cookie, x-lukan-device");

impl Origins {
    /// `urls`: the address of the relay, and its others.
    pub(crate) fn new<'a>(urls: impl IntoIterator<Item = &'a PublicUrl>, foreign: Vec<String>) -> Self {
        Self { own: urls.into_iter().map(|url| url.origin().to_owned()).collect(), foreign }
    }

    /// Pages of other origins are admitted at all.
    pub(crate) fn has_foreign(&self) -> bool {
        !self.foreign.is_empty()
    }

    /// Whether this request may change something. A program names no origin, and has none of our cookies: with one of them
    /// it is a browser's, which names the origin (Fetch standard, section 3.2).
    pub(crate) fn admits(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        let is_named = headers.contains_key(header::ORIGIN) || !cookies::has_any(headers);
        is_safe || is_named && headers.get_all(header::ORIGIN).iter().all(|origin| self.knows(path, origin))
    }

    /// Whether a page elsewhere has a browser ask this without being left for it: an image, say. It would be counted against
    /// everybody at that browser's address. Pages that may use published calls ask by scripts, which name their origin.
    pub(crate) fn is_drive_by(&self, method: &Method, path: &str, headers: &HeaderMap) -> bool {
        let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
        let is_visit = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
        let is_read = [Method::GET, Method::HEAD].contains(method);
        is_read
            && is_from_elsewhere(headers)
            && !is_visit
            && !of(headers).is_some_and(|origin| self.knows(path, origin))
    }

    /// Whether it comes from a page of this relay.
    pub(crate) fn is_own(&self, headers: &HeaderMap) -> bool {
        of(headers).is_some_and(|origin| is_one_of(&self.own, origin))
    }

    /// What lets a page read the answer, if it may.
    pub(crate) fn share(&self, path: &str, origin: Option<&HeaderValue>, preflight: bool, answer: &mut HeaderMap) {
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = origin.filter(|origin| !is_own(path) && self.knows(path, origin)) else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        if preflight {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        }
    }

    fn knows(&self, path: &str, origin: &HeaderValue) -> bool {
        is_one_of(&self.own, origin) || !is_own(path) && is_one_of(&self.foreign, origin)
    }
}

/// Whether a page of another origin has led here (Fetch Metadata Request Headers, section 2.2).
pub(crate) fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// The origin of a page: there is one, or nobody knows which.
pub(crate) fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    origins.next().filter(|_| origins.next().is_none())
}

fn is_one_of(known: &[String], origin: &HeaderValue) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    known.iter().any(|known| known.eq_ignore_ascii_case(origin))
}

/// What is for pages of our own alone: our API, and the pages themselves.
fn is_own(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || paths::has(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        let urls = ["https://relay.example/prefix", "https://alias.example"].map(|url| PublicUrl::parse(url).unwrap());
        Origins::new(&urls, vec!["https://console.example".to_owned()])
    }

    fn headers(origin: &'static str) -> HeaderMap {
        [(header::ORIGIN, HeaderValue::from_static(origin))].into_iter().collect()
    }

    #[test]
    fn other_pages_change_nothing() {
        let may = |path, origin| origins().admits(&Method::POST, path, &headers(origin));
        assert!(origins().admits(&Method::POST, "/auth/logout", &HeaderMap::new()), "a program");
        assert!(may("/auth/logout", "https://relay.example") && may("/auth/logout", "https://console.example"));
        for foreign in
            ["https://evil.example", "null", "", "https://relay.example.evil.example", "http://relay.example"]
        {
            assert!(!may("/auth/logout", foreign), "{foreign}");
        }
        for own in ["/v1/tokens", "/portal/sign-out", "/device"] {
            assert!(!may(own, "https://console.example") && may(own, "https://relay.example"), "{own}");
        }
        assert!(may("/v1/tokens", "https://alias.example"), "the relay's other address is its own");
    }

    #[test]
    fn a_browser_says_where_its_page_is_from() {
        let may = |method: Method, cookie: &'static str, origin: Option<&'static str>| {
            let mut headers = origin.map(headers).unwrap_or_default();
            headers.insert(header::COOKIE, HeaderValue::from_static(cookie));
            origins().admits(&method, "/auth/device/verify", &headers)
        };
        for cookie in ["lukan_token=x", "a=b; __Host-mykube=x"] {
            assert!(!may(Method::POST, cookie, None), "{cookie}");
            assert!(may(Method::GET, cookie, None) && may(Method::POST, cookie, Some("https://relay.example")));
        }
        assert!(may(Method::POST, "balancer=x", None), "what a proxy gave a program is none of ours");
    }

    #[test]
    fn only_published_calls_are_shared_and_only_with_known_pages() {
        let shared = |path, origin: &'static str| {
            let mut answer = HeaderMap::new();
            origins().share(path, Some(&HeaderValue::from_static(origin)), true, &mut answer);
            assert_eq!(answer[header::VARY], "origin");
            answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().unwrap().to_owned())
        };
        assert_eq!(shared("/auth/status", "https://console.example").as_deref(), Some("https://console.example"));
        assert_eq!(shared("/auth/status", "https://evil.example"), None);
        for own in ["/v1", "/v1/whoami", "/portal", "/portal/sessions", "/device", "/device/confirm"] {
            assert_eq!(shared(own, "https://relay.example"), None, "{own}");
            assert_eq!(shared(own, "https://console.example"), None, "{own}");
        }
    }
}
