//! One code after the other until a client is in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mykube_link::{
    DialError, Dialer, Rejoin, RelaySocket,
    clock::{self, Time},
    pair::{self, AgentEvent, AgentOutcome, AgentPairing, Established, SocketLost, Spent},
};
use mykube_protocol::{
    PairingCode, Role, Secret,
    close::{Stage, Verdict, verdict},
    http::SessionCreated,
    limits::WRONG_SECRETS_PER_CODE,
};
use tokio::time::sleep;
use tracing::info;
use zeroize::Zeroizing;

use super::{
    BURNED_BACKOFF, BURNED_BACKOFF_MAX, BURNED_MAX, Config, Event, REDIAL, REDIAL_MAX, ServeError, front::Front,
};

/// Wrong guesses at all codes of this server, and what follows from them. Counted when they happen and kept by the desk: a code
/// that is withdrawn or killed takes nothing of it along, so a guesser gains nothing by waiting for the next one.
#[derive(Clone, Default)]
pub(super) struct Guesses(Arc<Mutex<Count>>);

#[derive(Default)]
struct Count {
    /// Not yet part of a burned code.
    wrong: u32,
    burned: u32,
    /// A code was burned, and since then nobody at the terminal wanted another one.
    unanswered: bool,
    /// Unattended, the next code comes then at the earliest.
    not_before: Option<Time>,
}

impl Guesses {
    fn with<T>(&self, work: impl FnOnce(&mut Count) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A code was burned.
    pub(super) fn burn(&self, first: Duration) {
        self.with(|count| {
            count.burned += 1;
            count.wrong = count.wrong.saturating_sub(WRONG_SECRETS_PER_CODE);
            count.unanswered = true;
            count.not_before = Some(clock::now() + backoff(first, count.burned));
        });
    }
}

/// See the module.
pub(super) struct Pairing<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) config: Config,
    pub(super) guesses: Guesses,
    pub(super) front: &'a Front,
    /// The server's very first code, until it waits at the relay: a relay that cannot be had is an error then, and is
    /// waited for later.
    pub(super) first: bool,
    /// Nobody has asked for this code: after a burned one, whichever it was, a person decides about it, or time passes.
    pub(super) standing: bool,
    /// The waiting code's connection to the relay.
    pub(super) open: Option<RelaySocket>,
}

/// What became of one code.
enum Code {
    Paired(Box<Established>, Box<RelaySocket>, Box<Rejoin>),
    Spent(Spent),
    Lost(SocketLost),
}

