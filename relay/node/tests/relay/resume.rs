//! The rules that ends rely on when their sockets are lost: slots, tickets, and which frames pass.

use std::time::Duration;

use mykube_protocol::{FromAgent, close};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::support::{Pair, Socket, TestRelay, bearer, bounded, masked, raw, reading, until};

const HERE: &str = "peer:here:session";
const GONE: &str = "peer:gone:session";
const LONG: Duration = Duration::from_secs(3600);

async fn replaced(relay: &TestRelay) -> f64 {
    relay.metric("mykube_relay_reconnects_total{reason=\"replaced\"}").await
}

async fn client_again(relay: &TestRelay, pair: &Pair) -> Socket {
    relay.open(&format!("/ws/client/{}", pair.session), &bearer(&pair.client_ticket)).await
}

async fn agent_again(relay: &TestRelay, pair: &Pair) -> Socket {
    relay.open(&format!("/ws/agent/{}", pair.session), &bearer(&pair.agent_ticket)).await
}

/// Reads until a frame with this first byte has come, and drops the frames before it.
async fn skip_to(stream: &mut TcpStream, first: u8) -> Vec<u8> {
    loop {
        let head = [bounded(stream.read_u8()).await.unwrap(), bounded(stream.read_u8()).await.unwrap()];
        assert!(head[1] < 126, "short frames only");
        let mut payload = vec![0; head[1].into()];
        bounded(stream.read_exact(&mut payload)).await.unwrap();
        if head[0] == first {
            return payload;
        }
    }
}

fn close_code(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}

#[tokio::test]
async fn a_new_socket_is_admitted_although_the_old_one_looks_alive() {
    let relay = TestRelay::start().await;
    let mut pair = relay.pair().await;
    // Both old sockets stay open, and their ends send nothing.
    let mut client = client_again(&relay, &pair).await;
    assert_eq!(client.text().await, HERE);
    assert_eq!(pair.agent.text().await, HERE, "no peer:gone before it");
    let mut agent = agent_again(&relay, &pair).await;
    assert_eq!(agent.text().await, HERE);
    client.ticket().await;
    assert_eq!(client.text().await, HERE, "again, to the one that stays");
    agent.ticket().await;
    // Attach frames are frames like any other.
    for frame in [&b"\x03attach client"[..], b"\x05record"] {
        client.binary(frame).await;
        assert_eq!(&agent.bytes().await[..], frame);
    }
    agent.binary(&b"\x04attach agent"[..]).await;
    assert_eq!(&client.bytes().await[..], b"\x04attach agent");
    for old in [&mut pair.agent, &mut pair.client] {
        assert_eq!(old.closed().await.0, close::REPLACED);
    }
    assert_eq!(replaced(&relay).await, 2.0);
}

#[tokio::test]
async fn a_second_replacement_within_a_second_waits_for_its_turn() {
    let relay = TestRelay::start().await;
    let mut pair = relay.pair().await;
    let mut sockets = vec![];
    for _ in 0..3 {
        let mut next = client_again(&relay, &pair).await;
        assert_eq!(next.text().await, HERE);
        next.ticket().await;
        sockets.push(next);
        assert_eq!(pair.agent.text().await, HERE);
    }
    let mut last = sockets.pop().unwrap();
    for mut old in sockets {
        assert_eq!(old.closed().await.0, close::REPLACED);
    }
    last.binary(&b"\x05last"[..]).await;
    assert_eq!(&pair.agent.bytes().await[..], b"\x05last");
}

#[tokio::test]
async fn a_dial_that_was_given_up_replaces_nobody() {
    let relay = TestRelay::with(|config| config.handshake_timeout = Duration::from_millis(100)).await;
    let mut pair = relay.pair().await;
    let path = format!("/ws/client/{}", pair.session);
    // One socket is closed before it has its slot, one is open and its end never answers.
    let mut closed = raw(&relay, &path, &pair.client_ticket).await;
    closed.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = bounded(closed.read_to_end(&mut rest)).await;
    assert!(rest.is_empty() || rest == [0x89, 0], "a ping at the most: {rest:x?}");
    let mut silent = raw(&relay, &path, &pair.client_ticket).await;
    assert_eq!(close_code(&skip_to(&mut silent, 0x88).await), close::SILENT);
    assert_eq!(replaced(&relay).await, 0.0);
    pair.client.binary(&b"\x05mine"[..]).await;
    assert_eq!(&pair.agent.bytes().await[..], b"\x05mine");
}

#[tokio::test]
async fn what_is_said_before_admission_is_not_lost() {
    let relay = TestRelay::start().await;
    let mut pair = relay.pair().await;
    let mut early = raw(&relay, &format!("/ws/client/{}", pair.session), &pair.client_ticket).await;
    // A frame instead of a pong: any bytes show that the end is alive.
    early.write_all(&masked(2, b"\x03early")).await.unwrap();
    assert_eq!(pair.agent.text().await, HERE);
    assert_eq!(&pair.agent.bytes().await[..], b"\x03early");
}

