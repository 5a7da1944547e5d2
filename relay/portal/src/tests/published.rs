//! Calls that other relays have published: their texts, statuses and forms.

use super::*;

#[tokio::test]
async fn a_daemon_signs_in_by_the_dev_secret() {
    let site = Site::new(settings()).await;
    let answer = site.post("/auth/dev/token", &json!({"email": "alice@example.com", "secret": SECRET})).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["email"]), (StatusCode::OK, &json!("alice@example.com")));
    assert_eq!(body.as_object().unwrap().len(), 3, "as published: {body}");
    let (id, token) = (body["userId"].as_str().unwrap(), body["token"].as_str().unwrap());
    let claims = site.portal.shared().verify(token, &[Class::Daemon]).unwrap();
    assert_eq!((claims.sub.to_string().as_str(), claims.user_id.as_str()), (id, "dev:alice@example.com"));
    assert_eq!(claims.expires_in(), 30 * 24 * 3600);
    assert_eq!(site.daemon("Alice@Example.com").await.0, id, "one person, however the address is spelled");
    // The published relay took these two for one.
    let [one, other] = [site.daemon("a@b.c").await.0, site.daemon("a.b@c").await.0];
    assert_ne!(one, other);
    let nobody = site.post("/auth/dev/token", &json!({"secret": SECRET})).await.json();
    assert_eq!(nobody["email"], "dev@localhost");
}