impl Pairing<'_> {
    pub(super) async fn run(&mut self) -> Result<(Box<Established>, RelaySocket, Rejoin), ServeError> {
        loop {
            if self.standing {
                self.after_burned().await?;
            }
            let created = self.create().await?;
            let code = PairingCode { nameplate: created.nameplate.clone(), secret: Secret::random(&mut rand::rng()) };
            let Config { code_ttl, verify, .. } = self.config;
            let shown = code.to_display();
            let mut pairing = AgentPairing::new(clock::now(), created.session_id, code, verify, code_ttl);
            pairing.carry_wrong(self.guesses.with(|count| count.wrong));
            match self.wait(&created, &mut pairing, shown).await? {
                Code::Paired(established, socket, rejoin) => return Ok((established, *socket, *rejoin)),
                Code::Spent(spent @ Spent::Expired) => self.front.event(Event::Spent(spent)),
                Code::Spent(spent) => {
                    self.front.event(Event::Spent(spent));
                    self.standing = true;
                }
                Code::Lost(lost) => {
                    if verdict(lost.code(), Stage::CodeWaiting) == Verdict::Disclosed {
                        self.guesses.burn(self.config.burned_backoff);
                        self.standing = true;
                    }
                    self.front.event(Event::CodeLost(lost));
                }
            }
        }
    }

    /// Gives the code that waits up. With an orderly end the relay forgets it at once, and whoever types it hears so.
    pub(super) async fn withdraw(&mut self) {
        if let Some(socket) = self.open.take() {
            hang_up(socket).await;
        }
    }

    /// A new session. Once one was had, a relay that is out of reach is waited for, and what answers in its place.
    async fn create(&mut self) -> Result<SessionCreated, DialError> {
        let mut delay = REDIAL_MAX;
        let mut told = false;
        loop {
            match self.dialer.create_session().await {
                Err(error) if !self.first && !matches!(error, DialError::VersionUnsupported { .. }) => {
                    self.front.event(Event::RelayLost(error.to_string()));
                    told = true;
                    sleep(delay).await;
                    delay = (delay * 2).min(BURNED_BACKOFF);
                }
                other => {
                    if told && other.is_ok() {
                        self.front.event(Event::RelayBack);
                    }
                    return other;
                }
            }
        }
    }

    /// Waits with one code, over as many sockets as it takes. It is shown once the relay can say what becomes of it.
    async fn wait(
        &mut self,
        created: &SessionCreated,
        pairing: &mut AgentPairing,
        shown: Zeroizing<String>,
    ) -> Result<Code, ServeError> {
        let (front, guesses, config) = (self.front, self.guesses.clone(), self.config);
        let mut stands = WRONG_SECRETS_PER_CODE.saturating_sub(pairing.wrong());
        let mut notice = |event| match event {
            AgentEvent::Attempt => front.event(Event::Attempt),
            AgentEvent::Refused { why, left } => {
                // A hello that breaks the rules is refused too, and is no guess.
                guesses.with(|count| count.wrong += stands.saturating_sub(left));
                stands = left;
                front.event(Event::Refused { why, left });
            }
            AgentEvent::Spent(Spent::WrongSecrets | Spent::SilentHellos) => guesses.burn(config.burned_backoff),
            AgentEvent::Spent(Spent::Expired) | AgentEvent::Paired(_) => {}
        };
        let mut delay = REDIAL;
        let mut connected = false;
        let mut shown = Some(shown);
        // Whether the operator has heard what answers in the relay's place.
        let mut named = false;
        let mut told = false;
        loop {
            let mut answered = false;
            let lost = match self.dialer.websocket(Role::Agent, &created.session_id, &created.ticket).await {
                Ok(socket) => {
                    let socket = self.open.insert(socket);
                    (self.first, connected, named, delay) = (false, true, false, REDIAL);
                    if std::mem::take(&mut told) {
                        front.event(Event::RelayBack);
                    }
                    if let Some(code) = shown.take() {
                        let expires_in = self.config.code_ttl;
                        front.event(Event::Code { code, expires_in, instead_of: None });
                    }
                    let outcome = pair::agent(socket, pairing, &mut notice).await;
                    let socket = self.open.take().expect("it was put there above");
                    match outcome {
                        Ok(AgentOutcome::Paired(established)) => {
                            let rejoin = Rejoin {
                                dialer: self.dialer.clone(),
                                session: created.session_id,
                                attempt: pairing.paired().expect("it has just paired"),
                                ticket: created.ticket.clone(),
                                window: self.config.resume_window,
                            };
                            return Ok(Code::Paired(established, Box::new(socket), Box::new(rejoin)));
                        }
                        Ok(AgentOutcome::Spent(spent)) => {
                            hang_up(socket).await;
                            return Ok(Code::Spent(spent));
                        }
                        Err(lost) => lost,
                    }
                }
                Err(error @ DialError::TicketRefused) if connected => {
                    return Ok(Code::Lost(SocketLost::Broken(error.to_string())));
                }
                Err(error @ DialError::TicketRefused) => return Err(error.into()),
                Err(error) if self.first => return Err(error.into()),
                Err(error) => {
                    answered = error.is_answer();
                    SocketLost::Broken(error.to_string())
                }
            };
            if verdict(lost.code(), Stage::CodeWaiting).is_final() {
                return Ok(Code::Lost(lost));
            }
            if delay == REDIAL || answered && !named {
                (named, told) = (answered, true);
                self.front.event(Event::RelayLost(lost.to_string()));
            }
            info!(%lost, "dialling the relay again");
            sleep(delay).await;
            delay = (delay * 2).min(REDIAL_MAX);
            pairing.handle_timeout(clock::now());
            while let Some(event) = pairing.poll_event() {
                let spent = if let AgentEvent::Spent(spent) = event { Some(spent) } else { None };
                notice(event);
                if let Some(spent) = spent {
                    return Ok(Code::Spent(spent));
                }
            }
        }
    }

    /// Where a code was burned a person decides, or time passes. What there is to wait for stays where guesses are counted: it is
    /// waited for by the next code if this one is given up meanwhile.
    async fn after_burned(&self) -> Result<(), ServeError> {
        let (burned, unanswered, not_before) =
            self.guesses.with(|count| (count.burned, count.unanswered, count.not_before));
        if self.config.attended {
            if unanswered && !self.front.another_code().await {
                return Err(ServeError::Burned);
            }
            self.guesses.with(|count| count.unanswered = false);
            return Ok(());
        }
        if burned >= BURNED_MAX {
            return Err(ServeError::Guessing);
        }
        let delay = not_before.map(|then| then.since(clock::now())).unwrap_or_default();
        if !delay.is_zero() {
            self.front.event(Event::BackingOff(delay));
            sleep(delay).await;
        }
        Ok(())
    }
}

/// Doubles with every burned code.
fn backoff(first: Duration, burned: u32) -> Duration {
    first.saturating_mul(1 << burned.saturating_sub(1).min(16)).min(BURNED_BACKOFF_MAX)
}

