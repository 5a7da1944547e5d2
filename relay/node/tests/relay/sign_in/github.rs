//! GitHub, as its documentation describes it: the person is signed in there, and lets every program in.

use std::sync::{Arc, Mutex};

use http::Method;
use mykube_relay_accounts::pkce::Challenge;
use serde_json::json;
use url::form_urlencoded;

use server::{Asked, Reply, Server};

#[path = "../../../../provider/tests/provider/support/server.rs"]
#[allow(dead_code, reason = "these are the tests of relay/provider's own")]
mod server;

pub(super) const SECRET: &str = "canary-of-a-github-client";

pub(super) struct GitHub {
    pub(super) url: String,
    _server: Server,
}

impl GitHub {
    pub(super) async fn start() -> Self {
        // Of each code that was given out, the challenge and the address that it was for.
        let given = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start(move |asked| answer(&asked, &given)).await;
        Self { url: server.url.clone(), _server: server }
    }
}

fn answer(asked: &Asked, given: &Mutex<Vec<Option<(String, String)>>>) -> Reply {
    let text = if asked.method == Method::POST { &asked.body } else { &asked.query };
    let sent: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
    let get = |name: &str| sent.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
    let mut given = given.lock().unwrap();
    match (&asked.method, asked.path.as_str()) {
        (&Method::GET, "/login/oauth/authorize") => {
            assert_eq!(get("code_challenge_method").as_deref(), Some("S256"));
            let to = get("redirect_uri").unwrap();
            given.push(Some((get("code_challenge").unwrap(), to.clone())));
            Reply::Redirect(format!("{to}?code=canary-{}&state={}", given.len() - 1, get("state").unwrap()))
        }
        (&Method::POST, "/login/oauth/access_token") => {
            let code = get("code").unwrap()["canary-".len()..].parse::<usize>().unwrap();
            // A code is good once.
            let for_it = given.get_mut(code).and_then(Option::take);
            let shown = (Challenge::of(&get("code_verifier").unwrap()).encode(), get("redirect_uri").unwrap());
            let is_client =
                get("client_id").as_deref() == Some("relay") && get("client_secret").as_deref() == Some(SECRET);
            if is_client && for_it == Some(shown) {
                Reply::Json(json!({"access_token": "gho_canary", "token_type": "bearer"}))
            } else {
                Reply::Json(json!({"error": "bad_verification_code"}))
            }
        }
        _ if asked.headers.get("authorization").is_none_or(|token| token != "Bearer gho_canary") => {
            Reply::Status(401, json!({}))
        }
        (&Method::GET, "/api/v3/user") => Reply::Json(json!({"id": 583_231, "login": "octocat", "email": null})),
        (&Method::GET, "/api/v3/user/emails") => {
            Reply::Json(json!([{"email": "octocat@example.com", "primary": true, "verified": true}]))
        }
        _ => Reply::Status(404, json!({})),
    }
}
