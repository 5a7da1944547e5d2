//! Real providers: npm's `oidc-provider` in several configurations, and the example server of Go's `zitadel/oidc`.

use std::{
    ffi::OsString,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mykube_relay_accounts::{
    identity::{Identity, Kind, Person},
    provider_state::Sent,
    time::UnixTime,
};
use mykube_relay_provider::{Callback, Fault, IdTokenError, Outcome, ProviderError, Providers, RelyingParty, Settings};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::support::{
    REDIRECT_URI,
    browser::{send, sign_in},
    running::Running,
    sent, settings, web,
};

/// The programs; `scripts/test` has them where there is Node.js and Go.
const OIDC_PROVIDER: &str = "MYKUBE_OIDC_PROVIDER";
const ZITADEL: &str = "MYKUBE_ZITADEL_OIDC";

#[tokio::test]
async fn people_sign_in_at_npms_oidc_provider() {
    let Some(program) = program(OIDC_PROVIDER) else { return };
    let mut all = Vec::new();
    for (alg, auth, claims) in [
        ("RS256", "client_secret_basic", false),
        ("ES256", "client_secret_post", true),
        ("PS256", "none", false),
        ("EdDSA", "client_secret_basic", true),
    ] {
        all.push(json!({ "alg": alg, "auth": auth, "claimsInIdToken": claims, "redirectUri": REDIRECT_URI }));
    }
    let running = Running::start(Command::new("node").arg(program), Some(&Value::from(all.clone())));
    let issuers: Vec<String> = serde_json::from_str(&running.said).unwrap();
    for (issuer, instance) in issuers.iter().zip(&all) {
        let provider = Real { issuer, person: "ada", fields: &[("login", "ada"), ("password", "x")], instance };
        let person = provider.signs_in(1).await.unwrap();
        assert_eq!(person.identity, provider.identity());
        let shown = (person.email.map(|email| email.to_string()), person.proved, person.user_id.as_str());
        assert_eq!(shown, (Some("ada@example.com".into()), true, "here:ada@example.com"), "{instance}");
        let unverified = Real { fields: &[("login", "unverified"), ("password", "x")], ..provider };
        let person = unverified.signs_in(2).await.unwrap();
        assert_eq!((person.email, person.proved, person.user_id.as_str()), (None, false, "here:unverified"));
        provider.refuses_what_is_not_right().await;
    }
}

#[tokio::test]
async fn people_sign_in_at_gos_zitadel_oidc() {
    let Some(program) = program(ZITADEL) else { return };
    let running = Running::start(Command::new(program).arg(REDIRECT_URI), None);
    let (issuer, instance) = (running.said.trim(), json!({ "auth": "client_secret_basic" }));
    let fields = [("username", "test-user@127.0.0.1"), ("password", "verysecure")];
    let provider = Real { issuer, person: "id1", fields: &fields, instance: &instance };
    let person = provider.signs_in(1).await.unwrap();
    assert_eq!(person.identity, provider.identity());
    let shown = (person.email.map(|email| email.to_string()), person.proved, person.user_id.as_str());
    assert_eq!(shown, (Some("test-user@zitadel.ch".into()), false, "here:test-user@zitadel.ch"));
    provider.refuses_what_is_not_right().await;
}

#[derive(Clone, Copy)]
struct Real<'a> {
    issuer: &'a str,
    /// `sub` of who signs in.
    person: &'a str,
    fields: &'a [(&'a str, &'a str)],
    instance: &'a Value,
}

