use futures_util::{SinkExt as _, StreamExt as _};
use mykube_dial::DialOptions;
use mykube_link::pair::ClientPairing;
use mykube_protocol::{Attempt, FromAgent, FromRelay, SessionId, Ticket, relay_text::Peer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use tokio_tungstenite::tungstenite::Message;

use super::{
    super::operator::{ClientNotice, Notice},
    *,
};

/// A test that takes longer has failed.
const BOUND: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config {
        code_ttl: BOUND,
        verify: false,
        attended: false,
        burned_backoff: BURNED_BACKOFF,
        max_clients: 1,
        stay: true,
        resume_window: BOUND,
        replace_after: None,
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nlocation: https://login.test/\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The relay's last frame.
fn refusal(status: &str, what: &str, body: &str) -> String {
    answer(&format!("{status}\r\nmykube-refusal: {what}"), body)
}

async fn answers(relay: &TcpListener, answer: &str) {
    let (mut tcp, _) = relay.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(tcp.read_buf(&mut request).await.unwrap() > 0, "the request ends early");
    }
    tcp.write_all(answer.as_bytes()).await.unwrap();
    // Until the client closes: a connection closed with unread bytes may lose the answer.
    let _ = tcp.read_to_end(&mut request).await;
}

async fn admits(relay: &TcpListener) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    tokio_tungstenite::accept_async(relay.accept().await.unwrap().0).await.unwrap()
}

/// The address of a relay that the test plays.
async fn place() -> (TcpListener, Dialer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, Dialer::new(url, DialOptions::default()).unwrap())
}

/// What the operator is told while a code waits at `relay`. The outcome is `None` if the code still
/// waits.
async fn waits(relay: impl AsyncFnOnce(TcpListener)) -> (Option<Code>, Vec<Event>) {
    let (listener, dialer) = place().await;
    let (sender, mut sent) = mpsc::unbounded_channel();
    let operator = OperatorHandle { client: 1, name: "client-1".into(), sender };
    let (config, guesses) = (config(), Guesses::default());
    let mut waiting =
        Pairing { dialer: &dialer, config, guesses, operator: &operator, first: true, standing: true, open: None };
    let code: PairingCode = "483 20417".parse().unwrap();
    let (session_id, ticket) = (SessionId::from_bytes([2; 16]), Ticket::from_bytes(b"agent"));
    let created = SessionCreated { session_id, nameplate: code.nameplate.clone(), ticket, expires_at: String::new() };
    let mut pairing = AgentPairing::new(clock::now(), session_id, code, false, BOUND);
    let over = async {
        tokio::select! {
            code = waiting.wait(&created, &mut pairing, Zeroizing::new("483 20417".into())) => Some(code.unwrap()),
            () = relay(listener) => None,
        }
    };
    let over = tokio::time::timeout(BOUND, over).await.expect("it hangs");
    let mut events = Vec::new();
    while let Ok(ClientNotice { notice: Notice::Event(event), .. }) = sent.try_recv() {
        events.push(event);
    }
    (over, events)
}

