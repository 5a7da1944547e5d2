//! Each limit of the settings is obeyed. Those on requests and connections at once are in `forwarding`, on heads at
//! once in `heads`, the audit log's in `audit`.

use std::time::Duration;

use mykube_agent_gateway::Settings;
use tokio::{net::TcpListener, time::timeout};

use crate::setup::Setup;

async fn setup(settings: Settings) -> Setup {
    Setup::with(|_, _| "token: t0k3n".into(), settings).await
}

#[tokio::test]
async fn the_length_of_a_head() {
    for (header_max, status) in [(8 * 1024, 431), (16 * 1024, 200)] {
        let mut setup = setup(Settings { header_max, ..Settings::default() }).await;
        let mut client = setup.client();
        let long = |len| format!("X-Long: {}\r\n", "x".repeat(len));
        assert_eq!(client.ask("GET", "/version", &long(12_000)).await.status, 200, "4 KiB more are taken, as in Go");
        let answer = client.ask("GET", "/api/v1/pods", &long(13_000)).await;
        assert_eq!(answer.status, status, "{header_max}");
        let line = setup.log.wait(2).await.remove(1);
        assert_eq!((&line["method"], &line["status"]), (&"GET".into(), &status.into()));
        if status == 431 {
            assert!(answer.message().starts_with("mykube: the request has a head of more than 8 KiB"));
        }
    }
}

#[tokio::test]
async fn a_target_is_as_long_as_the_api_server_takes_it() {
    let mut setup = setup(Settings::default()).await;
    let mut client = setup.client();
    let pod = "/api/v1/namespaces/a/pods/p";
    for len in [1_000, 65_000, 65_534, 65_535, 66_000, 200_000, 1_000_000] {
        let target = format!("{pod}/log?x={}", "y".repeat(len));
        let answer = client.get(&target).await;
        assert_eq!((answer.status, answer.text() == format!("{target} 0")), (200, true), "{len}");
    }
    // With a body, and with an upgrade.
    let target = format!("{pod}/exec?command={}", "%23".repeat(30_000));
    client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")).await;
    assert_eq!(client.answer().await.text(), format!("{target} 5"));
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("typed").await;
    assert_eq!(client.take(5).await, b"typed");
    assert_eq!(setup.api.last().target, target);
}

#[tokio::test]
async fn a_target_arrives_as_it_was_written() {
    let mut setup = setup(Settings::default()).await;
    let proxy = "/api/v1/namespaces/a/services/prom:9090/proxy";
    for rest in [
        "/api/v1/query?query=up{job=\"x\"}",
        "/q?x=a<b>c&y=`z`|^\\[]{}",
        "/a\"b<c>`d`^{e}|",
        "/grüße?x=ü",
        "/q?x=100%&y=%FF",
        "/q?",
        "/q?a?b",
        "/q?a;b=c",
        &format!("/q?a{}", "&".repeat(10_000)),
    ] {
        let answer = setup.client().get(&format!("{proxy}{rest}")).await;
        assert_eq!((answer.status, answer.text()), (200, format!("{proxy}{rest} 0")));
    }
    // A refusal says why, and has its line in the log.
    setup.log.wait(9).await;
    for (rest, what) in
        [("/a#b", "`#`"), ("/a\u{1}b", "control character"), ("/a b", "cannot be read"), ("/%zz", "broken")]
    {
        setup.log.clear();
        let answer = setup.client().get(&format!("{proxy}{rest}")).await;
        assert_eq!(answer.status, 400, "{rest}");
        assert!(answer.message().starts_with("mykube: ") && answer.message().contains(what), "{}", answer.message());
        let line = setup.log.wait(1).await.remove(0);
        assert_eq!((&line["event"], &line["reason"]), (&"request".into(), &answer.message().into()));
    }
}

#[tokio::test]
async fn the_number_of_header_fields() {
    let mut setup = setup(Settings::default()).await;
    let mut client = setup.client();
    let groups = |count: usize| (0..count).map(|n| format!("Impersonate-Group: g{n}\r\n")).collect::<String>();
    for count in [100, 101, 1000, 4093] {
        let answer = client.ask("GET", "/api/v1/pods", &format!("Impersonate-User: u\r\n{}", groups(count))).await;
        assert_eq!(answer.status, 200, "{count}");
        assert_eq!(setup.api.last().header("impersonate-group").len(), count);
    }
    let answer = client.ask("GET", "/api/v1/pods", &groups(4096)).await;
    assert_eq!((answer.status, answer.message()), (431, "mykube: the request has more than 4096 header fields".into()));
    assert_eq!(setup.log.wait(5).await[4]["status"], 431);
    let fields: String = (0..4000).map(|n| format!("X-Field-{n}: v\r\n")).collect();
    assert_eq!(setup.client().ask("GET", "/api/v1/pods", &fields).await.status, 200, "of as many names");
    // The limit of an answer.
    for (count, status) in [(101, 200), (1000, 200), (2000, 502)] {
        let mut client = setup.client();
        let answer = client.get(&format!("/api/v1/namespaces/a/pods/p/log?warnings={count}")).await;
        let warnings = answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("warning: ")).count();
        assert_eq!((answer.status, warnings), (status, if status == 200 { count } else { 0 }));
        if status == 502 {
            assert!(
                answer.message().contains("has a head of more than 400 KiB or 1024 fields"),
                "{}",
                answer.message()
            );
        }
    }
    let answer = setup.client().get("/api/v1/namespaces/a/pods/p/log?long=500000").await;
    assert_eq!((answer.status, answer.message().contains("400 KiB")), (502, true), "a long field of an answer");
}