impl Real<'_> {
    /// This relay at the provider, as the client of this name.
    fn settings(&self, client: &str) -> Settings {
        let secret = (self.instance["auth"] != "none").then(|| self.secret(client).into());
        let settings = settings(Kind::Oidc, self.issuer);
        Settings { client_id: client.into(), client_secret: secret, ..settings }
    }

    fn identity(&self) -> Identity {
        Identity { issuer: self.issuer.into(), subject: self.person.into() }
    }

    fn secret(&self, client: &str) -> String {
        if self.instance["alg"].is_null() { "secret".into() } else { format!("secret+of %{client}") }
    }

    fn party(&self, client: &str) -> RelyingParty {
        RelyingParty::new(self.settings(client), &web()).unwrap()
    }

    /// Somebody at a browser signs in; the callback.
    async fn callback(&self, party: &RelyingParty, sent: &Sent) -> Outcome {
        let url = party.authorization_url(REDIRECT_URI, sent, now()).await.unwrap();
        let callback = Callback::parse(&sign_in(&url, self.fields).await).unwrap();
        assert_eq!(callback.state.expose(), sent.state.expose());
        callback.outcome
    }

    async fn signs_in(&self, seed: u64) -> Result<Person, ProviderError> {
        let (party, sent) = (self.party("relay"), sent(seed));
        let outcome = self.callback(&party, &sent).await;
        party.redeem(outcome, REDIRECT_URI, &sent, now()).await
    }

    async fn refuses_what_is_not_right(&self) {
        let (party, ours) = (self.party("relay"), sent(3));
        // The verifier, or the address, of another sign-in.
        let others = Sent { verifier: sent(4).verifier, ..sent(3) };
        let outcome = self.callback(&party, &ours).await;
        let error = party.redeem(outcome, REDIRECT_URI, &others, now()).await.unwrap_err();
        assert!(matches!(error, ProviderError::CodeRefused(_)), "{error}");
        let outcome = self.callback(&party, &ours).await;
        let error = party.redeem(outcome, "https://evil.example/", &ours, now()).await.unwrap_err();
        assert!(matches!(error, ProviderError::CodeRefused(_)), "{error}");
        // The nonce of another sign-in.
        let others = Sent { nonce: sent(4).nonce, ..sent(3) };
        let outcome = self.callback(&party, &ours).await;
        let error = party.redeem(outcome, REDIRECT_URI, &others, now()).await.unwrap_err();
        assert_eq!(error, IdTokenError::Nonce.into());
        // A code of another client.
        let outcome = self.callback(&self.party("other"), &ours).await;
        let error = party.redeem(outcome, REDIRECT_URI, &ours, now()).await.unwrap_err();
        assert!(matches!(error, ProviderError::CodeRefused(_)), "{error}");
        if self.instance["auth"] != "none" {
            let wrong = Settings { client_secret: Some(String::from("guessed").into()), ..self.settings("relay") };
            let wrong = RelyingParty::new(wrong, &web()).unwrap();
            let outcome = self.callback(&wrong, &ours).await;
            let error = wrong.redeem(outcome, REDIRECT_URI, &ours, now()).await.unwrap_err();
            assert!(matches!(error, ProviderError::ClientRefused(_)), "{error}");
            assert_eq!(error.fault(), Fault::Setting);
        }
        self.takes_id_tokens_of_its_own_clients_only().await;
    }

    async fn takes_id_tokens_of_its_own_clients_only(&self) {
        let all = Providers::new(vec![self.party("relay")]);
        let token = self.id_token("relay").await;
        for _ in 0..2 {
            let person = all.verify_id_token(&token, now()).await.unwrap();
            assert_eq!(person.identity, self.identity());
        }
        let tomorrow = now() + Duration::from_hours(24);
        assert_eq!(all.verify_id_token(&token, tomorrow).await.unwrap_err(), IdTokenError::Expired.into());
        let last_week = now() - Duration::from_hours(24 * 7);
        assert_eq!(all.verify_id_token(&token, last_week).await.unwrap_err(), IdTokenError::NotYet.into());
        let others = self.id_token("other").await;
        assert_eq!(all.verify_id_token(&others, now()).await.unwrap_err(), IdTokenError::Audience.into());
        let (message, _) = token.rsplit_once('.').unwrap();
        let (_, signature) = others.rsplit_once('.').unwrap();
        let forged = format!("{message}.{signature}");
        assert_eq!(all.verify_id_token(&forged, now()).await.unwrap_err(), IdTokenError::Signature.into());
        let off = Settings { id_token_audiences: vec![], ..self.settings("relay") };
        let off = Providers::new(vec![RelyingParty::new(off, &web()).unwrap()]);
        assert!(all.takes_id_tokens() && !off.takes_id_tokens());
        assert_eq!(off.verify_id_token(&token, now()).await.unwrap_err(), IdTokenError::Issuer.into());
    }

    /// The ID token of a client that signs people in by itself, as programs do that hand theirs in.
    async fn id_token(&self, client: &str) -> String {
        let (party, sent) = (self.party(client), sent(5));
        let url = party.authorization_url(REDIRECT_URI, &sent, now()).await.unwrap();
        let query = sign_in(&url, self.fields).await;
        let code = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "code").unwrap().1.into_owned();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs([("grant_type", "authorization_code"), ("redirect_uri", REDIRECT_URI), ("code", &code)]);
        form.append_pair("code_verifier", sent.verifier.expose());
        let mut endpoint = Url::parse(self.issuer).unwrap().join("/token").unwrap();
        if self.instance["alg"].is_null() {
            endpoint.set_path("/oauth/token");
        }
        let secret = self.secret(client);
        let mut authorization = None;
        match self.instance["auth"].as_str().unwrap() {
            "none" => {
                form.append_pair("client_id", client);
            }
            "client_secret_post" => {
                form.extend_pairs([("client_id", client), ("client_secret", &secret)]);
            }
            _ => {
                let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
                authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{client}:{encoded}"))));
            }
        }
        let answer = send(&endpoint, Some(form.finish()), authorization, &mut [].into()).await;
        let answer: Value = serde_json::from_slice(answer.body()).unwrap();
        answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn program(variable: &str) -> Option<OsString> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        eprintln!("NOT RUN: {variable} names no program (scripts/test has it where there is what it needs)");
    }
    program
}

/// Real providers have clocks of their own.
#[allow(clippy::disallowed_methods)]
fn now() -> UnixTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    UnixTime::from_secs(now.as_secs())
}
