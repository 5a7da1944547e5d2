//! Pages: who sees them, with which headers, and what their forms want.

use std::time::Duration;

use super::*;

mod device;
mod forms;
mod sessions;
mod sign_in;

/// A browser that has signed in by dev mode: its cookies.
async fn signed_in(site: &Site, email: &str) -> String {
    let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
    let body = json!({"email": email, "secret": SECRET}).to_string();
    let answer =
        site.ask(request(Method::POST, "/auth/dev", &[("content-type", "application/json")], &body), arrival).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.cookies()
}

/// A page as this browser sees it.
async fn page(site: &Site, cookies: &str, path: &str) -> Answer {
    site.get(path, &[("cookie", cookies)]).await
}

/// A form of a page of the relay's, sent as a browser does.
async fn submit(site: &Site, cookies: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let headers = [
        ("cookie", cookies),
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", URL),
        ("sec-fetch-site", "same-origin"),
    ];
    site.call(Method::POST, path, &headers, &body).await
}

impl Answer {
    fn html(&self) -> (u16, &str) {
        assert_eq!(self.headers[header::CONTENT_TYPE], "text/html; charset=utf-8", "{}", self.body);
        (self.status.as_u16(), &self.body)
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.headers[header::LOCATION].to_str().unwrap()
    }

    /// The value of a field of the page's forms.
    fn field(&self, name: &str) -> &str {
        let (_, from) =
            self.body.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{}", self.body));
        from.split_once('"').unwrap().0
    }
}

#[tokio::test]
async fn a_page_says_who_is_signed_in_and_nobody_else_sees_it() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    let seen = page(&site, &cookies, "/portal/").await;
    let (status, html) = seen.html();
    assert!(status == 200 && html.contains("alice@example.com") && html.contains("2027-01-15 08:00 UTC"), "{html}");
    for (cookies, path) in
        [("", "/portal/"), ("__Host-mykube=x", "/portal/"), (cookies.split(';').next().unwrap(), "/portal/")]
    {
        let sent = page(&site, cookies, path).await;
        assert_eq!(sent.location(), "/portal/sign-in?redirect=%2Fportal%2F", "{cookies}");
    }
    assert_eq!(page(&site, &cookies, "/portal").await.location(), "/portal/");
}

#[tokio::test]
async fn a_page_needs_nothing_runs_nothing_and_stands_in_no_frame_and_no_cache() {
    let site = Site::new(settings()).await;
    let cookies = signed_in(&site, "alice@example.com").await;
    for (path, status) in [("/portal/", 200), ("/portal/none", 404)] {
        let seen = page(&site, &cookies, path).await;
        let (got, html) = seen.html();
        assert_eq!(got, status);
        let policy = seen.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = data_encoding::BASE64.encode(&<sha2::Sha256 as sha2::Digest>::digest(style));
        let wanted = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        );
        assert_eq!(policy, wanted);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(seen.headers[name], value, "{name}");
        }
        for none in ["<script", "javascript:", " style=", " onclick=", "http://", "https://"] {
            assert!(!html.contains(none), "{none} in {html}");
        }
        assert!(!seen.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    }
}

#[tokio::test]
async fn what_fails_is_said_in_sentences() {
    let site = Site::new(settings()).await;
    let missing = site.get("/portal/none", &[]).await;
    assert!(missing.html().1.contains("<h1>There is no such page</h1>"), "{}", missing.body);
    let mut last = None;
    for _ in 0..601 {
        last = Some(site.get("/portal", &[]).await);
    }
    let last = last.unwrap();
    assert_eq!(last.html().0, 429);
    assert!(
        last.body.contains("Try again in 61 seconds.") && last.headers[header::RETRY_AFTER] == "61",
        "{}",
        last.body
    );
}

#[tokio::test]
async fn a_session_ends_when_it_is_idle_when_it_is_old_and_when_it_is_signed_out() {
    let site = Site::new(settings()).await;
    let day = Duration::from_hours(24);
    let cookies = signed_in(&site, "alice@example.com").await;
    wait(7 * day);
    assert_eq!(page(&site, &cookies, "/portal/").await.status, 303, "idle");
    let cookies = signed_in(&site, "alice@example.com").await;
    for _ in 0..4 {
        wait(6 * day);
        assert_eq!(page(&site, &cookies, "/portal/").await.status, 200, "a page is a use");
    }
    wait(6 * day);
    assert_eq!(page(&site, &cookies, "/portal/").await.status, 303, "old");
    let cookies = signed_in(&site, "alice@example.com").await;
    let csrf = page(&site, &cookies, "/portal/").await.field("csrf").to_owned();
    let out = submit(&site, &cookies, "/portal/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!(out.location(), "/portal/sign-in?signed_out=1");
    assert!(out.headers.get_all(header::SET_COOKIE).iter().all(|it| it.to_str().unwrap().contains("Max-Age=0")));
    assert_eq!(page(&site, &cookies, "/portal/").await.status, 303);
}
