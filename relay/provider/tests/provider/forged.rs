//! ID tokens that must not be believed, each seen to be the one wrong thing about a sign-in that is right otherwise.

use mykube_relay_accounts::identity::{Identity, Kind, Person, ProfileError};
use mykube_relay_provider::{
    IdTokenError::{
        self, AccessToken, Algorithm, Audience, AuthorizedParty, Expired, Issuer, Malformed, Nonce, NotYet, Signature,
        TooLong, UnknownKey,
    },
    ProviderError, Providers, RelyingParty, Settings, TOKEN_MAX,
};
use serde_json::{Value, json};

use crate::support::{
    NOW, REDIRECT_URI, outcome, party, sent,
    server::Reply,
    settings,
    signer::{OWN, STRANGERS, unsigned},
    stand_in::{StandIn, TOKEN, USER_INFO, signed, signed_by},
    web,
};

async fn handed_in(provider: &StandIn, token: &str) -> Result<Person, ProviderError> {
    party(&provider.issuer).verify_id_token(token, NOW).await
}

#[tokio::test]
async fn tokens_that_are_handed_in() {
    let provider = StandIn::start().await;
    let with = |name: &str, value: Value| signed(&provider.with(name, value));
    let now = NOW.secs();
    for (what, token) in [
        ("as it should be", signed(&provider.claims())),
        ("for several, and issued to this one", {
            let mut claims = provider.with("aud", json!(["relay", "another"]));
            claims["azp"] = "relay".into();
            signed(&claims)
        }),
        ("ended within the leeway", with("exp", (now - 59).into())),
        ("of a clock that is fast", with("iat", (now + 60).into())),
        ("with a fraction", with("iat", json!(1_799_999_999.5))),
        ("with a nonce, which is nobody's", with("nonce", "x".into())),
    ] {
        let person = handed_in(&provider, &token).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(person.identity, Identity { issuer: provider.issuer.clone(), subject: "42".into() });
        assert_eq!((person.user_id.as_str(), person.proved), ("here:ada@example.com", true));
    }

    let (claims, own) = (provider.claims(), signed(&provider.claims()));
    let (message, signature) = own.rsplit_once('.').unwrap();
    let with_header = |header: &Value| OWN.sign(header, &claims);
    let several = |azp: Option<&str>| {
        let mut claims = provider.with("aud", json!(["relay", "another"]));
        if let Some(azp) = azp {
            claims["azp"] = azp.into();
        }
        signed(&claims)
    };
    let other_claims = signed(&provider.with("sub", "1".into()));
    let (other_message, _) = other_claims.rsplit_once('.').unwrap();
    let mut table: Vec<(&str, String, IdTokenError)> = vec![
        ("signed by a stranger under the same key id", signed_by(&STRANGERS, &claims), Signature),
        ("of another's claims under this signature", format!("{other_message}.{signature}"), Signature),
        ("with half a signature", own[..own.len() - 114].to_owned(), Signature),
        ("without a signature", format!("{message}."), Signature),
        ("of a key that nobody has", with_header(&json!({ "alg": "RS256", "kid": "nobody's" })), UnknownKey),
        ("alg: none", unsigned(&json!({ "alg": "none" }), &claims), Algorithm),
        ("alg: none, with the key's id", unsigned(&json!({ "alg": "none", "kid": "own" }), &claims), Algorithm),
        ("alg: None", unsigned(&json!({ "alg": "None", "kid": "own" }), &claims), Algorithm),
        ("alg: the key's other ones", with_header(&json!({ "alg": "PS256", "kid": "own" })), UnknownKey),
        ("alg: RS512", with_header(&json!({ "alg": "RS512", "kid": "own" })), UnknownKey),
        ("alg: another kind's", with_header(&json!({ "alg": "ES256", "kid": "own" })), UnknownKey),
        (
            "with what must be understood",
            with_header(&json!({ "alg": "RS256", "kid": "own", "crit": ["b64"] })),
            Malformed,
        ),
        ("of another audience", with("aud", "another".into()), Audience),
        ("of no audience", with("aud", json!([])), Audience),
        ("without an audience", with("aud", Value::Null), Malformed),
        ("of a longer audience", with("aud", "relay2".into()), Audience),
        ("issued to another", with("azp", "another".into()), AuthorizedParty),
        ("for several, issued to another", several(Some("another")), AuthorizedParty),
        ("for several, issued to nobody", several(None), AuthorizedParty),
        ("ended", with("exp", (now - 60).into()), Expired),
        ("without an end", with("exp", Value::Null), Malformed),
        ("with an end in words", with("exp", "never".into()), Malformed),
        ("with a negative end", with("exp", json!(-1)), Malformed),
        ("from the future", with("iat", (now + 61).into()), NotYet),
        ("without a beginning", with("iat", Value::Null), Malformed),
        ("that begins later", with("nbf", (now + 61).into()), NotYet),
        ("of several issuers", with("iss", json!([provider.issuer])), Malformed),
        ("without a subject", with("sub", Value::Null), Malformed),
        ("with a subject that is a number", with("sub", json!(42)), Malformed),
        ("with a part too many", format!("{own}.AAAA"), Malformed),
        ("that is none", "x".into(), Malformed),
        ("that is empty", String::new(), Malformed),
        ("that is far too long", format!("{own}{}", "A".repeat(TOKEN_MAX)), TooLong),
    ];
    for token in OWN.sign_by_public_key(&json!({ "alg": "HS256", "kid": "own" }), &claims) {
        table.push(("HS256 under the public key", token, Algorithm));
    }
    for (what, token, why) in table {
        assert_eq!(handed_in(&provider, &token).await, Err(why.into()), "a token {what}");
    }
    assert_eq!(Signature.to_string(), "invalid signature");
}

