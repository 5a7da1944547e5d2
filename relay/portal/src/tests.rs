//! The calls, in process, on a database of their own.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use mykube_relay_accounts::{jwt::Class, keys::Keys, sign_up::SignUp, time::UnixTime};
use mykube_relay_store::{Database, Store};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use zeroize::Zeroizing;

use crate::{
    Arrival, BootScope, Dev, Portal, PublicUrl, Settings,
    mail::{Job, Mailer},
};

mod agents;
mod control;
mod device;
mod family;
mod idle;
mod otp;
mod ours;
mod pages;
#[path = "../../store/src/tests/place.rs"]
mod place;
mod published;
mod sign_up;
mod tables;
mod way;
mod web;

use place::Place;

const SECRET: &str = "canary-of-dev";
const URL: &str = "http://127.0.0.1:8000";

/// A portal, its database and its keys.
struct Site {
    portal: Portal,
    keys: Keys,
    settings: Settings,
    /// Where codes are sent by email.
    letters: Option<Receiver<Job>>,
    place: Place,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

fn settings() -> Settings {
    Settings {
        public_url: PublicUrl::parse(URL).unwrap(),
        aliases: Vec::new(),
        sign_up: SignUp::Closed,
        boot_scope: BootScope::Browser,
        devices_life: Class::Devices.life(),
        providers: std::sync::Arc::default(),
        published_exchange: false,
        mail: None,
        dev: Some(Dev::new(Zeroizing::new(SECRET.to_owned()))),
        allow_origins: vec!["https://console.example".to_owned()],
        body_max: 16 * 1024,
        body_time: std::time::Duration::from_secs(10),
    }
}

/// A clock that stands until it is set.
fn clock() -> UnixTime {
    UnixTime::from_millis(NOW.with(|now| now.load(Relaxed)))
}

thread_local! {
    /// A test's own: each has its thread.
    static NOW: AtomicI64 = const { AtomicI64::new(1_800_000_000_000) };
}

fn wait(time: std::time::Duration) {
    NOW.with(|now| now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Relaxed));
}

impl Site {
    async fn new(settings: Settings) -> Self {
        Self::with_keys(settings, Keys::generate(&mut rand::rng())).await
    }

    async fn with_keys(settings: Settings, keys: Keys) -> Self {
        let place = Place::new();
        let (portal, letters) = open(&place, &keys, settings.clone()).await;
        Self { portal, keys, settings, letters, place }
    }

    /// The relay stops, and starts again.
    async fn restart(self) -> Self {
        let Self { portal, keys, settings, place, .. } = self;
        portal.close().await;
        drop(portal);
        let (portal, letters) = open(&place, &keys, settings.clone()).await;
        Self { portal, keys, settings, letters, place }
    }

    async fn ask(&self, request: Request<Body>, arrival: Arrival) -> Answer {
        let answer = self.portal.answer(request, arrival).await;
        let (head, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// A call, with headers as `name: value`.
    async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let arrival = Arrival { address: [192, 0, 2, 1].into(), is_private: true };
        self.ask(request(method, path, headers, body), arrival).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, &[("content-type", "application/json")], &body.to_string()).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.call(Method::GET, path, headers, "").await
    }

    /// Signs in a published daemon; its account and token.
    async fn daemon(&self, email: &str) -> (String, String) {
        let answer = self.post("/auth/dev/token", &json!({"email": email, "secret": SECRET})).await;
        let body = answer.json();
        assert_eq!(answer.status, StatusCode::OK, "{body}");
        (body["userId"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    }

    /// A token of this class for whoever has another one.
    fn token(&self, class: Class, like: &str) -> String {
        let claims = self.portal.shared().jwts.verify_to_revoke(like).unwrap();
        self.portal.shared().issue(class, &claims.into(), clock()).token.expose().to_owned()
    }
}

async fn open(place: &Place, keys: &Keys, settings: Settings) -> (Portal, Option<Receiver<Job>>) {
    let store = place.open().await;
    let (mailer, letters) = settings.mail.as_ref().map(|_| Mailer::queue()).unzip();
    (Portal::with_clock(settings, keys, store, clock, mailer).await.unwrap(), letters)
}

fn request(method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.body(Body::from(body.to_owned())).unwrap()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn text(&self) -> (u16, &str) {
        let kind = self.headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(kind.starts_with("text/plain"), "{kind}");
        (self.status.as_u16(), &self.body)
    }

    fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["error"].as_str().unwrap().to_owned())
    }

    /// The cookies it sets, as a browser sends them back.
    fn cookies(&self) -> String {
        let set = self.headers.get_all(header::SET_COOKIE).iter();
        let pairs = set.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap().to_owned());
        pairs.collect::<Vec<_>>().join("; ")
    }
}
