//! Forms: only those of a page that was made for this browser count.

use super::*;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A form that signs out, sent with these headers.
async fn sign_out(site: &Site, cookies: &str, csrf: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<_> = [FORM, ("cookie", cookies)].iter().chain(headers).copied().collect();
    site.call(Method::POST, "/portal/sign-out", &headers, &format!("csrf={csrf}")).await
}

#[tokio::test]
async fn a_form_of_another_page_does_nothing() {
    let site = Site::new(settings()).await;
    let [alice, mallory] = [signed_in(&site, "alice@example.com").await, signed_in(&site, "mallory@example.com").await];
    let csrf = page(&site, &alice, "/portal/").await.field("csrf").to_owned();
    let others = page(&site, &mallory, "/portal/").await.field("csrf").to_owned();
    let origin = ("origin", URL);
    for (csrf, headers) in [
        (&*csrf, &[][..]),
        (&csrf, &[("origin", "https://evil.example")]),
        (&csrf, &[("origin", "https://console.example")]),
        (&csrf, &[("origin", "null")]),
        (&csrf, &[origin, ("sec-fetch-site", "cross-site")]),
        (&csrf, &[origin, ("sec-fetch-site", "same-site")]),
        (&csrf, &[origin, ("sec-fetch-site", "none")]),
        ("", &[origin]),
        (&csrf[1..], &[origin]),
        (&others, &[origin, ("sec-fetch-site", "same-origin")]),
    ] {
        let answer = sign_out(&site, &alice, csrf, headers).await;
        assert_eq!(answer.html().0, 403, "{csrf} {headers:?}");
        assert_eq!(page(&site, &alice, "/portal/").await.status, 200);
    }
    let none = site.call(Method::POST, "/portal/sign-out", &[FORM, ("cookie", &alice), origin], "").await;
    assert_eq!(none.html().0, 403, "no token at all");
    let nobody = sign_out(&site, "a=b", &csrf, &[origin]).await;
    assert_eq!(nobody.html().0, 401);
    assert_eq!(sign_out(&site, &alice, &csrf, &[origin]).await.status, 303, "a browser that has no fetch metadata");
}