/// An orderly close, so that what was sent last arrives; a relay that does not answer is not waited for.
async fn hang_up(mut socket: RelaySocket) {
    let _ = tokio::time::timeout(REDIAL_MAX, socket.close(None)).await;
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use mykube_link::DialOptions;
    use mykube_link::pair::ClientPairing;
    use mykube_protocol::{Attempt, FromAgent, FromRelay, SessionId, Ticket, control::Peer};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use tokio_tungstenite::tungstenite::Message;

    use super::{
        super::front::{Notice, Post},
        *,
    };

    /// Within that an answer comes, or the test has failed.
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

    /// The relay's own last word.
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
        // Until it hangs up: closed with unread bytes, the answer may be lost.
        let _ = tcp.read_to_end(&mut request).await;
    }

    async fn admits(relay: &TcpListener) -> tokio_tungstenite::WebSocketStream<TcpStream> {
        tokio_tungstenite::accept_async(relay.accept().await.unwrap().0).await.unwrap()
    }

    /// Where a relay should be.
    async fn place() -> (TcpListener, Dialer) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        (listener, Dialer::new(url, DialOptions::default()).unwrap())
    }

    /// What the operator hears of a code that waits at a relay which does this. `None` for the outcome where it waits on.
    async fn waits(relay: impl AsyncFnOnce(TcpListener)) -> (Option<Code>, Vec<Event>) {
        let (listener, dialer) = place().await;
        let (post, mut posted) = mpsc::unbounded_channel();
        let front = Front { client: 1, name: "client-1".into(), post };
        let (config, guesses) = (config(), Guesses::default());
        let mut waiting =
            Pairing { dialer: &dialer, config, guesses, front: &front, first: true, standing: true, open: None };
        let code: PairingCode = "483 20417".parse().unwrap();
        let (session_id, ticket) = (SessionId::from_bytes([2; 16]), Ticket::from_bytes(b"agent"));
        let created =
            SessionCreated { session_id, nameplate: code.nameplate.clone(), ticket, expires_at: String::new() };
        let mut pairing = AgentPairing::new(clock::now(), session_id, code, false, BOUND);
        let over = async {
            tokio::select! {
                code = waiting.wait(&created, &mut pairing, Zeroizing::new("483 20417".into())) => Some(code.unwrap()),
                () = relay(listener) => None,
            }
        };
        let over = tokio::time::timeout(BOUND, over).await.expect("it hangs");
        let mut events = Vec::new();
        while let Ok(Post { notice: Notice::Event(event), .. }) = posted.try_recv() {
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
        let [Event::Code { .. }, Event::RelayLost(_), Event::RelayLost(named)] = &events[..] else {
            panic!("{events:?}")
        };
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
        let (post, _posted) = mpsc::unbounded_channel();
        let front = Front { client: 1, name: "client-1".into(), post };
        for first in [true, false] {
            let (config, guesses) = (config(), Guesses::default());
            let mut waiting =
                Pairing { dialer: &dialer, config, guesses, front: &front, first, standing: true, open: None };
            let relay = async {
                answers(&listener, &answer("403 Forbidden", "<html>log in")).await;
                if !first {
                    answers(&listener, &answer("400 Bad Request", r#"{"error":"a proxy's"}"#)).await;
                    answers(&listener, &refusal("400 Bad Request", "version", r#"{"error":"version 3 only"}"#)).await;
                }
            };
            let (created, ()) =
                tokio::time::timeout(BOUND, async { tokio::join!(waiting.create(), relay) }).await.unwrap();
            let error = created.unwrap_err();
            assert_eq!(matches!(error, DialError::NotARelay { .. }), first, "{error}");
            assert_eq!(matches!(error, DialError::VersionUnsupported { .. }), !first, "{error}");
        }
    }

    /// A client that types this code over the relay, as far as the agent's refusal.
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

    /// As where the client is back whose place the code was for, at the relay's pleasure.
    #[tokio::test]
    async fn wrong_guesses_at_codes_that_are_given_up_count() {
        let (listener, dialer) = place().await;
        let (post, mut posted) = mpsc::unbounded_channel();
        let front = Front { client: 1, name: "client-1".into(), post };
        let guesses = Guesses::default();
        let code: PairingCode = "483 20417".parse().unwrap();
        let session_id = SessionId::from_bytes([2; 16]);
        // What the second code still stands: one guess.
        for (wrong, left) in [(2, Some(2)), (1, None)] {
            let (config, guesses) = (config(), guesses.clone());
            let mut waiting =
                Pairing { dialer: &dialer, config, guesses, front: &front, first: true, standing: true, open: None };
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
                    // Dropped at once, in the middle of whatever it does.
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
        while let Ok(Post { notice: Notice::Event(event), .. }) = posted.try_recv() {
            refused += u32::from(matches!(event, Event::Refused { .. }));
        }
        assert_eq!(refused, 3);

        // The next code waits, though the one that was burned is not there any more.
        let (config, first) = (config(), false);
        let mut next = Pairing { dialer: &dialer, config, guesses, front: &front, first, standing: true, open: None };
        let said = async {
            tokio::select! {
                _ = next.run() => panic!("it paired"),
                () = async { drop(admits(&listener).await) } => panic!("it made a code"),
                Some(Post { notice: Notice::Event(event), .. }) = posted.recv() => event,
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
}
