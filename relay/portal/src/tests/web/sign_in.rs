//! The browser's way to a provider and back.

use std::time::Duration;

use super::*;

const BAD_STATE: (u16, &str) = (400, "Invalid or expired OAuth state parameter (CSRF check failed)");

#[tokio::test]
async fn a_person_signs_in_and_is_on_the_page_that_they_wanted() {
    let world = World::new(|_| {}).await;
    let (site, mut browser) = (&world.site, Browser::default());
    let dev = json!({"email": "bob@example.com", "secret": SECRET}).to_string();
    let json = [("content-type", "application/json"), ("origin", URL)];
    browser.send(site, Method::POST, "/auth/dev", &json, &dev).await;
    let (bob, old) = (browser.account(site), browser.clone());

    let answer = browser.get(site, "/auth/one?redirect=/device?x%3D1").await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-mykube-state="), "{cookie}");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=600; Secure"), "{cookie}");
    assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let sent = browser.leaves(site, "/auth/one?redirect=/device?x%3D1").await;
    assert!(sent.url.as_str().starts_with(&format!("{}/authorize?", world.one.issuer)));
    let redirect_uri = sent.url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(redirect_uri, format!("{URL}/auth/callback/one"));
    assert_eq!(browser.account(site), bob, "nobody has signed in yet");
    let answer = browser.comes_back(site, &world.one, "/auth/callback/one", &sent).await;
    assert_eq!(answer.redirects_to(307), format!("{URL}/device?x=1"));
    assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");

    // Both cookies are new, and whoever was there before is out.
    assert_ne!(browser.account(site), bob);
    assert!(["lukan_token", "__Host-mykube"].iter().all(|name| browser.0[*name] != old.0[*name]));
    assert!(browser.is_signed_in(site).await && !old.clone().is_signed_in(site).await);
    let page = browser.get(site, "/portal/").await;
    assert!(page.status == StatusCode::OK && page.body.contains("one:ada@example.com"), "{}", page.body);
    assert_eq!(old.clone().get(site, "/portal/").await.status, StatusCode::SEE_OTHER);

    let out = browser.send(site, Method::POST, "/auth/logout", &[("origin", URL)], "").await;
    assert_eq!(out.json(), json!({"ok": true}));
    assert!(!browser.0.contains_key("lukan_token") && !browser.0.contains_key("__Host-mykube"));
    assert!(!browser.is_signed_in(site).await);
}

#[tokio::test]
async fn google_comes_back_to_its_published_address() {
    let world = World::new(|_| {}).await;
    let mut browser = Browser::default();
    let sent = browser.leaves(&world.site, "/auth/goo").await;
    let redirect_uri = sent.url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
    assert_eq!(redirect_uri, format!("{URL}/auth/callback"));
    let elsewhere = browser.clone().get(&world.site, &format!("/auth/callback/goo?code=c&state={}", sent.state)).await;
    assert_eq!(elsewhere.text(), (404, "unknown provider"));
    let answer = browser.comes_back(&world.site, &world.google, "/auth/callback", &sent).await;
    assert_eq!(answer.redirects_to(307), format!("{URL}/"));
    let page = browser.get(&world.site, "/portal/").await;
    assert!(page.body.contains("<dd>ada@example.com</dd>"), "{}", page.body);
}