#[tokio::test]
async fn an_old_sockets_backpressure_does_not_hold_up_the_new_one() {
    // The old socket may take its remaining frames as slowly as it likes.
    let relay = TestRelay::with(|config| config.close_timeout = LONG).await;
    let mut pair = relay.pair().await;
    let mut old = raw(&relay, &format!("/ws/client/{}", pair.session), &pair.client_ticket).await;
    old.write_all(&masked(10, b"")).await.unwrap();
    assert_eq!(pair.client.closed().await.0, close::REPLACED);
    assert_eq!(pair.agent.text().await, HERE);

    let frame = Bytes::from(vec![5; 16 * 1024]);
    let flood = async {
        loop {
            pair.agent.feed(frame.clone()).await.unwrap();
        }
    };
    let held = async || relay.metric("mykube_relay_buffered_bytes").await > 0.0;
    let blocked = async {
        let mut same = 0;
        while same < 200 {
            same = if held().await { same + 1 } else { 0 };
        }
    };
    tokio::select! {
        () = flood => {}
        () = bounded(blocked) => {}
    }
    let mut new = relay.open(&format!("/ws/client/{}", pair.session), &bearer(&pair.client_ticket)).await;
    assert_eq!(new.text().await, HERE);
    new.ticket().await;
    let sent = pair.agent.binary(&b"\x04attach"[..]);
    let received = async { while new.bytes().await != b"\x04attach"[..] {} };
    tokio::join!(sent, received);
    // Nor was the old one given up for it: its end can still read every frame that was sent to it.
    assert_eq!(reading(old).await.closed().await.0, close::REPLACED);
}

#[tokio::test]
async fn frames_for_an_end_that_is_away_are_dropped() {
    let relay = TestRelay::start().await;
    let Pair { mut agent, client, session, client_ticket, .. } = relay.pair().await;
    drop(client);
    assert_eq!(agent.text().await, GONE);
    until(|| async { relay.metric("mykube_relay_sessions{state=\"away\"}").await == 1.0 }).await;
    for _ in 0..100 {
        agent.binary(vec![5; 60_000]).await;
    }
    // Pings are answered although there is no peer, and this one came after the frames.
    agent.send(Message::Ping(Bytes::from_static(b"there?"))).await;
    assert_eq!(agent.next().await, Message::Pong(Bytes::from_static(b"there?")));
    // The pong itself counts as held until the worker has counted it as written.
    until(|| async { relay.metric("mykube_relay_buffered_bytes").await == 0.0 }).await;
    let mut client = relay.open(&format!("/ws/client/{session}"), &bearer(&client_ticket)).await;
    assert_eq!(agent.text().await, HERE);
    agent.binary(&b"\x05new"[..]).await;
    assert_eq!(client.text().await, HERE);
    client.ticket().await;
    assert_eq!(&client.bytes().await[..], b"\x05new");
    for (direction, bytes) in [("agent_to_client", 4.0), ("client_to_agent", 0.0)] {
        let name = format!("mykube_relay_forwarded_bytes_total{{direction=\"{direction}\"}}");
        assert_eq!(relay.metric(&name).await, bytes, "dropped frames are not counted: {direction}");
    }
    assert_eq!(relay.metric("mykube_relay_reconnects_total{reason=\"returned\"}").await, 1.0);
    assert_eq!(relay.metric("mykube_relay_sessions{state=\"paired\"}").await, 1.0);
}

#[tokio::test]
async fn a_silent_end_loses_its_socket_and_not_its_session() {
    let relay = TestRelay::with(|config| {
        config.ping_interval = Duration::from_millis(50);
        config.silence_limit = Duration::from_secs(1);
    })
    .await;
    let mut pair = relay.pair().await;
    // Like a stopped process: its system takes the bytes, and nothing answers.
    let mut stopped = raw(&relay, &format!("/ws/client/{}", pair.session), &pair.client_ticket).await;
    stopped.write_all(&masked(10, b"")).await.unwrap();
    assert_eq!(pair.agent.text().await, HERE);
    assert_eq!(pair.agent.text().await, GONE, "the agent answers, and stays");
    assert_eq!(close_code(&skip_to(&mut stopped, 0x88).await), close::SILENT);
    let mut client = client_again(&relay, &pair).await;
    assert_eq!(client.text().await, HERE);
    assert_eq!(pair.agent.text().await, HERE);
}

#[tokio::test]
async fn a_socket_lost_right_after_paired_comes_back_with_its_pair_ticket() {
    for restart in [false, true] {
        let mut relay = TestRelay::start().await;
        let (mut agent, client, created, claim) = relay.meet().await;
        agent.send(FromAgent::Paired(claim.attempt).to_string()).await;
        let agent_ticket = agent.ticket().await;
        drop(client);
        if restart {
            drop(agent);
            relay = TestRelay::start_in(relay.stop().await, |_| {}).await;
            let path = format!("/ws/agent/{}", created.session_id);
            agent = relay.open(&path, &bearer(&agent_ticket)).await;
            agent.ticket().await;
        } else {
            assert_eq!(agent.text().await, GONE);
        }
        let mut client = relay.client(&claim).await;
        assert_eq!(client.text().await, HERE, "restart: {restart}");
        client.ticket().await;
        assert_eq!(agent.text().await, HERE);
    }
}

#[tokio::test]
async fn both_ends_get_new_tickets_while_they_are_here() {
    let relay = TestRelay::with(|config| config.sessions.ticket_ttl = Duration::from_secs(8)).await;
    let mut pair = relay.pair().await;
    let (agent, client) = (pair.agent.ticket().await, pair.client.ticket().await);
    assert!(agent != pair.agent_ticket && client != pair.client_ticket);
    (pair.agent_ticket, pair.client_ticket) = (agent, client);
    let mut client = client_again(&relay, &pair).await;
    assert_eq!(client.text().await, HERE);
}
