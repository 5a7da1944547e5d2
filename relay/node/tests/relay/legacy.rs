//! The legacy form: a small client and server of the first mykube.

use futures_util::future::join;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{Socket, TestRelay, bounded, masked, raw, raw_early, reading};

async fn legacy() -> TestRelay {
    TestRelay::with(|config| config.legacy = true).await
}

async fn create(relay: &TestRelay) -> (String, String) {
    let answer = relay.post("/api/sessions", "{}").await;
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let field = |name: &str| body[name].as_str().unwrap().to_owned();
    (field("session_id"), field("code"))
}

/// A session whose agent is there and whose code a client has shown; the client's socket is yet to be opened.
async fn claimed(relay: &TestRelay) -> (String, Socket) {
    let (session, code) = create(relay).await;
    let agent = relay.open(&format!("/ws/agent/{session}"), &[]).await;
    relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
    (session, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_ends_work_unchanged() {
    let relay = legacy().await;
    let (session, code) = create(&relay).await;
    assert!(code.len() == 8 && code.bytes().all(|b| b.is_ascii_digit()));
    let mut agent = relay.open(&format!("/ws/agent/{session}"), &[]).await;
    let early = relay.open(&format!("/ws/client/{session}"), &[]).await.closed().await;
    assert_eq!(early.0, 4403);

    let answer = relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["session_id"], session.as_str());
    let mut client = relay.open(&format!("/ws/client/{session}"), &[]).await;
    assert_eq!(agent.text().await, "paired");
    let second = relay.open(&format!("/ws/client/{session}"), &[]).await.closed().await;
    assert_eq!(second.0, 4409);

    client.send(Message::text("new:1")).await;
    assert_eq!(agent.text().await, "new:1");
    let big: Bytes = (0..10_000_000u32).map(|i| i.to_le_bytes()[1]).collect();
    join(agent.binary(big.clone()), async { assert!(client.bytes().await == big) }).await;
    join(client.binary(big.clone()), async { assert!(agent.bytes().await == big) }).await;
    client.send(Message::text("ü".repeat(100_000))).await;
    assert_eq!(agent.text().await, "ü".repeat(100_000));
    client.close().await;
    assert_eq!(agent.closed().await.0, 1000);
    let over = relay.open(&format!("/ws/agent/{session}"), &[]).await.closed().await;
    assert_eq!(over.0, 4403, "the session is over");
}

#[tokio::test]
async fn a_small_buffer_carries_large_messages() {
    let relay = TestRelay::with(|config| {
        config.legacy = true;
        config.buffer = 1024;
    })
    .await;
    let (session, mut agent) = claimed(&relay).await;
    let mut client = relay.open(&format!("/ws/client/{session}"), &[]).await;
    assert_eq!(agent.text().await, "paired");
    for len in [1000, 1010, 1024, 1025, 5000, 70_000, 3] {
        let message: Bytes = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
        join(client.binary(message.clone()), async { assert!(agent.bytes().await == message, "{len}") }).await;
    }
}

/// hyper may read as many bytes behind the request as its own buffer holds, however small the relay's is.
#[tokio::test]
async fn more_may_come_with_the_request_than_the_buffer_holds() {
    let relay = TestRelay::with(|config| {
        config.legacy = true;
        config.buffer = 1024;
    })
    .await;
    let (session, code) = create(&relay).await;
    let mut agent = relay.open(&format!("/ws/agent/{session}"), &[]).await;
    let early = (0..60_u8).flat_map(|n| masked(2, &[n; 120])).collect::<Vec<_>>();
    let path = format!("/ws/client/{session}");
    let refused = raw_early(&relay, &path, "", &early).await;
    assert_eq!(reading(refused).await.closed().await.0, 4403, "and is dropped where nobody is let in");

    relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
    let mut client = raw_early(&relay, &path, "", &early).await;
    assert_eq!(agent.text().await, "paired");
    client.write_all(&masked(2, b"and more")).await.unwrap();
    for n in 0..60 {
        assert_eq!(&agent.bytes().await[..], [n; 120]);
    }
    assert_eq!(&agent.bytes().await[..], b"and more");
    drop(client);
    assert_eq!(agent.closed().await.0, 1000, "and its peer is not left behind");
}

#[tokio::test]
async fn legacy_calls_may_say_nothing_of_their_body() {
    let relay = legacy().await;
    let bare = async |headers: &str| {
        let mut stream = TcpStream::connect(relay.addr).await.unwrap();
        let request = format!("POST /api/sessions HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        bounded(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    for headers in
        ["", "Content-Length: 0\r\n", "Content-Type: \r\n", "Content-Type: application/json; charset=utf-8\r\n"]
    {
        let answer = bare(headers).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""code":"#), "{headers}: {answer}");
    }
    let without = TestRelay::start().await;
    let refused = without.call("POST", "/api/sessions", "", "").await;
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("--legacy"), "{}", refused.error());
}

#[tokio::test]
async fn fragments_go_on_as_fragments() {
    let relay = legacy().await;
    let (session, mut agent) = claimed(&relay).await;
    let mut client = raw(&relay, &format!("/ws/client/{session}"), "").await;
    assert_eq!(agent.text().await, "paired");
    for part in [[0x02, 0x81, 0, 0, 0, 0, b'a'], [0x00, 0x81, 0, 0, 0, 0, b'b'], [0x80, 0x81, 0, 0, 0, 0, b'c']] {
        client.write_all(&part).await.unwrap();
    }
    assert_eq!(&agent.bytes().await[..], b"abc");
}

#[tokio::test]
async fn the_legacy_limit_is_the_messages() {
    let relay = TestRelay::with(|config| {
        config.legacy = true;
        config.legacy_frame_max = 1000;
    })
    .await;
    let (session, mut agent) = claimed(&relay).await;
    let mut client = relay.open(&format!("/ws/client/{session}"), &[]).await;
    client.binary(vec![1; 1000]).await;
    client.binary(vec![1; 1001]).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(agent.text().await, "paired");
    assert_eq!(agent.bytes().await.len(), 1000);
    assert_eq!(agent.closed().await.0, 1000);
}

#[tokio::test]
async fn errors_are_those_of_the_first_mykube() {
    let relay = TestRelay::with(|config| {
        config.legacy = true;
        config.sessions.legacy_attempts = 2;
    })
    .await;
    let (_, code) = create(&relay).await;
    let other = if code == "00000000" { "11111111" } else { "00000000" };
    let pair = async |code: &str| {
        let answer = relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
        (answer.status, if answer.status == 200 { String::new() } else { answer.error() })
    };
    let error = |status, text: &str| (status, text.to_owned());
    assert_eq!(pair("12").await, error(400, "invalid code"));
    assert_eq!(pair("1234567x").await, error(400, "invalid code"));
    assert_eq!(pair(other).await, error(404, "session not found"));
    assert_eq!(pair(&code).await.0, 200);
    assert_eq!(pair(&code).await, error(409, "session already paired"));
    assert_eq!(pair(&code).await, error(429, "max pair attempts exceeded"));
    let counted = async |result| relay.pair_attempts(result).await;
    assert_eq!([counted("claimed").await, counted("not_found").await, counted("rate_limited").await], [1.0, 5.0, 0.0]);
    assert_eq!(relay.call("GET", "/api/health", "", "").await.body, r#"{"status":"ok"}"#);
}

#[tokio::test]
async fn an_expired_code_is_gone() {
    let relay = TestRelay::with(|config| {
        config.legacy = true;
        config.sessions.legacy_ttl = std::time::Duration::from_nanos(1);
    })
    .await;
    let (_, code) = create(&relay).await;
    let answer = relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
    assert!([404, 410].contains(&answer.status), "expired, or forgotten already: {}", answer.status);
}

#[tokio::test]
async fn both_forms_live_side_by_side() {
    let relay = legacy().await;
    let mut pair = relay.pair().await;
    create(&relay).await;
    pair.client.binary(&b"\x05v2"[..]).await;
    assert_eq!(&pair.agent.bytes().await[..], b"\x05v2");
    assert_eq!(relay.metric("mykube_relay_sessions{state=\"plain\"}").await, 1.0);
    pair.client.send(Message::text("new:1")).await;
    assert_eq!(pair.client.closed().await.0, 1008, "version 2 has its own rules");
}
