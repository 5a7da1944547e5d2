//! Limits on requests and connections, and to whom each is charged.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Answer, TestRelay, bearer, bounded, call};

const CREATE: &str = r#"{"version":2}"#;

#[tokio::test]
async fn twenty_api_requests_a_minute_an_address() {
    let relay = TestRelay::with(|config| config.api_requests_per_minute = 20).await;
    for _ in 0..20 {
        assert_eq!(relay.post("/api/pair", r#"{"nameplate":"000"}"#).await.status, 404);
    }
    let over = relay.post("/api/sessions", CREATE).await;
    assert_eq!((over.status, over.error().as_str()), (429, "too many requests"));
    assert_eq!(relay.pair_attempts("rate_limited").await, 0.0, "it was no pair request");
    assert_eq!(relay.post("/api/pair", r#"{"nameplate":"000"}"#).await.status, 429);
    assert_eq!(relay.pair_attempts("rate_limited").await, 1.0);
    assert_eq!(relay.pair_attempts("not_found").await, 20.0);
    let wait: u64 = over.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(relay.call("GET", "/api/health", "", "").await.body, r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn a_body_over_16_kib_is_refused() {
    let relay = TestRelay::start().await;
    let body = |len: usize| format!("{{\"version\":2{}}}", " ".repeat(len - 13));
    assert_eq!(relay.post("/api/sessions", &body(16 * 1024)).await.status, 201);
    let over = relay.post("/api/sessions", &body(16 * 1024 + 1)).await;
    assert_eq!(over.status, 413);
    over.error();
}

#[tokio::test]
async fn waiting_sessions_an_address() {
    let relay = TestRelay::with(|config| config.sessions.waiting_per_address = 2).await;
    relay.create().await;
    relay.create().await;
    let over = relay.post("/api/sessions", CREATE).await;
    assert_eq!(over.status, 429);
    assert!(over.error().contains("too many sessions"));
}

#[tokio::test]
async fn sessions_in_all() {
    let relay = TestRelay::with(|config| config.sessions.sessions = 1).await;
    relay.create().await;
    let over = relay.post("/api/sessions", CREATE).await;
    assert_eq!(over.status, 503);
    assert!(over.error().contains("full"));
}

#[tokio::test]
async fn connections_at_once() {
    for by_address in [true, false] {
        let relay = TestRelay::with(|config| {
            config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
            let limit = if by_address { &mut config.connections_per_address } else { &mut config.connections };
            *limit = 1;
        })
        .await;
        let mut first = TcpStream::connect(relay.addr).await.unwrap();
        first.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await.unwrap();
        bounded(first.read_u8()).await.unwrap();
        let mut second = TcpStream::connect(relay.addr).await.unwrap();
        let mut nothing = Vec::new();
        assert!(matches!(bounded(second.read_to_end(&mut nothing)).await, Ok(0) | Err(_)), "closed without an answer");
        drop(first);
        crate::support::until(|| async {
            let mut third = TcpStream::connect(relay.addr).await.unwrap();
            let _ = third.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await;
            third.read_u8().await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_not_waited_for() {
    let relay = TestRelay::with(|config| config.header_timeout = std::time::Duration::from_millis(100)).await;
    for start in ["", "GET / HTTP/1.1\r\nHost: relay\r\nX-Slow"] {
        let mut stream = TcpStream::connect(relay.addr).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = bounded(stream.read_to_end(&mut rest)).await;
    }
    let mut stream = TcpStream::connect(relay.addr).await.unwrap();
    stream.write_all(b"POST /api/pair HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
    let mut answer = Vec::new();
    let _ = bounded(stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_the_answers_is_not_waited_for() {
    let relay = TestRelay::with(|config| {
        config.header_timeout = std::time::Duration::from_millis(100);
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    for address in [relay.addr, relay.metrics] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let requests = b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(1000);
        // Until the answers fill every buffer between the two, and more.
        let ended = async { while stream.write_all(&requests).await.is_ok() {} };
        bounded(ended).await;
    }
}

/// A browser sends these without a preflight. It would hide the answer from the page, but the session would be made.
#[tokio::test]
async fn pages_of_other_sites_make_no_requests() {
    let relay = TestRelay::with(|config| {
        config.api_requests_per_minute = 1;
        config.allow_origins = vec!["https://console.example".to_owned()];
    })
    .await;
    let status = async |path: &str, headers: &str| relay.call("POST", path, headers, CREATE).await.status;
    for path in ["/api/sessions", "/api/pair"] {
        assert_eq!(status(path, "Origin: https://evil.example\r\n").await, 403);
        assert_eq!(status(path, "Origin: null\r\n").await, 403);
        assert_eq!(status(path, "Content-Type: text/plain\r\n").await, 415);
        assert_eq!(status(path, "Content-Type: text/plain; application/json\r\n").await, 415);
        assert_eq!(status(path, "Content-Type: application/x-www-form-urlencoded\r\n").await, 415);
    }
    let allowed = "Origin: https://console.example\r\nContent-Type: application/json\r\n";
    assert_eq!(status("/api/sessions", allowed).await, 201, "and none of those was charged to the visitor");
}

#[tokio::test]
async fn websockets_of_other_origins_are_refused() {
    let relay = TestRelay::with(|config| config.allow_origins = vec!["https://console.example".to_owned()]).await;
    let created = relay.create().await;
    let path = format!("/ws/agent/{}", created.session_id);
    for (origin, allowed) in [("https://evil.example", false), ("null", false), ("https://console.example", true)] {
        let mut headers = bearer(created.ticket.expose()).to_vec();
        headers.push(("origin", origin.to_owned()));
        let opened = relay.try_open(&path, &headers).await;
        assert_eq!(opened.is_ok(), allowed, "{origin}");
        assert!(opened.err().is_none_or(|error| error.to_string().contains("403")));
    }
}

/// With one request a minute, those that are admitted show which client the relay charges.
async fn create_for(relay: &TestRelay, forwarded: &str) -> Answer {
    relay.call("POST", "/api/sessions", &format!("X-Forwarded-For: {forwarded}\r\n"), CREATE).await
}

#[tokio::test]
async fn a_forwarded_address_is_believed_only_from_a_trusted_proxy() {
    let relay = TestRelay::with(|config| config.api_requests_per_minute = 1).await;
    assert_eq!(create_for(&relay, "203.0.113.1").await.status, 201);
    assert_eq!(create_for(&relay, "203.0.113.2").await.status, 429, "one address: 127.0.0.1");

    let relay = TestRelay::with(|config| {
        config.api_requests_per_minute = 1;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    assert_eq!(create_for(&relay, "203.0.113.1").await.status, 201);
    assert_eq!(create_for(&relay, "198.51.100.9, 203.0.113.2").await.status, 201);
    assert_eq!(create_for(&relay, "198.51.100.8, 203.0.113.2").await.status, 429);
    // A client may write bytes that are not text.
    let after_a_byte = async |last| {
        let mut stream = TcpStream::connect(relay.addr).await.unwrap();
        let head = b"POST /api/sessions HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nX-Forwarded-For: \xff, ";
        let rest = format!("203.0.113.{last}\r\nContent-Length: {}\r\n\r\n{CREATE}", CREATE.len());
        stream.write_all(&[head, rest.as_bytes()].concat()).await.unwrap();
        let mut answer = String::new();
        bounded(stream.read_to_string(&mut answer)).await.unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!([after_a_byte(3).await, after_a_byte(4).await, after_a_byte(4).await], ["201", "201", "429"]);
}

/// A connection from a proxy, whose header names the client.
async fn proxied(relay: &TestRelay, client: [u8; 4]) -> TcpStream {
    let mut stream = TcpStream::connect(relay.addr).await.unwrap();
    let header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client, &[127, 0, 0, 1, 0, 1, 0, 2]];
    stream.write_all(&header.concat()).await.unwrap();
    stream
}

/// A client whose address is in the network of trusted proxies: `--trusted-proxy` may name more than the proxies.
const NEIGHBOUR: [u8; 4] = [127, 9, 9, 9];

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let relay = TestRelay::with(|config| {
        config.api_requests_per_minute = 1;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    })
    .await;
    let create = async |client, headers: &str| {
        call(proxied(&relay, client).await, "POST", "/api/sessions", headers, CREATE).await.status
    };
    for (client, other) in [([203, 0, 113, 1], [203, 0, 113, 2]), (NEIGHBOUR, [127, 9, 9, 8])] {
        assert_eq!((create(client, "").await, create(other, "").await, create(other, "").await), (201, 201, 429));
    }
    let named = "X-Forwarded-For: 198.51.100.1\r\n";
    assert_eq!(create(NEIGHBOUR, named).await, 429, "and nobody else does, the client least of all");

    let mut bare = TcpStream::connect(relay.addr).await.unwrap();
    bare.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await.unwrap();
    let mut nothing = Vec::new();
    let _ = bounded(bare.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty(), "no header, no service");
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_its_own_limit_of_connections() {
    let relay = TestRelay::with(|config| {
        config.connections_per_address = 1;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    })
    .await;
    let open = async |client| {
        let mut stream = proxied(&relay, client).await;
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await;
        let answered = bounded(stream.read_u8()).await.is_ok();
        (answered, stream)
    };
    for (client, other) in [([203, 0, 113, 1], [203, 0, 113, 2]), (NEIGHBOUR, [127, 9, 9, 8])] {
        let (answered, first) = open(client).await;
        assert!(answered && !open(client).await.0 && open(other).await.0);
        drop(first);
        crate::support::until(|| async { open(client).await.0 }).await;
    }
}

#[tokio::test]
async fn a_client_whom_a_proxys_request_names_has_its_own_limit_too() {
    let relay = TestRelay::with(|config| {
        config.connections_per_address = 1;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let created = relay.create().await;
    let named = |last: u8| ("x-forwarded-for", format!("203.0.113.{last}"));
    let mut headers = bearer(created.ticket.expose()).to_vec();
    headers.push(named(1));
    let mut socket = relay.open(&format!("/ws/agent/{}", created.session_id), &headers).await;
    let health = async |last: u8| {
        let headers = format!("X-Forwarded-For: {}\r\n", named(last).1);
        relay.call("GET", "/api/health", &headers, "").await
    };
    let over = health(1).await;
    assert_eq!((over.status, over.error().as_str()), (429, "too many connections from this address"));
    assert!(over.header("retry-after").is_some());
    assert_eq!(health(2).await.status, 200);
    socket.close().await;
    crate::support::until(|| async { health(1).await.status == 200 }).await;
}

#[tokio::test]
async fn a_proxy_header_from_anybody_else_is_refused() {
    let relay = TestRelay::with(|config| {
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config.proxy_protocol = true;
    })
    .await;
    let mut stream = TcpStream::connect(relay.addr).await.unwrap();
    let _ = stream.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n").await;
    let mut nothing = Vec::new();
    let _ = bounded(stream.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
}
