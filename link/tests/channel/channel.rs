//! The channel's driver over real sockets and a real relay.

use std::{io, time::Duration};

use bytes::Bytes;
use mykube_link::{Channel, ChannelStream, CopyError, End, copy};
use mykube_protocol::channel::{Mode, Welcome};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::relay::{Ends, Relay, paired};

/// Nothing here takes that long: a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(30);

pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (one, two) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (one, two) = (one.unwrap(), two.unwrap().0);
    one.set_nodelay(true).unwrap();
    two.set_nodelay(true).unwrap();
    (one, two)
}

/// Without a window: a session ends with its connection.
pub(crate) async fn channels() -> (Channel, Channel, Relay) {
    let Ends { relay, agent, client, .. } = paired(Duration::ZERO).await;
    (agent, client, relay)
}

pub(crate) async fn stream_pair(agent: &Channel, client: &Channel) -> (ChannelStream, ChannelStream) {
    let opened = client.open().await.unwrap();
    let (accepted, target) = agent.accept().await.unwrap();
    assert_eq!(target, None);
    (accepted, opened)
}

/// A TCP connection whose other end is copied over the channel to another one.
pub(crate) async fn joined(
    agent: &Channel,
    client: &Channel,
) -> (TcpStream, TcpStream, [tokio::task::JoinHandle<Result<(), CopyError>>; 2]) {
    let (accepted, opened) = stream_pair(agent, client).await;
    let (laptop, laptop_inner) = tcp_pair().await;
    let (server, server_inner) = tcp_pair().await;
    (laptop, server, [tokio::spawn(copy(laptop_inner, opened)), tokio::spawn(copy(server_inner, accepted))])
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it hangs")
}

