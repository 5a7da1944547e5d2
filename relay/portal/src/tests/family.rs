//! A program of ours: it signs in with its machine's key, and has its token replaced.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::BASE64URL_NOPAD;
use mykube_protocol::account::{Act, statement};
use sha2::{Digest as _, Sha256};

use super::*;

/// A machine: its key, and what it was given last.
pub(super) struct Machine {
    key: EcdsaKeyPair,
    pub(super) token: String,
    pub(super) refresh_token: String,
    time: u64,
}

impl Machine {
    /// One that is not signed in.
    pub(super) fn out() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let time = u64::try_from(clock().millis()).unwrap();
        Self { key, token: String::new(), refresh_token: String::new(), time }
    }

    /// Its public key, as bodies have it.
    pub(super) fn public(&self) -> String {
        BASE64URL_NOPAD.encode(self.key.public_key().as_ref())
    }

    /// A question by a device code.
    pub(super) fn poll(&self, code: &str) -> Value {
        use mykube_relay_accounts::statement::{Act, Statement};
        let statement = Statement { act: Act::SignIn, shown: code, time: self.time }.bytes(URL);
        let sig = self.key.sign(&SystemRandom::new(), &statement).unwrap();
        json!({"deviceCode": code, "time": self.time, "sig": BASE64URL_NOPAD.encode(sig.as_ref())})
    }

    /// Signs in.
    async fn new(site: &Site) -> Self {
        let mut machine = Self::out();
        let public = machine.public();
        let body = json!({"email": "alice@example.com", "secret": SECRET, "client": "mykube", "key": public});
        let answer = site.post("/auth/dev/token", &body).await;
        assert_eq!((answer.status, &answer.json()["relay"]), (StatusCode::OK, &json!([URL])), "{}", answer.body);
        machine.keep(&answer);
        machine
    }

    pub(super) fn keep(&mut self, answer: &Answer) {
        let body = answer.json();
        assert_eq!(body["expiresIn"], 3600);
        self.token = body["token"].as_str().unwrap().to_owned();
        self.refresh_token = body["refresh_token"].as_str().unwrap().to_owned();
    }

    fn sign(&self, act: Act, url: &str, token: &str, time: u64) -> Value {
        let message = statement(act, &Sha256::digest(url).into(), &Sha256::digest(token).into(), time);
        let sig = BASE64URL_NOPAD.encode(self.key.sign(&SystemRandom::new(), &message).unwrap().as_ref());
        json!({"refresh_token": token, "time": time, "sig": sig})
    }

    /// Has this token replaced.
    pub(super) async fn refresh(&mut self, site: &Site, token: &str) -> Answer {
        self.time += 1;
        let body = self.sign(Act::Refresh, URL, token, self.time);
        site.post("/auth/refresh", &body).await
    }
}

async fn status(site: &Site, token: &str) -> u16 {
    site.get("/v1/whoami", &[("authorization", &bearer(token))]).await.status.as_u16()
}