#[tokio::test]
async fn a_sign_in_counts_once_in_its_own_browser_at_its_own_provider() {
    let world = World::new(|_| {}).await;
    let site = &world.site;
    // Mallory begins, signs in as herself, and has Alice's browser finish it.
    let (mut mallory, mut alice) = (Browser::default(), Browser::default());
    let sent = mallory.leaves(site, "/auth/one").await;
    let stranger = alice.comes_back(site, &world.one, "/auth/callback/one", &sent).await;
    assert_eq!(stranger.failed(), BAD_STATE);
    // What was shown once is over, for whoever began it too.
    assert_eq!(mallory.comes_back(site, &world.one, "/auth/callback/one", &sent).await.failed(), BAD_STATE);

    // With a sign-in of her own under way, Alice's cookie is another.
    let (sent, own) = (mallory.leaves(site, "/auth/one").await, alice.leaves(site, "/auth/one").await);
    assert_eq!(alice.comes_back(site, &world.one, "/auth/callback/one", &sent).await.failed(), BAD_STATE);
    let back = alice.comes_back(site, &world.one, "/auth/callback/one", &own).await;
    assert_eq!(back.status, 307, "hers is not touched: {}", back.body);
    let replayed = alice.comes_back(site, &world.one, "/auth/callback/one", &own).await;
    assert_eq!(replayed.failed(), BAD_STATE);

    // The answer of one provider at the callback of another: neither is asked anything.
    let mut browser = Browser::default();
    for (begun, callback) in
        [("/auth/one", "/auth/callback/two"), ("/auth/two", "/auth/callback/one"), ("/auth/one", "/auth/callback")]
    {
        let sent = browser.leaves(site, begun).await;
        let asked = || world.one.asked("/token") + world.two.asked("/token") + world.google.asked("/token");
        let before = asked();
        let mixed = browser.comes_back(site, &world.two, callback, &sent).await;
        assert_eq!((mixed.failed(), asked()), (BAD_STATE, before), "{begun} {callback}");
    }

    // Too late; and in the last moment.
    for (after, status) in [(Duration::from_mins(10), 400), (Duration::from_millis(599_999), 307)] {
        let sent = browser.leaves(site, "/auth/one").await;
        wait(after);
        let mut claims = world.one.claims();
        claims["exp"] = (clock().secs() + 300).into();
        claims["iat"] = clock().secs().into();
        let answer = browser.comes_back_as(site, &world.one, "/auth/callback/one", &sent, &claims).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    }

    // A neighbouring host has set a second cookie of this name: whose is whose, nobody knows.
    let mut browser = Browser::default();
    let sent = browser.leaves(site, "/auth/one").await;
    let cookies = format!("{}; __Host-mykube-state={}", browser.header(), "A".repeat(43));
    let path = format!("/auth/callback/one?code=c&state={}", sent.state);
    assert_eq!(site.get(&path, &[("cookie", &cookies)]).await.failed(), BAD_STATE);
}

#[tokio::test]
async fn what_no_provider_sends_back_signs_nobody_in() {
    let world = World::new(|_| {}).await;
    let (site, mut browser) = (&world.site, Browser::default());
    let sent = browser.leaves(site, "/auth/one").await;
    let state = &sent.state;
    for (query, status) in [
        (String::new(), 400),
        ("code=c".to_owned(), 400),
        (format!("state={state}"), 400),
        (format!("state={state}&state={state}&code=c"), 400),
        (format!("state={}&code=c", "A".repeat(43)), 400),
    ] {
        let answer = browser.get(site, &format!("/auth/callback/one?{query}")).await;
        assert_eq!(answer.failed().0, status, "{query}");
    }
    let said = format!("error=access_denied&error_description=no%1b%5b31m&state={state}");
    let denied = browser.get(site, &format!("/auth/callback/one?{said}")).await;
    let (status, why) = denied.failed();
    assert!(status == 400 && why.contains("access_denied") && !why.contains('\u{1b}'), "{why}");
    assert!(!browser.is_signed_in(site).await);
    // A code that the provider does not know, an answer of another issuer, and claims that are not of this sign-in.
    let sent = browser.leaves(site, "/auth/one").await;
    world.one.say("/token", server::Reply::Status(400, json!({"error": "invalid_grant"})));
    let path = |sent: &Sent| format!("/auth/callback/one?code=c&state={}", sent.state);
    assert_eq!(browser.get(site, &path(&sent)).await.failed().0, 400);
    let sent = browser.leaves(site, "/auth/one").await;
    let mixed = browser.get(site, &format!("{}&iss=https://evil.example", path(&sent))).await;
    assert!(mixed.failed().1.contains("not from the identity provider that was asked"), "{}", mixed.body);
    for (name, value) in [
        ("aud", json!("app")),
        ("azp", json!("app")),
        ("iss", json!(world.two.issuer)),
        ("exp", json!(clock().secs() - 61)),
        ("nonce", json!("another")),
    ] {
        let sent = browser.leaves(site, "/auth/one").await;
        let mut claims = world.one.with(name, value);
        if name != "nonce" {
            claims["nonce"] = sent.nonce.as_str().into();
        }
        world.one.give("access", &signed(&claims));
        assert_eq!(browser.get(site, &path(&sent)).await.failed().0, 400, "{name}");
    }
    assert!(!browser.is_signed_in(site).await);
}

