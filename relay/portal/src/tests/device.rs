//! The device code flow of published daemons.

use std::time::Duration;

use super::*;

/// A code that a program got: what it asks with, and what a person types.
async fn code(site: &Site) -> (String, String) {
    let answer = site.call(Method::POST, "/auth/device", &[("user-agent", "lukan/0.1")], "").await.json();
    assert_eq!((&answer["expiresIn"], &answer["interval"]), (&json!(900), &json!(5)));
    assert_eq!(answer["verificationUrl"], format!("{URL}/device"));
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("deviceCode"), text("userCode"))
}

async fn poll(site: &Site, code: &str) -> Answer {
    wait(Duration::from_secs(5));
    site.post("/auth/device/poll", &json!({"deviceCode": code})).await
}

async fn verify(site: &Site, code: &str, cookie: Option<&str>, more: Value) -> Answer {
    let mut body = json!({"userCode": code});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let headers: Vec<_> = [("content-type", "application/json"), ("origin", URL)]
        .into_iter()
        .chain(cookie.map(|it| ("cookie", it)))
        .collect();
    site.call(Method::POST, "/auth/device/verify", &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_code_is_confirmed_once_by_one_account_and_fetched_once() {
    let site = Site::new(settings()).await;
    let (account, _) = site.daemon("alice@example.com").await;
    let cookies = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    let (device, user) = code(&site).await;
    assert_eq!(poll(&site, &device).await.json(), json!({"status": "pending"}));
    let typed = user.to_lowercase().replace('-', " ");
    assert_eq!(verify(&site, &typed, Some(&cookies), json!({})).await.json(), json!({"ok": true}));
    // Another account cannot take it over, as it could in the published relay.
    let mallory = json!({"email": "mallory@example.com", "secret": SECRET});
    let again = verify(&site, &user, None, mallory).await;
    assert_eq!(again.error(), (400, "Invalid or expired code".to_owned()));
    let site = site.restart().await;
    let given = poll(&site, &device).await.json();
    assert_eq!((&given["status"], &given["userId"]), (&json!("authorized"), &json!(account)));
    assert_eq!(given["email"], "alice@example.com");
    assert!(site.portal.shared().verify(given["token"].as_str().unwrap(), &[Class::Daemon]).is_ok());
    assert_eq!(poll(&site, &device).await.json(), json!({"status": "expired"}));
}

#[tokio::test]
async fn who_asks_too_often_or_too_late_gets_nothing() {
    let site = Site::new(settings()).await;
    let (device, user) = code(&site).await;
    assert_eq!(poll(&site, &device).await.json(), json!({"status": "pending"}));
    let soon = site.post("/auth/device/poll", &json!({"deviceCode": device})).await;
    assert_eq!(soon.text(), (429, "Rate limit exceeded — try again later"));
    assert_eq!(poll(&site, &device).await.json(), json!({"status": "pending"}));
    assert_eq!(poll(&site, "unknown").await.json(), json!({"status": "expired"}));
    wait(Duration::from_mins(15));
    assert_eq!(poll(&site, &device).await.json(), json!({"status": "expired"}));
    let late = verify(&site, &user, None, json!({"secret": SECRET})).await;
    assert_eq!(late.error(), (400, "Invalid or expired code".to_owned()));
}

#[tokio::test]
async fn only_whoever_is_signed_in_confirms() {
    let site = Site::new(settings()).await;
    let (_, user) = code(&site).await;
    let wrong = verify(&site, &user, None, json!({"secret": "no"})).await;
    assert_eq!(wrong.error(), (401, "Invalid or missing secret".to_owned()));
    let (_, daemon) = site.daemon("alice@example.com").await;
    // A cookie that is wrong is an error, even beside the secret.
    for token in ["nonsense", &daemon, &site.token(Class::Mykube, &daemon)] {
        let cookie = format!("lukan_token={token}");
        let answer = verify(&site, &user, Some(&cookie), json!({"secret": SECRET})).await;
        assert_eq!(answer.error(), (401, "Invalid browser session".to_owned()));
    }
    let sixth = verify(&site, &user, None, json!({"secret": SECRET})).await;
    assert_eq!(sixth.json(), json!({"ok": true}));
    assert_eq!(verify(&site, &user, None, json!({"secret": SECRET})).await.status, StatusCode::TOO_MANY_REQUESTS);

    let off = Site::new(Settings { dev: None, ..settings() }).await;
    let (_, user) = code(&off).await;
    assert_eq!(
        verify(&off, &user, None, json!({"secret": SECRET})).await.error(),
        (401, "Not authenticated".to_owned())
    );
}

#[tokio::test]
async fn codes_are_not_guessed_from_many_addresses() {
    let site = Site::new(settings()).await;
    let body = |code: &str| json!({"userCode": code, "secret": SECRET}).to_string();
    let guess = async |address: u8, code: &str| {
        let arrival = Arrival { address: [198, 51, 100, address].into(), is_private: true };
        let json = [("content-type", "application/json")];
        site.ask(request(Method::POST, "/auth/device/verify", &json, &body(code)), arrival).await
    };
    for address in 0..50 {
        let wrong = guess(address, "AAAA-AAAA").await;
        assert_eq!(wrong.error(), (400, "Invalid or expired code".to_owned()));
    }
    let (_, user) = code(&site).await;
    assert_eq!(guess(50, &user).await.status, StatusCode::TOO_MANY_REQUESTS, "not even a right one");
    wait(Duration::from_mins(1));
    assert_eq!(guess(50, &user).await.json(), json!({"ok": true}));
}

#[tokio::test]
async fn one_account_guesses_for_itself_alone() {
    let site = Site::new(settings()).await;
    let cookies =
        async |email: &str| site.post("/auth/dev", &json!({"email": email, "secret": SECRET})).await.cookies();
    let (mallory, alice) = (cookies("mallory@example.com").await, cookies("alice@example.com").await);
    let (_, user) = code(&site).await;
    let type_ = async |address: u8, cookies: &str, code: &str| {
        let arrival = Arrival { address: [198, 51, 100, address].into(), is_private: true };
        let headers = [("content-type", "application/json"), ("cookie", cookies), ("origin", URL)];
        let body = json!({"userCode": code}).to_string();
        site.ask(request(Method::POST, "/auth/device/verify", &headers, &body), arrival).await
    };
    let mut refused = 0;
    for address in 0..60 {
        let answer = type_(address, &mallory, "AAAA-AAAA").await;
        refused += u32::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 55, "from sixty addresses it is one account");
    assert_eq!(type_(60, &alice, &user).await.json(), json!({"ok": true}), "and nobody else is kept out");
}

#[tokio::test]
async fn a_cookie_that_a_neighbour_set_confirms_nothing() {
    let site = Site::new(settings()).await;
    let cookies =
        async |email: &str| site.post("/auth/dev", &json!({"email": email, "secret": SECRET})).await.cookies();
    let (alice, mallory) = (cookies("alice@example.com").await, cookies("mallory@example.com").await);
    let published = |cookies: &str| cookies.split("; ").next().unwrap().to_owned();
    let own = |cookies: &str| cookies.split("; ").nth(1).unwrap().to_owned();
    let (_, user) = code(&site).await;
    let invalid = (401, "Invalid browser session".to_owned());
    for planted in [
        format!("{}; {alice}", published(&mallory)),
        format!("{}; {}", published(&mallory), own(&alice)),
        published(&mallory),
    ] {
        assert_eq!(verify(&site, &user, Some(&planted), json!({})).await.error(), invalid, "{planted}");
    }
    let body = json!({"userCode": user}).to_string();
    let ask = async |origin: Option<&str>| {
        let cookie = published(&alice);
        let headers: Vec<_> = [("content-type", "application/json"), ("cookie", cookie.as_str())]
            .into_iter()
            .chain(origin.map(|origin| ("origin", origin)))
            .collect();
        site.call(Method::POST, "/auth/device/verify", &headers, &body).await
    };
    assert_eq!(ask(None).await.error(), (403, "this origin is not allowed".to_owned()));
    // A known page of another origin has the published cookie alone.
    assert_eq!(ask(Some("https://console.example")).await.json(), json!({"ok": true}));
    // Signing out ends both that it was given.
    let both = [("cookie", &*format!("{}; {alice}", published(&mallory))), ("origin", URL)];
    assert_eq!(site.get("/auth/status", &both[..1]).await.status, StatusCode::UNAUTHORIZED);
    site.call(Method::POST, "/auth/logout", &both, "").await;
    for one in [alice, mallory] {
        assert_eq!(site.get("/auth/status", &[("cookie", &one)]).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_confirmed_code_is_worth_what_the_sign_in_that_confirmed_it_is() {
    let site = Site::new(settings()).await;
    let body = json!({"email": "alice@example.com", "secret": SECRET});
    let cookies = site.post("/auth/dev", &body).await.cookies();
    let signed_in_at = clock();
    wait(Duration::from_hours(1));
    let (kept, user) = code(&site).await;
    assert_eq!(verify(&site, &user, Some(&cookies), json!({})).await.json(), json!({"ok": true}));
    let token = poll(&site, &kept).await.json()["token"].as_str().unwrap().to_owned();
    let claims = site.portal.shared().verify(&token, &[Class::Daemon]).unwrap();
    assert_eq!(claims.auth_time, signed_in_at.secs(), "to confirm proves nothing anew");
    let store = &site.portal.shared().store;
    let organisation = store.account(claims.sub).await.unwrap().unwrap().organisation;
    let log = store.organisation(organisation).audit(10).await.unwrap();
    let confirmed = log.iter().find(|line| line.action == "device_code.confirm").unwrap();
    assert_eq!((confirmed.detail.as_str(), confirmed.address.as_str()), ("lukan/0.1", "192.0.2.1"));

    let (lost, user) = code(&site).await;
    assert_eq!(verify(&site, &user, Some(&cookies), json!({})).await.json(), json!({"ok": true}));
    site.call(Method::POST, "/auth/logout", &[("cookie", &cookies), ("origin", URL)], "").await;
    assert_eq!(poll(&site, &lost).await.json(), json!({"status": "expired"}), "who signed out meant this too");
}

#[tokio::test]
async fn a_question_that_nothing_answers_writes_nothing() {
    let site = Site::new(settings()).await;
    let (device, _) = code(&site).await;
    let log = site.dir.path().join("relay.db-wal");
    let before = std::fs::metadata(&log).unwrap().len();
    for _ in 0..3 {
        assert_eq!(poll(&site, &device).await.json(), json!({"status": "pending"}));
    }
    assert_eq!(std::fs::metadata(&log).unwrap().len(), before);
}

#[tokio::test]
async fn a_session_that_nobody_used_confirms_nothing() {
    let site = Site::new(settings()).await;
    let cookies = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    let day = Duration::from_hours(24);
    for _ in 0..2 {
        wait(6 * day);
        let (_, user) = code(&site).await;
        assert_eq!(verify(&site, &user, Some(&cookies), json!({})).await.json(), json!({"ok": true}), "it is used");
    }
    wait(7 * day);
    let (_, user) = code(&site).await;
    let idle = verify(&site, &user, Some(&cookies), json!({})).await;
    assert_eq!(idle.error(), (401, "Invalid browser session".to_owned()));
}
