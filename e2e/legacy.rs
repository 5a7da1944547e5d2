//! The legacy form: the Go client and server of the first mykube work through our relay unchanged.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Bytes, Error, Message},
};

use crate::support::{LIMIT, Mykube, Relay, net::runtime};

/// As the old Go programs call it: JSON in, status and JSON out.
async fn post(relay: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let mut connection = TcpStream::connect(relay).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {relay}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}")))
}

type Socket = WebSocketStream<TcpStream>;

/// A WebSocket without any ticket.
async fn socket(relay: SocketAddr, role: &str, session: &str) -> Result<Socket, Error> {
    let connection = TcpStream::connect(relay).await.unwrap();
    client_async(format!("ws://{relay}/ws/{role}/{session}"), connection).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Message {
    timeout(LIMIT, socket.next()).await.expect("a frame").expect("not the end").expect("not broken")
}

/// The close code, when that is what comes next.
async fn closed(socket: &mut Socket) -> u16 {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?} instead of a close"),
    }
}

async fn created(relay: SocketAddr) -> (String, String) {
    let (status, body) = post(relay, "/api/sessions", &json!({})).await;
    assert_eq!(status, 200, "{body}");
    let text = |key: &str| body[key].as_str().expect("a string").to_owned();
    let code = text("code");
    assert!(code.len() == 8 && code.bytes().all(|b| b.is_ascii_digit()), "{code}");
    (text("session_id"), code)
}

#[test]
fn legacy_ends_work_unchanged() {
    let relay = Relay::with(&["--legacy", "--api-rate", "0"]);
    let address = relay.address();
    runtime().block_on(async {
        let (session, code) = created(address).await;
        let mut agent = socket(address, "agent", &session).await.unwrap();
        let (status, body) = post(address, "/api/pair", &json!({"code": code})).await;
        assert_eq!((status, &body), (200, &json!({"session_id": session})));
        let mut client = socket(address, "client", &session).await.unwrap();
        assert_eq!(next(&mut agent).await, Message::text("paired"));
        // Every frame as it is, both ways: the old protocol's own, and some of ours, which mean nothing here.
        for text in ["new:1", "done:1", "paired:x", "peer:here:session", "ticket:AAAA", "burned"] {
            client.send(Message::text(text)).await.unwrap();
            assert_eq!(next(&mut agent).await, Message::text(text));
            agent.send(Message::text(text)).await.unwrap();
            assert_eq!(next(&mut client).await, Message::text(text));
        }
        for len in [0, 1, 65_536, 3_000_000] {
            let bytes = crate::support::noise(len);
            agent.send(Message::binary(bytes.clone())).await.unwrap();
            assert_eq!(next(&mut client).await, Message::binary(bytes.clone()));
            client.send(Message::binary(bytes.clone())).await.unwrap();
            assert_eq!(next(&mut agent).await, Message::binary(bytes));
        }
        // One side's end is the other's.
        client.close(None).await.unwrap();
        closed(&mut agent).await;
    });
}

#[test]
fn its_refusals_are_those_of_the_first_mykube() {
    let relay = Relay::with(&["--legacy", "--api-rate", "0"]);
    let address = relay.address();
    runtime().block_on(async {
        let (session, code) = created(address).await;
        let pair = async |code: &str| post(address, "/api/pair", &json!({"code": code})).await;
        let error = |text: &str| json!({"error": text});
        assert_eq!(pair("12ab").await, (400, error("invalid code")));
        let absent = if code == "00000000" { "11111111" } else { "00000000" };
        assert_eq!(pair(absent).await, (404, error("session not found")));
        let mut early = socket(address, "client", &session).await.unwrap();
        assert_eq!(closed(&mut early).await, 4403);
        assert_eq!(pair(&code).await.0, 200);
        assert_eq!(pair(&code).await, (409, error("session already paired")));
        let mut agent = socket(address, "agent", &session).await.unwrap();
        // The first is who was admitted first, a moment after its upgrade was answered; then it is answered itself.
        agent.send(Message::Ping(Bytes::from_static(b"?"))).await.unwrap();
        assert_eq!(next(&mut agent).await, Message::Pong(Bytes::from_static(b"?")));
        let mut second = socket(address, "agent", &session).await.unwrap();
        assert_eq!(closed(&mut second).await, 4409);
    });
}

#[test]
fn it_is_off_unless_asked_for() {
    let relay = Relay::start();
    let (status, body) = runtime().block_on(post(relay.address(), "/api/sessions", &json!({})));
    assert_eq!(status, 400, "{body}");
    assert!(body["error"].as_str().is_some_and(|text| text.contains("version 2")), "{body}");
}

#[test]
fn our_own_ends_never_speak_it() {
    let relay = Relay::with(&["--legacy", "--api-rate", "0"]);
    let (_, code) = runtime().block_on(created(relay.address()));
    Mykube::client(&relay.url).fails_with(&code, 3, &["no session waits under this code"]);
}

#[test]
fn a_legacy_client_that_tries_a_new_code_spends_it() {
    let relay = Relay::with(&["--legacy", "--api-rate", "0"]);
    let cluster = json!({"server": "https://127.0.0.1:9", "insecure-skip-tls-verify": true});
    let config = crate::support::cluster::kubeconfig("c", &cluster, &json!({"token": "e2e"})).to_string();
    let server = Mykube::new("server").args(["--relay-url", &relay.url]);
    let path = server.sandbox().file("kubeconfig", config);
    let server = server.arg("--kubeconfig").arg(path).start();
    let code = server.code();
    // A code is shown a moment before its server's socket stands; until then nobody could be told.
    relay.running.process.says("socket open");
    runtime().block_on(async {
        let (status, _) = post(relay.address(), "/api/pair", &json!({"code": code})).await;
        assert_eq!(status, 404);
    });
    server.process.says("mykube 2 clients only");
    Mykube::client(&relay.url).fails_with(&code, 3, &["no session waits under this code"]);
}
