//! Channels that outlive their connections, over a relay that the test plays: it joins two sockets and can be cut.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_link::{
    Channel, ChannelStream, Dialer, End, Rejoin, Status, clock,
    pair::{self, AgentOutcome, AgentPairing, ClientPairing},
};
use mykube_protocol::{
    Attempt, FromAgent, FromRelay, PairingCode, Role, SessionId, Ticket, close, control::Peer, http::PairAnswer,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::AbortHandle,
    time::timeout,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::support::dialer;

/// Nothing here takes that long: a test that waits for it has failed.
const BOUND: Duration = Duration::from_secs(60);
const ATTEMPT: [u8; 16] = [1; 16];
const SESSION: [u8; 16] = [2; 16];

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it hangs")
}

/// Joins the two ends of one session.
#[derive(Clone, Default)]
struct Relay(Arc<Inner>);

#[derive(Default)]
struct Inner {
    sockets: Mutex<HashMap<&'static str, (UnboundedSender<Message>, AbortHandle)>>,
    /// The ticket of every admission, in order.
    shown: Mutex<Vec<String>>,
    paired: AtomicBool,
    /// Lets nobody in.
    away: AtomicBool,
    /// Answers 401.
    forgets: AtomicBool,
    /// Cuts the client as soon as it is paired, before it hears so.
    cuts_at_paired: AtomicBool,
    /// Flips a bit in the next record to the client.
    flips: AtomicBool,
}

impl Relay {
    async fn start() -> (Self, SocketAddr) {
        let relay = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admits = relay.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if !admits.0.away.load(Ordering::Relaxed) {
                    let relay = admits.clone();
                    let (tell, told) = tokio::sync::oneshot::channel();
                    let task = tokio::spawn(async move {
                        let handle = told.await.unwrap();
                        relay.serve(tcp, handle).await;
                    });
                    tell.send(task.abort_handle()).unwrap();
                }
            }
        });
        (relay, address)
    }

    async fn serve(self, tcp: TcpStream, handle: AbortHandle) {
        let mut role = "";
        #[allow(clippy::result_large_err)]
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            if self.0.forgets.load(Ordering::Relaxed) {
                let mut refused = ErrorResponse::new(Some(r#"{"error":"ticket refused"}"#.into()));
                *refused.status_mut() = http::StatusCode::UNAUTHORIZED;
                return Err(refused);
            }
            role = if request.uri().path().starts_with("/ws/agent/") { "agent" } else { "client" };
            self.0.shown.lock().unwrap().push(request.headers()["authorization"].to_str().unwrap().to_owned());
            Ok(response)
        };
        let Ok(socket) = accept_hdr_async(tcp, note).await else { return };
        let other = if role == "agent" { "client" } else { "agent" };
        let (mut sink, mut stream) = socket.split();
        let (send, mut queue) = unbounded_channel();
        let replaced = self.0.sockets.lock().unwrap().insert(role, (send.clone(), handle));
        if let Some((old, _)) = replaced {
            let _ = old
                .send(Message::Close(Some(CloseFrame { code: CloseCode::from(close::REPLACED), reason: "".into() })));
        }
        self.announce();
        loop {
            tokio::select! {
                Some(message) = queue.recv() => {
                    let over = message.is_close();
                    if sink.send(message).await.is_err() || over {
                        break;
                    }
                }
                message = stream.next() => match message {
                    Some(Ok(Message::Binary(mut frame))) => {
                        if role == "agent" && self.0.flips.swap(false, Ordering::Relaxed) {
                            let mut bytes = frame.to_vec();
                            *bytes.last_mut().unwrap() ^= 1;
                            frame = bytes.into();
                        }
                        self.send(other, Message::Binary(frame));
                    }
                    Some(Ok(Message::Text(text))) => self.paired(text.as_str().parse().unwrap()),
                    Some(Ok(_)) => {}
                    _ => break,
                },
            }
        }
        let mut sockets = self.0.sockets.lock().unwrap();
        if sockets.get(role).is_some_and(|(live, _)| live.same_channel(&send)) {
            sockets.remove(role);
            drop(sockets);
            self.send(other, text(&FromRelay::PeerGone(Peer::Session)));
        }
    }

    fn announce(&self) {
        let both = self.0.sockets.lock().unwrap().len() == 2;
        if both && self.0.paired.load(Ordering::Relaxed) {
            self.send("agent", text(&FromRelay::PeerHere(Peer::Session)));
            self.send("client", text(&FromRelay::PeerHere(Peer::Session)));
        } else if both {
            self.send("agent", text(&FromRelay::PeerHere(Peer::Attempt(Attempt::from_bytes(ATTEMPT)))));
        }
    }

    fn paired(&self, said: FromAgent) {
        assert!(matches!(said, FromAgent::Paired(_)), "{said}");
        if !self.0.paired.swap(true, Ordering::Relaxed) {
            if self.0.cuts_at_paired.load(Ordering::Relaxed) {
                self.cut("client");
            }
            for role in ["agent", "client"] {
                self.send(role, text(&FromRelay::Ticket(Ticket::from_bytes(format!("{role} 1").as_bytes()))));
            }
        }
    }

    fn send(&self, role: &str, message: Message) {
        if let Some((socket, _)) = self.0.sockets.lock().unwrap().get(role) {
            let _ = socket.send(message);
        }
    }

    /// The connection of one end is gone, without a word.
    fn cut(&self, role: &str) {
        let cut = self.0.sockets.lock().unwrap().remove(role);
        if let Some((_, task)) = cut {
            task.abort();
            let other = if role == "agent" { "client" } else { "agent" };
            self.send(other, text(&FromRelay::PeerGone(Peer::Session)));
        }
    }

    fn close(&self, role: &str, code: u16) {
        self.send(role, Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() })));
    }
}