#[tokio::test]
async fn a_code_waits_while_something_else_answers_in_the_relays_place() {
    let (over, events) = waits(async |relay| {
        drop(admits(&relay).await);
        answers(&relay, &answer("302 Found", "")).await;
        answers(&relay, &answer("401 Unauthorized", r#"{"error":"log in first"}"#)).await;
        admits(&relay).await;
    })
    .await;
    assert!(over.is_none(), "{events:?}");
    let [Event::Code { .. }, Event::RelayLost(_), Event::RelayLost(named)] = &events[..] else { panic!("{events:?}") };
    assert!(named.contains("redirects to https://login.test/"), "{named}");
}

#[tokio::test]
async fn a_relay_that_is_back_is_told() {
    let (_, events) = waits(async |relay| {
        drop(admits(&relay).await);
        drop(admits(&relay).await);
        admits(&relay).await;
    })
    .await;
    let told = matches!(events[..], [Event::Code { .. }, Event::RelayLost(_), Event::RelayBack, ..]);
    assert!(told, "{events:?}");
}

#[tokio::test]
async fn a_code_ends_with_the_relays_own_word() {
    let (over, events) = waits(async |relay| {
        drop(admits(&relay).await);
        answers(&relay, &refusal("401 Unauthorized", "ticket", r#"{"error":"ticket refused"}"#)).await;
        admits(&relay).await;
    })
    .await;
    let Some(Code::Lost(lost)) = over else { panic!("{events:?}") };
    assert!(lost.to_string().contains("refuses the ticket"), "{lost}");
}

#[tokio::test]
async fn what_answers_in_the_relays_place_is_waited_out_once_there_was_a_session() {
    let (listener, dialer) = place().await;
    let (sender, _sent) = mpsc::unbounded_channel();
    let operator = OperatorHandle { client: 1, name: "client-1".into(), sender };
    for first in [true, false] {
        let (config, guesses) = (config(), Guesses::default());
        let mut waiting =
            Pairing { dialer: &dialer, config, guesses, operator: &operator, first, standing: true, open: None };
        let relay = async {
            answers(&listener, &answer("403 Forbidden", "<html>log in")).await;
            if !first {
                answers(&listener, &answer("400 Bad Request", r#"{"error":"a proxy's"}"#)).await;
                answers(&listener, &refusal("400 Bad Request", "version", r#"{"error":"version 3 only"}"#)).await;
            }
        };
        let (created, ()) = tokio::time::timeout(BOUND, async { tokio::join!(waiting.create(), relay) }).await.unwrap();
        let error = created.unwrap_err();
        assert_eq!(matches!(error, DialError::NotARelay { .. }), first, "{error}");
        assert_eq!(matches!(error, DialError::VersionUnsupported { .. }), !first, "{error}");
    }
}

/// A client that knows the code.
async fn pairs(mut relay: tokio_tungstenite::WebSocketStream<TcpStream>) {
    let here = FromRelay::PeerHere(Peer::Attempt(Attempt::from_bytes([1; 16]))).to_string();
    relay.send(Message::text(here)).await.unwrap();
    let (session, code) = (SessionId::from_bytes([2; 16]), "483 20417".parse().unwrap());
    let mut client = ClientPairing::new(clock::now(), session, code, false);
    loop {
        if let Message::Binary(frame) = relay.next().await.unwrap().unwrap() {
            let opened = client.handle_frame(clock::now(), frame.to_vec()[..].into(), &mut rand::rng()).unwrap();
            while let Some(frame) = client.poll_transmit() {
                relay.send(Message::Binary(frame)).await.unwrap();
            }
            if opened.is_some() {
                return;
            }
        }
    }
}

/// The relay may admit it late, in place of the connection over which the ends have paired.
#[tokio::test]
async fn a_session_knows_of_a_dial_that_failed_before_it() {
    let paired = async |fails: bool| {
        let (over, events) = waits(async |relay| {
            drop(admits(&relay).await);
            if fails {
                answers(&relay, &answer("302 Found", "")).await;
            }
            pairs(admits(&relay).await).await;
            std::future::pending().await
        })
        .await;
        let Some(Code::Paired(.., reconnect)) = over else { panic!("{events:?}") };
        reconnect.unsure
    };
    assert_ne!(paired(true).await, None);
    assert_eq!(paired(false).await, None);
}

/// A client that pairs with this code over the relay, until the agent refuses it.
async fn guesses_wrong(relay: &mut tokio_tungstenite::WebSocketStream<TcpStream>, typed: &str, attempt: u8) {
    let attempt = Attempt::from_bytes([attempt; 16]);
    let here = FromRelay::PeerHere(Peer::Attempt(attempt)).to_string();
    relay.send(Message::text(here)).await.unwrap();
    let session = SessionId::from_bytes([2; 16]);
    let mut client = ClientPairing::new(clock::now(), session, typed.parse().unwrap(), false);
    loop {
        match relay.next().await.unwrap().unwrap() {
            Message::Binary(frame) => {
                let opened = client.handle_frame(clock::now(), frame.to_vec()[..].into(), &mut rand::rng());
                assert!(opened.unwrap().is_none());
                while let Some(frame) = client.poll_transmit() {
                    relay.send(Message::Binary(frame)).await.unwrap();
                }
            }
            Message::Text(text) => {
                assert_eq!(text.as_str(), FromAgent::Refused(attempt).to_string());
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A code is withdrawn, as when the client is back that it was to replace; a hostile relay can bring this about.
#[tokio::test]
async fn wrong_guesses_at_codes_that_are_given_up_count() {
    let (listener, dialer) = place().await;
    let (sender, mut sent) = mpsc::unbounded_channel();
    let operator = OperatorHandle { client: 1, name: "client-1".into(), sender };
    let guesses = Guesses::default();
    let code: PairingCode = "483 20417".parse().unwrap();
    let session_id = SessionId::from_bytes([2; 16]);
    // How many guesses the second code survives: one.
    for (wrong, left) in [(2, Some(2)), (1, None)] {
        let (config, guesses) = (config(), guesses.clone());
        let mut waiting =
            Pairing { dialer: &dialer, config, guesses, operator: &operator, first: true, standing: true, open: None };
        let ticket = Ticket::from_bytes(b"agent");
        let created =
            SessionCreated { session_id, nameplate: code.nameplate.clone(), ticket, expires_at: String::new() };
        let mut pairing = AgentPairing::new(clock::now(), session_id, code.clone(), false, BOUND);
        pairing.carry_wrong(waiting.guesses.with(|count| count.wrong));
        let relay = async {
            let mut relay = admits(&listener).await;
            for attempt in 0..wrong {
                guesses_wrong(&mut relay, "483 20418", attempt).await;
            }
        };
        let over = async {
            tokio::select! {
                // Dropped at once, whatever it is doing.
                biased;
                () = relay => {}
                _ = waiting.wait(&created, &mut pairing, Zeroizing::new(String::new())) => {}
            }
        };
        tokio::time::timeout(BOUND, over).await.expect("it hangs");
        let counted = waiting.guesses.with(|count| (count.wrong, count.burned));
        assert_eq!(counted, left.map_or((0, 1), |wrong| (wrong, 0)));
    }
    let mut refused = 0;
    while let Ok(ClientNotice { notice: Notice::Event(event), .. }) = sent.try_recv() {
        refused += u32::from(matches!(event, Event::Refused { .. }));
    }
    assert_eq!(refused, 3);

    // The next code waits out the delay, although the burned code is gone.
    let (config, first) = (config(), false);
    let mut next = Pairing { dialer: &dialer, config, guesses, operator: &operator, first, standing: true, open: None };
    let said = async {
        tokio::select! {
            _ = next.run() => panic!("it paired"),
            () = async { drop(admits(&listener).await) } => panic!("it made a code"),
            Some(ClientNotice { notice: Notice::Event(event), .. }) = sent.recv() => event,
        }
    };
    let said = tokio::time::timeout(BOUND, said).await.expect("it hangs");
    let Event::BackingOff(delay) = said else { panic!("{said:?}") };
    assert!(delay <= BURNED_BACKOFF && delay > BURNED_BACKOFF - BOUND, "{delay:?}");
}

#[test]
fn guessers_wait_longer_each_time() {
    let minutes = |burned| backoff(BURNED_BACKOFF, burned).as_secs() / 60;
    assert_eq!([1, 2, 3, 6, 7, 100].map(minutes), [1, 2, 4, 32, 60, 60]);
}