#[tokio::test]
async fn what_is_wrong_has_the_published_status_and_text() {
    let site = Site::new(settings()).await;
    for path in ["/auth/dev", "/auth/dev/token"] {
        for wrong in [json!({"secret": "no"}), json!({}), json!({"secret": format!("{SECRET}x")})] {
            // Each from an address of its own, as the sixth is one too many.
            let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
            let json = [("content-type", "application/json")];
            let answer = site.ask(request(Method::POST, path, &json, &wrong.to_string()), arrival).await;
            assert_eq!(answer.text(), (401, "Invalid or missing secret"), "{wrong}");
        }
    }
    let json = [("content-type", "application/json")];
    for (headers, body, status) in
        [(&[][..], "{}", 415), (&json, "{", 400), (&json, r#"{"email": 7}"#, 422), (&json, "[]", 422)]
    {
        let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
        let answer = site.ask(request(Method::POST, "/auth/dev/token", headers, body), arrival).await;
        assert_eq!(answer.text().0, status, "{body}");
    }
    let spaced = site.post("/auth/dev/token", &json!({"email": "a b@example.com", "secret": SECRET})).await;
    assert_eq!(spaced.text(), (422, "`email` is no address"));
    let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
    let disguised = json!({"email": "alice\u{202e}@example.com", "secret": SECRET}).to_string();
    let answer = site.ask(request(Method::POST, "/auth/dev/token", &json, &disguised), arrival).await;
    assert_eq!(answer.text(), (422, "`email` is no address"));
    let off = Site::new(Settings { dev: None, ..settings() }).await;
    let body = json!({"secret": SECRET});
    assert_eq!(off.get("/auth/dev", &[]).await.text(), (404, "Dev login not enabled"));
    assert_eq!(off.post("/auth/dev", &body).await.text(), (404, "Dev login not enabled"));
    assert_eq!(off.post("/auth/dev/token", &body).await.text(), (404, "Dev mode not enabled"));
    assert_eq!(site.get("/auth/dev", &[]).await.json(), json!({"devMode": true, "requiresSecret": true}));
}

#[tokio::test]
async fn a_browser_is_signed_in_until_it_signs_out() {
    let site = Site::new(settings()).await;
    let answer = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await;
    assert_eq!(answer.json(), json!({"ok": true, "email": "alice@example.com"}));
    let cookies = answer.cookies();
    assert!(cookies.contains("lukan_token=") && cookies.contains("__Host-mykube="), "{cookies}");
    let cookie = [("cookie", cookies.as_str())];
    let status = site.get("/auth/status", &cookie).await;
    assert_eq!(status.json(), json!({"authenticated": true, "daemonConnected": false, "devices": []}));
    assert_eq!(status.headers[header::CACHE_CONTROL], "no-store");

    let with_origin = [cookie[0], ("origin", URL)];
    let out = site.call(Method::POST, "/auth/logout", &with_origin, "").await;
    assert_eq!((out.json(), out.cookies().as_str()), (json!({"ok": true}), "lukan_token=; __Host-mykube="));
    // Whoever kept the cookies has nothing.
    let status = site.get("/auth/status", &cookie).await;
    assert_eq!(status.status, StatusCode::UNAUTHORIZED);
    assert_eq!(status.json(), json!({"authenticated": false, "daemonConnected": false}));
    assert_eq!(site.call(Method::POST, "/auth/logout", &[], "").await.json(), json!({"ok": true}), "and again");
}

#[tokio::test]
async fn a_browser_that_signs_in_anew_leaves_nothing_behind() {
    let site = Site::new(settings()).await;
    let alice = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    let headers = [("content-type", "application/json"), ("origin", URL), ("cookie", alice.as_str())];
    let body = json!({"email": "bob@example.com", "secret": SECRET}).to_string();
    let bob = site.call(Method::POST, "/auth/dev", &headers, &body).await.cookies();
    assert_eq!(site.get("/auth/status", &[("cookie", &alice)]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.get("/auth/status", &[("cookie", &bob)]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_restart_ends_what_the_boot_scope_says() {
    for (boot_scope, daemon_stays) in [(BootScope::Browser, true), (BootScope::All, false)] {
        let site = Site::new(Settings { boot_scope, ..settings() }).await;
        let cookies = site.post("/auth/dev", &json!({"secret": SECRET})).await.cookies();
        let (_, token) = site.daemon("alice@example.com").await;
        let site = site.restart().await;
        assert_eq!(site.get("/auth/status", &[("cookie", &cookies)]).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(site.portal.shared().verify(&token, &[Class::Daemon]).is_ok(), daemon_stays, "{boot_scope:?}");
    }
}

#[tokio::test]
async fn a_token_of_a_device_is_renewed_and_no_other() {
    let site = Site::new(settings()).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let renew = async |body: &Value| site.post("/auth/refresh", body).await;
    for missing in [json!({}), json!({"jwt": ""}), json!({"jwt": 7}), json!([])] {
        assert_eq!(renew(&missing).await.error(), (400, "Missing jwt in request body".to_owned()));
    }
    let devices = site.token(Class::Devices, &daemon);
    let answer = renew(&json!({"jwt": devices})).await.json();
    assert_eq!((&answer["userId"], &answer["expiresIn"]), (&json!("dev:alice@example.com"), &json!(86400)));
    for class in [Class::Mykube, Class::Daemon, Class::Browser] {
        let other = renew(&json!({"jwt": site.token(class, &daemon)})).await;
        assert_eq!(other.error(), (401, "Invalid JWT: jwt audience invalid".to_owned()));
    }
    let forged = format!("{}x", devices);
    assert_eq!(renew(&json!({"jwt": forged})).await.status, StatusCode::UNAUTHORIZED);
    wait(std::time::Duration::from_secs(2 * 86400 + 1));
    let late = renew(&json!({"jwt": devices})).await;
    assert_eq!(late.error(), (401, "JWT expired more than 24 hours ago. Please re-authenticate.".to_owned()));
}

#[tokio::test]
async fn a_token_that_was_revoked_stays_so() {
    let site = Site::new(settings()).await;
    let (account, daemon) = site.daemon("alice@example.com").await;
    let body = json!({"jwt": daemon});
    assert_eq!(site.post("/auth/revoke", &body).await.json(), json!({"ok": true}));
    assert_eq!(site.post("/auth/revoke", &body).await.json(), json!({"ok": true}), "and again");
    let site = site.restart().await;
    assert!(site.portal.shared().verify(&daemon, &[Class::Daemon]).is_err());
    assert_eq!(site.post("/auth/revoke", &json!({})).await.error(), (400, "Missing jwt in request body".to_owned()));
    let forged = site.post("/auth/revoke", &json!({"jwt": "a.b.c"})).await;
    assert_eq!(forged.error(), (401, "Invalid JWT: jwt malformed".to_owned()));

    let store = &site.portal.shared().store;
    let organisation = store.account(account.parse().unwrap()).await.unwrap().unwrap().organisation;
    let log = store.organisation(organisation).audit(10).await.unwrap();
    let told: Vec<_> = log.iter().map(|line| (line.number, line.action.as_str(), line.detail.as_str())).collect();
    assert_eq!(told, [(2, "token.revoke", "daemon"), (1, "sign_in.begin", "dev mode, a daemon")]);
    assert!(log.iter().all(|line| line.account == account && line.address == "192.0.2.1"));
    // Nor does one that is long over write anything.
    let (_, other) = site.daemon("alice@example.com").await;
    wait(Class::Daemon.life() + std::time::Duration::from_secs(86401));
    assert_eq!(site.post("/auth/revoke", &json!({"jwt": other})).await.json(), json!({"ok": true}));
    let log = store.organisation(organisation).audit(10).await.unwrap();
    assert_eq!(log.iter().filter(|line| line.action == "token.revoke").count(), 1);
}

#[tokio::test]
async fn a_revoked_token_of_a_device_takes_its_successors_along() {
    let site = Site::new(settings()).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let devices = site.token(Class::Devices, &daemon);
    let copied = site.post("/auth/refresh", &json!({"jwt": devices})).await.json()["jwt"].clone();
    assert_eq!(site.post("/auth/revoke", &json!({"jwt": devices})).await.json(), json!({"ok": true}));
    let site = site.restart().await;
    let again = site.post("/auth/refresh", &json!({"jwt": copied})).await;
    assert_eq!(again.error(), (401, "Invalid JWT: token revoked".to_owned()));
}

#[tokio::test]
async fn health_has_both_published_forms() {
    let site = Site::new(settings()).await;
    let answer = site.get("/health", &[]).await;
    assert_eq!(answer.json(), json!({"status": "ok", "ok": true, "timestamp": clock().millis()}));
}

#[tokio::test]
async fn what_is_over_is_forgotten_and_a_wrong_clock_forgets_nothing() {
    let site = Site::new(settings()).await;
    let (account, daemon) = site.daemon("alice@example.com").await;
    let cookies = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    site.post("/auth/revoke", &json!({"jwt": daemon})).await;
    site.call(Method::POST, "/auth/logout", &[("cookie", &cookies), ("origin", URL)], "").await;
    let shared = site.portal.shared();
    shared.sweep().await.unwrap();
    // A clock that is ten years ahead for a day of sweeps, and then right again.
    let day = std::time::Duration::from_hours(24);
    let right = clock();
    wait(3650 * day);
    for _ in 0..24 {
        shared.sweep().await.unwrap();
    }
    NOW.with(|now| now.store(right.millis(), Relaxed));
    let site = site.restart().await;
    assert!(site.portal.shared().verify(&daemon, &[Class::Daemon]).is_err());
    let refused = async |site: &Site| {
        let denied = site.portal.shared().store.denied().await.unwrap();
        let claims = site.portal.shared().jwts.verify_to_revoke(&daemon).unwrap();
        denied.denies(&claims)
    };
    assert!(refused(&site).await);
    // And all of it goes when it has been over for long.
    for _ in 0..500 {
        wait(day);
        site.portal.shared().sweep().await.unwrap();
    }
    assert!(!refused(&site).await, "nobody can show it any more");
    let store = &site.portal.shared().store;
    let organisation = store.account(account.parse().unwrap()).await.unwrap().unwrap().organisation;
    let log = store.organisation(organisation).audit(10).await.unwrap();
    assert_eq!(log.len(), 1, "the last line stays");
    assert_eq!((log[0].number, log[0].action.as_str()), (4, "sign_in.end"));
}
