//! Pages of other sites: what each of them may ask in its visitor's name. A program, which has no cookie of ours, names no
//! origin.

use super::*;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Nameless,
    Own,
    /// `allow_origin` names it.
    Known,
    Foreign,
}

/// Names and values.
type Headers = &'static [(&'static str, &'static str)];

/// What a page sends with its requests.
#[rustfmt::skip]
const PAGES: [(&str, Headers, Page); 16] = [
    ("none", &[], Page::Nameless),
    ("none, cross-site", &[("sec-fetch-site", "cross-site")], Page::Nameless),
    ("own", &[("origin", URL)], Page::Own),
    ("own, same-origin", &[("origin", URL), ("sec-fetch-site", "same-origin")], Page::Own),
    ("alias", &[("origin", "https://alias.example")], Page::Own),
    ("alias in capitals", &[("origin", "https://ALIAS.example")], Page::Own),
    ("allow_origin", &[("origin", "https://console.example"), ("sec-fetch-site", "cross-site")], Page::Known),
    ("another site", &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")], Page::Foreign),
    ("another site, same-origin", &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], Page::Foreign),
    ("a sandbox", &[("origin", "null")], Page::Foreign),
    ("empty", &[("origin", "")], Page::Foreign),
    ("another port", &[("origin", "http://127.0.0.1:8001")], Page::Foreign),
    ("another scheme", &[("origin", "https://127.0.0.1:8000")], Page::Foreign),
    ("a longer name", &[("origin", "https://alias.example.evil.example")], Page::Foreign),
    ("a neighbour", &[("origin", "https://www.alias.example")], Page::Foreign),
    ("two origins", &[("origin", URL), ("origin", "https://evil.example")], Page::Foreign),
];

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let settings = Settings { aliases: vec![PublicUrl::parse("https://alias.example").unwrap()], ..settings() };
    let site = Site::new(settings).await;
    let json = ("content-type", "application/json");
    let mut rows = Vec::new();
    let nowhere = ["POST /v1/nothing", "DELETE /v1/nothing", "PUT /nothing"].map(str::to_owned);
    for route in routes(&site).into_iter().chain(nowhere).filter(|route| !route.starts_with("GET ")) {
        let (method, path) = call_of(&route);
        // Our own calls and pages are for our own origin alone.
        let is_ours = ["/v1", "/portal", "/device"].iter().any(|own| path.starts_with(own));
        let mut row = vec![route.clone()];
        for (name, page, kind) in PAGES {
            for with_cookies in [false, true] {
                let body = json!({"email": "alice@example.com", "secret": SECRET}).to_string();
                let signed_in = site.ask(request(Method::POST, "/auth/dev", &[json], &body), anywhere()).await;
                let cookies = signed_in.cookies();
                let mut headers = [&[json], page].concat();
                if with_cookies {
                    headers.push(("cookie", &cookies));
                }
                let answer = site.ask(request(method.clone(), &path, &headers, "{}"), anywhere()).await;
                let is_refused =
                    answer.status == StatusCode::FORBIDDEN && answer.body.contains("origin is not allowed");
                let must_be = match kind {
                    Page::Nameless => with_cookies,
                    Page::Own => false,
                    Page::Known => is_ours,
                    Page::Foreign => true,
                };
                assert_eq!(is_refused, must_be, "{route}, {name}, cookies: {with_cookies}: {}", answer.body);
                if must_be {
                    // Nothing was set, and whoever was signed in is.
                    assert!(answer.cookies().is_empty(), "{route}, {name}");
                    let status = request(Method::GET, "/auth/status", &[("cookie", &cookies)], "");
                    assert_eq!(site.ask(status, anywhere()).await.status, StatusCode::OK, "{route}, {name}");
                    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{route}, {name}");
                }
                if with_cookies {
                    row.push(if is_refused { "refused".to_owned() } else { answer.status.as_u16().to_string() });
                }
            }
        }
        rows.push(row);
    }
    let head: Vec<_> = std::iter::once("call, with both cookies").chain(PAGES.map(|(name, ..)| name)).collect();
    write("origins", "What a page of each origin may ask in its visitor's name", &head, &rows);
}
