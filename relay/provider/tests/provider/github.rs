//! GitHub, as its documentation describes it, on loopback.

use std::sync::{Arc, Mutex};

use http::Method;
use mykube_relay_accounts::{
    identity::{Identity, Kind},
    pkce::Challenge,
};
use mykube_relay_provider::{Call, ProviderError, RelyingParty, Settings};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::support::{
    NOW, REDIRECT_URI, outcome, sent,
    server::{Asked, Reply, Server},
    settings, web,
};

/// What it knows of the person, and what it answers instead of a token.
#[derive(Clone, Default)]
struct Knows {
    emails: Value,
    refusal: Option<Value>,
}

async fn github(knows: &Arc<Mutex<Knows>>) -> Server {
    let knows = Arc::clone(knows);
    Server::start(move |asked| answer(&asked, &knows.lock().unwrap())).await
}

fn answer(asked: &Asked, knows: &Knows) -> Reply {
    let header = |name: &str| asked.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    match (&asked.method, asked.path.as_str()) {
        (&Method::POST, "/login/oauth/access_token") => {
            let form: Vec<_> = form_urlencoded::parse(asked.body.as_bytes()).collect();
            let has = |name: &str, value: &str| form.iter().any(|(n, v)| n == name && v == value);
            let client = has("client_id", "relay") && has("client_secret", "secret");
            let grant = has("code", "c") && has("redirect_uri", REDIRECT_URI);
            let verified = has("code_verifier", sent(1).verifier.expose());
            // Without this header GitHub answers with a form.
            assert_eq!(header("accept").as_deref(), Some("application/json"));
            Reply::Json(match &knows.refusal {
                Some(refusal) => refusal.clone(),
                None if client && grant && verified => json!({ "access_token": "gho_x", "token_type": "bearer" }),
                None => json!({ "error": "bad_verification_code" }),
            })
        }
        // GitHub answers nobody who has no token or no user agent.
        (&Method::GET, _) if header("authorization").as_deref() != Some("Bearer gho_x") => {
            Reply::Status(401, json!({}))
        }
        (&Method::GET, _) if header("user-agent").is_none() => Reply::Status(403, json!({})),
        (&Method::GET, "/api/v3/user") => {
            Reply::Json(json!({ "id": 583_231, "login": "octocat", "email": "public@example.com", "name": null }))
        }
        (&Method::GET, "/api/v3/user/emails") if asked.query == "per_page=100" => Reply::Json(knows.emails.clone()),
        _ => Reply::Status(404, json!({})),
    }
}

fn party(server: &Server) -> RelyingParty {
    RelyingParty::new(settings(Kind::GitHub, &server.url), &web()).unwrap()
}

#[tokio::test]
async fn people_are_known_by_their_number_and_their_verified_primary_address() {
    let knows = Arc::default();
    let server = github(&knows).await;
    let party = party(&server);
    let ours = sent(1);
    let url: Url = party.authorization_url(REDIRECT_URI, &ours, NOW).await.unwrap().parse().unwrap();
    assert_eq!(url.path(), "/login/oauth/authorize");
    let challenge = Challenge::of(ours.verifier.expose()).encode();
    for (name, value) in [
        ("client_id", "relay"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "read:user user:email"),
        ("state", ours.state.expose()),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(url.query_pairs().find(|(key, _)| key == name).unwrap().1, value, "{name}");
    }
    let email = |email: &str, primary, verified| json!({ "email": email, "primary": primary, "verified": verified });
    for (emails, user_id, proved) in [
        (json!([email("b@example.com", false, true), email("A@example.com", true, true)]), "here:a@example.com", true),
        (json!([email("a@elsewhere.example", true, true)]), "here:a@elsewhere.example", false),
        (json!([email("a@example.com", true, false), email("b@example.com", false, true)]), "here:octocat", false),
        (json!([]), "here:octocat", false),
    ] {
        knows.lock().unwrap().emails = emails.clone();
        let person = party.redeem(outcome("code=c", &ours), REDIRECT_URI, &ours, NOW).await.unwrap();
        assert_eq!(person.identity, Identity { issuer: server.url.clone(), subject: "583231".into() });
        assert_eq!((person.user_id.as_str(), person.proved), (user_id, proved), "{emails}");
    }
}

#[tokio::test]
async fn what_it_refuses_is_told_apart() {
    let knows = Arc::default();
    let server = github(&knows).await;
    let (party, ours) = (party(&server), sent(1));
    let redeem = async |query: &str| party.redeem(outcome(query, &ours), REDIRECT_URI, &ours, NOW).await.unwrap_err();
    let other = sent(2);
    let error = party.redeem(outcome("code=c", &other), REDIRECT_URI, &other, NOW).await.unwrap_err();
    assert!(matches!(error, ProviderError::CodeRefused(_)), "the verifier of another sign-in: {error}");
    assert!(matches!(redeem("code=d").await, ProviderError::CodeRefused(_)));
    knows.lock().unwrap().refusal = Some(json!({ "error": "incorrect_client_credentials" }));
    assert!(matches!(redeem("code=c").await, ProviderError::ClientRefused(_)));
    knows.lock().unwrap().refusal = Some(json!({ "access_token": "another", "token_type": "bearer" }));
    assert_eq!(redeem("code=c").await, ProviderError::Status { call: Call::User, status: 401 });
    knows.lock().unwrap().refusal = Some(json!({ "access_token": "no\nheader" }));
    assert!(matches!(redeem("code=c").await, ProviderError::Unreadable { call: Call::User, .. }));
    knows.lock().unwrap().refusal = None;
    knows.lock().unwrap().emails = json!({ "message": "Not Found" });
    assert!(matches!(redeem("code=c").await, ProviderError::Unreadable { call: Call::Emails, .. }));
    // Its tokens are no ID tokens.
    assert!(party.verify_id_token("a.b.c", NOW).await.is_err());
}

#[tokio::test]
async fn its_api_may_stand_elsewhere() {
    let knows = Arc::new(Mutex::new(Knows { emails: json!([]), refusal: None }));
    let (server, api) = (github(&knows).await, github(&knows).await);
    let settings = Settings { github_api: Some(format!("{}/api/v3/", api.url)), ..settings(Kind::GitHub, &server.url) };
    let (party, ours) = (RelyingParty::new(settings, &web()).unwrap(), sent(1));
    let person = party.redeem(outcome("code=c", &ours), REDIRECT_URI, &ours, NOW).await.unwrap();
    assert_eq!(person.identity.issuer, server.url);
}
