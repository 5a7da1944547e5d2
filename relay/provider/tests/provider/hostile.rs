//! Providers, or those on the way to them, that do what they must not.

use std::time::Duration;

use bytes::Bytes;
use mykube_dial::{DialError, ProxyEnv};
use mykube_relay_accounts::{identity::Kind, identity::Person};
use mykube_relay_provider::{
    Call, DOCUMENT_LIFE, Fault, IdTokenError, KEYS_MAX, ProviderError, REFETCH_AFTER, RETRY_AFTER, RelyingParty, Web,
};
use serde_json::{Value, json};

use crate::support::{
    NOW, REDIRECT_URI, TRUST, outcome, party, sent,
    server::Reply,
    settings,
    signer::{OWN, STRANGERS},
    stand_in::{DISCOVERY, KEYS, StandIn, TOKEN, signed},
    web,
};

async fn redeem(party: &RelyingParty, query: &str) -> Result<Person, ProviderError> {
    let sent = sent(1);
    party.redeem(outcome(query, &sent), REDIRECT_URI, &sent, NOW).await
}

/// A provider at which a sign-in works.
async fn working() -> StandIn {
    let provider = StandIn::start().await;
    provider.give("access", &signed(&provider.with("nonce", sent(1).nonce.expose().into())));
    provider
}

#[tokio::test]
async fn a_document_of_another_issuer_is_not_believed() {
    let provider = working().await;
    let mut document = provider.document();
    document["issuer"] = "https://accounts.google.com".into();
    provider.say(DISCOVERY, Reply::Json(document));
    let error = party(&provider.issuer).authorization_url(REDIRECT_URI, &sent(1), NOW).await.unwrap_err();
    assert_eq!(error, ProviderError::OtherIssuer { found: "https://accounts.google.com".into() });
    assert!(!error.for_stranger().contains("google") && error.fault() == Fault::Setting);
}

#[tokio::test]
async fn answers_that_are_far_too_long_are_not_read() {
    let endless = || Reply::Raw(Bytes::from(vec![b' '; 10 << 20]));
    for (path, call) in [(KEYS, Call::Keys), (DISCOVERY, Call::Discovery), (TOKEN, Call::Token)] {
        let provider = working().await;
        provider.say(path, endless());
        let error = redeem(&party(&provider.issuer), "code=c").await.unwrap_err();
        assert!(matches!(&error, ProviderError::Unreachable { call: of, .. } if *of == call), "{error}");
        assert!(error.to_string().contains("far too long"), "{error}");
    }
    let provider = working().await;
    let keys: Vec<_> = (0..=KEYS_MAX).map(|at| json!({ "kty": "RSA", "kid": at.to_string() })).collect();
    provider.say(KEYS, Reply::Json(json!({ "keys": keys })));
    let error = redeem(&party(&provider.issuer), "code=c").await.unwrap_err();
    assert_eq!(error, ProviderError::Unreadable { call: Call::Keys, problem: "has far too many keys" });
}

#[tokio::test]
async fn nobody_is_followed_elsewhere() {
    for (path, call) in [(KEYS, Call::Keys), (DISCOVERY, Call::Discovery), (TOKEN, Call::Token)] {
        let (provider, elsewhere) = (working().await, working().await);
        provider.say(path, Reply::Redirect(format!("{}{path}", elsewhere.issuer)));
        let error = redeem(&party(&provider.issuer), "code=c").await.unwrap_err();
        assert_eq!(error, ProviderError::Redirected(call));
        assert_eq!(elsewhere.asked(path), 0);
    }
}

#[tokio::test]
async fn a_provider_that_hangs_is_given_up() {
    for (path, call) in [(KEYS, Call::Keys), (DISCOVERY, Call::Discovery), (TOKEN, Call::Token)] {
        let provider = working().await;
        provider.say(path, Reply::Hang);
        let impatient = Web::with_limit(TRUST.clone(), ProxyEnv::default(), Duration::from_millis(200));
        let party = RelyingParty::new(settings(Kind::Oidc, &provider.issuer), &impatient).unwrap();
        let error = redeem(&party, "code=c").await.unwrap_err();
        assert!(
            matches!(&error, ProviderError::Unreachable { call: of, error: DialError::Unreachable { .. } } if *of == call)
        );
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert_eq!(error.fault(), Fault::Provider);
        assert!(!error.for_stranger().contains("127.0.0.1"));
    }
}

