//! Bodies that never end: the bytes under way are bounded, because writers wait for readers.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mykube_agent_gateway::Settings;
use tokio::{io::AsyncWriteExt as _, sync::Semaphore, time};

use crate::setup::Setup;

const MIB: u64 = 1 << 20;
const PART: usize = 64 * 1024;
/// Bytes that the gateway may hold: its buffers, TLS records, the pipe to the client, the test's own queue.
const OURS: u64 = 4 * MIB;
/// Several times what may be under way: a writer that never waits stops here, which spares the test's memory.
const ENDLESS: u64 = 512 * MIB;

/// Bytes that the kernel may hold for the gateway's socket, in one direction.
fn kernel(file: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{file}")).unwrap_or_default();
    text.split_whitespace().next_back().and_then(|most| most.parse().ok()).unwrap_or(8 * MIB)
}

/// Waits until nothing moves: all tasks run on this thread, and each had a thousand turns since the last byte.
pub(crate) async fn settled(written: &AtomicU64) -> u64 {
    let (mut last, mut turns) = (written.load(Ordering::Relaxed), 0);
    while turns < 1000 {
        tokio::task::yield_now().await;
        let now = written.load(Ordering::Relaxed);
        turns = if now == last { turns + 1 } else { 0 };
        last = now;
    }
    last
}

#[tokio::test]
async fn an_answer_that_never_ends_waits_for_its_reader() {
    let most = OURS + kernel("tcp_rmem");
    let mut setup = Setup::plain().await;
    let target = "/api/v1/namespaces/a/pods/p/log?follow=true";
    let events = setup.api.stream(target);
    let mut client = setup.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    client.head().await;
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let writer = tokio::spawn(async move {
        while count.load(Ordering::Relaxed) < ENDLESS && events.send(Ok(vec![7; PART].into())).await.is_ok() {
            count.fetch_add(PART as u64, Ordering::Relaxed);
        }
    });
    let mut read = 0;
    while read < 2 * most {
        let under_way = settled(&written).await - read;
        assert!(under_way <= most, "{under_way} bytes under way, {read} read");
        let until = read + 4 * MIB;
        while read < until {
            read += client.chunk().await.expect("it never ends").len() as u64;
        }
    }
    // The body ends when its reader leaves.
    drop(client);
    writer.await.unwrap();
    let line = setup.log.wait(1).await.remove(0);
    assert_eq!((&line["end"], line["bytes_out"].as_u64().unwrap() >= read), (&"aborted".into(), true));
}

#[tokio::test]
async fn an_upload_that_never_ends_waits_for_its_reader() {
    let most = OURS + kernel("tcp_wmem") + kernel("tcp_rmem");
    let mut setup = Setup::plain().await;
    let reads = Arc::new(Semaphore::new(0));
    *setup.api.state.reads.lock().unwrap() = Some(reads.clone());
    let mut client = setup.client();
    client
        .send(format!(
            "POST /api/v1/namespaces/a/services/s/proxy/up HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            u64::MAX / 4
        ))
        .await;
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let writer = tokio::spawn(async move {
        let part = vec![7; PART];
        while count.load(Ordering::Relaxed) < ENDLESS && client.stream.write_all(&part).await.is_ok() {
            count.fetch_add(PART as u64, Ordering::Relaxed);
        }
    });
    let received = setup.api.state.received.subscribe();
    loop {
        let got = *received.borrow();
        let under_way = settled(&written).await - got;
        assert!(under_way <= most, "{under_way} bytes under way, {got} received");
        if got >= 2 * most {
            break;
        }
        reads.add_permits(256);
        while reads.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    }
    // The body ends when its writer leaves, once all that was sent has been read.
    writer.abort();
    reads.add_permits(1 << 24);
    let line = setup.log.wait(1).await.remove(0);
    assert!(line["bytes_in"].as_u64().unwrap() >= 2 * most, "{line}");
}

/// With `--max-requests 1`, a client sends up to `most` bytes that nobody reads, and leaves once nothing moves. Its
/// slot is free for others after a while. Returns how many bytes it could send.
async fn stalls_and_leaves(most: u64) -> u64 {
    let settings = Settings { upstream_connections: 1, ..Settings::default() };
    let mut setup = Setup::with(|_, _| "token: t0k3n".into(), settings).await;
    *setup.api.state.reads.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let mut client = setup.client();
    client
        .send("PUT /api/v1/namespaces/a/services/s/proxy/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    let written = Arc::new(AtomicU64::new(0));
    let count = written.clone();
    let writer = tokio::spawn(async move {
        let part = [7; 8192];
        while count.load(Ordering::Relaxed) < most {
            client.stream.write_all(&part).await.unwrap();
            count.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        std::future::pending::<()>().await;
    });
    let sent = settled(&written).await;
    *setup.api.state.reads.lock().unwrap() = None;
    writer.abort();
    time::pause();
    for _ in 0..3 {
        settled(&written).await;
        time::advance(Duration::from_secs(10)).await;
    }
    settled(&written).await;
    time::resume();
    let line = time::timeout(Duration::from_secs(20), setup.log.wait(1)).await;
    let line = line.unwrap_or_else(|_| panic!("nobody is there any more, and it goes on after {sent} bytes")).remove(0);
    assert_eq!(line["end"], if line["status"].is_null() { "aborted" } else { "complete" }, "{line}");
    assert_eq!(setup.client().get("/version").await.status, 200);
    sent
}

#[tokio::test]
async fn an_upload_that_nobody_takes_ends_with_its_client() {
    // The client's close stands after bytes that nobody reads; or it was read, and waits for the bytes before it.
    let all = stalls_and_leaves(ENDLESS).await;
    assert!(all < ENDLESS);
    for less in [64, 128, 256, 384, 512, 1024] {
        stalls_and_leaves(all.saturating_sub(less * 1024)).await;
    }
}
