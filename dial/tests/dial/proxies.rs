//! Through proxies, which lead `relay.test`, a name that no resolver knows, to a server of the test.

use std::time::Duration;

use mykube_dial::{
    DialError, ProxyTarget, Transport, Trust, connect_tcp_via_proxy,
    error::{ProxyProblem, TlsProblem, Unreachable},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Canned, answer,
    ca::Ca,
    closed_port, created, dialer_with,
    proxy::{self, Rules},
    silent,
};

/// base64 of `ann:p@ss`, and the URL form of the same.
const BASIC: &str = "Basic YW5uOnBAc3M=";
const LOGIN: &str = "ann:p%40ss";
const RELAY: &str = "https://relay.test";

fn proxy_problem(error: DialError) -> ProxyProblem {
    assert_eq!(error.exit_code(), 4, "{error}");
    match error {
        DialError::Proxy { problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn connect_reaches_the_relay() {
    let ca = Ca::new();
    let relay = Canned::tls(created(), ca.server("relay.test")).await;
    let proxy = proxy::connect(relay.at, Rules::default()).await;
    let setting = format!("http://{}", proxy.at);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let dialer = dialer_with(RELAY, Some(&ca.file), &[(variable, &setting)]);
        dialer.create_session().await.unwrap();
    }
    let seen = proxy.seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert!(seen[0].starts_with("CONNECT relay.test:443 HTTP/1.1\r\n"), "{seen:?}");
    assert!(seen[0].contains("host: relay.test:443\r\n"), "{seen:?}");
    assert!(!seen[0].contains("authorization"), "{seen:?}");
}

#[tokio::test]
async fn a_proxy_with_a_password() {
    let ca = Ca::new();
    let relay = Canned::tls(created(), ca.server("relay.test")).await;
    let proxy = proxy::connect(relay.at, Rules { authorization: Some(BASIC), ..Rules::default() }).await;
    let with = |login: &str| {
        let setting = format!("http://{login}{}", proxy.at);
        dialer_with(RELAY, Some(&ca.file), &[("HTTPS_PROXY", &setting)])
    };
    with(&format!("{LOGIN}@")).create_session().await.unwrap();
    assert!(!relay.only_request().to_ascii_lowercase().contains("proxy-"), "the relay is not told");

    let error = with("").create_session().await.unwrap_err();
    assert!(error.to_string().contains("set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"), "{error}");
    assert!(matches!(proxy_problem(error), ProxyProblem::CredentialsMissing { .. }));

    let dialer = with("ann:hunter2@");
    let error = dialer.create_session().await.unwrap_err();
    assert!(error.to_string().contains("does not accept the user name and password in HTTPS_PROXY"), "{error}");
    assert!(!format!("{error} {error:?} {dialer:?}").contains("hunter2"));
    assert!(matches!(proxy_problem(error), ProxyProblem::CredentialsWrong { .. }));
}

#[tokio::test]
async fn what_a_proxy_refuses_is_told_apart() {
    for (reply, expected) in [
        (answer("403 Forbidden", "", "<html>"), "does not allow connections to relay.test:443 (status 403)"),
        (answer("502 Bad Gateway", "", ""), "could not reach relay.test:443 (status 502)"),
        (answer("504 Timeout", "", ""), "could not reach relay.test:443 (status 504)"),
        (answer("404 Not Found", "Content-Type: text/html\r\n", ""), "(it answered 404 with text/html to CONNECT)"),
        ("220 smtp.test ESMTP\r\n\r\n".into(), "does not answer like a proxy (not an HTTP answer)"),
        (
            answer("407 No", "Proxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate x\r\n", ""),
            "It offers NTLM, Negotiate only",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nearly".into(), "sent something before the target was asked"),
    ] {
        let proxy = Canned::plain(reply).await;
        let setting = proxy.http();
        let error = dialer_with(RELAY, None, &[("HTTPS_PROXY", &setting)]).create_session().await.unwrap_err();
        let named = format!("the proxy {setting} (from HTTPS_PROXY)");
        assert!(error.to_string().contains(expected) && error.to_string().contains(&named), "{error}");
        proxy_problem(error);
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let (at, _holder) = closed_port().await;
    let setting = format!("http://{at}");
    let error = dialer_with(RELAY, None, &[("https_proxy", &setting)]).create_session().await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().starts_with(&format!("cannot reach the proxy {at} (from https_proxy): ")), "{error}");

    let hangs_up = Canned::plain("").await;
    let setting = hangs_up.http();
    let error = dialer_with(RELAY, None, &[("https_proxy", &setting)]).create_session().await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { reason: Unreachable::Closed(_), .. }), "{error}");

    let proxy = ProxyTarget::parse(&silent().await.to_string(), "proxy-url").unwrap();
    let ca = Ca::new();
    let trust = Trust::new(Some(ca.file.path())).unwrap();
    let limit = Duration::from_millis(20);
    let error = connect_tcp_via_proxy("relay.test", 443, Some(&proxy), &trust, limit).await.unwrap_err();
    assert!(matches!(&error, DialError::Unreachable { reason: Unreachable::Timeout(l), .. } if *l == limit), "{error}");
}

#[tokio::test]
async fn tls_inspection_needs_and_takes_the_inspecting_ca() {
    let corporate = Ca::new();
    let relay = Canned::plain(created()).await;
    let rules = Rules { intercept: Some(corporate.server("relay.test")), ..Rules::default() };
    let proxy = proxy::connect(relay.at, rules).await;
    let setting = format!("http://{}", proxy.at);
    let vars = [("HTTPS_PROXY", setting.as_str())];

    let error = dialer_with(RELAY, None, &vars).create_session().await.unwrap_err();
    assert!(
        matches!(&error, DialError::Tls { address, problem: TlsProblem::Untrusted } if address == "relay.test:443")
    );
    dialer_with(RELAY, Some(&corporate.file), &vars).create_session().await.unwrap();
}

#[tokio::test]
async fn an_https_proxy_is_verified_too() {
    let ca = Ca::new();
    let relay = Canned::tls(created(), ca.server("relay.test")).await;
    let rules = Rules { tls: Some(ca.server("127.0.0.1")), authorization: Some(BASIC), ..Rules::default() };
    let proxy = proxy::connect(relay.at, rules).await;
    let setting = format!("https://{LOGIN}@{}", proxy.at);
    let dialer = dialer_with(RELAY, Some(&ca.file), &[("HTTPS_PROXY", &setting)]);
    assert!(matches!(dialer.connect().await.unwrap(), Transport::TlsInTls(_)));
    dialer.create_session().await.unwrap();

    let other = dialer_with(RELAY, None, &[("HTTPS_PROXY", &setting)]);
    let error = other.create_session().await.unwrap_err();
    assert!(error.to_string().contains(&format!("the proxy {}", proxy.at)), "{error}");
    assert!(matches!(error, DialError::Tls { problem: TlsProblem::Untrusted, .. }), "{error}");
}

#[tokio::test]
async fn socks_5_with_and_without_a_password() {
    let ca = Ca::new();
    let relay = Canned::tls(created(), ca.server("relay.test")).await;
    let open = proxy::socks5(relay.at, None).await;
    let setting = format!("socks5://{}", open.at);
    dialer_with(RELAY, Some(&ca.file), &[("ALL_PROXY", &setting)]).create_session().await.unwrap();
    assert_eq!(*open.seen.lock().unwrap(), ["relay.test:443"]);

    let closed = proxy::socks5(relay.at, Some("ann:p@ss")).await;
    let with = |login: &str| {
        let setting = format!("socks5h://{login}{}", closed.at);
        dialer_with(RELAY, Some(&ca.file), &[("ALL_PROXY", &setting)])
    };
    with(&format!("{LOGIN}@")).create_session().await.unwrap();
    let missing = proxy_problem(with("").create_session().await.unwrap_err());
    assert!(matches!(missing, ProxyProblem::CredentialsMissing { .. }), "{missing}");
    let wrong = proxy_problem(with("ann:hunter2@").create_session().await.unwrap_err());
    assert!(matches!(wrong, ProxyProblem::CredentialsWrong { .. }), "{wrong}");
}

#[tokio::test]
async fn loopback_and_no_proxy_are_reached_directly() {
    let ca = Ca::new();
    let relay = Canned::tls(created(), ca.server("127.0.0.1")).await;
    let plain = Canned::plain(created()).await;
    let (nobody, _holder) = closed_port().await;
    let setting = format!("http://{nobody}");
    let vars = [("HTTPS_PROXY", setting.as_str()), ("HTTP_PROXY", &setting), ("ALL_PROXY", &setting)];
    dialer_with(format!("https://{}", relay.at), Some(&ca.file), &vars).create_session().await.unwrap();
    dialer_with(plain.http(), None, &vars).create_session().await.unwrap();

    let vars = [("HTTPS_PROXY", setting.as_str()), ("NO_PROXY", "test")];
    assert!(dialer_with(RELAY, Some(&ca.file), &vars).proxy().is_none());
}

#[tokio::test]
async fn any_target_can_be_reached_through_a_proxy() {
    let echo = crate::support::listen(None, |mut stream| async move {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        stream.write_all(&word).await
    })
    .await;
    let ca = Ca::new();
    let trust = Trust::new(Some(ca.file.path())).unwrap();
    let http = proxy::connect(echo, Rules::default()).await;
    let https = proxy::connect(echo, Rules { tls: Some(ca.server("127.0.0.1")), ..Rules::default() }).await;
    for (url, name) in [(format!("http://{}", http.at), "apiserver.test"), (format!("https://{}", https.at), "fd00::1")]
    {
        let proxy = ProxyTarget::parse(&url, "proxy-url").unwrap();
        let limit = Duration::from_secs(10);
        let mut stream = connect_tcp_via_proxy(name, 6443, Some(&proxy), &trust, limit).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
    }
    assert!(http.seen.lock().unwrap()[0].starts_with("CONNECT apiserver.test:6443 "));
    assert!(https.seen.lock().unwrap()[0].starts_with("CONNECT [fd00::1]:6443 "));
}
