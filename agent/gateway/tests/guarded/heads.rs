//! How much memory heads hold: the long heads of a client share a room, for as long as they are held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mykube_agent_gateway::{Caller, Policy, Recorder, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time,
};

use crate::{
    endless::settled,
    raw::{Raw, header},
    setup::{PIPE, Setup},
};

async fn setup(settings: Settings) -> Setup {
    Setup::with(|_, _| "token: t0k3n".into(), settings).await
}

/// Sends the request on new connections until there is no room. Reads from each answer as many bytes as `reads` says,
/// in turn.
async fn until_crowded(setup: &mut Setup, caller: &Arc<Caller>, request: &str, reads: &[usize]) -> (Vec<Raw>, Raw) {
    let mut unread = Vec::new();
    loop {
        assert!(unread.len() <= 60, "more than 32 MiB, of twice 300,000 bytes each");
        let mut client = setup.client_of(caller.clone());
        client.send(request).await;
        let begin = client.take(13).await;
        client.early.splice(0..0, begin.clone());
        if begin == b"HTTP/1.1 502 " {
            return (unread, client);
        }
        for count in reads {
            let mut read = vec![0; *count];
            client.stream.read_exact(&mut read).await.unwrap();
            client.early.extend(read);
            settled(&AtomicU64::new(0)).await;
        }
        unread.push(client);
    }
}

