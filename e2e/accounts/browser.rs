//! `mykube login` with a browser, which here is this test.

use std::net::TcpStream;

use data_encoding::BASE64URL_NOPAD;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::support::{Answer, Begun, Laptop, StandIn, browse, is_private, json_answer, signed_in};
use crate::support::{Relay, certs::Authority};

#[test]
fn a_browser_brings_a_code_and_the_sign_in_before_it_ends() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = || laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    let first = login();
    let begun = Begun::by(&first);
    assert!(begun.url.starts_with(&format!("{}/portal/sign-in?cli_port=", relay.url)), "{}", begun.url);
    let page = begun.bring("code-of-alice");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("You may close this tab"), "{page}");
    let account = first.event("account");
    assert_eq!((&account["email"], &account["relay"]), (&"alice@example.com".into(), &relay.url.clone().into()));
    assert_eq!(account.get("until"), None, "it is renewed");
    let said = first.process.done();
    assert_eq!(said.code, 0, "{}", said.stderr);

    let exchanged = relay.calls("POST /auth/exchange")[0].json();
    assert_eq!(exchanged["code"], "code-of-alice");
    let verifier = exchanged["verifier"].as_str().unwrap();
    assert_eq!(BASE64URL_NOPAD.encode(&Sha256::digest(verifier)), begun.challenge);
    let bytes = |name: &str| BASE64URL_NOPAD.decode(exchanged[name].as_str().unwrap().as_bytes()).unwrap().len();
    assert_eq!((bytes("key"), bytes("sig"), verifier.len(), exchanged["time"].is_u64()), (65, 64, 43, true));
    for secret in [verifier, "code-of-alice", "jwt-", "refresh-"] {
        assert!(!said.stdout.contains(secret) && !said.stderr.contains(secret), "{secret} is told: {}", said.stderr);
    }
    assert!(is_private(&laptop.find("credentials")) && is_private(&laptop.find("relay.key")));
    let first_refresh = laptop.credentials()["refresh_token"].clone();

    let second = login();
    Begun::by(&second).bring("another-code");
    assert_eq!(second.process.done().code, 0);
    let revoked: Vec<_> = relay.calls("POST /auth/revoke").iter().map(|asked| asked.json()).collect();
    assert_eq!(revoked, [json!({"refresh_token": first_refresh})]);
    assert_ne!(laptop.credentials()["refresh_token"], first_refresh);
    laptop.mykube("whoami").start().process.done().ok();
    laptop.mykube("logout").start().process.done().ok();
    assert_eq!(relay.calls("POST /auth/revoke").len(), 2);
}

#[test]
fn what_else_comes_to_the_port_changes_nothing() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = laptop.mykube("login").args(["--relay-url", &relay.url, "--provider", "google"]).start();
    let begun = Begun::by(&login);
    assert!(begun.url.starts_with(&format!("{}/auth/google?", relay.url)), "{}", begun.url);
    let Begun { port, state, .. } = &begun;
    // A page of another origin, that knows the port and even the state.
    let foreign = format!(
        "POST /callback?code=evil&state={state} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\norigin: https://evil.example\r\n\
         content-type: text/plain\r\ncontent-length: 4\r\n\r\ncode"
    );
    assert!(browse(port, &foreign).starts_with("HTTP/1.1 405 "));
    // A page of another origin that does not know it, and one that has led its own name here.
    assert!(begun.get("/callback?code=evil&state=guessed").starts_with("HTTP/1.1 400 "));
    let rebound = format!("GET /callback?code=evil&state={state} HTTP/1.1\r\nhost: evil.example\r\n\r\n");
    assert!(browse(port, &rebound).starts_with("HTTP/1.1 404 "));
    assert!(begun.get("/favicon.ico").starts_with("HTTP/1.1 404 "));
    browse(port, "\x16\x03\x01\x02\x00\r\n\r\n");
    // One that says nothing, and stays.
    let _silent = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    begun.bring("code-of-alice");
    assert_eq!(login.process.done().code, 0);
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "a second answer finds nobody");
    let codes: Vec<_> = relay.calls("POST /auth/exchange").iter().map(|asked| asked.json()["code"].clone()).collect();
    assert_eq!(codes, ["code-of-alice"]);
}

