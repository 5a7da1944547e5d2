//! The page where people sign in.

use super::*;

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn dev(site: &Site, query: &str, email: &str, secret: &str) -> Answer {
    submit(site, "a=b", &format!("/portal/sign-in/dev{query}"), &[("email", email), ("secret", secret)]).await
}

#[tokio::test]
async fn whoever_signs_in_goes_where_they_wanted_to() {
    let site = Site::new(settings()).await;
    let program = format!("?cli_port=4711&state=S-1&code_challenge={CHALLENGE}");
    let confirm = format!("/portal/confirm{program}");
    for (query, next) in [
        ("", "/portal/"),
        ("?redirect=%2Fdevice", "/device"),
        ("?redirect=%2F%2Fevil.example", "/portal/"),
        ("?redirect=https%3A%2F%2Fevil.example", "/portal/"),
        (&program, &confirm),
    ] {
        let form = site.get(&format!("/portal/sign-in{query}"), &[]).await;
        let (status, html) = form.html();
        assert_eq!(status, 200);
        let action = html.split_once("action=\"").unwrap().1.split_once('"').unwrap().0.replace("&#38;", "&");
        let fields = [("email", "alice@example.com"), ("secret", SECRET)];
        let answer = submit(&site, "a=b", &action, &fields).await;
        assert_eq!(answer.location(), next, "{query}");
        let cookies = answer.cookies();
        assert_eq!(page(&site, &cookies, "/portal/").await.status, 200);
        let again = page(&site, &cookies, &format!("/portal/sign-in{query}")).await;
        let escaped = next.replace('&', "&#38;");
        assert!(
            again.html().1.contains(&format!("href=\"{escaped}\">Continue as alice@example.com<")),
            "{}",
            again.body
        );
        wait(Duration::from_mins(1));
    }
    for wrong in ["?cli_port=x", "?cli_port=1", "?cli_port=1&state=a%20b&code_challenge=x", "?redirect=a&redirect=b"] {
        assert_eq!(site.get(&format!("/portal/sign-in{wrong}"), &[]).await.html().0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_wrong_stands_at_its_field() {
    let site = Site::new(settings()).await;
    for (email, secret, field) in [("alice@example.com", "no", "secret"), ("\"><script>", SECRET, "email")] {
        let again = dev(&site, "?redirect=%2Fdevice", email, secret).await;
        let (status, html) = again.html();
        assert_eq!(status, 401);
        let error = format!("aria-invalid=\"true\" aria-describedby=\"{field}-error\"");
        assert!(html.contains(&error) && html.contains(&format!("id=\"{field}-error\"")), "{html}");
        assert!(html.contains("redirect=%2Fdevice") && !html.contains("<script") && !html.contains(SECRET), "{html}");
        assert!(!again.headers.contains_key(header::SET_COOKIE));
    }
    for _ in 0..3 {
        dev(&site, "", "alice@example.com", "no").await;
    }
    assert_eq!(dev(&site, "", "alice@example.com", SECRET).await.html().0, 429, "with the call, five a minute");
}

#[tokio::test]
async fn nobody_is_signed_in_by_another_sites_form() {
    let site = Site::new(settings()).await;
    let body = format!("email=mallory%40example.com&secret={SECRET}");
    let form = ("content-type", "application/x-www-form-urlencoded");
    for headers in [
        &[form][..],
        &[form, ("origin", "https://evil.example")],
        &[form, ("origin", "https://console.example")],
        &[form, ("origin", URL), ("sec-fetch-site", "cross-site")],
    ] {
        let answer = site.call(Method::POST, "/portal/sign-in/dev", headers, &body).await;
        assert_eq!(answer.html().0, 403, "{headers:?}");
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
        wait(Duration::from_mins(1));
    }
}

#[tokio::test]
async fn a_relay_without_a_way_in_says_so() {
    let site = Site::new(Settings { dev: None, ..settings() }).await;
    let none = site.get("/portal/sign-in", &[]).await;
    assert!(none.html().1.contains("Nobody can sign in at this relay yet"), "{}", none.body);
    assert_eq!(dev(&site, "", "alice@example.com", SECRET).await.html().0, 404);
}

#[tokio::test]
async fn a_relay_below_a_path_links_below_it() {
    let public_url = PublicUrl::parse("http://127.0.0.1:8000/relay").unwrap();
    let site = Site::new(Settings { public_url, ..settings() }).await;
    assert_eq!(site.get("/device", &[]).await.location(), "/relay/portal/sign-in?redirect=%2Fdevice");
    let cookies = signed_in(&site, "alice@example.com").await;
    let html = page(&site, &cookies, "/portal/sessions").await.body;
    for link in ["href=\"", "action=\""] {
        let links: Vec<_> = html.split(link).skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
        assert!(!links.is_empty(), "{html}");
        for link in links {
            assert!(link.starts_with("/relay/") || link.starts_with('#') || link == "data:,", "{link}");
        }
    }
}
