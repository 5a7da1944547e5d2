//! What every call has: who may ask, over what, from which page, and how often; and our own calls.

use super::*;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_token_is_good_for_its_class_alone() {
    let site = Site::new(settings()).await;
    let (account, daemon) = site.daemon("alice@example.com").await;
    for class in Class::ALL {
        let answer = site.get("/v1/whoami", &[("authorization", &bearer(&site.token(class, &daemon)))]).await;
        if class == Class::Mykube {
            let body = answer.json();
            assert_eq!((&body["account"], &body["user_id"]), (&json!(account), &json!("dev:alice@example.com")));
            assert!(body["organisation"].as_str().unwrap().starts_with("org_"), "{body}");
            assert_eq!(body["signed_in_at"], "2027-01-15T08:00:00Z");
        } else {
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{class:?}");
        }
    }
    for none in [&[][..], &[("authorization", "Basic x")], &[("authorization", "Bearer x")]] {
        assert_eq!(site.get("/v1/whoami", none).await.status, StatusCode::UNAUTHORIZED);
    }
    let token = site.token(Class::Mykube, &daemon);
    wait(std::time::Duration::from_secs(3600));
    let late = site.get("/v1/whoami", &[("authorization", &bearer(&token))]).await;
    assert_eq!(late.error().0, 401, "after its hour");
}

#[tokio::test]
async fn pages_of_other_origins_get_published_calls_if_they_are_known() {
    let site = Site::new(settings()).await;
    let shared = |answer: &Answer| answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned();
    let known = ("origin", "https://console.example");
    let preflight = [known, ("access-control-request-method", "POST")];
    let answer = site.call(Method::OPTIONS, "/auth/dev/token", &preflight, "").await;
    assert_eq!(
        (answer.status, shared(&answer).unwrap()),
        (StatusCode::NO_CONTENT, "https://console.example".parse().unwrap())
    );
    assert!(answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().contains("x-lukan-device"));
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
    for path in ["/v1/whoami", "/v1/anything"] {
        assert_eq!(shared(&site.call(Method::OPTIONS, path, &preflight, "").await), None);
        assert_eq!(shared(&site.get(path, &[known]).await), None);
    }
    let foreign = ("origin", "https://evil.example");
    assert_eq!(shared(&site.get("/auth/status", &[foreign]).await), None);
    let body = json!({"secret": SECRET}).to_string();
    let refused = site.call(Method::POST, "/auth/dev", &[foreign, JSON], &body).await;
    assert_eq!(refused.error(), (403, "this origin is not allowed".to_owned()));
    assert!(refused.cookies().is_empty());
    let taken = site.call(Method::POST, "/auth/dev", &[known, JSON], &body).await;
    assert!(taken.status == StatusCode::OK && shared(&taken).is_some());
    let cookies: Vec<_> = taken.headers.get_all(header::SET_COOKIE).iter().map(|it| it.to_str().unwrap()).collect();
    assert!(cookies[0].contains("SameSite=None") && cookies[1].contains("SameSite=Lax"), "{cookies:?}");
}

#[tokio::test]
async fn no_secret_crosses_a_network_in_the_clear() {
    let site = Site::new(settings()).await;
    let body = json!({"secret": SECRET}).to_string();
    for (address, is_private, status) in [
        ("192.0.2.1", false, 403),
        ("192.0.2.1", true, 200),
        ("127.0.0.1", false, 200),
        ("::ffff:127.0.0.1", false, 200),
    ] {
        let arrival = Arrival { address: address.parse().unwrap(), is_private };
        let answer = site.ask(request(Method::POST, "/auth/dev/token", &[JSON], &body), arrival).await;
        assert_eq!(answer.status.as_u16(), status, "{arrival:?}: {}", answer.body);
    }
}