#[tokio::test]
async fn the_issuer_is_compared_byte_for_byte() {
    let provider = StandIn::start().await;
    let all = Providers::new(vec![party(&provider.issuer)]);
    for issuer in ["https://evil.example".to_owned(), format!("{}/", provider.issuer), provider.issuer.to_uppercase()] {
        let token = signed(&provider.with("iss", issuer.clone().into()));
        assert_eq!(handed_in(&provider, &token).await, Err(Issuer.into()), "{issuer}");
        assert_eq!(all.verify_id_token(&token, NOW).await, Err(Issuer.into()), "{issuer}");
    }
    assert!(all.verify_id_token(&signed(&provider.claims()), NOW).await.is_ok());
    assert_eq!(all.verify_id_token("x", NOW).await, Err(Malformed.into()));
    let long = "A".repeat(TOKEN_MAX + 1);
    assert_eq!(all.verify_id_token(&long, NOW).await, Err(TooLong.into()));
}

#[tokio::test]
async fn a_key_set_of_shared_secrets_verifies_nothing() {
    let provider = StandIn::start().await;
    let oct = json!({ "kty": "oct", "kid": "own", "alg": "HS256", "k": OWN.jwk("own")["n"] });
    provider.say("/jwks", Reply::Json(json!({ "keys": [oct, OWN.jwk("other")] })));
    for token in OWN.sign_by_public_key(&json!({ "alg": "HS256", "kid": "own" }), &provider.claims()) {
        assert_eq!(handed_in(&provider, &token).await, Err(Algorithm.into()));
    }
    assert_eq!(handed_in(&provider, &signed(&provider.claims())).await, Err(UnknownKey.into()));
}

#[tokio::test]
async fn what_the_provider_says_that_it_signs_with_binds_it() {
    let provider = StandIn::start().await;
    let mut document = provider.document();
    document["id_token_signing_alg_values_supported"] = json!(["ES256", "HS256"]);
    provider.say("/.well-known/openid-configuration", Reply::Json(document));
    assert_eq!(handed_in(&provider, &signed(&provider.claims())).await, Err(Algorithm.into()));
}

/// A sign-in whose ID token says this, and comes with the access token `access`.
async fn signs_in(provider: &StandIn, claims: &Value) -> Result<Person, ProviderError> {
    provider.give("access", &signed(claims));
    let sent = sent(1);
    party(&provider.issuer).redeem(outcome("code=c", &sent), REDIRECT_URI, &sent, NOW).await
}

#[tokio::test]
async fn tokens_of_a_sign_in_belong_to_it() {
    let provider = StandIn::start().await;
    let nonce: Value = sent(1).nonce.expose().into();
    let mut claims = provider.with("nonce", nonce.clone());
    assert!(signs_in(&provider, &claims).await.is_ok());
    claims["at_hash"] = ACCESS_HASH.into();
    assert!(signs_in(&provider, &claims).await.is_ok());
    for (name, value, why) in [
        ("nonce", sent(2).nonce.expose().into(), Nonce),
        ("nonce", "".into(), Nonce),
        ("nonce", Value::Null, Nonce),
        ("at_hash", "AAAAAAAAAAAAAAAAAAAAAA".into(), AccessToken),
        ("at_hash", "".into(), AccessToken),
        ("aud", "another".into(), Audience),
        ("azp", "another".into(), AuthorizedParty),
        ("iss", "https://evil.example".into(), Issuer),
        ("exp", (NOW.secs() - 60).into(), Expired),
    ] {
        let mut forged = claims.clone();
        forged[name] = value;
        if forged[name].is_null() {
            forged.as_object_mut().unwrap().remove(name);
        }
        assert_eq!(signs_in(&provider, &forged).await, Err(why.into()), "{name}");
    }
    assert_eq!(signs_in(&provider, &provider.claims()).await, Err(Nonce.into()));
    // A client is not an audience that programs hand in tokens of, and the other way round.
    let mut elsewhere = settings(Kind::Oidc, &provider.issuer);
    elsewhere.id_token_audiences = vec!["app".into()];
    let elsewhere = RelyingParty::new(elsewhere, &web()).unwrap();
    assert_eq!(elsewhere.verify_id_token(&signed(&claims), NOW).await, Err(Audience.into()));
    assert!(elsewhere.verify_id_token(&signed(&provider.with("aud", "app".into())), NOW).await.is_ok());
    provider.give("access", &signed(&provider.with("aud", "app".into())));
    let ours = sent(1);
    let error = elsewhere.redeem(outcome("code=c", &ours), REDIRECT_URI, &ours, NOW).await.unwrap_err();
    assert_eq!(error, Audience.into());
}