#[test]
fn what_went_wrong_in_the_browser_is_told() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    let begun = Begun::by(&login);
    let error = "/callback?error=access_denied&error_description=nobody%20new%20may%20sign%20up%20here&state=";
    let page = begun.get(&format!("{error}{}", begun.state));
    assert!(page.contains("You are not signed in"), "{page}");
    login.failed(1, &["not finished in the browser", "nobody new may sign up here"]);
    assert!(relay.calls("POST /auth/exchange").is_empty());
}

#[test]
fn the_browser_that_is_set_gets_the_address() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = laptop.text("login").args(["--relay-url", &relay.url]);
    let script = login.sandbox().file("browser", "#!/bin/sh\nprintf %s \"$2\" > \"$1.tmp\" && mv \"$1.tmp\" \"$1\"\n");
    let opened = login.sandbox().home().join("opened");
    let browser = format!("/nonexistent:sh {} {}", script.display(), opened.display());
    let login = login.env("BROWSER", browser).env("SSH_CONNECTION", "set").start();
    login.process.says("Sign in here: ");
    let until = std::time::Instant::now() + crate::support::LIMIT;
    while !opened.exists() {
        assert!(std::time::Instant::now() < until, "no browser was opened: {}", login.process.stderr());
        std::thread::yield_now();
    }
    let begun = Begun::of(&std::fs::read_to_string(&opened).unwrap());
    assert!(login.process.stderr().contains(&begun.url), "it is shown all the same");
    begun.bring("code");
    let done = login.process.done();
    assert!(done.code == 0 && done.stderr.contains("Signed in at"), "{}", done.stderr);
}

#[test]
fn where_no_browser_is_the_other_way_is_named() {
    let (relay, laptop) = (StandIn::start(|_, _| None), Laptop::new());
    let login = || laptop.text("login").args(["--relay-url", &relay.url]);
    login().fails(1, &["there is no display here", "mykube login --device"]);
    login().env("DISPLAY", ":0").env("SSH_CONNECTION", "a b").fails(1, &["over SSH", "mykube login --device"]);
    // A person may still have a browser that reaches this machine; Ctrl-C ends it.
    let login = login().start_on_terminal();
    login.process.prints("mykube login --device");
    login.process.signal(Signal::INT);
    let done = login.process.done_within(std::time::Duration::from_secs(5));
    assert!(done.code == 1 && done.stdout.contains("nothing has changed"), "{}", done.stdout);
    assert!(relay.calls("POST /auth/exchange").is_empty());
}

#[test]
fn a_relay_that_has_no_such_way_in_says_which_it_has() {
    let laptop = Laptop::new();
    let codes_only = Relay::start();
    for way in [&[][..], &["--device"], &["--provider=google"]] {
        let login = laptop.mykube("login").args(["--relay-url", &codes_only.url]).args(way);
        login.fails(1, &["has no accounts", "codes work there without signing in"]);
    }
    let not_there = |call: &'static str| {
        let no = json!({"error": "not found"});
        StandIn::start(move |asked, _| (asked.call == call).then(|| json_answer(404, &no)))
    };
    let old = not_there("GET /portal/sign-in");
    laptop.mykube("login").args(["--relay-url", &old.url]).fails(1, &["one cannot sign in with a browser", "too old"]);
    let old = not_there("POST /auth/device");
    laptop.mykube("login").args(["--relay-url", &old.url, "--device"]).fails(1, &["one cannot sign in with a code"]);
    let nobody = format!("http://{}", crate::support::net::closed_port());
    laptop.mykube("login").args(["--relay-url", &nobody]).fails(4, &["connection refused"]);
}

