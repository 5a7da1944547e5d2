//! People and programs sign in through `mykube-relay` as it ships, at real identity providers: npm's `oidc-provider` and the
//! example server of Go's `zitadel/oidc`; and at GitHub, as its documentation describes it, on loopback. By plain HTTP, every
//! redirect followed and every form filled in.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use mykube_relay_accounts::{
    pkce::Challenge,
    statement::{Act, Statement},
};
use serde_json::json;
use url::{Url, form_urlencoded};

use browser::Browser;
use github::GitHub;
use running::Running;

mod browser;
mod github;
#[path = "../../../provider/tests/provider/support/running.rs"]
mod running;

/// The programs; `scripts/test` has them where there is Node.js and Go.
const OIDC_PROVIDER: &str = "MYKUBE_OIDC_PROVIDER";
const ZITADEL: &str = "MYKUBE_ZITADEL_OIDC";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// Where a program would listen. The browser of these tests does not go there: it says with what it was sent.
const PROGRAM: u16 = 4711;

/// A relay in a process of its own, at an address that its configuration has.
pub(crate) struct Relay {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Option<Child>,
}

impl Relay {
    /// One that has this `relay.toml` beside its `public_url`. What is said there may hang on the address.
    pub(crate) fn start(mut configuration: impl FnMut(&str) -> String) -> Self {
        let mut relay = Self { dir: tempfile::tempdir().unwrap(), port: 0, child: None };
        // A port that was free may be somebody else's by now.
        while relay.child.is_none() {
            relay.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let url = relay.url();
            let text = format!("public_url = \"{url}\"\n{}", configuration(&url));
            fs::write(relay.dir.path().join("relay.toml"), text).unwrap();
            relay.run();
        }
        relay
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Does nothing where its port is somebody else's.
    fn run(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = fs::OpenOptions::new().append(true).create(true).open(path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
        command.env_clear().args(["--listen", &format!("127.0.0.1:{}", self.port), "--output", "json", "-vvv"]);
        command.arg("--config").arg(path("relay.toml")).arg("--data-dir").arg(path("data"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.contains(r#""event":"listening""#) {
            self.child = Some(child);
            return;
        }
        assert!(!child.wait().unwrap().success(), "{line} {}", self.log());
        assert!(self.log().lines().last().unwrap_or_default().contains("in use"), "{}", self.log());
    }

    /// It is killed, and starts again.
    fn restart(&mut self) {
        self.kill();
        while self.child.is_none() {
            self.run();
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The secret of each client of a provider.
type Secrets<'a> = &'a dyn Fn(&str) -> String;

/// A provider as the relay and its people know it.
struct Provider<'a> {
    name: &'a str,
    issuer: &'a str,
    /// What somebody types there.
    fields: &'a [(&'a str, &'a str)],
    user_id: &'a str,
    /// Where programs hand in its ID tokens: `userId` by what stands in those, and each client's secret.
    id_tokens: Option<(&'a str, Secrets<'a>)>,
}

/// Tried one after the other: each has all that a sign-in has.
async fn try_all(relay: &mut Relay, provider: &Provider<'_>) {
    let secrets = [signs_in(relay, provider).await, gives_a_program_its_sign_in(relay, provider).await].concat();
    is_misused(relay, provider).await;
    let log = relay.log();
    for secret in secrets {
        assert!(!secret.is_empty() && !log.contains(&secret), "{secret} is in the log:\n{log}");
    }
    if let Some((user_id, secret)) = provider.id_tokens {
        takes_id_tokens(relay, provider, user_id, secret).await;
    }
}

/// In a browser, with the relay killed while the browser is at the provider. Gives what no log may have.
async fn signs_in(relay: &mut Relay, provider: &Provider<'_>) -> Vec<String> {
    let (base, name) = (relay.url(), provider.name);
    let mut browser = Browser::default();
    let at_provider = browser.send(&format!("{base}/auth/{name}?redirect=/portal/"), None).await;
    assert_eq!(at_provider.status, 307, "{}", at_provider.body);
    let to = at_provider.location.unwrap();
    assert!(!to.starts_with(&base), "{to}");
    relay.restart();
    let (page, way) = browser.go(&to, provider.fields, &|url| url.path() == "/nowhere").await;
    assert_eq!(page.url.as_str(), format!("{base}/portal/"), "{}", page.body);
    assert!(page.body.contains(&format!("<dd>{}</dd>", provider.user_id)), "{}", page.body);
    let status = browser.send(&format!("{base}/auth/status"), None).await;
    assert_eq!((status.status, status.json()["authenticated"].as_bool()), (200, Some(true)));
    // The relay's cookies go to nobody else.
    let relays = browser.cookies(&base);
    assert!(["lukan_token", "__Host-mykube", "__Host-mykube-state"].iter().all(|name| relays.contains_key(*name)));
    assert!(browser.cookies(provider.issuer).keys().all(|name| !name.contains("mykube") && name != "lukan_token"));

    // What was shown once is worth nothing again, in this browser or in another.
    let callback = way.iter().find(|url| url.as_str().starts_with(&format!("{base}/auth/callback/"))).unwrap();
    for browser in [&mut browser, &mut Browser::default()] {
        let replayed = browser.send(callback.as_str(), None).await;
        assert_eq!(replayed.status, 400, "{}", replayed.body);
    }
    let shown = callback.query_pairs().filter(|(name, _)| name == "code" || name == "state");
    shown.map(|(_, value)| value.into_owned()).chain(relays.into_values()).collect()
}

/// By a click, and an exchange that only who asked for it can do.
async fn gives_a_program_its_sign_in(relay: &Relay, provider: &Provider<'_>) -> Vec<String> {
    let (base, name) = (relay.url(), provider.name);
    let challenge = Challenge::of(VERIFIER).encode();
    let begin = format!("{base}/auth/{name}?cli_port={PROGRAM}&state=s-1&code_challenge={challenge}");
    let mut browser = Browser::default();
    let is_program = |url: &Url| url.port() == Some(PROGRAM);
    // Forms of the relay's own page are sent as a click does; hidden fields are all that is in it.
    let (sent, _) = browser.go(&begin, provider.fields, &is_program).await;
    assert!(sent.url.as_str().starts_with(&format!("http://127.0.0.1:{PROGRAM}/callback?code=")), "{}", sent.url);
    let get = |name: &str| sent.url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    assert_eq!(get("state"), "s-1");
    let code = get("code");

    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap();
    let sign = |act, shown: &str| {
        let statement = Statement { act, shown, time };
        BASE64_URL_SAFE_NO_PAD.encode(key.sign(&SystemRandom::new(), &statement.bytes(&base)).unwrap())
    };
    let public = BASE64_URL_SAFE_NO_PAD.encode(key.public_key());
    let body =
        json!({"code": code, "verifier": VERIFIER, "key": public, "time": time, "sig": sign(Act::SignIn, &code)});
    let exchange = format!("{base}/auth/exchange");
    let given = Browser::default().post(&exchange, &body).await;
    assert_eq!(given.status, 200, "{}", given.body);
    let given = given.json();
    let (token, refresh) = (given["token"].as_str().unwrap(), given["refresh_token"].as_str().unwrap());
    let me = Browser::default().with_token(&format!("{base}/v1/whoami"), token).await.json();
    assert_eq!(me["user_id"], provider.user_id);
    assert_eq!(me["account"], get("user_id"));
    let renew = json!({"refresh_token": refresh, "time": time, "sig": sign(Act::Refresh, refresh)});
    let renewed = Browser::default().post(&format!("{base}/auth/refresh"), &renew).await;
    assert_eq!(renewed.status, 200, "{}", renewed.body);
    let again = Browser::default().post(&exchange, &body).await;
    assert_eq!((again.status, again.json()), (400, json!({"error": "Invalid or expired auth code"})));
    vec![code, VERIFIER.to_owned(), token.to_owned(), refresh.to_owned()]
}

/// Mallory signs in, keeps what the provider gave her, and has Alice's browser finish it.
async fn is_misused(relay: &Relay, provider: &Provider<'_>) {
    let base = relay.url();
    let mut mallory = Browser::default();
    let begin = format!("{base}/auth/{}", provider.name);
    let is_back = |url: &Url| url.as_str().starts_with(&format!("{base}/auth/callback/"));
    let (held, _) = mallory.go(&begin, provider.fields, &is_back).await;
    let mut alice = Browser::default();
    let refused = alice.send(held.url.as_str(), None).await;
    let text = "Authentication failed: Invalid or expired OAuth state parameter (CSRF check failed)";
    assert_eq!((refused.status, refused.body.as_str()), (400, text));
    assert!(alice.cookies(&base).is_empty());
    // The other provider's callback, with this one's code and state.
    let (held, _) = mallory.go(&begin, provider.fields, &is_back).await;
    let other = if provider.name == "npm" { "go" } else { "npm" };
    let status = if provider.name == "github" { 404 } else { 400 };
    let mixed = format!("{base}/auth/callback/{other}?{}", held.url.query().unwrap());
    assert_eq!(mallory.send(&mixed, None).await.status, status);
    assert!(!mallory.cookies(&base).contains_key("lukan_token"));
}

/// A program that signs people in by itself, as the client `other`, hands in what it got.
async fn takes_id_tokens(relay: &Relay, provider: &Provider<'_>, user_id: &str, secret: Secrets<'_>) {
    let base = relay.url();
    let auth = format!("{base}/auth");
    let hand_in = async |token: &str| Browser::default().post(&auth, &json!({"token": token})).await;
    let token = id_token(&base, provider, "other", &secret("other")).await;
    for _ in 0..2 {
        let given = hand_in(&token).await;
        assert_eq!((given.status, &given.json()["userId"]), (200, &json!(user_id)), "{}", given.body);
    }
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (_, claims) = message.split_once('.').unwrap();
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let own = id_token(&base, provider, "relay", &secret("relay")).await;
    let (own_message, _) = own.rsplit_once('.').unwrap();
    for (what, token) in [
        ("the relay's own client's", own.clone()),
        ("unsigned", format!("{none}.{claims}.")),
        ("of another signature", format!("{own_message}.{signature}")),
    ] {
        let refused = hand_in(&token).await;
        let error = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(refused.status == 401 && error.starts_with("Token verification failed: "), "{what}: {}", refused.body);
    }
    let log = relay.log();
    assert!(!log.contains(&token) && !log.contains(signature));
}

/// The ID token of somebody who signs in at the provider for another client than the relay's.
async fn id_token(base: &str, provider: &Provider<'_>, client: &str, secret: &str) -> String {
    let mut browser = Browser::default();
    let discovery = format!("{}/.well-known/openid-configuration", provider.issuer.trim_end_matches('/'));
    let document = browser.send(&discovery, None).await.json();
    let endpoint = |name: &str| document[name].as_str().unwrap().to_owned();
    let redirect_uri = format!("{base}/auth/callback/{}", provider.name);
    let mut url: Url = endpoint("authorization_endpoint").parse().unwrap();
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", &redirect_uri),
        ("scope", "openid email profile"),
        ("state", "s"),
        ("code_challenge", &Challenge::of(VERIFIER).encode()),
        ("code_challenge_method", "S256"),
    ]);
    let back = |url: &Url| url.as_str().starts_with(&redirect_uri);
    let (sent, _) = browser.go(url.as_str(), provider.fields, &back).await;
    let code = sent.url.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([("grant_type", "authorization_code"), ("redirect_uri", &redirect_uri), ("code", &code)]);
    form.append_pair("code_verifier", VERIFIER);
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(format!("{client}:{encoded}")));
    let given = Browser::default().redeem(&endpoint("token_endpoint"), form.finish(), &authorization).await.json();
    given["id_token"].as_str().unwrap_or_else(|| panic!("{given}")).to_owned()
}

#[tokio::test]
async fn people_and_programs_sign_in_at_real_providers() {
    let (Some(npm), Some(go)) = (program(OIDC_PROVIDER), program(ZITADEL)) else { return };
    let mut running = Vec::new();
    let mut relay = Relay::start(|url| {
        let callback = |name: &str| format!("{url}/auth/callback/{name}");
        let instance = |alg: &str, auth: &str, name: &str| json!({"alg": alg, "auth": auth, "claimsInIdToken": true, "redirectUri": callback(name)});
        let instances = json!([instance("RS256", "client_secret_basic", "npm"), instance("ES256", "none", "public")]);
        running = vec![
            Running::start(Command::new("node").arg(&npm), Some(&instances)),
            Running::start(Command::new(&go).arg(callback("go")), None),
        ];
        let [npm, public]: [String; 2] = serde_json::from_str(&running[0].said).unwrap();
        let provider = |name: &str, issuer: &str, more: &str| {
            format!("[[provider]]\nname = \"{name}\"\nissuer = \"{issuer}\"\nclient_id = \"relay\"\n{more}\n")
        };
        let audiences = "id_token_audiences = [\"other\"]";
        [
            "[accounts]\nsign_up = \"open\"\n".to_owned(),
            provider("npm", &npm, &format!("client_secret = \"secret+of %relay\"\n{audiences}")),
            provider("public", &public, ""),
            provider("go", running[1].said.trim(), &format!("client_secret = \"secret\"\n{audiences}")),
            // One that does not answer keeps no relay from starting.
            provider("gone", "http://127.0.0.1:1", ""),
        ]
        .concat()
    });
    let [npm, public]: [String; 2] = serde_json::from_str(&running[0].said).unwrap();
    let ada = [("login", "ada"), ("password", "x")];
    let all = [
        Provider {
            name: "npm",
            issuer: &npm,
            fields: &ada,
            user_id: "npm:ada@example.com",
            id_tokens: Some(("npm:ada@example.com", &|client| format!("secret+of %{client}"))),
        },
        Provider { name: "public", issuer: &public, fields: &ada, user_id: "public:ada@example.com", id_tokens: None },
        Provider {
            name: "go",
            issuer: running[1].said.trim(),
            fields: &[("username", "test-user@127.0.0.1"), ("password", "verysecure")],
            user_id: "go:test-user@zitadel.ch",
            // Its ID tokens have no address: that is UserInfo's to say.
            id_tokens: Some(("go:id1", &|_| "secret".to_owned())),
        },
    ];
    for provider in &all {
        try_all(&mut relay, provider).await;
    }
    let gone = Browser::default().send(&format!("{}/auth/gone", relay.url()), None).await;
    assert_eq!(gone.status, 502, "{}", gone.body);
    let log = relay.log();
    assert!(log.contains("nobody can sign in there") && !log.contains("secret+of"), "{log}");
}

#[tokio::test]
async fn people_and_programs_sign_in_at_github() {
    let github = GitHub::start().await;
    let mut relay = Relay::start(|_| {
        format!(
            "[accounts]\nsign_up = \"open\"\n[[provider]]\nname = \"github\"\nkind = \"github\"\nissuer = \"{}\"\n\
             client_id = \"relay\"\nclient_secret = \"{}\"\n",
            github.url,
            github::SECRET
        )
    });
    let user_id = "github:octocat@example.com";
    let provider = Provider { name: "github", issuer: &github.url, fields: &[], user_id, id_tokens: None };
    try_all(&mut relay, &provider).await;
    let refused = Browser::default().post(&format!("{}/auth", relay.url()), &json!({"token": "x"})).await;
    assert!(refused.status == 404 && refused.body.contains("id_token_audiences"), "{}", refused.body);
    assert!(!relay.log().contains("canary"), "{}", relay.log());
}

fn program(variable: &str) -> Option<std::ffi::OsString> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        eprintln!("NOT RUN: {variable} names no program (scripts/test has it where there is what it needs)");
    }
    program
}