#[tokio::test]
async fn a_read_without_room_waits_for_nothing_and_hides_nothing() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (mut accepted, mut opened) = stream_pair(&agent, &client).await;
        // Nothing is there yet; then something; then the end.
        assert_eq!(AsyncReadExt::read(&mut accepted, &mut []).await.unwrap(), 0);
        opened.write_all(b"unread").await.unwrap();
        assert_eq!(AsyncReadExt::read(&mut accepted, &mut []).await.unwrap(), 0);
        let mut all = [0; 6];
        accepted.read_exact(&mut all).await.unwrap();
        assert_eq!(all, *b"unread");
        // The same by chunks: no room still means one chunk, or the reader would wait for bytes that are queued already.
        opened.write_all(b"more").await.unwrap();
        let mut chunks = Vec::new();
        assert!(ChannelStream::read(&accepted, 0, &mut chunks).await.unwrap());
        assert_eq!(chunks.concat(), b"more");
        opened.shutdown().await.unwrap();
        assert!(!ChannelStream::read(&accepted, 0, &mut chunks).await.unwrap());
        assert_eq!(AsyncReadExt::read(&mut accepted, &mut []).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn bytes_go_through_both_ways_and_each_direction_ends_by_itself() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (mut laptop, mut server, copies) = joined(&agent, &client).await;
        let payload: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let sent = payload.clone();
        let writer = tokio::spawn(async move {
            laptop.write_all(&sent).await.unwrap();
            laptop.shutdown().await.unwrap();
            let mut answer = Vec::new();
            laptop.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, payload, "upwards, ended while the other direction is open");
        server.write_all(&payload).await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(writer.await.unwrap(), payload, "downwards");
        for copy in copies {
            copy.await.unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_cut_never_looks_complete() {
    within(async {
        let (agent, client, relay) = channels().await;
        let (mut laptop, mut server, copies) = joined(&agent, &client).await;
        server.write_all(b"half of it").await.unwrap();
        let mut start = [0; 10];
        laptop.read_exact(&mut start).await.unwrap();
        relay.leave();
        let ended = laptop.read(&mut start).await;
        assert!(ended.is_err(), "a reset, not an end: {ended:?}");
        assert!(server.read(&mut start).await.is_err());
        for copy in copies {
            assert!(copy.await.unwrap().is_err());
        }
        assert!(matches!(client.ended().await, End::Lost(_)));
        assert!(matches!(agent.ended().await, End::Lost(_)));
        assert!(client.open().await.is_err());
        assert!(agent.accept().await.is_none());
    })
    .await;
}

/// As a WebSocket ends: the server says its last word and closes, the client still answers.
#[tokio::test]
async fn what_was_said_before_the_end_arrives_though_nobody_takes_the_answer() {
    const LEN: usize = 4_000_000;
    within(async {
        let (agent, client, _relay) = channels().await;
        let (accepted, opened) = stream_pair(&agent, &client).await;
        let (laptop, laptop_inner) = tcp_pair().await;
        let copied = tokio::spawn(copy(laptop_inner, opened));
        let (mut from_agent, mut to_agent) = laptop.into_split();
        to_agent.write_all(b"request").await.unwrap();
        // More than sockets hold, so that it waits in the channel when the stream is closed.
        accepted.write(Bytes::from(vec![7; LEN / 2])).await.unwrap();
        let said = tokio::spawn(async move {
            accepted.write(Bytes::from(vec![7; LEN / 2])).await.unwrap();
            accepted.finish();
            // Gone, with what the laptop says after it unread.
            drop(accepted);
        });
        let mut received = vec![0; 1000];
        from_agent.read_exact(&mut received).await.unwrap();
        // The laptop answers while the rest is still on its way to it; whether anybody takes that is not its business.
        let answers = tokio::spawn(async move {
            for _ in 0..200 {
                if to_agent.write_all(&[1; 1000]).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            to_agent
        });
        from_agent.read_to_end(&mut received).await.unwrap();
        assert_eq!(received.len(), LEN);
        said.await.unwrap();
        drop(answers.await.unwrap());
        copied.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_failure_reaches_the_other_end_with_its_reason() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (accepted, opened) = stream_pair(&agent, &client).await;
        opened.write(Bytes::from_static(b"x")).await.unwrap();
        accepted.fail("cannot reach the API server\x1b[31m");
        let mut chunks = Vec::new();
        let failed = opened.read(1024, &mut chunks).await.unwrap_err();
        assert_eq!(failed.0, "cannot reach the API server[31m");
    })
    .await;
}

#[tokio::test]
async fn the_257th_stream_waits_for_a_slot() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let mut open = Vec::new();
        for _ in 0..256 {
            open.push(stream_pair(&agent, &client).await);
        }
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.open().await.map(drop) }
        });
        // All that could be opened is; the waiting one is opened by nothing but a free slot.
        assert!(!waiting.is_finished());
        drop(open.pop());
        waiting.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_never_reads_stalls_only_itself() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (_stalled_in, stalled) = stream_pair(&agent, &client).await;
        let (echo_in, echo) = stream_pair(&agent, &client).await;
        let flood = tokio::spawn(async move {
            let chunk = Bytes::from(vec![7; 64 * 1024]);
            loop {
                stalled.write(chunk.clone()).await.unwrap();
            }
        });
        let mut chunks = Vec::new();
        for i in 0..200u8 {
            echo.write(Bytes::from(vec![i])).await.unwrap();
            assert!(echo_in.read(1024, &mut chunks).await.unwrap());
            echo_in.write(chunks.pop().unwrap()).await.unwrap();
            assert!(echo.read(1024, &mut chunks).await.unwrap());
            assert_eq!(chunks.pop().unwrap(), [i][..]);
        }
        flood.abort();
    })
    .await;
}

#[tokio::test]
async fn the_welcome_and_the_farewell_arrive() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let mut welcomes = client.welcome();
        let welcome = Welcome {
            mode: Mode::Shared,
            cluster: "prod".into(),
            server_name: None,
            ca: Some("x".repeat(100_000)),
            path: None,
            insecure_skip_tls_verify: false,
            namespace: None,
            recorded: false,
            credentials: None,
        };
        agent.send_welcome(&welcome).unwrap();
        let heard = welcomes.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(*heard, welcome);
        client.bye("done here").await;
        assert_eq!(client.ended().await, End::Here);
        assert_eq!(agent.ended().await, End::Bye("done here".into()));
    })
    .await;
}

#[tokio::test]
async fn slices_are_sent_together_and_in_order() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (mut accepted, mut opened) = stream_pair(&agent, &client).await;
        let parts: [Vec<u8>; 4] = [vec![1; 40_000], Vec::new(), vec![2; 40_000], vec![3; 40_000]];
        let mut slices: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let mut left = &mut slices[..];
        let first = opened.write_vectored(left).await.unwrap();
        assert_eq!(first, 64 << 10, "more than the first slice");
        io::IoSlice::advance_slices(&mut left, first);
        while !left.is_empty() {
            let more = opened.write_vectored(left).await.unwrap();
            io::IoSlice::advance_slices(&mut left, more);
        }
        opened.shutdown().await.unwrap();
        let mut heard = Vec::new();
        accepted.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, parts.concat());
    })
    .await;
}