#[tokio::test]
async fn documents_are_kept_and_an_unknown_key_is_looked_for_once_a_minute() {
    let provider = working().await;
    let party = party(&provider.issuer);
    let own = signed(&provider.claims());
    let strangers = STRANGERS.sign(&json!({ "alg": "RS256", "kid": "new" }), &provider.claims());
    let unknown = Err(IdTokenError::UnknownKey.into());
    for _ in 0..3 {
        party.verify_id_token(&own, NOW).await.unwrap();
        assert_eq!(party.verify_id_token(&strangers, NOW).await, unknown);
    }
    assert_eq!((provider.asked(DISCOVERY), provider.asked(KEYS)), (1, 1));
    let later = NOW + REFETCH_AFTER;
    for _ in 0..3 {
        assert_eq!(party.verify_id_token(&strangers, later).await, unknown);
    }
    assert_eq!((provider.asked(DISCOVERY), provider.asked(KEYS)), (1, 2));
    // The key set is changed, and is believed for what it says now: the key that is gone verifies nothing.
    provider.say(KEYS, Reply::Json(json!({ "keys": [STRANGERS.jwk("new")] })));
    let later = later + REFETCH_AFTER;
    party.verify_id_token(&strangers, later).await.unwrap();
    assert_eq!((provider.asked(DISCOVERY), provider.asked(KEYS)), (1, 3));
    assert_eq!(party.verify_id_token(&own, later).await, unknown);
    // A key that was taken back is believed no longer than the documents' life.
    provider.say(KEYS, Reply::Json(json!({ "keys": [OWN.jwk("own")] })));
    let later = later + DOCUMENT_LIFE;
    let again = STRANGERS.sign(
        &json!({ "alg": "RS256", "kid": "new" }),
        &json!({ "iss": provider.issuer, "sub": "42", "aud": "relay", "iat": later.secs(), "exp": later.secs() + 300 }),
    );
    assert_eq!(party.verify_id_token(&again, later).await, unknown);
    assert_eq!((provider.asked(DISCOVERY), provider.asked(KEYS)), (2, 4));
}

#[tokio::test]
async fn a_provider_that_was_away_is_back_after_seconds() {
    let provider = working().await;
    let party = party(&provider.issuer);
    provider.say(DISCOVERY, Reply::Status(503, json!({})));
    for _ in 0..3 {
        let error = party.authorization_url(REDIRECT_URI, &sent(1), NOW).await.unwrap_err();
        assert_eq!(error, ProviderError::Status { call: Call::Discovery, status: 503 });
    }
    assert_eq!(provider.asked(DISCOVERY), 1);
    provider.say(DISCOVERY, Reply::Json(provider.document()));
    let url = party.authorization_url(REDIRECT_URI, &sent(1), NOW + RETRY_AFTER).await.unwrap();
    assert!(url.starts_with(&format!("{}/authorize?response_type=code&client_id=relay&", provider.issuer)), "{url}");
}

#[tokio::test]
async fn answers_come_from_the_provider_that_was_asked() {
    let provider = working().await;
    let issuer = |text: &str| format!("code=c&iss={}", text.replace(':', "%3A").replace('/', "%2F"));
    let plain = party(&provider.issuer);
    assert!(redeem(&plain, "code=c").await.is_ok());
    assert!(redeem(&plain, &issuer(&provider.issuer)).await.is_ok());
    assert_eq!(redeem(&plain, &issuer("https://evil.example")).await, Err(ProviderError::MixedUp));
    let mut document = provider.document();
    document["authorization_response_iss_parameter_supported"] = true.into();
    provider.say(DISCOVERY, Reply::Json(document));
    let named = party(&provider.issuer);
    assert!(redeem(&named, &issuer(&provider.issuer)).await.is_ok());
    assert_eq!(redeem(&named, "code=c").await, Err(ProviderError::MixedUp));
}

#[tokio::test]
async fn no_secret_is_in_an_error() {
    const CODE: &str = "canary-code";
    const ACCESS: &str = "canary-access";
    const CLIENT: &str = "canary-client-secret";
    let token = signed(&json!({ "iss": "canary-issuer" }));
    let echo = |error: &str| Reply::Status(400, json!({ "error": error, "error_description": "words" }));
    let tokens = |id_token: &Value| Reply::Json(json!({ "access_token": ACCESS, "id_token": id_token }));
    for reply in [
        echo("invalid_grant"),
        echo("invalid_client"),
        echo("server_error"),
        tokens(&token.clone().into()),
        tokens(&Value::Null),
        Reply::Json(json!([token, ACCESS])),
        Reply::Json(json!({ "id_token": token })),
        Reply::Status(500, json!({ "access_token": ACCESS })),
        Reply::Redirect(format!("/?{CODE}")),
        Reply::Raw(Bytes::from(format!("{ACCESS}{token}"))),
    ] {
        let provider = working().await;
        provider.say(TOKEN, reply);
        let mut settings = settings(Kind::Oidc, &provider.issuer);
        settings.client_secret = Some(CLIENT.to_owned().into());
        let party = RelyingParty::new(settings, &web()).unwrap();
        let error = redeem(&party, &format!("code={CODE}")).await.unwrap_err();
        let asked = provider.last(TOKEN);
        assert!(asked.body.contains(CODE) && asked.headers.contains_key("authorization") && asked.method == "POST");
        assert!(asked.query.is_empty());
        let all = format!("{error} {error:?} {}", error.for_stranger());
        let secrets = [CODE, ACCESS, CLIENT, &token, sent(1).verifier.expose()].map(|secret| all.contains(secret));
        assert_eq!(secrets, [false; 5], "{all}");
    }
}

#[tokio::test]
async fn who_does_not_sign_in_is_told_why_in_the_providers_words() {
    let provider = working().await;
    let error = redeem(&party(&provider.issuer), "error=access_denied&error_description=no%0a").await.unwrap_err();
    assert_eq!(error.to_string(), "the identity provider says: access_denied: no");
    assert_eq!((error.fault(), provider.asked(DISCOVERY), provider.asked(TOKEN)), (Fault::Person, 0, 0));
}
