//! Every kind of secret that a relay with accounts has goes through one at its most verbose level, in calls that succeed and
//! in calls that fail: none of them is in its log, metrics, errors, command line, database or audit log.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    program::{command, listening},
    support::{bounded, write_file},
};

const URL: &str = "http://localhost:8080";
const DEV: &str = "canary-of-the-dev-secret";
const JWT: &str = "canary-of-the-jwt-secret-of-32-bytes";
const CLIENT: &str = "canary-of-the-client-secret";
const VERIFIER: &str = "canary-of-a-verifier-that-is-43-letters-long-";
const CODE: &str = "canary-of-a-providers-code";

/// What went through, by name.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn add(&mut self, what: &'static str, text: impl Into<String>) -> String {
        let text = text.into();
        assert!(text.len() >= 8, "{what}: {text}");
        self.0.push((what, text.clone()));
        text
    }

    fn none_in(&self, place: &str, bytes: &[u8]) {
        let found = |text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes());
        // The database has what a program wants back with its code, for ten minutes: it opens nothing.
        let kept = |what: &str| place.contains("relay.db") && what == "a program's state";
        for (what, text) in self.0.iter().filter(|(what, _)| !kept(what)) {
            // Of a token the signature alone is as bad.
            for part in [text.as_str(), text.rsplit('.').next().unwrap_or_default()] {
                if let Some(at) = found(part) {
                    let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
                    panic!("{what} is in {place}: {}", String::from_utf8_lossy(around));
                }
            }
        }
    }
}

struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(its, _)| its.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn cookies(&self) -> Vec<String> {
        self.header("set-cookie").iter().map(|line| line.split(';').next().unwrap().to_owned()).collect()
    }
}

async fn ask(to: &str, head: &str, headers: &[(&str, &str)], body: &str) -> Said {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    bounded(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Said { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

/// A provider that tells where it is, and refuses every code. What it was asked is kept.
async fn provider() -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (asked, own) = (Arc::new(Mutex::new(String::new())), issuer.clone());
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut some = [0; 4096];
            while !text.contains("\r\n\r\n") || text.contains("content-length: ") && text.ends_with("\r\n\r\n") {
                match stream.read(&mut some).await {
                    Ok(n) if n > 0 => text.push_str(&String::from_utf8_lossy(&some[..n])),
                    _ => break,
                }
            }
            let (status, body) = if text.starts_with("GET ") {
                let at = |path: &str| format!("{own}/{path}");
                let known = json!({"issuer": own, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
                    "jwks_uri": at("keys"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"]});
                ("200 OK", known)
            } else {
                (
                    "400 Bad Request",
                    json!({"error": "invalid_grant", "error_description": format!("no such code: {CODE}")}),
                )
            };
            kept.lock().unwrap().push_str(&text);
            let body = body.to_string();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}"
            );
            let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
        }
    });
    (issuer, asked)
}