#[test]
fn a_relay_that_cannot_be_trusted_is_told_before_anybody_is_sent_there() {
    let laptop = Laptop::new();
    let ca = Authority::new("e2e");
    let signed = ca.sign(&["127.0.0.1"]);
    let files = tempfile::tempdir().unwrap();
    let [cert, key, ca] =
        [("cert", &signed.certificate), ("key", &signed.key), ("ca", &ca.pem())].map(|(name, text)| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        });
    let relay = Relay::with(&["--tls-cert", &cert, "--tls-key", &key]);
    for way in [&[][..], &["--device"], &["--provider=google"]] {
        let login = || laptop.mykube("login").args(["--relay-url", &relay.url]).args(way);
        login().fails(4, &["no trusted TLS connection", "--ca-file"]);
        login().args(["--ca-file", &ca]).fails(1, &["has no accounts"]);
    }
}

#[test]
fn a_relay_by_another_name_gets_its_sign_in_back() {
    let relay = StandIn::start(|asked, _| {
        let other = signed_in("https://relay.example", "x");
        (asked.call == "POST /auth/exchange").then(|| json_answer(200, &other))
    });
    let laptop = Laptop::new();
    let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
    Begun::by(&login).bring("code");
    login.failed(1, &["calls itself https://relay.example", "aliases"]);
    assert_eq!(relay.calls("POST /auth/revoke")[0].json(), json!({"refresh_token": "refresh-x"}));
    laptop.mykube("whoami").args(["--relay-url", &relay.url]).fails(1, &["you are not signed in"]);
}

/// What a relay may answer to the code, and what is said then.
#[test]
fn junk_for_a_sign_in_is_none() {
    let huge = || Answer::Bytes(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20)).into_bytes());
    let long_head = || Answer::Bytes(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes());
    type Case = (Box<dyn Fn() -> Answer + Send + Sync>, i32, &'static str);
    let cases: Vec<Case> = vec![
        (Box::new(|| Answer::Bytes(b"SSH-2.0-x\r\n".to_vec())), 4, "does not answer with HTTP"),
        (Box::new(|| json_answer(200, &json!({"token": "t"}))), 4, "not the JSON that a relay sends"),
        (
            Box::new(|| json_answer(400, &json!({"error": "Invalid or expired auth code"}))),
            1,
            "mykube login` begins anew",
        ),
        (Box::new(huge), 4, "longer than 64 KiB"),
        (Box::new(long_head), 4, "longer than 32 KiB"),
        (Box::new(|| Answer::Bytes(Vec::new())), 4, "without an answer"),
        (Box::new(|| Answer::Nothing), 4, "no answer"),
    ];
    let waits: Vec<_> = cases
        .into_iter()
        .map(|(answer, code, words)| {
            std::thread::spawn(move || {
                let relay = StandIn::start(move |asked, _| (asked.call == "POST /auth/exchange").then(&answer));
                let laptop = Laptop::new();
                let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
                Begun::by(&login).bring("the-code-itself");
                let done = login.failed(code, &[words]);
                assert!(!done.stderr.contains("the-code-itself"), "{}", done.stderr);
                laptop.mykube("whoami").args(["--relay-url", &relay.url]).fails(1, &["you are not signed in"]);
            })
        })
        .collect();
    for wait in waits {
        wait.join().unwrap();
    }
}

#[test]
fn one_relay_is_never_sent_what_is_anothers() {
    let [one, other] = [(); 2].map(|()| StandIn::start(|_, _| None));
    let laptop = Laptop::new();
    for relay in [&one, &other] {
        let login = laptop.mykube("login").args(["--relay-url", &relay.url]).start();
        Begun::by(&login).bring("code");
        assert_eq!(login.process.done().code, 0);
        laptop.mykube("whoami").start().process.done().ok();
    }
    // The first one still works, and is another.
    laptop.mykube("whoami").args(["--relay-url", &one.url]).start().process.done().ok();
    laptop.mykube("logout").start().process.done().ok();
    let port = |relay: &StandIn| relay.url.rsplit(':').next().unwrap().to_owned();
    for (relay, foreign) in [(&one, port(&other)), (&other, port(&one))] {
        for asked in relay.asked() {
            let text = format!("{}{}", asked.head, asked.body);
            assert!(!text.contains(&format!("-{foreign}-")), "a token of another relay in {text}");
        }
    }
    let key = |relay: &StandIn| relay.calls("POST /auth/exchange")[0].json()["key"].clone();
    assert_ne!(key(&one), key(&other), "nor can they tell that it is the same machine");
}