#[tokio::test]
async fn long_heads_of_one_client_share_their_room() {
    let mut setup = setup(Settings::default()).await;
    let caller = setup.caller(Policy::default());
    let begin = format!("GET /api/v1/pods HTTP/1.1\r\nX: {}", "x".repeat(1_000_000));
    let mut slow = Vec::new();
    let refused = loop {
        let mut client = setup.client_of(caller.clone());
        client.send(&begin).await;
        // The end of its head, or its answer's begin.
        let early = client.answer_within_turns().await;
        if let Some(answer) = early {
            break answer;
        }
        slow.push(client);
        assert!(slow.len() <= 32, "more than 32 MiB");
    };
    assert!(slow.len() >= 15, "{}", slow.len());
    assert_eq!((refused.status, refused.header("retry-after").as_deref()), (429, Some("1")));
    assert!(refused.message().contains("too many with a long head"), "{}", refused.message());
    // Short heads and other clients are not affected; long heads that were read are answered, and give their room back.
    assert_eq!(setup.client_of(caller.clone()).get("/api/v1/pods").await.status, 200);
    let long = format!("X: {}\r\n", "x".repeat(1_000_000));
    assert_eq!(setup.client().ask("GET", "/api/v1/pods", &long).await.status, 200);
    for client in &mut slow {
        client.send("\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(setup.client_of(caller).ask("GET", "/api/v1/pods", &long).await.status, 200);
}

#[tokio::test]
async fn a_head_has_its_room_until_its_request_is_over() {
    let mut setup = setup(Settings::default()).await;
    let caller = setup.caller(Policy::default());
    // Few bytes and many fields, or many bytes: hyper keeps the memory that it wrote either from.
    for fields in ["a:\r\n".repeat(4000), format!("X: {}\r\n", "x".repeat(1_000_000))] {
        let mut watching = Vec::new();
        let refused = loop {
            assert!(watching.len() <= 32, "more than 32 MiB");
            let target = format!("/api/v1/pods?watch=1&n={}", watching.len());
            let events = setup.api.stream(&target);
            let mut client = setup.client_of(caller.clone());
            client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
            let head = client.head().await;
            if !head.starts_with("HTTP/1.1 200 ") {
                break head;
            }
            watching.push((client, events));
        };
        assert!(refused.starts_with("HTTP/1.1 429 ") && watching.len() >= 15, "{}: {refused}", watching.len());
        let lines = watching.len() + 1;
        drop(watching);
        setup.log.wait(lines).await;
        assert_eq!(setup.client_of(caller.clone()).ask("GET", "/version", &fields).await.status, 200);
        setup.log.wait(lines + 1).await;
        setup.log.clear();
    }
}

#[tokio::test]
async fn long_heads_of_answers_have_such_a_room_too() {
    const LONG: &str = "/api/v1/namespaces/a/pods/p/log?long=300000";
    let dir = tempfile::tempdir().unwrap();
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    // Unread; or read until hyper has the whole body in its buffer after a part of the head.
    let cases: [(String, &[usize], u16); 5] = [
        (format!("GET {LONG} HTTP/1.1\r\nHost: x\r\n\r\n"), &[], 200),
        (format!("GET {LONG} HTTP/1.1\r\nHost: x\r\n\r\n"), &[300_000 - PIPE - 60 * 1024, 1024], 200),
        (format!("HEAD {LONG} HTTP/1.1\r\nHost: x\r\n\r\n"), &[], 200),
        (format!("GET {LONG}&status=301 HTTP/1.1\r\nHost: x\r\n\r\n"), &[], 301),
        // Asked about at the API server, as it cannot be recorded.
        (
            format!("POST /api/v1/namespaces/a/pods/p/exec?long=300000&status=403 HTTP/1.1\r\nHost: x\r\n{spdy}\r\n"),
            &[],
            403,
        ),
    ];
    for (request, reads, status) in cases {
        let mut setup = setup(Settings::default()).await;
        setup.gateway = setup.gateway.recording(Recorder::new(dir.path()).unwrap());
        let caller = setup.caller(Policy::default());
        let (mut unread, mut refused) = until_crowded(&mut setup, &caller, &request, reads).await;
        assert!(unread.len() >= 50, "{}: {request}", unread.len());
        // An answer to HEAD has nothing but a head.
        if !request.starts_with("HEAD") {
            let refused = refused.answer().await;
            assert!(refused.message().contains("too many with one at once"), "{}", refused.message());
        }
        // Short heads and other clients are not affected.
        assert_eq!(setup.client_of(caller.clone()).get("/version").await.status, 200);
        assert_eq!(setup.client().get(LONG).await.status, 200);
        for client in &mut unread {
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}");
            assert_eq!(header(&head, "connection").as_deref(), Some("close"), "{request}");
            client.rest().await;
        }
        let lines = setup.log.wait(unread.len() + 3).await;
        assert_eq!(lines.iter().filter(|line| line["status"] == 502).count(), 1, "{request}");
        // Also while clients that have read all of it are still connected.
        assert_eq!(setup.client_of(caller).get(LONG).await.status, 200, "there is room again: {request}");
    }
}

#[tokio::test]
async fn no_connection_keeps_the_room_of_a_long_answer() {
    // By bytes; and by fields, which hyper copies from the map that it keeps for the client's.
    for (asked, kept, pooled) in [
        ("long=12000", true, true),
        ("long=20000", false, false),
        ("warnings=50", true, true),
        ("warnings=100", false, true),
    ] {
        let mut setup = setup(Settings::default()).await;
        let answer = setup.client().get(&format!("/api/v1/namespaces/a/pods/p/log?{asked}")).await;
        assert_eq!((answer.status, answer.header("connection").is_none()), (200, kept), "the client's: {asked}");
        assert_eq!(setup.client().get("/version").await.status, 200);
        assert_eq!(setup.api.last().connection == 1, pooled, "the API server's: {asked}");
    }
}

#[tokio::test]
async fn a_head_has_its_room_while_its_body_still_goes_up() {
    let mut setup = setup(Settings::default()).await;
    let caller = setup.caller(Policy::default());
    let long = format!("X: {}\r\n", "x".repeat(1_000_000));
    let mut uploading = Vec::new();
    loop {
        assert!(uploading.len() <= 32, "more than 32 MiB");
        let target = format!("/api/v1/namespaces/a/services/s/proxy/{}", uploading.len());
        // It answers, and reads nothing.
        let events = setup.api.stream(&target);
        let mut client = setup.client_of(caller.clone());
        client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n{long}\r\n")).await;
        if !client.head().await.starts_with("HTTP/1.1 200 ") {
            break;
        }
        let written = Arc::new(AtomicU64::new(0));
        let count = written.clone();
        let writer = tokio::spawn(async move {
            while client.stream.write_all(&[7; 8192]).await.is_ok() {
                count.fetch_add(8192, Ordering::Relaxed);
            }
        });
        settled(&written).await;
        uploading.push((writer, events));
    }
    assert!(uploading.len() >= 15, "{}", uploading.len());
    for (writer, events) in &uploading {
        writer.abort();
        // The client has gone.
        let _ = events.send(Ok("event".into())).await;
    }
    let lines = setup.log.wait(uploading.len() + 1).await;
    assert_eq!(lines.iter().filter(|line| line["end"] == "aborted").count(), uploading.len());
    // The kernel may have taken some heads whole, which then hold nothing; most are larger than that.
    let mut begun = Vec::new();
    loop {
        let mut client = setup.client_of(caller.clone());
        client.send(format!("GET /version HTTP/1.1\r\n{}", long.trim_end())).await;
        if let Some(refused) = client.answer_within_turns().await {
            assert_eq!(refused.status, 429);
            break;
        }
        begun.push(client);
        assert!(begun.len() < 8, "nothing holds their room");
    }
    // The client that read nothing has gone.
    drop((begun, uploading));
    let free = async { while setup.client_of(caller.clone()).ask("GET", "/version", &long).await.status != 200 {} };
    time::timeout(Duration::from_secs(20), free).await.expect("there is room again");
}