fn text(said: &FromRelay) -> Message {
    Message::text(said.to_string())
}

struct Ends {
    relay: Relay,
    agent: Channel,
    client: Channel,
}

async fn paired(window: Duration) -> Ends {
    paired_over(Relay::start().await, window).await
}

async fn paired_over((relay, address): (Relay, SocketAddr), window: Duration) -> Ends {
    let dialer: Dialer = dialer(format!("http://{address}"));
    let session = SessionId::from_bytes(SESSION);
    let attempt = Attempt::from_bytes(ATTEMPT);
    let code: PairingCode = "483 20417".parse().unwrap();
    let ticket = |role: &str| Ticket::from_bytes(format!("{role} 0").as_bytes());
    let mut agent_pairing = AgentPairing::new(clock::now(), session, code.clone(), false, BOUND);
    let mut client_pairing = ClientPairing::new(clock::now(), session, code, false);
    let claim = PairAnswer { session_id: session, ticket: ticket("client"), attempt };
    let mut agent = dialer.websocket(Role::Agent, &session, &ticket("agent")).await.unwrap();
    let mut ignore = |_| {};
    let at_agent = async {
        let outcome = pair::agent(&mut agent, &mut agent_pairing, &mut ignore).await;
        let Ok(AgentOutcome::Paired(established)) = outcome else { panic!("{outcome:?}") };
        let rejoin = Rejoin { dialer: dialer.clone(), session, attempt, ticket: ticket("agent"), window };
        Channel::start(*established, agent, rejoin)
    };
    let at_client = async {
        let (established, socket, rejoin) = pair::client(&dialer, claim, &mut client_pairing, window).await.unwrap();
        Channel::start(*established, socket, rejoin)
    };
    let (agent, client) = tokio::join!(at_agent, at_client);
    Ends { relay, agent, client }
}

async fn streams(ends: &Ends) -> (ChannelStream, ChannelStream) {
    let opened = ends.client.open().await.unwrap();
    let (accepted, _) = ends.agent.accept().await.unwrap();
    (accepted, opened)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..).flat_map(|i: u32| i.wrapping_mul(2_654_435_761).to_le_bytes()).map(|byte| byte ^ seed).take(len).collect()
}

async fn send_all(stream: &ChannelStream, bytes: Vec<u8>) {
    for chunk in Bytes::from(bytes).chunks(50_000) {
        stream.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    stream.finish();
}

/// All of a stream; `at` is called with what has come so far.
async fn receive_all(stream: &ChannelStream, mut at: impl FnMut(usize)) -> Vec<u8> {
    let (mut received, mut chunks) = (Vec::new(), Vec::new());
    while stream.read(100_000, &mut chunks).await.unwrap() {
        for chunk in chunks.drain(..) {
            received.extend_from_slice(&chunk);
        }
        at(received.len());
    }
    received
}

#[tokio::test]
async fn bulk_both_ways_survives_every_kind_of_cut() {
    const LEN: usize = 12_000_000;
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let (up, down) = (pattern(LEN, 1), pattern(LEN, 2));
        let relay = ends.relay.clone();
        let mut cuts = 0;
        let cut = |got: usize| {
            if got > (cuts + 1) * LEN / 8 {
                match cuts % 3 {
                    0 => relay.cut("client"),
                    1 => relay.cut("agent"),
                    _ => {
                        relay.cut("agent");
                        relay.cut("client");
                    }
                }
                cuts += 1;
            }
        };
        let (_, _, upward, downward) = tokio::join!(
            send_all(&at_client, up.clone()),
            send_all(&at_agent, down.clone()),
            receive_all(&at_agent, |_| {}),
            receive_all(&at_client, cut),
        );
        assert!(upward == up && downward == down, "{} and {} bytes", upward.len(), downward.len());
        assert!(cuts >= 7, "{cuts}");
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_comes_back_finds_everything_as_it_was() {
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        at_client.write(Bytes::from_static(b"before ")).await.unwrap();
        let mut status = ends.client.status();
        assert!(status.borrow().is_up());
        ends.relay.0.away.store(true, Ordering::Relaxed);
        ends.relay.cut("agent");
        ends.relay.cut("client");
        status.wait_for(|status| matches!(status, Status::Away { .. })).await.unwrap();
        at_client.write(Bytes::from_static(b"meanwhile ")).await.unwrap();
        at_client.finish();
        ends.relay.0.away.store(false, Ordering::Relaxed);
        status.wait_for(Status::is_up).await.unwrap();
        assert_eq!(receive_all(&at_agent, |_| {}).await, b"before meanwhile ");
        // Each came back with the ticket it was given in band.
        let shown = ends.relay.0.shown.lock().unwrap().clone();
        let bearer = |text: &str| format!("Bearer {}", Ticket::from_bytes(text.as_bytes()).expose());
        assert_eq!(shown[..2], [bearer("agent 0"), bearer("client 0")]);
        assert!(shown.contains(&bearer("agent 1")) && shown.contains(&bearer("client 1")));
    })
    .await;
}

