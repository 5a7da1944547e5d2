//! A provider that says what a test wants, and counts how often it is asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    NOW,
    server::{Asked, Reply, Server},
    signer::{Key, OWN},
};

/// What is asked of it, most often.
pub(crate) const DISCOVERY: &str = "/.well-known/openid-configuration";
pub(crate) const KEYS: &str = "/jwks";
pub(crate) const TOKEN: &str = "/token";
pub(crate) const USER_INFO: &str = "/userinfo";

pub(crate) struct StandIn {
    pub(crate) issuer: String,
    state: Arc<Mutex<State>>,
    _server: Server,
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    asked: Vec<Asked>,
}

impl StandIn {
    /// Has the key `own` and no UserInfo.
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let answering = Arc::clone(&state);
        let server = Server::start(move |asked| {
            let mut state = answering.lock().unwrap();
            let reply = state.replies.get(&asked.path).cloned().unwrap_or(Reply::Status(404, json!({})));
            state.asked.push(asked);
            reply
        });
        let server = server.await;
        let stand_in = Self { issuer: server.url.clone(), state, _server: server };
        stand_in.say(DISCOVERY, Reply::Json(stand_in.document()));
        stand_in.say(KEYS, Reply::Json(json!({ "keys": [OWN.jwk("own")] })));
        stand_in
    }

    /// Its discovery document.
    pub(crate) fn document(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}{TOKEN}"),
            "jwks_uri": format!("{issuer}{KEYS}"),
        })
    }

    /// What it answers from now on.
    pub(crate) fn say(&self, path: &str, reply: Reply) {
        self.state.lock().unwrap().replies.insert(path.to_owned(), reply);
    }

    /// What it answers to a code.
    pub(crate) fn give(&self, access_token: &str, id_token: &str) {
        let answer = json!({ "access_token": access_token, "id_token": id_token, "token_type": "Bearer" });
        self.say(TOKEN, Reply::Json(answer));
    }

    /// How often it was asked for this.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|asked| asked.path == path).count()
    }

    /// How it was asked for this, the last time.
    pub(crate) fn last(&self, path: &str) -> Asked {
        let mut state = self.state.lock().unwrap();
        let at = state.asked.iter().rposition(|asked| asked.path == path).unwrap();
        state.asked.remove(at)
    }

    /// Claims that are believed.
    pub(crate) fn claims(&self) -> Value {
        json!({
            "iss": self.issuer,
            "sub": "42",
            "aud": "relay",
            "exp": NOW.secs() + 300,
            "iat": NOW.secs(),
            "email": "ada@example.com",
            "email_verified": true,
            "preferred_username": "ada",
        })
    }

    /// Those, with one changed, or left out if it is null.
    pub(crate) fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        let object = claims.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name)
        } else {
            object.insert(name.to_owned(), value)
        };
        claims
    }
}

/// The header of a token of the key `own`.
pub(crate) fn header() -> Value {
    json!({ "alg": "RS256", "typ": "JWT", "kid": "own" })
}

pub(crate) fn signed(claims: &Value) -> String {
    signed_by(&OWN, claims)
}

pub(crate) fn signed_by(key: &Key, claims: &Value) -> String {
    key.sign(&header(), claims)
}
