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
    let headers: Vec<_> =
        [("content-type", "application/json")].into_iter().chain(cookie.map(|it| ("cookie", it))).collect();
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
    let ours = off.post("/auth/device", &json!({"client": "mykube", "key": "x"})).await;
    assert!(ours.text().0 == 422 && ours.body.contains("not built yet"), "{}", ours.body);
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
