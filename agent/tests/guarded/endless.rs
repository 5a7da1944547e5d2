//! Bodies that never end: what is under way is bounded, because whoever writes waits for whoever reads.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{io::AsyncWriteExt as _, sync::Semaphore};

use crate::setup::Setup;

const MIB: u64 = 1 << 20;
const PART: usize = 64 * 1024;
/// What is in the gateway's hands: its buffers, TLS records, the pipe to the client, the test's own queue.
const OURS: u64 = 4 * MIB;
/// More than may be under way, several times over, where nothing waits; then the test's own memory is spared.
const ENDLESS: u64 = 512 * MIB;

/// What the kernel may hold for the gateway's socket, in one direction.
fn kernel(file: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/net/ipv4/{file}")).unwrap_or_default();
    text.split_whitespace().next_back().and_then(|most| most.parse().ok()).unwrap_or(8 * MIB)
}

/// Waits until nothing moves: everything here runs on one thread, and everybody had a thousand turns since the last byte.
async fn settled(written: &AtomicU64) -> u64 {
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
    // Whoever leaves ends it.
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
    // Whoever leaves ends it, once what it had sent was read.
    writer.abort();
    reads.add_permits(1 << 24);
    let line = setup.log.wait(1).await.remove(0);
    assert!(line["bytes_in"].as_u64().unwrap() >= 2 * most, "{line}");
}
