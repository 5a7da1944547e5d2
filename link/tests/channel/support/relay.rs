//! A relay for channels that outlive their connections: it joins two sockets, can be cut, and can refuse.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_dial::Dialer;
use mykube_link::{
    Channel, ChannelStream, Reconnect, clock,
    pair::{self, AgentOutcome, AgentPairing, ClientPairing},
};
use mykube_protocol::{
    Attempt, FromAgent, FromRelay, PairingCode, Role, SessionId, Ticket, close,
    control::Peer,
    http::{PairAnswer, REFUSAL, TICKET_REFUSED},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
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
pub(crate) const BOUND: Duration = Duration::from_secs(60);
pub(crate) const ATTEMPT: [u8; 16] = [1; 16];
pub(crate) const SESSION: [u8; 16] = [2; 16];

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it hangs")
}

/// Joins the two ends of one session.
#[derive(Clone, Default)]
pub(crate) struct Relay(pub(crate) Arc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    sockets: Mutex<HashMap<&'static str, (UnboundedSender<Message>, AbortHandle)>>,
    /// The ticket of every admission, in order.
    pub(crate) shown: Mutex<Vec<String>>,
    paired: AtomicBool,
    /// Admits neither end.
    pub(crate) away: AtomicBool,
    /// Answers 401.
    pub(crate) forgets: AtomicBool,
    /// Cuts the client as soon as it is paired, before it hears so.
    pub(crate) cuts_at_paired: AtomicBool,
    /// What stands in its place once it has paired: admissions answered like this, one after the other, before it admits
    /// again.
    pub(crate) instead: Mutex<VecDeque<ErrorResponse>>,
    /// How many connections are taken and never answered.
    pub(crate) mute: AtomicUsize,
    /// How many of them are held.
    pub(crate) held: watch::Sender<usize>,
    /// Flips a bit in the next record to the client.
    pub(crate) flips: AtomicBool,
}

impl Relay {
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let relay = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admits = relay.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if !admits.0.away.load(Ordering::Relaxed) {
                    if admits.take_mute() {
                        tokio::spawn(admits.clone().hold(tcp));
                        continue;
                    }
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

    fn take_mute(&self) -> bool {
        self.0.mute.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    async fn hold(self, mut tcp: TcpStream) {
        self.0.held.send_modify(|held| *held += 1);
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        self.0.held.send_modify(|held| *held -= 1);
    }

    async fn serve(self, tcp: TcpStream, handle: AbortHandle) {
        let mut role = "";
        #[allow(clippy::result_large_err)]
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            if self.0.forgets.load(Ordering::Relaxed) {
                let mut refused = ErrorResponse::new(Some(r#"{"error":"ticket refused"}"#.into()));
                *refused.status_mut() = http::StatusCode::UNAUTHORIZED;
                refused.headers_mut().insert(REFUSAL, http::HeaderValue::from_static(TICKET_REFUSED));
                return Err(refused);
            }
            if self.0.paired.load(Ordering::Relaxed)
                && let Some(instead) = self.0.instead.lock().unwrap().pop_front()
            {
                return Err(instead);
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
                    if sink.send(message).await.is_err() {
                        break;
                    }
                    if over {
                        // Closing with unread bytes resets the connection, and the reason may be lost with it.
                        while let Some(Ok(_)) = stream.next().await {}
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
    pub(crate) fn cut(&self, role: &str) {
        let cut = self.0.sockets.lock().unwrap().remove(role);
        if let Some((_, task)) = cut {
            task.abort();
            let other = if role == "agent" { "client" } else { "agent" };
            self.send(other, text(&FromRelay::PeerGone(Peer::Session)));
        }
    }

    pub(crate) fn close(&self, role: &str, code: u16) {
        self.send(role, Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "".into() })));
    }
}

fn text(said: &FromRelay) -> Message {
    Message::text(said.to_string())
}

pub(crate) struct Ends {
    pub(crate) relay: Relay,
    pub(crate) agent: Channel,
    pub(crate) client: Channel,
}

pub(crate) async fn paired(window: Duration) -> Ends {
    paired_over(Relay::start().await, window).await
}

pub(crate) async fn paired_over((relay, address): (Relay, SocketAddr), window: Duration) -> Ends {
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
        let reconnect =
            Reconnect { dialer: dialer.clone(), session, attempt, ticket: ticket("agent"), window, unsure: None };
        Channel::start(*established, agent, reconnect)
    };
    let at_client = async {
        let shown = AtomicBool::new(false);
        let paired = pair::client(&dialer, claim, &mut client_pairing, window, &shown).await;
        let (established, socket, reconnect) = paired.unwrap();
        Channel::start(*established, socket, reconnect)
    };
    let (agent, client) = tokio::join!(at_agent, at_client);
    Ends { relay, agent, client }
}

pub(crate) async fn streams(ends: &Ends) -> (ChannelStream, ChannelStream) {
    let opened = ends.client.open().await.unwrap();
    let (accepted, _) = ends.agent.accept().await.unwrap();
    (accepted, opened)
}

pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..).flat_map(|i: u32| i.wrapping_mul(2_654_435_761).to_le_bytes()).map(|byte| byte ^ seed).take(len).collect()
}

pub(crate) async fn send_all(stream: &ChannelStream, bytes: Vec<u8>) {
    for chunk in Bytes::from(bytes).chunks(50_000) {
        stream.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    stream.finish();
}

/// All of a stream; `at` is called with what has come so far.
pub(crate) async fn receive_all(stream: &ChannelStream, mut at: impl FnMut(usize)) -> Vec<u8> {
    let (mut received, mut chunks) = (Vec::new(), Vec::new());
    while stream.read(100_000, &mut chunks).await.unwrap() {
        for chunk in chunks.drain(..) {
            received.extend_from_slice(&chunk);
        }
        at(received.len());
    }
    received
}