#[tokio::test]
async fn nothing_leads_to_another_host() {
    let world = World::new(|_| {}).await;
    for (asked, to) in [
        ("/device", "/device"),
        ("//evil.test", "/"),
        ("/%5Cevil.test", "/"),
        ("/\\evil.test", "/"),
        ("@evil.test", "/"),
        (".evil.test/x", "/"),
        (":80@evil.test", "/"),
        ("https://evil.test", "/"),
        ("/%2Fevil.test", "/"),
        ("/x/..//evil.test", "/"),
        ("/%0d%0aset-cookie:a=b", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ] {
        let query: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("redirect", asked).finish();
        let (_, answer) = world.signed_in(&query).await;
        assert_eq!(answer.redirects_to(307), format!("{URL}{to}"), "{asked}");
    }
}

#[tokio::test]
async fn an_account_is_its_provider_and_subject_and_no_address() {
    let world = World::new(|_| {}).await;
    let site = &world.site;
    let sign_in = async |provider: &StandIn, name: &str, claims: Value| {
        let mut browser = Browser::default();
        let sent = browser.leaves(site, &format!("/auth/{name}")).await;
        let callback = if name == "goo" { "/auth/callback".to_owned() } else { format!("/auth/callback/{name}") };
        let answer = browser.comes_back_as(site, provider, &callback, &sent, &claims).await;
        if answer.status != 307 {
            return Err(answer.body);
        }
        Ok((browser.account(site), browser.get(site, "/portal/").await.body))
    };
    let (one, two, google) = (&world.one, &world.two, &world.google);
    let (ada, _) = sign_in(one, "one", one.claims()).await.unwrap();
    let (renamed, page) = sign_in(one, "one", one.with("email", "countess@example.com".into())).await.unwrap();
    assert!(renamed == ada && page.contains("one:countess@example.com"));
    // The address is somebody else's now; and the same person at another provider is another account.
    let (heir, _) = sign_in(one, "one", one.with("sub", "43".into())).await.unwrap();
    let (elsewhere, _) = sign_in(two, "two", two.claims()).await.unwrap();
    let (at_google, _) = sign_in(google, "goo", google.claims()).await.unwrap();
    let all = std::collections::BTreeSet::from([&ada, &heir, &elsewhere, &at_google]);
    assert_eq!(all.len(), 4);
    // An address that nobody has verified is not shown; Google has to have verified it.
    let (same, page) = sign_in(one, "one", one.with("email_verified", false.into())).await.unwrap();
    assert!(same == ada && page.contains("<dd>one:ada</dd>") && !page.contains("ada@example.com"), "{page}");
    let refused = sign_in(google, "goo", google.with("email_verified", false.into())).await.unwrap_err();
    assert_eq!(refused, "Authentication failed: Email not verified");
}

#[tokio::test]
async fn who_may_have_an_account_is_asked_here_too() {
    let closed = World::new(|settings| settings.sign_up = SignUp::Closed).await;
    let (mut browser, answer) = closed.signed_in("").await;
    let (status, why) = answer.failed();
    assert!(status == 403 && why.contains("takes no new accounts"), "{why}");
    assert!(!browser.is_signed_in(&closed.site).await);
    // A domain counts where this provider proves it.
    let company = World::new(|settings| settings.sign_up = SignUp::Domains(vec!["example.com".into()])).await;
    let as_one = async |claims: Value| {
        let mut browser = Browser::default();
        let sent = browser.leaves(&company.site, "/auth/one").await;
        browser.comes_back_as(&company.site, &company.one, "/auth/callback/one", &sent, &claims).await.status.as_u16()
    };
    assert_eq!(as_one(company.one.claims()).await, 307);
    let stranger = |name: &str, value: Value| {
        let mut claims = company.one.with(name, value);
        claims["sub"] = "a stranger".into();
        claims
    };
    assert_eq!(as_one(stranger("email", "eve@elsewhere.example".into())).await, 403);
    assert_eq!(as_one(stranger("email_verified", false.into())).await, 403);
}

#[tokio::test]
async fn what_is_no_sign_in_is_said() {
    let world = World::new(|_| {}).await;
    let (site, mut browser) = (&world.site, Browser::default());
    assert_eq!(browser.get(site, "/auth/three").await.text(), (404, "unknown provider"));
    assert_eq!(browser.get(site, "/auth/callback/three").await.text(), (404, "unknown provider"));
    for broker in ["relay_uuid", "session", "session_id", "sig", "challenge", "timestamp", "ts"] {
        for name in ["one", "three"] {
            let answer = browser.get(site, &format!("/auth/{name}?{broker}=")).await;
            assert_eq!(answer.error(), (501, "the broker of this relay is not built yet".to_owned()));
        }
    }
    for query in ["cli_port=0", "cli_port=80@evil.test", "redirect=/a&redirect=/b", "cli_port=80&state=a%20b"] {
        assert_eq!(browser.get(site, &format!("/auth/one?{query}")).await.text().0, 400, "{query}");
    }
    assert_eq!(world.one.asked("/.well-known/openid-configuration"), 0, "nobody is asked for that");
    // A provider that is away, or is another one: the operator's log knows more.
    world.one.say("/.well-known/openid-configuration", server::Reply::Status(503, json!({})));
    let away = browser.get(site, "/auth/one").await;
    assert!(away.failed() == (502, "the identity provider cannot be asked at the moment: try again shortly"));
    let mut document = world.two.document();
    document["issuer"] = "https://evil.example".into();
    world.two.say("/.well-known/openid-configuration", server::Reply::Json(document));
    let other = browser.get(site, "/auth/two").await;
    assert!(other.failed().0 == 500 && other.body.contains("tell its operator"), "{}", other.body);
    assert!(!other.body.contains("evil.example"));
}

#[tokio::test]
async fn an_address_begins_and_ends_thirty_sign_ins_a_minute() {
    let world = World::new(|_| {}).await;
    for path in ["/auth/one", "/auth/callback/one", "/auth/callback"] {
        let mut statuses = std::collections::BTreeSet::new();
        for _ in 0..30 {
            statuses.insert(world.site.get(path, &[]).await.status.as_u16());
        }
        let over = world.site.get(path, &[]).await.status;
        // The two callbacks share one count.
        let shared = path == "/auth/callback";
        assert_eq!((statuses.contains(&429), over.as_u16()), (shared, 429), "{path}");
    }
}

#[tokio::test]
async fn another_sites_page_begins_no_sign_in_without_a_click_and_uses_up_nobodys_limits() {
    let world = World::new(|settings| settings.allow_origins = vec!["https://console.example".to_owned()]).await;
    let site = &world.site;
    let arrival = Arrival { address: [192, 0, 2, 7].into(), is_private: true };
    let ask = async |path: &str, from: &str, dest: &str, more: &[(&str, &str)]| {
        let mode = if dest == "document" { "navigate" } else { "no-cors" };
        let fetch = [("sec-fetch-site", from), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
        let headers: Vec<_> = fetch.into_iter().chain(more.iter().copied()).collect();
        site.ask(request(Method::GET, path, &headers, ""), arrival).await
    };
    // Images and frames are refused before they are counted.
    for n in 0..100 {
        let (from, dest) = [("cross-site", "image"), ("same-site", "iframe")][n % 2];
        assert_eq!(ask("/auth/one", from, dest, &[]).await.status, StatusCode::FORBIDDEN);
    }
    // A link leads to this relay's page, which wants a click; nothing is begun.
    for from in ["cross-site", "same-site"] {
        let answer = ask("/auth/one?cli_port=4711&state=s", from, "document", &[]).await;
        assert_eq!(answer.redirects_to(303), format!("{URL}/portal/sign-in?cli_port=4711&state=s"));
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
    }
    for from in ["none", "same-origin"] {
        let answer = ask("/auth/one", from, "document", &[]).await;
        assert!(answer.redirects_to(307).starts_with(&world.one.issuer), "{from}");
    }
    // Pages that may use published calls ask by scripts, and for those calls alone.
    let console = [("origin", "https://console.example")];
    assert_eq!(ask("/auth/status", "cross-site", "empty", &console).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask("/v1/whoami", "cross-site", "empty", &console).await.status, StatusCode::FORBIDDEN);
    let stranger = [("origin", "https://evil.example")];
    assert_eq!(ask("/auth/status", "cross-site", "empty", &stranger).await.status, StatusCode::FORBIDDEN);
}
