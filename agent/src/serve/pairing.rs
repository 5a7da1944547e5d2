//! One code after the other until a client is in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mykube_dial::{DialError, Dialer, RelaySocket, SocketLost};
use mykube_link::{
    Reconnect,
    clock::{self, Time},
    pair::{self, AgentEvent, AgentOutcome, AgentPairing, Established, Spent},
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
    config::{BURNED_BACKOFF, BURNED_BACKOFF_MAX, BURNED_MAX, Config, RECONNECT, RECONNECT_MAX},
    error::ServeError,
    front::Front,
    ui::Event,
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
    Paired(Box<Established>, Box<RelaySocket>, Box<Reconnect>),
    Spent(Spent),
    Lost(SocketLost),
}

impl Pairing<'_> {
    pub(super) async fn run(&mut self) -> Result<(Box<Established>, RelaySocket, Reconnect), ServeError> {
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
                Code::Paired(established, socket, reconnect) => return Ok((established, *socket, *reconnect)),
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
        let mut delay = RECONNECT_MAX;
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
        let mut delay = RECONNECT;
        let mut connected = false;
        let mut shown = Some(shown);
        // Whether the operator has heard what answers in the relay's place.
        let mut named = false;
        let mut told = false;
        let mut unsure = None;
        loop {
            let mut answered = false;
            let lost = match self.dialer.websocket(Role::Agent, &created.session_id, &created.ticket).await {
                Ok(socket) => {
                    let socket = self.open.insert(socket);
                    (self.first, connected, named, delay) = (false, true, false, RECONNECT);
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
                            let reconnect = Reconnect {
                                dialer: self.dialer.clone(),
                                session: created.session_id,
                                attempt: pairing.paired().expect("it has just paired"),
                                ticket: created.ticket.clone(),
                                window: self.config.resume_window,
                                unsure,
                            };
                            return Ok(Code::Paired(established, Box::new(socket), Box::new(reconnect)));
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
                    unsure = Some(clock::now());
                    SocketLost::Broken(error.to_string())
                }
            };
            if verdict(lost.code(), Stage::CodeWaiting).is_final() {
                return Ok(Code::Lost(lost));
            }
            if delay == RECONNECT || answered && !named {
                (named, told) = (answered, true);
                self.front.event(Event::RelayLost(lost.to_string()));
            }
            info!(%lost, "dialling the relay again");
            sleep(delay).await;
            delay = (delay * 2).min(RECONNECT_MAX);
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
    let _ = tokio::time::timeout(RECONNECT_MAX, socket.close(None)).await;
}

#[cfg(test)]
mod tests;