#[tokio::test]
async fn a_token_is_replaced_and_the_sign_in_outlives_a_restart() {
    let site = Site::new(settings()).await;
    let mut machine = Machine::new(&site).await;
    assert_eq!(status(&site, &machine.token).await, 200);
    wait(Duration::from_secs(60));
    let answer = machine.refresh(&site, &machine.refresh_token.clone()).await;
    machine.keep(&answer);
    let site = site.restart().await;
    assert_eq!(status(&site, &machine.token).await, 200);
    machine.time += 1;
    let received = machine.sign(Act::Received, URL, &machine.refresh_token, machine.time);
    assert_eq!(site.post("/auth/refresh/received", &received).await.json(), json!({"ok": true}));
    let answer = machine.refresh(&site, &machine.refresh_token.clone()).await;
    machine.keep(&answer);
    assert_eq!(status(&site, &machine.token).await, 200);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_what_it_held_is_void() {
    let site = Site::new(settings()).await;
    let mut machine = Machine::new(&site).await;
    let first = machine.refresh_token.clone();
    let lost = machine.refresh(&site, &first).await.json();
    let again = machine.refresh(&site, &first).await;
    machine.keep(&again);
    assert_eq!(status(&site, lost["token"].as_str().unwrap()).await, 401, "nobody needs it");
    assert_eq!(status(&site, &machine.token).await, 200);
    // Somebody else has what was lost: both are out, for good.
    let theft = machine.refresh(&site, lost["refresh_token"].as_str().unwrap()).await;
    assert!(theft.error().0 == 401 && theft.error().1.contains("from two places"), "{}", theft.body);
    let site = site.restart().await;
    assert_eq!(status(&site, &machine.token).await, 401);
    let ended = machine.refresh(&site, &machine.refresh_token.clone()).await;
    assert_eq!(ended.error(), (401, "the sign-in has ended: sign in again".to_owned()));
}

#[tokio::test]
async fn of_two_requests_at_once_one_is_taken() {
    let site = Site::new(settings()).await;
    let machine = Machine::new(&site).await;
    let body = machine.sign(Act::Refresh, URL, &machine.refresh_token, machine.time + 1);
    let (one, other) = tokio::join!(site.post("/auth/refresh", &body), site.post("/auth/refresh", &body));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", one.body, other.body);
}

#[tokio::test]
async fn only_the_machine_itself_has_a_token_replaced() {
    let site = Site::new(settings()).await;
    let (mut machine, thief) = (Machine::new(&site).await, Machine::new(&site).await);
    let token = machine.refresh_token.clone();
    let refused = async |body: &Value| {
        let answer = site.post("/auth/refresh", body).await;
        assert!(answer.error().0 == 401 && answer.error().1.contains("no refresh token of this machine"), "{body}");
    };
    refused(&thief.sign(Act::Refresh, URL, &token, machine.time + 1)).await;
    refused(&machine.sign(Act::Refresh, "https://other.example", &token, machine.time + 1)).await;
    refused(&machine.sign(Act::Received, URL, &token, machine.time + 1)).await;
    refused(&machine.sign(Act::Refresh, URL, "mkr_x", machine.time + 1)).await;
    for missing in ["refresh_token", "time", "sig"] {
        let mut body = machine.sign(Act::Refresh, URL, &token, machine.time + 1);
        body[missing] = Value::Null;
        assert_eq!(site.post("/auth/refresh", &body).await.error().0, 400, "{missing}");
    }
    let answer = machine.refresh(&site, &token).await;
    machine.keep(&answer);
}

#[tokio::test]
async fn a_machine_whose_clock_is_wrong_is_told_the_time() {
    let site = Site::new(settings()).await;
    let machine = Machine::new(&site).await;
    let late = machine.sign(Act::Refresh, URL, &machine.refresh_token, machine.time - 3_600_000);
    let answer = site.post("/auth/refresh", &late).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert_eq!((&answer.json()["now"], &answer.json()["after"]), (&json!(clock().millis()), &json!(0)));
    assert_eq!(status(&site, &machine.token).await, 200, "nothing changed");
}

#[tokio::test]
async fn whoever_has_a_token_that_counts_ends_the_sign_in() {
    let site = Site::new(settings()).await;
    let (mut machine, other) = (Machine::new(&site).await, Machine::new(&site).await);
    let old = machine.refresh_token.clone();
    for _ in 0..2 {
        let answer = machine.refresh(&site, &machine.refresh_token.clone()).await;
        machine.keep(&answer);
    }
    let revoke = async |token: &str| site.post("/auth/revoke", &json!({"refresh_token": token})).await;
    assert_eq!(revoke(&old).await.error().0, 401, "a spent one ends nothing");
    assert_eq!(status(&site, &machine.token).await, 200);
    assert_eq!(revoke(&machine.refresh_token).await.json(), json!({"ok": true}));
    let site = site.restart().await;
    assert_eq!((status(&site, &machine.token).await, status(&site, &other.token).await), (401, 200));
    let ended = machine.refresh(&site, &machine.refresh_token.clone()).await;
    assert_eq!(ended.error(), (401, "the sign-in has ended: sign in again".to_owned()));
}

#[tokio::test]
async fn a_program_of_ours_has_a_key() {
    let site = Site::new(settings()).await;
    for wrong in [
        json!({"client": "mykube"}),
        json!({"client": "other", "key": "x"}),
        json!({"key": "x"}),
        json!({"client": "mykube", "key": BASE64URL_NOPAD.encode(&[4; 65])}),
    ] {
        let mut body = wrong;
        body["secret"] = SECRET.into();
        assert_eq!(site.post("/auth/dev/token", &body).await.text().0, 422, "{body}");
    }
}

#[tokio::test]
async fn a_relay_is_known_by_its_other_names_too() {
    let alias = "http://localhost:8000";
    let site = Site::new(Settings { aliases: vec![PublicUrl::parse(alias).unwrap()], ..settings() }).await;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = BASE64URL_NOPAD.encode(key.public_key().as_ref());
    let body = json!({"secret": SECRET, "client": "mykube", "key": public});
    let given = site.post("/auth/dev/token", &body).await.json();
    assert_eq!(given["relay"], json!([URL, alias]));
    let time = u64::try_from(clock().millis()).unwrap();
    let mut machine = Machine { key, token: String::new(), refresh_token: String::new(), time };
    let body = machine.sign(Act::Refresh, alias, given["refresh_token"].as_str().unwrap(), time);
    let answer = site.post("/auth/refresh", &body).await;
    machine.keep(&answer);
    assert_eq!(status(&site, &machine.token).await, 200);
}

#[tokio::test]
async fn what_dev_mode_gave_ends_with_it() {
    let mut site = Site::new(settings()).await;
    let mut machine = Machine::new(&site).await;
    let (_, daemon) = site.daemon("alice@example.com").await;
    let code = site.post("/auth/device", &json!({})).await.json();
    let confirmed = json!({"userCode": code["userCode"], "email": "alice@example.com", "secret": SECRET});
    assert_eq!(site.post("/auth/device/verify", &confirmed).await.json(), json!({"ok": true}));
    site.settings.dev = None;
    let mut site = site.restart().await;
    assert_eq!(status(&site, &machine.token).await, 401);
    assert!(site.portal.shared().verify(&daemon, &[Class::Daemon]).is_err());
    let fetched = site.post("/auth/device/poll", &json!({"deviceCode": code["deviceCode"]})).await;
    assert_eq!(fetched.json(), json!({"status": "expired"}));
    // It does not come back with dev mode either.
    site.settings.dev = settings().dev;
    let site = site.restart().await;
    let ended = machine.refresh(&site, &machine.refresh_token.clone()).await;
    assert_eq!(ended.error(), (401, "the sign-in has ended: sign in again".to_owned()));
    assert_eq!(status(&site, &machine.token).await, 401);
}

#[tokio::test]
async fn a_sign_in_that_is_denied_is_not_refreshed_whatever_its_row_says() {
    let site = Site::new(settings()).await;
    let mut machine = Machine::new(&site).await;
    let sid = site.portal.shared().jwts.verify_to_revoke(&machine.token).unwrap().sid;
    // As when the database could not keep it.
    site.portal.shared().denied().deny_sign_in(sid, clock(), clock());
    let token = machine.refresh_token.clone();
    let ended = (401, "the sign-in has ended: sign in again".to_owned());
    assert_eq!(machine.refresh(&site, &token).await.error(), ended);
    let received = machine.sign(Act::Received, URL, &token, machine.time + 1);
    assert_eq!(site.post("/auth/refresh/received", &received).await.error(), ended);
}
