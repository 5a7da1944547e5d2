//! What an operator sees and does.

use std::{io::Write as _, sync::Arc, time::Duration};

use mykube_relay::{Config, Relay, RelayError, TlsFiles, logs::Lines};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer},
};

use crate::support::{Socket, TestRelay, bearer, bounded, call, request, until, write_file};

pub(crate) struct Certificate {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn certificate() -> Certificate {
    certificate_until(3000)
}

/// A certificate that ends this many days from now, and began a thousand days ago.
pub(crate) fn certificate_until(days: i64) -> Certificate {
    let now = time::OffsetDateTime::now_utc();
    let mut params = rcgen::CertificateParams::new(vec!["relay.test".to_owned()]).unwrap();
    params.not_before = now - time::Duration::days(1000);
    params.not_after = now + time::Duration::days(days);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    Certificate { cert: made.pem(), key: key.serialize_pem(), der: made.der().clone() }
}

async fn connect(relay: &TestRelay, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    handshake(relay.addr, trusted).await
}

pub(crate) async fn handshake(
    relay: std::net::SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(relay).await?;
    bounded(TlsConnector::from(Arc::new(config)).connect("relay.test".try_into().unwrap(), stream)).await
}

async fn tls_relay(first: &Certificate) -> TestRelay {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    write_file(&cert, &first.cert);
    write_file(&key, &first.key);
    let files = TlsFiles { cert, key, reload_interval: Duration::from_millis(10) };
    TestRelay::start_in(dir, |config| config.tls = Some(files)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_run_over_tls() {
    let first = certificate();
    let relay = tls_relay(&first).await;
    assert_eq!(relay.url, format!("https://{}", relay.addr));
    let stream = connect(&relay, &first.der).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = call(stream, "POST", "/api/sessions", "", r#"{"version":2}"#).await;
    let created: mykube_protocol::http::SessionCreated = serde_json::from_str(&answer.body).unwrap();
    let open = async |path: String, ticket: &str| {
        let stream = connect(&relay, &first.der).await.unwrap();
        Socket::over(stream, request(relay.addr, &path, &bearer(ticket))).await.unwrap()
    };
    let mut agent = open(format!("/ws/agent/{}", created.session_id), created.ticket.expose()).await;
    let body = format!(r#"{{"nameplate":"{}"}}"#, created.nameplate);
    let answer = call(connect(&relay, &first.der).await.unwrap(), "POST", "/api/pair", "", &body).await;
    let claim: mykube_protocol::http::PairAnswer = serde_json::from_str(&answer.body).unwrap();
    let mut client = open(format!("/ws/client/{}", claim.session_id), claim.ticket.expose()).await;
    agent.text().await;
    client.text().await;
    let frame = vec![7; 60_000];
    let (mut left, mut right) = (0, 0);
    futures_util::future::join(
        async {
            for _ in 0..100 {
                agent.binary(frame.clone()).await;
                left += agent.bytes().await.len();
            }
        },
        async {
            for _ in 0..100 {
                right += client.bytes().await.len();
                client.binary(frame.clone()).await;
            }
        },
    )
    .await;
    assert_eq!((left, right), (6_000_000, 6_000_000));
}

#[tokio::test]
async fn a_client_that_does_not_finish_a_handshake_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = certificate();
    write_file(&cert, &made.cert);
    write_file(&key, &made.key);
    let files = TlsFiles { cert, key, reload_interval: Duration::from_secs(60) };
    let relay = TestRelay::start_in(dir, |config| {
        config.tls = Some(files);
        config.handshake_timeout = Duration::from_millis(50);
        config.header_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut silent = TcpStream::connect(relay.addr).await.unwrap();
    assert!(matches!(bounded(silent.read(&mut [0])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let (first, second) = (certificate(), certificate());
    let relay = tls_relay(&first).await;
    connect(&relay, &first.der).await.unwrap();
    assert!(connect(&relay, &second.der).await.is_err());
    write_file(&relay.dir.path().join("cert.pem"), "not a certificate");
    write_file(&relay.dir.path().join("key.pem"), &second.key);
    connect(&relay, &first.der).await.unwrap();
    write_file(&relay.dir.path().join("cert.pem"), &second.cert);
    until(|| async { connect(&relay, &second.der).await.is_ok() }).await;
    assert!(connect(&relay, &first.der).await.is_err());
}

#[tokio::test]
async fn a_drain_sends_everybody_away_with_a_delay() {
    let mut relay = TestRelay::with(|config| config.drain_spread = Duration::from_millis(500)).await;
    let mut pair = relay.pair().await;
    let created = relay.create().await;
    let mut waiting = relay.agent(&created).await;
    assert_eq!(relay.call("GET", "/readyz", "", "").await.status, 200);
    drop(relay.stop.take());
    for socket in [&mut pair.agent, &mut pair.client, &mut waiting] {
        let (code, reason) = socket.closed().await;
        assert_eq!(code, 1012);
        let delay = mykube_protocol::close::retry_after(&reason).unwrap();
        assert!(delay <= Duration::from_millis(500), "{delay:?}");
    }
    bounded(&mut relay.served).await.unwrap();
    assert!(TcpStream::connect(relay.addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_draining_relay_is_not_ready_and_takes_nobody() {
    let mut relay = TestRelay::start().await;
    let created = relay.create().await;
    // This end does not answer its close frame, so the draining relay still answers requests.
    let path = format!("/ws/agent/{}", created.session_id);
    let mut lingering = crate::support::raw(&relay, &path, created.ticket.expose()).await;
    drop(relay.stop.take());
    assert_eq!(bounded(lingering.read_u8()).await.unwrap(), 0x88);
    for (method, path) in [("GET", "/readyz"), ("POST", "/api/sessions"), ("POST", "/api/pair")] {
        let answer = relay.call(method, path, "", r#"{"version":2}"#).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(relay.call("GET", "/healthz", "", "").await.status, 200);
    drop(lingering);
    bounded(&mut relay.served).await.unwrap();
}

#[tokio::test]
async fn metrics_have_the_documented_names_and_no_sessions() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    relay.create().await;
    relay.post("/api/pair", r#"{"nameplate":"00000"}"#).await;
    let text = relay.scrape().await;
    for line in [
        "mykube_relay_sessions{state=\"waiting\"} 1",
        "mykube_relay_sessions{state=\"paired\"} 1",
        "mykube_relay_sessions{state=\"away\"} 0",
        "mykube_relay_forwarded_bytes_total{direction=\"agent_to_client\"} 0",
        "mykube_relay_pair_attempts_total{result=\"claimed\"} 1",
        "mykube_relay_pair_attempts_total{result=\"paired\"} 1",
        "mykube_relay_pair_attempts_total{result=\"not_found\"} 1",
        "mykube_relay_reconnects_total{reason=\"replaced\"} 0",
        "mykube_relay_buffered_bytes 0",
        "mykube_relay_backpressure_seconds_total 0",
        "mykube_relay_log_lines_dropped_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(!text.contains(&pair.session));
    // A line that no output could take in time, as it is larger than all that may wait.
    let (mut lines, _logs) = Lines::start(std::io::sink(), true).unwrap();
    lines.write_all(&vec![b'x'; 16 << 20]).unwrap();
    assert_eq!(relay.metric("mykube_relay_log_lines_dropped_total").await, 1.0);
    assert_eq!(relay.call("GET", "/metrics", "", "").await.status, 404, "on their own listener only");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json_errors() {
    let relay = TestRelay::start().await;
    for (method, path, status, header) in [
        ("GET", "/", 404, None),
        ("GET", "/ws/agent/../../etc", 404, None),
        ("GET", "/ws/nobody/000102030405060708090a0b0c0d0e0f", 404, None),
        ("GET", "/ws/agent/000102030405060708090a0b0c0d0e0f", 426, Some(("upgrade", "websocket"))),
        ("GET", "/ws/agent/000102030405060708090a0b0c0d0e0f", 426, Some(("sec-websocket-version", "13"))),
        ("GET", "/ws/agent/000102030405060708090a0b0c0d0e0f", 426, Some(("connection", "Upgrade, close"))),
        ("POST", "/ws/agent/000102030405060708090a0b0c0d0e0f", 405, Some(("allow", "GET"))),
        ("GET", "/api/pair", 405, Some(("allow", "POST"))),
        ("OPTIONS", "/api/sessions", 405, Some(("allow", "POST"))),
        ("POST", "/healthz", 405, Some(("allow", "GET, HEAD"))),
    ] {
        let answer = relay.call(method, path, "", "").await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.error().is_empty());
        assert!(header.is_none_or(|(name, value)| answer.header(name) == Some(value)), "{}", answer.head);
    }
    let stream = TcpStream::connect(relay.metrics).await.unwrap();
    let answer = call(stream, "DELETE", "/metrics", "", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

/// The refusals that ends act on: see docs/protocol.md.
#[tokio::test]
async fn the_relays_own_last_words_are_marked() {
    let relay = TestRelay::start().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let path = "/ws/agent/000102030405060708090a0b0c0d0e0f";
    let other = relay.create().await;
    for ticket in [String::new(), bearer("AAAA")[0].1.clone(), bearer(other.ticket.expose())[0].1.clone()] {
        let authorization = if ticket.is_empty() { ticket } else { format!("Authorization: {ticket}\r\n") };
        let answer = relay.call("GET", path, &format!("{upgrade}{authorization}"), "").await;
        assert_eq!((answer.status, answer.header("mykube-refusal")), (401, Some("ticket")), "{}", answer.head);
    }
    for body in ["{}", r#"{"version":3}"#] {
        let answer = relay.post("/api/sessions", body).await;
        assert_eq!((answer.status, answer.header("mykube-refusal")), (400, Some("version")), "{}", answer.head);
    }
    assert_eq!(relay.post("/api/sessions", "nonsense").await.header("mykube-refusal"), None);
}

#[tokio::test]
async fn what_keeps_a_relay_from_starting_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new(dir.path());
    config.listen = taken.local_addr().unwrap();
    let error = Relay::bind(config).await.err().unwrap();
    assert!(matches!(error, RelayError::Listen { .. }) && error.to_string().contains("--listen"), "{error}");

    let mut config = Config::new(dir.path());
    let (cert, key) = (dir.path().join("none.pem"), dir.path().join("none.key"));
    config.tls = Some(TlsFiles { cert, key, reload_interval: Duration::from_secs(1) });
    let error = Relay::bind(config).await.err().unwrap().to_string();
    assert!(error.contains("none.pem") && error.contains("--tls-cert"), "{error}");
}

#[test]
fn the_relay_cannot_decrypt_because_it_does_not_have_the_code() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "mykube-relay",
            "--edges",
            "normal,build",
            "--locked",
            "--offline",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("mykube-protocol"), "{tree}");
    for banned in ["mykube-tunnel", "mykube-link", "aes-gcm", "spake2", "x25519", "ml-kem"] {
        assert!(!tree.contains(banned), "{banned} is reached:\n{tree}");
    }
}
