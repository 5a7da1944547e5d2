//! Where a browser goes after it has signed in: a page of this relay and nowhere else.

use std::fmt;

/// Bytes of one at most.
const MAX: usize = 1024;

/// A path of this relay, with or without a query. It begins with exactly one slash, and no browser or proxy reads another
/// host out of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReturnPath(String);

impl ReturnPath {
    /// The page that was asked for (`redirect`); `/` if that is none of this relay's.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if is_own_page(text) { Self(text.to_owned()) } else { Self::default() }
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ReturnPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for ReturnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only what can mean one thing: no empty segment (`//host`), no dots, no `@`, no backslash or control character, and in
/// the path nothing of these behind a percent sign.
fn is_own_page(text: &str) -> bool {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let Some(segments) = path.strip_prefix('/') else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let segment = |segment: &str| {
        let whole = !segment.is_empty() && segment != "." && segment != "..";
        whole && segment.bytes().all(plain)
    };
    let query_byte = |byte: u8| plain(byte) || b"/?=&%+:,!*'();".contains(&byte);
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    let is_path = segments.is_empty() && path == "/" || segments.split('/').all(segment);
    text.len() <= MAX && is_path && query.bytes().all(query_byte)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn a_page_of_this_relay_is_kept() {
        for path in
            ["/", "/device", "/portal/", "/portal/sessions", "/my-pc", "/my-pc/x_1~.y", "/device?code=AB%2FCD&x=1"]
        {
            assert_eq!(ReturnPath::parse(path).as_str(), path);
        }
    }

    #[test]
    fn what_could_lead_elsewhere_leads_home() {
        let mut all: Vec<String> = [
            "",
            "device",
            ".evil.test/x",
            "@evil.test",
            ":80@evil.test",
            "https://evil.test",
            "HTTPS:evil.test",
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.test",
            "///evil.test",
            "////evil.test",
            "/\\evil.test",
            "\\/evil.test",
            "\\\\evil.test",
            "/x//evil.test",
            "/.//evil.test",
            "/..//evil.test",
            "/x/../..//evil.test",
            "/x/./y",
            "/..",
            "/.",
            "/%2f/evil.test",
            "/%2F%2Fevil.test",
            "/%5cevil.test",
            "/%5Cevil.test",
            "/%2e%2e//evil.test",
            "/%09/evil.test",
            "/%00",
            "/%",
            "/%zz",
            "/%252f/evil.test",
            "/@evil.test",
            "/x@evil.test",
            "/x:80@evil.test",
            "/ /evil.test",
            " /evil",
            "/x#//evil.test",
            "/\u{ff0f}evil.test",
            "/\u{2215}evil.test",
            "/\u{202e}evil",
            "/x?\\evil",
            "/x?y=@evil.test",
            "/x?a b",
            "/x?a#b",
            "/;/evil.test",
            "/x;y",
            "/\"",
            "/<x>",
        ]
        .map(str::to_owned)
        .into();
        for control in (0..=0x20).chain([0x7f]) {
            let control = char::from(control);
            all.extend([format!("/{control}/evil.test"), format!("{control}//evil.test"), format!("/x{control}")]);
            all.extend([format!("/x?{control}"), format!("/\r\nLocation:{control}//evil.test")]);
        }
        let longest = format!("/{}", "x".repeat(MAX - 1));
        assert_eq!(ReturnPath::parse(&longest).as_str(), longest);
        all.push(format!("{longest}x"));
        for path in all {
            assert_eq!(ReturnPath::parse(&path), ReturnPath::default(), "{path:?}");
        }
    }

    /// What passes means to a browser's parser (`url` implements the same standard) just what it says.
    #[test]
    fn no_path_that_passes_is_another_to_a_browser() {
        const SIGNS: [&str; 24] = [
            "/",
            "/",
            "\\",
            ".",
            "..",
            "@",
            ":",
            "?",
            "#",
            "%",
            "%2f",
            "%5C",
            "%2e",
            "%00",
            " ",
            "\t",
            "\n",
            "\0",
            "a",
            "b-1",
            "evil.test",
            "\u{ff0f}",
            "\u{3002}",
            "=",
        ];
        let base = url::Url::parse("https://relay.example.com").unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let mut passed = 0;
        for _ in 0..100_000 {
            let signs = rng.random_range(0..7);
            let tail: String = (0..signs).map(|_| SIGNS[rng.random_range(0..SIGNS.len())]).collect();
            let asked = if rng.random_bool(0.8) { format!("/{tail}") } else { tail };
            let path = ReturnPath::parse(&asked);
            passed += u32::from(path.as_str() == asked);
            // By itself, as in `Location`, and behind the base URL.
            let behind = url::Url::parse(&format!("https://relay.example.com{path}")).unwrap();
            for url in [base.join(path.as_str()).unwrap(), behind] {
                assert_eq!(url.as_str(), format!("https://relay.example.com{path}"), "{asked:?}");
            }
        }
        assert!(passed > 5000, "{passed}");
    }
}
