//! `POST /auth`: ID tokens that programs hand in.

use std::time::Duration;

use super::*;

async fn hand_in(site: &Site, token: &str) -> Answer {
    let arrival = Arrival { address: rand::random::<[u8; 4]>().into(), is_private: true };
    let headers = [("content-type", "application/json")];
    let body = json!({"token": token}).to_string();
    site.ask(request(Method::POST, "/auth", &headers, &body), arrival).await
}

/// What the first provider says to the program `app`.
fn claims(provider: &StandIn) -> Value {
    provider.with("aud", "app".into())
}

#[tokio::test]
async fn a_device_signs_in_with_an_id_token_at_every_start() {
    let world = World::new(|_| {}).await;
    let site = &world.site;
    let token = signed(&claims(&world.google));
    let mut accounts = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let given = hand_in(site, &token).await;
        let body = given.json();
        assert_eq!((given.status, &body["userId"]), (StatusCode::OK, &json!("ada@example.com")));
        let claims = site.portal.shared().verify(body["jwt"].as_str().unwrap(), &[Class::Devices]).unwrap();
        assert_eq!(body["expiresIn"], claims.exp - claims.iat);
        accounts.insert(claims.sub.to_string());
        // It is renewed as published, and opens nothing else.
        let renewed = site.post("/auth/refresh", &json!({"jwt": body["jwt"]})).await.json();
        assert_eq!(renewed["userId"], "ada@example.com");
        let other = site.get("/v1/whoami", &[("authorization", &bearer(body["jwt"].as_str().unwrap()))]).await;
        assert_eq!(other.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(accounts.len(), 1, "it is one person");
    let others = hand_in(site, &signed(&claims(&world.one))).await.json();
    assert_eq!(others["userId"], "one:ada@example.com");
    wait(Duration::from_secs(360));
    let late = hand_in(site, &token).await;
    assert_eq!(late.error(), (401, "Token verification failed: token expired".to_owned()));
}

#[tokio::test]
async fn tokens_that_are_not_for_this_are_refused() {
    let world = World::new(|_| {}).await;
    let (site, good) = (&world.site, claims(&world.one));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let none = signer::unsigned(&json!({"alg": "none", "kid": "own"}), &good);
    let [mut several, mut strangers] = [good.clone(), good.clone()];
    several["aud"] = json!(["app", "another"]);
    strangers["sub"] = "43".into();
    let by_public_key = signer::OWN.sign_by_public_key(&json!({"alg": "HS256", "kid": "own"}), &good).remove(0);
    for (what, token, reason) in [
        ("another client's", signed(&with("aud", "another".into())), "wrong audience"),
        ("the relay's own client's", signed(&with("aud", "relay".into())), "wrong audience"),
        ("for several, issued to nobody", signed(&several), "issued to another client"),
        ("issued to another", signed(&with("azp", "another".into())), "issued to another client"),
        ("another issuer's", signed(&with("iss", "https://evil.example".into())), "wrong issuer"),
        ("ended", signed(&with("exp", json!(clock().secs() - 60))), "token expired"),
        ("unsigned", none, "signature algorithm not accepted"),
        ("signed by what everybody knows", by_public_key, "signature algorithm not accepted"),
        ("a stranger's", stand_in::signed_by(&signer::STRANGERS, &strangers), "invalid signature"),
        ("none", "x".to_owned(), "malformed token"),
    ] {
        let answer = hand_in(site, &token).await;
        assert_eq!(answer.error(), (401, format!("Token verification failed: {reason}")), "{what}");
    }
    let mut unverified = claims(&world.google);
    unverified["email_verified"] = false.into();
    let refused = hand_in(site, &signed(&unverified)).await;
    assert_eq!(refused.error(), (401, "Token verification failed: Email not verified".to_owned()));
    for body in ["", "{}", "[]", "nonsense", r#"{"token":""}"#, r#"{"token":7}"#] {
        let answer = site.call(Method::POST, "/auth", &[], body).await;
        assert_eq!(answer.error(), (400, "Missing token in request body".to_owned()), "{body}");
    }
}

#[tokio::test]
async fn tokens_are_taken_where_they_are_configured_and_from_people_who_may_come_in() {
    let off = World::new(|settings| settings.providers = Arc::default()).await;
    let refused = hand_in(&off.site, &signed(&claims(&off.one))).await;
    assert!(refused.error().0 == 404 && refused.body.contains("id_token_audiences"), "{}", refused.body);
    let closed = World::new(|settings| settings.sign_up = SignUp::Closed).await;
    let refused = hand_in(&closed.site, &signed(&claims(&closed.one))).await;
    assert!(refused.error().0 == 403 && refused.body.contains("takes no new accounts"), "{}", refused.body);
    let away = World::new(|_| {}).await;
    away.one.say("/jwks", server::Reply::Status(503, json!({})));
    let unknown = hand_in(&away.site, &signed(&claims(&away.one))).await;
    assert!(unknown.error().0 == 502 && !unknown.body.contains("503"), "{}", unknown.body);
}

#[tokio::test]
async fn an_address_hands_in_thirty_a_minute() {
    let world = World::new(|_| {}).await;
    for _ in 0..30 {
        assert_eq!(world.site.post("/auth", &json!({"token": "x"})).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.site.post("/auth", &json!({"token": "x"})).await.status, StatusCode::TOO_MANY_REQUESTS);
}
