//! What the relay does not answer itself.

use std::sync::Arc;

use mykube_relay::{Accepted, Accepting, Answering, Arrival, Config, Fallback};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::TestRelay;

/// Says what it was asked.
struct Echo;

impl Fallback for Echo {
    fn answer(&self, request: http::Request<hyper::body::Incoming>, arrival: Arrival) -> Answering {
        let Arrival { address, transport } = arrival;
        let said = format!("{} {} {address} {transport:?}", request.method(), request.uri());
        Box::pin(async move { http::Response::new(said.into_bytes().into()) })
    }

    fn has_socket(&self, path: &str) -> bool {
        path.starts_with("/ws/echo")
    }

    /// Takes those that ask for `?yes`, and sends back what comes.
    fn accept(&self, request: http::Request<()>, _: Arrival) -> Accepting {
        let is_taken = request.uri().query() == Some("yes");
        Box::pin(async move {
            if !is_taken {
                return Err(http::Response::builder().status(403).body("no".into()).unwrap());
            }
            let runtime = tokio::runtime::Handle::current();
            let serve = |mut socket: mykube_relay::Socket| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(async move {
                    let mut buffer = [0; 64];
                    while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                        socket.write_all(&buffer[..n]).await.unwrap();
                    }
                })
            };
            Ok(Accepted { runtime, serve: Box::new(serve) })
        })
    }
}

async fn relay(adjust: impl FnOnce(&mut Config)) -> TestRelay {
    TestRelay::with_fallback(tempfile::tempdir().unwrap(), adjust, Some(Arc::new(Echo))).await
}

#[tokio::test]
async fn it_has_every_path_but_the_relays_own() {
    let (with, without) = (relay(|_| {}).await, TestRelay::start().await);
    for (method, path) in [
        ("GET", "/healthz"),
        ("DELETE", "/readyz"),
        ("GET", "/api/health"),
        ("GET", "/api/sessions"),
        ("POST", "/api/pair"),
        ("GET", "/ws/agent/00000000000000000000000000000000"),
        ("GET", "/ws/client/00000000000000000000000000000000"),
    ] {
        let [one, other] = [&with, &without].map(|relay| relay.call(method, path, "", ""));
        let (one, other) = (one.await, other.await);
        assert_eq!((one.status, &one.body), (other.status, &other.body), "{method} {path}");
    }
    for (method, path) in [("GET", "/"), ("POST", "/auth/dev?a=1"), ("PUT", "/ws/agent/0"), ("GET", "/metrics")] {
        let answer = with.call(method, path, "", "").await;
        assert_eq!((answer.status, answer.body), (200, format!("{method} {path} 127.0.0.1 Plain")));
        assert_eq!(without.call(method, path, "", "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn it_is_told_whose_a_request_is_and_who_could_read_it() {
    let forwarded = "X-Forwarded-For: 203.0.113.7\r\n";
    let told = async |relay: &TestRelay| relay.call("GET", "/x", forwarded, "").await.body;
    assert_eq!(told(&relay(|_| {}).await).await, "GET /x 127.0.0.1 Plain", "nobody is believed");
    let proxied = relay(|config| config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    assert_eq!(told(&proxied).await, "GET /x 203.0.113.7 Proxy");
    assert_eq!(proxied.call("GET", "/x", "", "").await.body, "GET /x 127.0.0.1 Proxy");
    for (header, transport) in [
        ("X-Forwarded-Proto: https", "Proxy"),
        ("X-Forwarded-Proto: HTTP", "Plain"),
        ("X-Forwarded-Proto: https, http", "Plain"),
        ("Forwarded: for=192.0.2.1;proto=https", "Proxy"),
        ("Forwarded: for=192.0.2.1;Proto=\"http\"", "Plain"),
    ] {
        let told = proxied.call("GET", "/x", &format!("{header}\r\n"), "").await.body;
        assert_eq!(told, format!("GET /x 127.0.0.1 {transport}"), "{header}");
    }
}

#[tokio::test]
async fn its_websockets_are_taken_behind_the_relays_handshake_and_count_as_connections() {
    let relay = relay(|config| config.connections_per_address = 3).await;
    let answer = relay.call("GET", "/ws/echo?yes", "", "").await;
    assert_eq!((answer.status, answer.error().as_str()), (426, "this is a WebSocket address"));
    assert_eq!(relay.call("POST", "/ws/echo?yes", "", "{}").await.status, 405);
    let refused = relay.try_open("/ws/echo?no", &[]).await;
    assert!(matches!(&refused, Err(tokio_tungstenite::tungstenite::Error::Http(answer)) if answer.status() == 403));
    drop(refused);
    let open = async || {
        let mut stream = tokio::net::TcpStream::connect(relay.addr).await.unwrap();
        // What comes right behind the handshake is not lost.
        let handshake = "GET /ws/echo?yes HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly";
        stream.write_all(handshake.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        let mut buffer = [0; 1024];
        while !told.ends_with(b"early") {
            let n = crate::support::bounded(stream.read(&mut buffer)).await.unwrap_or_default();
            if n == 0 {
                return None;
            }
            told.extend_from_slice(&buffer[..n]);
        }
        let told = String::from_utf8(told).unwrap();
        // The example of RFC 6455 section 1.3.
        assert!(told.starts_with("HTTP/1.1 101 ") && told.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{told}");
        stream.write_all(b"more").await.unwrap();
        stream.read_exact(&mut buffer[..4]).await.unwrap();
        assert_eq!(&buffer[..4], b"more");
        Some(stream)
    };
    // Connections that were refused may still be counted for a moment.
    let mut held = Vec::new();
    crate::support::bounded(async {
        while held.len() < 3 {
            held.extend(open().await);
        }
    })
    .await;
    assert!(open().await.is_none(), "an open socket keeps its slot");
    held.pop();
    crate::support::until(async || open().await.is_some()).await;
}