#[tokio::test]
async fn what_is_too_long_or_not_there_is_said() {
    let site = Site::new(settings()).await;
    let long = json!({"email": "x".repeat(16 * 1024), "secret": SECRET});
    assert_eq!(site.post("/auth/dev/token", &long).await.error().0, 413);
    assert_eq!(site.get("/nothing", &[]).await.error(), (404, "not found".to_owned()));
    assert_eq!(site.get("/auth/refresh", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn an_address_has_so_many_calls_a_minute() {
    let site = Site::new(settings()).await;
    let body = json!({"secret": "no"});
    for _ in 0..5 {
        assert_eq!(site.post("/auth/dev/token", &body).await.status, StatusCode::UNAUTHORIZED);
    }
    let over = site.post("/auth/dev/token", &json!({"secret": SECRET})).await;
    assert_eq!(over.text(), (429, "Rate limit exceeded — try again later"));
    assert!(over.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(site.get("/auth/status", &[]).await.status, StatusCode::UNAUTHORIZED, "each call has its own");
    let arrival = Arrival { address: [192, 0, 2, 2].into(), is_private: true };
    let other = site.ask(request(Method::POST, "/auth/dev/token", &[JSON], &body.to_string()), arrival).await;
    assert_eq!(other.status, StatusCode::UNAUTHORIZED, "and each address");
    wait(std::time::Duration::from_mins(1));
    assert_eq!(site.post("/auth/dev/token", &json!({"secret": SECRET})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_is_away_is_said() {
    let site = Site::new(settings()).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let token = bearer(&site.token(Class::Mykube, &daemon));
    site.portal.close().await;
    let answer = site.get("/v1/whoami", &[("authorization", &token)]).await;
    assert_eq!(answer.error().0, 503);
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    // What needs none goes on.
    assert_eq!(site.get("/health", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_there_has_a_limit_too() {
    let site = Site::new(settings()).await;
    for path in (0..300).flat_map(|_| ["/v1/whoami", "/nothing"]) {
        let status = site.get(path, &[]).await.status;
        assert!([StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND].contains(&status), "{path} {status}");
    }
    for path in ["/v1/whoami", "/nothing"] {
        assert_eq!(site.get(path, &[]).await.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    assert_eq!(site.get("/health", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_signs_in_for_the_first_time_in_many_places_at_once_is_one_person_everywhere() {
    let site = Site::new(settings()).await;
    let body = json!({"email": "alice@example.com", "secret": SECRET}).to_string();
    let sign_in = async |n: u8| {
        let arrival = Arrival { address: [192, 0, 2, n].into(), is_private: true };
        let headers = [("content-type", "application/json")];
        let answer = site.ask(request(Method::POST, "/auth/dev/token", &headers, &body), arrival).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()["userId"].clone()
    };
    let people = futures_util::future::join_all((0..24).map(sign_in)).await;
    assert!(people.iter().all(|person| *person == people[0]), "{people:?}");
}

#[tokio::test]
async fn an_organisations_audit_log_is_read_in_pages_by_its_owner() {
    let site = Site::new(settings()).await;
    let (_, alice) = site.daemon("alice@example.com").await;
    let (_, bob) = site.daemon("bob@example.com").await;
    for _ in 0..2 {
        site.daemon("alice@example.com").await;
    }
    let read = async |token: &str, query: &str| {
        let token = bearer(&site.token(Class::Mykube, token));
        site.get(&format!("/v1/audit{query}"), &[("authorization", &token)]).await
    };
    let numbers = |answer: &Answer| {
        let body = answer.json();
        let lines = body["lines"].as_array().unwrap().clone();
        assert!(lines.iter().all(|line| line["action"] == "sign_in.begin" && line["address"] == "192.0.2.1"));
        (lines.iter().map(|line| line["number"].as_i64().unwrap()).collect::<Vec<_>>(), body["more"] == true)
    };
    assert_eq!(numbers(&read(&alice, "").await), (vec![1, 2, 3], false));
    assert_eq!(numbers(&read(&alice, "?limit=2").await), (vec![1, 2], true));
    assert_eq!(numbers(&read(&alice, "?after=2&limit=2").await), (vec![3], false));
    assert_eq!(numbers(&read(&bob, "").await), (vec![1], false), "nobody else's");
    for wrong in ["?limit=0", "?limit=1001", "?after=x", "?before=3"] {
        assert_eq!(read(&alice, wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    assert_eq!(site.get("/v1/audit", &[("authorization", &bearer(&alice))]).await.status, 401, "of another class");
}

#[tokio::test]
async fn what_was_made_before_the_keys_were_rotated_goes_on_until_they_are_forgotten() {
    use mykube_relay_accounts::keys::OVERLAP;

    let site = Site::new(settings()).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let token = site.token(Class::Mykube, &daemon);
    let cookies = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    let code = site.post("/auth/device", &json!({})).await.json();
    let mut keys = Keys::parse(&site.keys.serialise()).unwrap();
    let kid = keys.rotate(clock() + std::time::Duration::from_secs(1), &mut rand::rng()).unwrap();
    site.portal.replace_keys(&keys);
    wait(std::time::Duration::from_secs(2));
    let whoami = async |token: &str| site.get("/v1/whoami", &[("authorization", &bearer(token))]).await.status.as_u16();
    let signed_in = async || site.get("/auth/status", &[("cookie", &cookies)]).await.status.as_u16();
    let fresh = site.token(Class::Mykube, &daemon);
    let header = data_encoding::BASE64URL_NOPAD.decode(fresh.split('.').next().unwrap().as_bytes()).unwrap();
    assert!(String::from_utf8(header).unwrap().contains(&kid.to_string()), "the new one signs");
    assert_eq!((whoami(&token).await, whoami(&fresh).await, signed_in().await), (200, 200, 200));
    let confirm = json!({"userCode": code["userCode"], "email": "alice@example.com", "secret": SECRET});
    assert_eq!(site.post("/auth/device/verify", &confirm).await.json(), json!({"ok": true}));
    assert!(keys.forget_over(clock() + OVERLAP));
    site.portal.replace_keys(&keys);
    assert_eq!((whoami(&token).await, whoami(&fresh).await, signed_in().await), (401, 200, 401));
}

#[tokio::test]
async fn what_one_relay_on_a_server_has_ended_another_one_hears_of() {
    let site = Site::new(settings()).await;
    // A file is one relay's.
    if !site.place.is_postgres() {
        return;
    }
    let (other, _letters) = open(&site.place, &site.keys, settings()).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let accepts = || other.shared().verify(&daemon, &[Class::Daemon]).is_ok();
    other.shared().hear_denied().await.unwrap();
    assert!(accepts());
    assert_eq!(site.post("/auth/revoke", &json!({"jwt": daemon})).await.json(), json!({"ok": true}));
    other.shared().hear_denied().await.unwrap();
    assert!(!accepts());
}

#[tokio::test]
async fn who_was_signed_in_is_so_in_a_restored_copy_with_the_same_keys_alone() {
    let site = Site::new(settings()).await;
    if site.place.is_postgres() {
        return;
    }
    let cookies = site.post("/auth/dev", &json!({"email": "alice@example.com", "secret": SECRET})).await.cookies();
    let restored = Place::sqlite();
    let Database::Sqlite(file) = &restored.database else { panic!("it is a file") };
    mykube_relay_store::back_up(&site.place.database, file).await.unwrap();
    for (keys, status) in [(site.keys, 200), (Keys::generate(&mut rand::rng()), 401)] {
        let (portal, _letters) = open(&restored, &keys, settings()).await;
        let (_, portal_cookie) = cookies.split_once("; ").unwrap();
        let request = request(Method::GET, "/portal/sessions", &[("cookie", portal_cookie)], "");
        let arrival = Arrival { address: [192, 0, 2, 1].into(), is_private: true };
        let answer = portal.answer(request, arrival).await;
        // A page sends who is not signed in to where one signs in.
        assert_eq!(answer.status().as_u16() == 200, status == 200, "{}", answer.status());
        portal.close().await;
    }
}
