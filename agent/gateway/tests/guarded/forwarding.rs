//! Bodies, watches, upgrades, and an API server that goes away and comes back.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mykube_agent_gateway::{Audit, Caller, Forwarder, Gateway, HeadRoom, Policy, Settings};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};

use crate::{api::Api, raw::Raw, setup::Setup};

const EXEC: &str = "POST /api/v1/namespaces/a/pods/p/exec?command=cat&command=-&stdin=true HTTP/1.1\r\nHost: x\r\n\
                    Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\
                    X-Stream-Protocol-Version: v3.channel.k8s.io\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_watch_arrives_event_by_event() {
    let mut setup = Setup::plain().await;
    let target = "/api/v1/pods?watch=true&allowWatchBookmarks=true";
    let events = setup.api.stream(target);
    let mut client = setup.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    for n in 0..5 {
        let event = format!("{{\"type\":\"ADDED\",\"n\":{n}}}\n");
        events.send(Ok(event.clone().into())).await.unwrap();
        // Each part is read before the next is written.
        assert_eq!(client.chunk().await.unwrap(), event.as_bytes());
    }
    drop(events);
    assert_eq!(client.chunk().await, None);
    let line = setup.log.wait(1).await.remove(0);
    assert_eq!((&line["verb"], &line["end"], &line["status"]), (&"watch".into(), &"complete".into(), &200.into()));
}