#[tokio::test]
async fn an_altered_record_costs_a_connection_and_nothing_else() {
    within(async {
        let ends = paired(BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let bytes = pattern(300_000, 3);
        let relay = ends.relay.clone();
        let mut flipped = false;
        let flip = |_| {
            if !std::mem::replace(&mut flipped, true) {
                relay.0.flips.store(true, Ordering::Relaxed);
            }
        };
        let before = ends.relay.0.shown.lock().unwrap().len();
        let (_, received) = tokio::join!(send_all(&at_agent, bytes.clone()), receive_all(&at_client, flip));
        assert_eq!(received, bytes);
        assert!(ends.relay.0.shown.lock().unwrap().len() > before, "it dialled again");
    })
    .await;
}

#[tokio::test]
async fn the_last_word_of_a_handshake_may_be_lost() {
    within(async {
        let relay = Relay::start().await;
        relay.0.0.cuts_at_paired.store(true, Ordering::Relaxed);
        let ends = paired_over(relay, BOUND).await;
        let (at_agent, at_client) = streams(&ends).await;
        let bytes = pattern(100_000, 4);
        let (_, received) = tokio::join!(send_all(&at_agent, bytes.clone()), receive_all(&at_client, |_| {}));
        assert_eq!(received, bytes);
    })
    .await;
}

#[tokio::test]
async fn after_the_window_streams_fail_and_never_look_complete() {
    within(async {
        let ends = paired(Duration::from_secs(1)).await;
        let (at_agent, at_client) = streams(&ends).await;
        at_agent.write(Bytes::from_static(b"half")).await.unwrap();
        let mut chunks = Vec::new();
        assert!(at_client.read(100, &mut chunks).await.unwrap());
        ends.relay.0.away.store(true, Ordering::Relaxed);
        ends.relay.cut("agent");
        ends.relay.cut("client");
        for end in [ends.agent.ended().await, ends.client.ended().await] {
            assert!(matches!(&end, End::Window { window, .. } if window.as_secs() == 1), "{end}");
        }
        let failed = at_client.read(100, &mut chunks).await.unwrap_err();
        assert!(failed.0.contains("it did not come back within 1 s"), "{failed}");
    })
    .await;
}

#[tokio::test]
async fn a_replaced_end_and_a_refused_one_do_not_dial_for_ever() {
    within(async {
        let ends = paired(BOUND).await;
        ends.relay.close("client", close::REPLACED);
        let end = ends.client.ended().await;
        assert!(matches!(&end, End::Lost(lost) if lost.code() == Some(close::REPLACED)), "{end}");

        ends.relay.0.forgets.store(true, Ordering::Relaxed);
        ends.relay.cut("agent");
        let end = ends.agent.ended().await;
        assert!(matches!(end, End::Refused(_)), "{end}");
    })
    .await;
}

#[tokio::test]
async fn a_farewell_in_an_outage_does_not_hang() {
    within(async {
        let ends = paired(BOUND).await;
        ends.relay.0.away.store(true, Ordering::Relaxed);
        ends.relay.cut("client");
        ends.client.bye("the client has left").await;
        assert_eq!(ends.client.ended().await, End::Here);
    })
    .await;
}

#[tokio::test]
async fn a_farewell_is_heard() {
    within(async {
        let ends = paired(BOUND).await;
        ends.client.bye("the client has left").await;
        assert_eq!(ends.agent.ended().await, End::Bye("the client has left".into()));
    })
    .await;
}