/// The first 16 bytes of `printf access | sha256sum`, in base64url.
const ACCESS_HASH: &str = "oFYf1knNtrqnhAVfBRuteQ";

#[tokio::test]
async fn an_address_that_nobody_has_verified_is_none() {
    let provider = StandIn::start().await;
    let of = |kind, claims: &Value| {
        let party = RelyingParty::new(settings(kind, &provider.issuer), &web()).unwrap();
        let token = signed(claims);
        async move { party.verify_id_token(&token, NOW).await }
    };
    for value in [json!(false), json!("true"), json!(1), Value::Null] {
        let claims = provider.with("email_verified", value.clone());
        let person = of(Kind::Oidc, &claims).await.unwrap();
        assert_eq!((person.email, person.proved, person.user_id.as_str()), (None, false, "here:ada"), "{value}");
        let error = of(Kind::Google, &claims).await.unwrap_err();
        assert_eq!((&error, error.for_stranger().as_str()), (&ProfileError::NotVerified.into(), "Email not verified"));
    }
    let microsoft = of(Kind::Microsoft, &provider.claims()).await.unwrap();
    assert_eq!((microsoft.email, microsoft.proved), (None, false), "whatever it says of itself");
    let elsewhere = of(Kind::Google, &provider.with("email", "ada@elsewhere.example".into())).await.unwrap();
    assert_eq!((elsewhere.proved, elsewhere.user_id.as_str()), (false, "ada@elsewhere.example"));
}

#[tokio::test]
async fn user_info_is_of_the_person_who_signs_in() {
    let provider = StandIn::start().await;
    let mut document = provider.document();
    document["userinfo_endpoint"] = format!("{}{USER_INFO}", provider.issuer).into();
    provider.say("/.well-known/openid-configuration", Reply::Json(document));
    let mut claims = provider.with("email", Value::Null);
    claims["nonce"] = sent(1).nonce.expose().into();
    let info = json!({ "sub": "42", "email": "ada@example.com", "email_verified": true });
    provider.say(USER_INFO, Reply::Json(info.clone()));
    assert_eq!(signs_in(&provider, &claims).await.unwrap().user_id, "here:ada@example.com");
    assert_eq!(provider.last(USER_INFO).headers["authorization"], "Bearer access");
    let mut others = info;
    others["sub"] = "43".into();
    provider.say(USER_INFO, Reply::Json(others));
    assert_eq!(signs_in(&provider, &claims).await, Err(ProviderError::OtherPerson));
    provider.say(USER_INFO, Reply::Status(403, json!({})));
    assert!(matches!(signs_in(&provider, &claims).await, Err(ProviderError::Status { status: 403, .. })));
    // Nobody asks for what is there already.
    let asked = provider.asked(USER_INFO);
    let whole = provider.with("nonce", sent(1).nonce.expose().into());
    assert!(signs_in(&provider, &whole).await.is_ok());
    assert_eq!((provider.asked(USER_INFO), provider.asked(TOKEN) > 0), (asked, true));
}

#[tokio::test]
async fn settings_that_cannot_be_right_are_refused_at_once() {
    use mykube_relay_provider::{InvalidAddress, SettingError};
    let refused = |change: fn(&mut Settings)| {
        let mut settings = settings(Kind::GitHub, "https://github.com");
        change(&mut settings);
        RelyingParty::new(settings, &web()).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|it| it.client_secret = None), Some(SettingError::NoSecret));
    assert_eq!(refused(|it| it.client_id.clear()), Some(SettingError::NoClient));
    assert_eq!(refused(|it| it.provider.issuer = "x".into()), Some(SettingError::Issuer(InvalidAddress::NoUrl)));
    assert_eq!(
        refused(|it| it.github_api = Some("http://x.example".into())),
        Some(SettingError::Api(InvalidAddress::PlainText))
    );
    let mut plain = settings(Kind::Oidc, "http://id.example");
    plain.client_secret = None;
    assert_eq!(RelyingParty::new(plain, &web()).err(), Some(SettingError::Issuer(InvalidAddress::PlainText)));
}