/// A stream that notes whether it was ended in order.
struct Watched(DuplexStream, Arc<AtomicBool>);

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1.store(true, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_is_cut_does_not_look_complete() {
    let mut setup = Setup::plain().await;
    let (near, far) = tokio::io::duplex(1024);
    let ended_in_order = Arc::new(AtomicBool::new(false));
    setup.serve(Watched(far, ended_in_order.clone()), Policy::default());
    let mut client = Raw::new(near);
    let events = setup.api.stream("/api/v1/pods?watch=1");
    client.send("GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.head().await;
    events.send(Ok("one".into())).await.unwrap();
    assert_eq!(client.chunk().await.unwrap(), b"one");
    events.send(Err(io::ErrorKind::BrokenPipe.into())).await.unwrap();
    assert!(client.rest().await.is_empty(), "no last chunk");
    assert!(!ended_in_order.load(Ordering::Relaxed), "the stream is dropped, and fails at the client");
    assert_eq!(setup.log.wait(1).await[0]["end"], "aborted");
}

#[tokio::test]
async fn only_a_plain_read_is_sent_again_when_its_connection_ends() {
    let mut setup = Setup::plain().await;
    let exec = EXEC.replace("POST", "GET").replace("SPDY/3.1", "websocket");
    for (request, expected, times) in [
        ("GET /version HTTP/1.1\r\nHost: x\r\n\r\n", 200, 2),
        ("GET /api/v1/namespaces/a/services/s/proxy/pay HTTP/1.1\r\nHost: x\r\n\r\n", 502, 1),
        ("DELETE /api/v1/namespaces/a/pods/p HTTP/1.1\r\nHost: x\r\n\r\n", 502, 1),
        ("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 502, 1),
        (exec.as_str(), 502, 1),
    ] {
        setup.api.state.seen.lock().unwrap().clear();
        setup.api.state.hang_up.store(true, Ordering::Relaxed);
        let mut client = setup.client();
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, setup.api.seen().len()), (expected, times), "{request}");
        if expected == 502 {
            assert!(answer.message().contains("not known"), "{}", answer.message());
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_watch() {
    let mut setup = Setup::plain().await;
    let events = setup.api.stream("/api/v1/pods?watch=1");
    let mut client = setup.client();
    client.send("GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.head().await;
    drop(client);
    // The server's side of the watch has been dropped.
    events.closed().await;
    setup.served.join_next().await.unwrap().unwrap();
    let line = setup.log.wait(1).await.remove(0);
    assert_eq!(line["end"], "aborted");
}

#[tokio::test]
async fn an_upload_streams() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    let mut received = setup.api.state.received.subscribe();
    client.send("POST /api/v1/namespaces/a/configmaps HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for n in 1..=3 {
        client.send("5\r\nhello\r\n").await;
        // Each part arrives before the next is written.
        received.wait_for(|bytes| *bytes == n * 5).await.unwrap();
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "/api/v1/namespaces/a/configmaps 15");

    let length = 48 << 20;
    client.send(format!("PUT /api/v1/namespaces/a/configmaps/c HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")).await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    let part = vec![7; 1 << 20];
    for _ in 0..length >> 20 {
        client.send(&part).await;
    }
    assert_eq!(client.answer().await.text(), format!("/api/v1/namespaces/a/configmaps/c {length}"));
    assert_eq!(setup.api.last().header("content-length"), [length.to_string()]);
    assert!(setup.api.last().header("expect").is_empty());
    let lines = setup.log.wait(2).await;
    assert_eq!((&lines[0]["bytes_in"], &lines[1]["bytes_in"]), (&15.into(), &length.into()));
}

#[tokio::test]
async fn many_requests_on_one_connection_use_one_connection() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    for n in 0..20 {
        assert_eq!(client.get(&format!("/version?n={n}")).await.text(), format!("/version?n={n} 0"));
    }
    client.send("HEAD /version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(crate::raw::header(&head, "content-length").as_deref(), Some("10"), "{head}");
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().connection, 1);
}

#[tokio::test]
async fn exec_is_upgraded_and_each_direction_ends_by_itself() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    // Bytes directly after the head belong to the new protocol.
    client.send(format!("{EXEC}early ")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(crate::raw::header(&head, "upgrade").as_deref(), Some("SPDY/3.1"));
    assert_eq!(client.take(6).await, b"early ");
    client.send("typed").await;
    assert_eq!(client.take(5).await, b"typed");
    let seen = setup.api.last();
    assert_eq!(seen.header("x-stream-protocol-version"), ["v4.channel.k8s.io", "v3.channel.k8s.io"]);
    assert_eq!((seen.method.as_str(), seen.header("upgrade")), ("POST", vec!["SPDY/3.1"]));
    assert!(setup.log.lines().is_empty(), "it is not over");

    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"goodbye");
    let line = setup.log.wait(1).await.remove(0);
    for (key, expected) in [
        ("resource", serde_json::json!("pods")),
        ("subresource", "exec".into()),
        ("namespace", "a".into()),
        ("name", "p".into()),
        ("verb", "create".into()),
        ("command", serde_json::json!(["cat", "-"])),
        ("upgrade", "SPDY/3.1".into()),
        ("status", 101.into()),
        ("end", "complete".into()),
        ("bytes_in", 11.into()),
        ("bytes_out", 18.into()),
    ] {
        assert_eq!(line[key], expected, "{key}");
    }
}

#[tokio::test]
async fn a_dead_api_server_ends_an_exec_as_a_failure() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    client.send(EXEC).await;
    client.head().await;
    client.send("x").await;
    client.take(1).await;
    let (address, state) = std::mem::replace(&mut setup.api, Api::start(&setup.authority).await).stop().await;
    drop((address, state));
    assert!(client.rest().await.is_empty());
    assert_eq!(setup.log.wait(1).await[0]["end"], "aborted");
}

#[tokio::test]
async fn an_api_server_goes_away_and_comes_back() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    let (address, state) = std::mem::replace(&mut setup.api, Api::start(&setup.authority).await).stop().await;
    for _ in 0..3 {
        let answer = client.get("/api/v1/nodes").await;
        assert_eq!(answer.status, 503);
        let message = answer.message();
        assert_eq!(message, "mykube: cannot reach the API server: connection refused; is it running?");
        // With `Retry-After`, client-go would try ten times.
        assert_eq!(answer.header("retry-after"), None);
    }
    // client-go shows nothing of a 503 to discovery, nor an object.
    let answer = client.get("/api").await;
    assert_eq!((answer.status, answer.header("content-type").as_deref()), (502, Some("text/plain; charset=utf-8")));
    assert!(answer.text().starts_with("mykube: cannot reach the API server"), "{}", answer.text());
    let lines = setup.log.wait(5).await;
    assert_eq!((&lines[3]["status"], &lines[3]["decision"]), (&503.into(), &"allowed".into()));
    assert!(lines[3]["reason"].as_str().unwrap().contains(&format!("cannot reach the API server {address}: ")));
    setup.api = Api::start_at(&setup.authority, address, state).await;
    assert_eq!(client.get("/version").await.status, 200);
}

#[tokio::test]
async fn somebody_else_at_the_address_is_not_believed() {
    let mut setup = Setup::plain().await;
    let (address, state) = std::mem::replace(&mut setup.api, Api::start(&setup.authority).await).stop().await;
    setup.api = Api::start_at(&crate::api::Authority::new(), address, state).await;
    let answer = setup.client().get("/api/v1/nodes").await;
    assert_eq!(answer.status, 502);
    assert!(answer.message().contains("certificate that cannot be verified"), "{}", answer.message());
    assert!(setup.api.seen().is_empty(), "nobody was shown a token");
}

