//! A client that is stopped before its session has begun.

use std::{io::Write as _, net::SocketAddr};

use futures_util::{SinkExt as _, StreamExt as _};
use mykube_dial::{DialOptions, RelaySocket, Transport};
use mykube_link::{
    Reconnect,
    pair::{AgentEvent, AgentPairing},
    tunnel::pairing::Transmit,
};
use mykube_protocol::{Attempt, FromRelay, SessionId, Ticket, http::PairAnswer, relay_text::Peer};

use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::*;

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Nobody;

impl Ui for Nobody {
    fn paired(&mut self) {}

    async fn confirm_words(&mut self, _: &str) -> Option<bool> {
        None
    }
}

fn dialer(at: SocketAddr, ca: &NamedTempFile) -> Dialer {
    let options = DialOptions { ca_file: Some(ca.path().to_owned()), ..DialOptions::default() };
    Dialer::new(format!("http://{at}").parse().unwrap(), options).unwrap()
}

/// Answers the claim of a code, and returns the client's socket.
async fn relay(listener: &TcpListener, answer: &PairAnswer) -> RelaySocket {
    let (mut call, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"}") {
        asked.push(call.read_u8().await.unwrap());
    }
    let body = serde_json::to_string(answer).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    call.write_all((head + &body).as_bytes()).await.unwrap();
    accept_async(Transport::Tcp(listener.accept().await.unwrap().0)).await.unwrap()
}

async fn say(pairing: &mut AgentPairing, socket: &mut RelaySocket) {
    while let Some(said) = pairing.poll_transmit() {
        if let Transmit::Peer(frame) = said {
            socket.send(Message::Binary(frame)).await.unwrap();
        }
    }
}

/// The other end has a session by then, and would wait for hours for this client.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_stopped_after_the_code_was_shown_to_be_known_says_goodbye() {
    // While this thread waits the clock stands still: a busy machine has the time for a farewell too.
    let (_over, waits) = std::sync::mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || waits.recv_timeout(DEADLINE));
    let mut ca = NamedTempFile::new().unwrap();
    ca.write_all(rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem().as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(listener.local_addr().unwrap(), &ca);
    let port = Port::bind(0, false).await.unwrap();
    let code: PairingCode = "483 20417".parse().unwrap();
    let (session_id, attempt) = (SessionId::from_bytes([2; 16]), Attempt::from_bytes([1; 16]));
    let (stop, stopped) = oneshot::channel::<()>();
    let (heard, hears) = oneshot::channel();
    let stopping = async {
        let _ = stopped.await;
        heard.send(()).unwrap();
        "SIGTERM"
    };
    let mut ui = Nobody;
    let client = ClientSession::connect(&dialer, code.clone(), false, DEADLINE, &port, &mut ui, stopping);
    let agent = async {
        let answer = PairAnswer { session_id, ticket: Ticket::from_bytes(b"client"), attempt };
        let mut socket = relay(&listener, &answer).await;
        let mut pairing = AgentPairing::new(clock::now(), session_id, code.clone(), false, DEADLINE);
        pairing.handle_relay(clock::now(), &FromRelay::PeerHere(Peer::Attempt(attempt)), &mut rand::rng());
        let established = loop {
            match pairing.poll_event() {
                Some(AgentEvent::Paired(established)) => break established,
                Some(_) => continue,
                None => {}
            }
            say(&mut pairing, &mut socket).await;
            if let Message::Binary(frame) = socket.next().await.unwrap().unwrap() {
                pairing.handle_frame(clock::now(), bytes::BytesMut::from(frame));
            }
        };
        // The client's tag was right, and the client is stopped before it hears so.
        stop.send(()).unwrap();
        hears.await.unwrap();
        say(&mut pairing, &mut socket).await;
        let reconnect = Reconnect {
            dialer: dialer.clone(),
            session: session_id,
            attempt,
            ticket: Ticket::from_bytes(b"agent"),
            window: Duration::ZERO,
            unsure: None,
        };
        Channel::start(*established, socket, reconnect).ended().await
    };
    let (client, agent) = timeout(DEADLINE, async { tokio::join!(client, agent) }).await.expect("it hangs");
    let stopped = client.err().expect("no session");
    assert!(matches!(stopped, ConnectError::Stopped("SIGTERM")), "{stopped}");
    assert_eq!(agent, End::Bye(stopped.to_string()));
}
