use std::{
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use mykube_dial::DialOptions;
use mykube_protocol::account::UNKNOWN_TOKEN;

use super::*;

#[test]
fn a_token_is_used_until_its_last_five_minutes() {
    let credentials = Credentials {
        relay: String::new(),
        token: String::new(),
        expires_at: 1000,
        refresh_token: Some(String::new()),
        skew: 0,
    };
    assert!(is_fresh(&credentials, 699));
    assert!(!is_fresh(&credentials, 700));
    assert!(!is_fresh(&credentials, u64::MAX));
    let brought = Credentials { refresh_token: None, relay: String::new(), token: String::new(), ..credentials };
    assert!(is_fresh(&brought, 999) && !is_fresh(&brought, 1000), "nothing would replace it");
}

/// Answers every request alike; the relay's address.
pub(crate) fn answers(answer: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), Vec::new());
            while !(request.ends_with(b"}") || request.starts_with(b"GET ") && request.ends_with(b"\r\n\r\n")) {
                let mut buffer = [0; 1024];
                let n = stream.read(&mut buffer).unwrap();
                assert_ne!(n, 0, "the request ended early");
                request.extend_from_slice(&buffer[..n]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

pub(crate) fn session(dir: &tempfile::TempDir, url: &str) -> Session {
    Session::new(Home::at(dir.path()), Dialer::new(url.parse().unwrap(), DialOptions::default()).unwrap())
}

fn sign_in(session: &Session) -> PathBuf {
    let path = session.file("credentials");
    let text = |text: &str| text.to_owned();
    let credentials = Credentials {
        relay: session.relay(),
        token: text("t"),
        expires_at: u64::MAX,
        refresh_token: Some(text("r")),
        skew: 0,
    };
    credentials.store(&path).unwrap();
    path
}

#[tokio::test]
async fn only_the_relays_own_word_that_it_is_over_removes_a_sign_in() {
    let json = |error: &str| ("application/json", format!(r#"{{"error":"{error}"}}"#));
    for (status, (kind, body), is_over) in [
        ("200 OK", ("application/json", r#"{"ok":true}"#.to_owned()), true),
        ("401 Unauthorized", json(UNKNOWN_TOKEN), true),
        ("200 OK", ("text/html", "<p>sign in at the proxy</p>".to_owned()), false),
        ("204 No Content", ("application/json", String::new()), false),
        ("401 Unauthorized", json("sign in at the proxy"), false),
        ("403 Forbidden", json("this origin is not allowed"), false),
        ("403 Forbidden", ("text/plain", UNKNOWN_TOKEN.to_owned()), false),
        ("404 Not Found", json("not found"), false),
        ("408 Request Timeout", json("the body did not come in time"), false),
        ("429 Too Many Requests", ("text/plain", "later".to_owned()), false),
        ("503 Service Unavailable", json("try again in a moment"), false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        let session = session(&dir, &answers(head + &body));
        let path = sign_in(&session);
        // Others may have read it: the more it is to be ended.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let done = session.log_out().await;
        assert_eq!((done.is_ok(), path.exists()), (is_over, !is_over), "{status} {kind}: {done:?}");
    }
}

#[tokio::test]
async fn the_dev_secret_stays_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let done = session(&dir, "https://relay.invalid").log_in_by_dev_secret("a@example.com", "secret").await;
    assert!(matches!(done, Err(SignInError::DevFarAway(_))), "{done:?}");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing was begun");
}

#[test]
fn tokens_go_to_the_relay_that_gave_them() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (session(&dir, "https://one.example"), session(&dir, "https://other.example"));
    let path = other.file("credentials");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::copy(sign_in(&one), path).unwrap();
    assert!(one.load().is_ok());
    assert!(matches!(other.load(), Err(SignInError::Damaged { .. })));
}
