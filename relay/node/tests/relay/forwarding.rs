//! Frames through the relay.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join;
use mykube_protocol::FromAgent;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{Socket, TestRelay, bearer, bounded, masked, raw, reading, until};

const FRAME_MAX: usize = 64 * 1024;

fn pattern(len: usize, seed: usize) -> Bytes {
    (0..len).map(|i| u8::try_from((i * 31 + seed) % 251).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_size_go_both_ways_at_once() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    let (mut agent, mut client) = (pair.agent, pair.client);
    let sizes = [0, 1, 2, 7, 125, 126, 127, 4096, 16_384, 16_400, 65_535, FRAME_MAX];
    let frames: Vec<Bytes> = sizes.iter().cycle().take(120).enumerate().map(|(i, n)| pattern(*n, i)).collect();
    let turn = async |socket: &mut Socket, first: bool| {
        // One frame each way at a time, so that neither side waits for the other to read.
        for frame in &frames {
            if first {
                socket.binary(frame.clone()).await;
            }
            assert!(socket.bytes().await == *frame);
            if !first {
                socket.binary(frame.clone()).await;
            }
        }
    };
    join(turn(&mut agent, true), turn(&mut client, false)).await;
    let payload: usize = frames.iter().map(Bytes::len).sum();
    for direction in ["agent_to_client", "client_to_agent"] {
        let name = format!("mykube_relay_forwarded_bytes_total{{direction=\"{direction}\"}}");
        // The worker that wrote a frame may update the counts a moment after the frame is here.
        until(|| async { relay.metric(&name).await == payload as f64 }).await;
    }
    until(|| async { relay.metric("mykube_relay_buffered_bytes").await == 0.0 }).await;
}

/// Sends until the relay takes no more; returns how many frames it took, and the bytes it holds.
///
/// Blocked means: the relay holds bytes, and many looks at it show no progress although the sender would send.
async fn flood(relay: &TestRelay, client: &mut Socket, frame: &Bytes) -> (usize, f64) {
    let accepted = AtomicUsize::new(0);
    let send = async {
        while client.feed(frame.clone()).await.is_ok() {
            accepted.fetch_add(1, Relaxed);
        }
    };
    let look = async || {
        let forwarded = relay.metric("mykube_relay_forwarded_bytes_total{direction=\"client_to_agent\"}").await;
        (relay.metric("mykube_relay_buffered_bytes").await, forwarded, accepted.load(Relaxed))
    };
    let blocked = async {
        let (mut last, mut same) = (look().await, 0);
        while same < 200 {
            let now = look().await;
            same = if now == last && now.0 > 0.0 { same + 1 } else { 0 };
            last = now;
        }
        last.0
    };
    let held = tokio::select! {
        () = send => panic!("the socket broke"),
        held = bounded(blocked) => held,
    };
    (accepted.load(Relaxed), held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_stops_the_sender_and_costs_little() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    let (mut agent, mut client) = (pair.agent, pair.client);
    let frame = pattern(16 * 1024, 1);
    let (sent, held) = flood(&relay, &mut client, &frame).await;
    assert!(held <= (128 + 64) as f64 * 1024.0, "{held} bytes are held");
    for n in 0..sent {
        assert!(agent.bytes().await == frame, "frame {n} of {sent}");
    }
    assert!(relay.metric("mykube_relay_backpressure_seconds_total").await > 0.0);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_no_half_frame_behind() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    let (mut agent, mut client) = (pair.agent, pair.client);
    let frame = pattern(16 * 1024, 1);
    flood(&relay, &mut client, &frame).await;
    // The relay is in the middle of a batch when the client's newer socket comes.
    let headers = bearer(&pair.client_ticket);
    let mut second = relay.open(&format!("/ws/client/{}", pair.session), &headers).await;
    assert_eq!(second.text().await, "peer:here:session");
    second.ticket().await;
    second.binary(&b"\x05new"[..]).await;
    loop {
        match agent.next().await {
            Message::Binary(bytes) if bytes == frame => {}
            Message::Text(text) => assert_eq!(text.as_str(), "peer:here:session"),
            Message::Binary(bytes) => {
                assert_eq!(&bytes[..], b"\x05new");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_refused_client_left_is_sent_to_its_end() {
    let relay = TestRelay::start().await;
    let (mut agent, mut client, _, claim) = relay.meet().await;
    let frame = pattern(16 * 1024, 1);
    flood(&relay, &mut client, &frame).await;
    agent.send(FromAgent::Refused(claim.attempt).to_string()).await;
    until(|| async { relay.pair_attempts("refused").await == 1.0 }).await;
    drop(client);
    // Nothing else is written to the agent, and still the rest of the frame must be sent.
    let read = async {
        loop {
            assert!(agent.bytes().await == frame);
        }
    };
    let gone = until(|| async { relay.metric("mykube_relay_buffered_bytes").await == 0.0 });
    tokio::select! {
        () = read => {}
        () = gone => {}
    }
}

#[tokio::test]
async fn frames_without_a_peer_are_dropped() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let mut agent = relay.agent(&created).await;
    agent.binary(&b"\x01too early"[..]).await;
    agent.send(Message::Ping(Bytes::from_static(b"done"))).await;
    assert_eq!(agent.next().await, Message::Pong(Bytes::from_static(b"done")));
    let mut client = relay.client(&relay.claim(created.nameplate.as_str()).await).await;
    client.text().await;
    agent.text().await;
    agent.binary(&b"\x01in time"[..]).await;
    assert_eq!(&client.bytes().await[..], b"\x01in time");
}

#[tokio::test]
async fn an_oversize_frame_closes_with_1009() {
    let relay = TestRelay::start().await;
    let pair = relay.pair().await;
    let (mut agent, mut client) = (pair.agent, pair.client);
    client.binary(pattern(FRAME_MAX + 1, 0)).await;
    assert_eq!(client.closed().await.0, 1009);
    assert_eq!(agent.text().await, "peer:gone:session");
}

#[tokio::test]
async fn the_frame_limit_is_a_setting() {
    let relay = TestRelay::with(|config| config.frame_max = 300 * 1024).await;
    let pair = relay.pair().await;
    let (mut agent, mut client) = (pair.agent, pair.client);
    let frame = pattern(300 * 1024, 5);
    join(client.binary(frame.clone()), async { assert!(agent.bytes().await == frame) }).await;
    client.binary(pattern(300 * 1024 + 1, 0)).await;
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_socket() {
    let relay = TestRelay::start().await;
    let text = |text: &str| Message::text(text.to_owned());
    for (message, from_agent) in [
        (text("paired:session"), true),
        (text("nonsense"), true),
        (text(&"x".repeat(5000)), true),
        (text("burned"), false),
        (text(""), false),
    ] {
        let (mut agent, mut client, ..) = relay.meet().await;
        let speaker = if from_agent { &mut agent } else { &mut client };
        speaker.send(message.clone()).await;
        assert_eq!(speaker.closed().await.0, 1008, "{message:?}");
    }
    for (frame, code, what) in [
        (&[0x82, 0x01, 0x05][..], 1002, "unmasked"),
        (&[0x02, 0x81, 0, 0, 0, 0, 0x05], 1002, "the first of fragments"),
        (&[0x80, 0x81, 0, 0, 0, 0, 0x05], 1002, "a fragment"),
        (&[0xc2, 0x81, 0, 0, 0, 0, 0x05], 1002, "a reserved bit"),
        (&[0x83, 0x81, 0, 0, 0, 0, 0x05], 1002, "an unknown opcode"),
        (&[0x88, 0x81, 0, 0, 0, 0, 0x05], 1002, "half a close code"),
        (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], 1009, "a long length alone"),
    ] {
        let created = relay.create().await;
        let path = format!("/ws/agent/{}", created.session_id);
        let mut stream = raw(&relay, &path, created.ticket.expose()).await;
        stream.write_all(frame).await.unwrap();
        assert_eq!(reading(stream).await.closed().await.0, code, "{what}");
    }
}

#[tokio::test]
async fn frames_arrive_whole_however_their_bytes_come() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let path = format!("/ws/agent/{}", created.session_id);
    let mut agent = raw(&relay, &path, created.ticket.expose()).await;
    agent.set_nodelay(true).unwrap();
    let mut client = relay.client(&relay.claim(created.nameplate.as_str()).await).await;
    client.text().await;
    let mut here = vec![0; 2 + "peer:here:".len() + 32];
    bounded(agent.read_exact(&mut here)).await.unwrap();
    let frame = [&[0x82, 0x85, 1, 2, 3, 4][..], &[b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1]].concat();
    for byte in &frame {
        agent.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    agent.write_all(&frame.repeat(3)).await.unwrap();
    for _ in 0..4 {
        assert_eq!(&client.bytes().await[..], b"hello");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code() {
    let relay = TestRelay::start().await;
    let created = relay.create().await;
    let mut stream = raw(&relay, &format!("/ws/agent/{}", created.session_id), created.ticket.expose()).await;
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa0]).await.unwrap();
    let mut answer = Vec::new();
    bounded(stream.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [0x88, 0x02, 0x0f, 0xa0]);
}

/// RFC 6455 section 8.1.
#[tokio::test]
async fn what_is_said_is_utf_8() {
    let relay = TestRelay::start().await;
    let bad = b"no\xff";
    for frame in [masked(1, bad), masked(8, &[&1000_u16.to_be_bytes()[..], bad].concat())] {
        let created = relay.create().await;
        let mut agent = raw(&relay, &format!("/ws/agent/{}", created.session_id), created.ticket.expose()).await;
        agent.write_all(&frame).await.unwrap();
        assert_eq!(reading(agent).await.closed().await.0, 1007);
    }
}