#[tokio::test]
async fn the_limits_of_a_chunked_body() {
    let mut setup = setup(Settings::default()).await;
    let ask = |chunks: String| {
        format!("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    for (chunks, status) in [
        (format!("2;a={}\r\nhi\r\n0\r\n\r\n", "b".repeat(10_000)), 200),
        (format!("2;a={}\r\nhi\r\n0\r\n\r\n", "b".repeat(20_000)), 400),
        ("2\r\nhi\r\n0\r\nA: b\r\n\r\n".into(), 200),
        (format!("2\r\nhi\r\n0\r\nA: {}\r\n\r\n", "b".repeat(20_000)), 400),
        (format!("2\r\nhi\r\n0\r\n{}\r\n", "A: b\r\n".repeat(200)), 400),
        ("x\r\nhi\r\n0\r\n\r\n".into(), 400),
        ("2\r\nhi!\r\n0\r\n\r\n".into(), 400),
        ("11111111111111111\r\nhi".into(), 400),
    ] {
        setup.log.clear();
        let mut client = setup.client();
        client.send(ask(chunks.clone())).await;
        let answer = client.answer().await;
        let shown = &chunks[..chunks.len().min(40)];
        assert_eq!(answer.status, status, "{shown}");
        let line = setup.log.wait(1).await.remove(0);
        assert_eq!(line["status"], status, "{shown}");
        if status == 400 {
            assert!(answer.message().contains("body"), "{shown}: {}", answer.message());
            assert_eq!(answer.header("connection").as_deref(), Some("close"));
        }
    }
}

#[tokio::test]
async fn a_byte_too_many_hides_no_end() {
    let settings = Settings { upstream_connections: 8, queue_timeout: Duration::ZERO, ..Settings::default() };
    let mut setup = setup(settings).await;
    for (number, request) in [
        "GET /api/v1/pods?watch=1&n=0 HTTP/1.1\r\nHost: x\r\n\r\nX",
        "GET /api/v1/pods?watch=1&n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhiX",
        "GET /api/v1/pods?watch=1&n=2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nX",
        "GET /api/v1/pods?watch=1&n=3 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let mut leaving = Vec::new();
        let mut events = Vec::new();
        for _ in 0..8 {
            events.push(setup.api.stream(&format!("/api/v1/pods?watch=1&n={number}")));
            let mut client = setup.client();
            client.send(request).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{request}");
            leaving.push(client);
        }
        assert_eq!(setup.client().get("/api/v1/nodes").await.status, 503, "all are in use");
        drop(leaving);
        let lines = setup.log.wait(10 * number + 9).await.split_off(10 * number);
        let ended = lines.iter().filter(|line| line["verb"] == "watch" && line["end"] == "aborted").count();
        assert_eq!(ended, 8, "{request}");
        assert_eq!(setup.client().get("/version").await.status, 200, "none is: {request}");
        drop(events);
    }
}

#[tokio::test]
async fn the_time_for_a_head() {
    let mut setup = setup(Settings { header_timeout: Duration::from_millis(1), ..Settings::default() }).await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    client.send("GET /version HTTP/1.1\r\nHost:").await;
    let answer = timeout(Settings::default().header_timeout / 2, client.answer()).await;
    let answer = answer.expect("not after the default's time");
    assert_eq!((answer.status, answer.header("connection").as_deref()), (408, Some("close")));
    assert_eq!(answer.text(), "mykube: the request took too long to come (--header-timeout)");
    assert_eq!(setup.log.wait(2).await[1]["status"], 408);
    assert_eq!(setup.api.seen().len(), 1);
}

#[tokio::test]
async fn the_time_for_tls() {
    let mut setup = setup(Settings { handshake_timeout: Duration::from_millis(1), ..Settings::default() }).await;
    let (address, _) = std::mem::replace(&mut setup.api, crate::api::Api::start(&setup.authority).await).stop().await;
    // Takes connections and never answers.
    let _silent = TcpListener::bind(address).await.unwrap();
    let mut client = setup.client();
    let answered = timeout(Settings::default().handshake_timeout / 2, client.get("/api/v1/nodes")).await;
    let answer = answered.expect("not after the default's time");
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("did not answer in time"), "{}", answer.message());
}

#[tokio::test]
async fn the_time_that_an_idle_connection_is_kept() {
    for (pool_idle, connections) in [(Duration::from_nanos(1), [1, 2]), (Duration::from_secs(60), [1, 1])] {
        let mut setup = setup(Settings { pool_idle, ..Settings::default() }).await;
        let mut client = setup.client();
        for expected in connections {
            assert_eq!(client.get("/version").await.status, 200);
            assert_eq!(setup.api.last().connection, expected, "{pool_idle:?}");
        }
    }
}