#[tokio::test]
async fn a_thousand_at_once_are_served_by_a_few_connections() {
    const CLIENTS: usize = 1000;
    let settings = Settings { upstream_connections: 16, ..Settings::default() };
    let mut setup = Setup::with(|_, _| "token: t".into(), settings).await;
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| setup.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /version?n={n} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.answer().await.text(), format!("/version?n={n} 0"));
    }
    let connections = setup.api.seen().iter().map(|seen| seen.connection).max().unwrap();
    assert!(connections <= 64, "{connections}");
}

#[tokio::test]
async fn a_request_that_finds_every_connection_taken_is_told_so() {
    let settings = Settings { upstream_connections: 1, queue_timeout: Duration::ZERO, ..Settings::default() };
    let mut setup = Setup::with(|_, _| "token: t".into(), settings).await;
    let mut other = setup.client();
    let log = "/api/v1/namespaces/a/pods/p/log";
    for (target, status, again) in [
        ("/api/v1/pods?limit=1", 429, Some("1")),
        ("/api/v1/pods?watch=1", 503, None),
        (&format!("{log}?follow=1"), 503, None),
        (&format!("{log}?follow=false"), 429, Some("1")),
    ] {
        let events = setup.api.stream(target);
        let mut first = setup.client();
        first.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        first.head().await;
        let answer = other.get("/api/v1/nodes").await;
        assert_eq!((answer.status, answer.header("retry-after").as_deref()), (status, again), "{target}");
        assert!(answer.message().starts_with(if status == 429 {
            "mykube: too many requests"
        } else {
            "mykube: all 1 "
        }));
        drop(events);
        assert_eq!(first.chunk().await, None);
        assert_eq!(other.get("/version").await.status, 200);
    }
}

#[tokio::test]
async fn nobody_waits_for_what_does_not_end() {
    // The default of `queue_timeout` would be longer than this test.
    let settings = Settings { upstream_connections: 1, ..Settings::default() };
    let mut setup = Setup::with(|_, _| "token: t".into(), settings).await;
    let mut exec = setup.client();
    exec.send(
        "POST /api/v1/namespaces/a/pods/p/exec HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
    )
    .await;
    assert!(exec.head().await.starts_with("HTTP/1.1 101 "));
    let answered = tokio::time::timeout(settings.queue_timeout / 2, setup.client().get("/api/v1/nodes")).await;
    let answer = answered.expect("at once");
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("(--max-requests)"), "{}", answer.message());
    let discovery = setup.client().get("/version").await;
    assert_eq!((discovery.status, discovery.text().contains("(--max-requests)")), (502, true));
}

#[tokio::test]
async fn a_refused_upload_is_answered_and_the_connection_ends() {
    let mut setup = Setup::plain().await;
    let policy = Policy { read_only: true, ..Default::default() };
    let mut client = setup.client_under(policy);
    client.send("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nbegin").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection").as_deref()), (403, Some("close")));
    // Bytes that the client still sends are thrown away until it has seen the answer.
    client.send(vec![0; 1 << 20]).await;
    client.stream.shutdown().await.unwrap();
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_servers_path_is_put_in_front() {
    let authority = crate::api::Authority::new();
    let api = Api::start(&authority).await;
    let mut fixture = crate::common::Fixture::new();
    let cluster = format!(
        "server: https://{}/k8s/clusters/c-1\ncertificate-authority-data: {}",
        api.address,
        crate::common::base64(&authority.pem)
    );
    fixture.source.kubeconfig = Some(fixture.write("config", crate::common::config(&cluster, "token: t")));
    let upstream = Arc::new(fixture.load().await.unwrap());
    let forwarder = Arc::new(Forwarder::new(upstream, Settings::default()));
    let gateway = Gateway::new(forwarder, Audit::off());
    let (near, far) = tokio::io::duplex(1024);
    let caller = Caller { name: "x".into(), id: None, policy: Arc::default(), heads: HeadRoom::default() };
    let served = tokio::spawn(async move { gateway.serve(far, Arc::new(caller)).await });
    let mut client = Raw::new(near);
    let text = client.get("/api/v1/pods?limit=1").await.text();
    assert_eq!(text, "/k8s/clusters/c-1/api/v1/pods?limit=1 0");
    drop(client);
    served.await.unwrap();
}