/// Fields of a query or a form.
fn field(text: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(text.as_bytes()).find(|(its, _)| its == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn no_secret_of_accounts_is_anywhere_but_with_its_holder() {
    let (issuer, asked) = provider().await;
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.toml");
        let toml = format!(
            "[accounts]\n[[provider]]\nname = \"canary\"\nissuer = \"{issuer}\"\nclient_id = \"mykube\"\nclient_secret = \"{CLIENT}\"\n"
        );
        write_file(&file, &toml);
        // An address that no other test listens on.
        let [.., low] = std::process::id().to_be_bytes();
        let metrics = format!("127.83.{low}.{}:9464", if format == "json" { 2 } else { 1 });
        let args = ["--published-env", "--config", file.to_str().unwrap(), "-vvv", "--log-format", format];
        let mut command = command(&dir, &[&args[..], &["--output", "json", "--metrics-listen", &metrics]].concat());
        command.env("RELAY_PUBLIC_URL", URL).env("JWT_SECRET", JWT).env("MYKUBE_LOG", "trace");
        command.env("RELAY_DEV_MODE", "1").env("RELAY_DEV_SECRET", DEV);
        let program = listening(command).await;
        let relay = program.url.split_once("://").unwrap().1.to_owned();
        let mut secrets = Secrets::default();
        for (what, text) in [("the dev secret", DEV), ("JWT_SECRET", JWT), ("a client secret", CLIENT)] {
            secrets.add(what, text);
        }
        let failed = go_through(&relay, &mut secrets, &asked).await;
        assert!(secrets.0.len() >= 18 && failed.len() >= 15, "{} {}", secrets.0.len(), failed.len());

        for (call, said) in &failed {
            secrets.none_in(&format!("the answer to {call}"), format!("{}\n{}", said.head, said.body).as_bytes());
        }
        secrets.none_in("/metrics", ask(&metrics, "GET /metrics", &[], "").await.body.as_bytes());
        let cmdline = fs::read(format!("/proc/{}/cmdline", program.child.id().unwrap())).unwrap();
        secrets.none_in("the command line", &cmdline);
        let look = |when: &str| {
            for file in fs::read_dir(dir.path().join("data")).unwrap() {
                let path = file.unwrap().path();
                secrets.none_in(&format!("{}, {when}", path.display()), &fs::read(&path).unwrap());
            }
        };
        look("while it runs");
        let log = program.terminate().await.stderr;
        look("at its end");
        let said = String::from_utf8_lossy(&log);
        let verbose = said.contains("DEBUG") || said.contains("TRACE");
        assert!(verbose && said.contains("signed in"), "{said}");
        secrets.none_in("the log", &log);
    }
}

/// Calls that give and take each of them. Those that failed.
async fn go_through(relay: &str, secrets: &mut Secrets, asked: &Mutex<String>) -> Vec<(String, Said)> {
    let json = ("content-type", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let origin = ("origin", URL);
    let post = async |path: &str, body: &Value| ask(relay, &format!("POST {path}"), &[json], &body.to_string()).await;
    let mut failed = Vec::new();
    let person = json!({"email": "alice@example.com", "secret": DEV});

    let daemon = post("/auth/dev/token", &person).await;
    let daemon = secrets.add("a daemon's token", daemon.json()["token"].as_str().unwrap());
    // The generator of the curve is as good a key as any for who signs nothing.
    let key = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";
    let ours = json!({"email": "alice@example.com", "secret": DEV, "client": "mykube", "key": key});
    let ours = post("/auth/dev/token", &ours).await.json();
    let token = secrets.add("a token of ours", ours["token"].as_str().unwrap());
    let refresh = secrets.add("a refresh token", ours["refresh_token"].as_str().unwrap());
    let browser = post("/auth/dev", &person).await.cookies();
    for cookie in &browser {
        secrets.add("a cookie", cookie.split_once('=').unwrap().1);
    }
    let cookies = browser.join("; ");

    let device = post("/auth/device", &json!({})).await.json();
    let device_code = secrets.add("a device code", device["deviceCode"].as_str().unwrap());
    let user_code = secrets.add("a user code", device["userCode"].as_str().unwrap());
    secrets.add("a user code without its dash", user_code.replace('-', ""));
    let verify = json!({"userCode": user_code}).to_string();
    let verified = ask(relay, "POST /auth/device/verify", &[json, origin, ("cookie", &cookies)], &verify).await;
    assert_eq!(verified.status, 200, "{}", verified.body);
    failed.push((
        "verify again".to_owned(),
        ask(relay, "POST /auth/device/verify", &[json, origin, ("cookie", &cookies)], &verify).await,
    ));
    let polled = post("/auth/device/poll", &json!({"deviceCode": device_code})).await.json();
    secrets.add("a polled token", polled["token"].as_str().unwrap());

    // At the provider and back.
    let state_of_program = secrets.add("a program's state", "canary-of-a-programs-state-43-letters-long-");
    let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let query = format!("cli_port=1&state={state_of_program}&code_challenge={challenge}");
    let sent = ask(relay, &format!("GET /auth/canary?{query}"), &[], "").await;
    assert_eq!(sent.status, 307, "{}", sent.body);
    let location = sent.header("location")[0].split_once('?').unwrap().1.to_owned();
    let state = secrets.add("a provider's state", field(&location, "state").unwrap());
    secrets.add("a nonce", field(&location, "nonce").unwrap());
    let bound = sent.cookies().join("; ");
    secrets.add("the cookie of a sign-in", bound.split_once('=').unwrap().1);
    secrets.add("a provider's code", CODE);
    let back = format!("GET /auth/callback/canary?code={CODE}&state={state}");
    failed.push(("a callback of another browser".to_owned(), ask(relay, &back, &[], "").await));
    let sent = ask(relay, &format!("GET /auth/canary?{query}"), &[], "").await;
    let location = sent.header("location")[0].split_once('?').unwrap().1.to_owned();
    let state = secrets.add("a provider's second state", field(&location, "state").unwrap());
    let bound = sent.cookies().join("; ");
    let back = format!("GET /auth/callback/canary?code={CODE}&state={state}");
    failed.push(("a callback".to_owned(), ask(relay, &back, &[("cookie", &bound)], "").await));
    let asked = asked.lock().unwrap().clone();
    let redeemed =
        asked.rsplit("\r\n\r\n").find_map(|body| field(body, "code_verifier")).expect("the provider was asked");
    secrets.add("the relay's verifier", redeemed);

    // A click, and what it gives.
    let page = ask(relay, &format!("GET /portal/confirm?{query}"), &[("cookie", &cookies)], "").await;
    let csrf = page.body.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let csrf = secrets.add("what a form shows", csrf);
    let fields: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("csrf", csrf.as_str()),
            ("cli_port", "1"),
            ("state", &state_of_program),
            ("code_challenge", challenge),
        ])
        .finish();
    let clicked = ask(relay, "POST /portal/confirm", &[form, origin, ("cookie", &cookies)], &fields).await;
    assert_eq!(clicked.status, 303, "{}", clicked.body);
    let code = field(clicked.header("location")[0].split_once('?').unwrap().1, "code").unwrap();
    let code = secrets.add("a login code", code);
    secrets.add("a program's verifier", VERIFIER);
    failed.push(("exchange".to_owned(), post("/auth/exchange", &json!({"code": code, "verifier": VERIFIER})).await));

    // Everything again where it does not belong.
    let sig = "A".repeat(86);
    for (path, body) in [
        ("/auth/refresh", json!({"refresh_token": refresh, "time": 1, "sig": sig})),
        ("/auth/refresh/received", json!({"refresh_token": refresh, "time": 1, "sig": sig})),
        ("/auth/refresh", json!({"jwt": daemon})),
        ("/auth/revoke", json!({"jwt": refresh})),
        ("/auth/exchange", json!({"code": [code], "verifier": VERIFIER})),
        ("/auth/device/poll", json!({"deviceCode": [device_code]})),
        ("/auth/device/verify", json!({"userCode": {"it": user_code}})),
        ("/auth/dev/token", json!({"email": DEV, "secret": [DEV]})),
        ("/auth/dev", json!({"email": {"it": DEV}, "secret": DEV})),
        ("/auth", json!({"token": daemon})),
    ] {
        failed.push((format!("POST {path}"), post(path, &body).await));
    }
    let cut = format!("{{\"secret\": \"{DEV}\", \"token\": \"{token}\"");
    failed.push(("what is no JSON".to_owned(), ask(relay, "POST /auth/dev", &[json], &cut).await));
    for head in [
        format!("GET /{token}"),
        format!("GET /v1/whoami?token={token}"),
        format!("GET /auth/{code}"),
        format!("GET /auth/callback/{state}?code={CODE}&state={state}"),
        format!("GET /portal/confirm?cli_port={DEV}&state={state}"),
        format!("GET /auth/canary?redirect=//{token}"),
        format!("{} /auth/dev", token.split('.').next().unwrap()),
    ] {
        let said = ask(
            relay,
            &head,
            &[("authorization", &format!("Basic {token}")), ("referer", &format!("{URL}/?{code}"))],
            "",
        )
        .await;
        failed.push((head.split('?').next().unwrap_or_default().chars().take(24).collect(), said));
    }
    let whoami = ask(relay, "GET /v1/whoami", &[("authorization", &format!("Bearer {daemon}"))], "").await;
    failed.push(("whoami of a daemon".to_owned(), whoami));
    assert_eq!(ask(relay, "GET /v1/whoami", &[("authorization", &format!("Bearer {token}"))], "").await.status, 200);
    // A sign-in page is for whoever has no session; the rest has failed.
    failed.retain(|(_, said)| said.status >= 400);
    let revoked = post("/auth/revoke", &json!({"refresh_token": refresh})).await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    let out = ask(relay, "POST /auth/logout", &[json, origin, ("cookie", &cookies)], "").await;
    assert_eq!(out.status, 200);
    failed
}
