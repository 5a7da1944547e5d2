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
    operator::OperatorHandle,
    ui::Event,
};
use crate::backoff::doubled;

/// Wrong guesses at all codes of this server, and what follows from them. They are counted when they happen and shared by all
/// codes: the count outlives a code that is withdrawn or killed, so a guesser gains nothing by waiting for the next one.
#[derive(Clone, Default)]
pub(super) struct Guesses(Arc<Mutex<Count>>);

#[derive(Default)]
struct Count {
    /// Wrong guesses that have not burned a code yet.
    wrong: u32,
    burned: u32,
    /// A code was burned, and the operator has not asked for another one since.
    unanswered: bool,
    /// An unattended server makes its next code then at the earliest.
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
    pub(super) operator: &'a OperatorHandle,
    /// The server's very first code, until it waits at the relay. A relay out of reach ends the server then; later the server
    /// waits for it.
    pub(super) first: bool,
    /// Nobody asked for this code: after any burned code a person decides whether to make it, or some time passes first.
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
                Code::Spent(spent @ Spent::Expired) => self.operator.event(Event::Spent(spent)),
                Code::Spent(spent) => {
                    self.operator.event(Event::Spent(spent));
                    self.standing = true;
                }
                Code::Lost(lost) => {
                    if verdict(lost.code(), Stage::CodeWaiting) == Verdict::Disclosed {
                        self.guesses.burn(self.config.burned_backoff);
                        self.standing = true;
                    }
                    self.operator.event(Event::CodeLost(lost));
                }
            }
        }
    }

    /// Gives up the code that waits. With an orderly close the relay forgets it at once, and tells so to a client that types it.
    pub(super) async fn withdraw(&mut self) {
        if let Some(socket) = self.open.take() {
            hang_up(socket).await;
        }
    }

    /// Makes a new session at the relay. After the server's first, a relay out of reach is dialled again until it answers, and
    /// so is a login page or proxy that answers instead.
    async fn create(&mut self) -> Result<SessionCreated, DialError> {
        let mut delay = RECONNECT_MAX;
        let mut told = false;
        loop {
            match self.dialer.create_session().await {
                Err(error) if !self.first && !matches!(error, DialError::VersionUnsupported { .. }) => {
                    self.operator.event(Event::RelayLost(error.to_string()));
                    told = true;
                    sleep(delay).await;
                    delay = (delay * 2).min(BURNED_BACKOFF);
                }
                other => {
                    if told && other.is_ok() {
                        self.operator.event(Event::RelayBack);
                    }
                    return other;
                }
            }
        }
    }

    /// Waits with one code, over as many sockets as it takes. The code is shown once the first socket is open.
    async fn wait(
        &mut self,
        created: &SessionCreated,
        pairing: &mut AgentPairing,
        shown: Zeroizing<String>,
    ) -> Result<Code, ServeError> {
        let (operator, guesses, config) = (self.operator, self.guesses.clone(), self.config);
        let mut stands = WRONG_SECRETS_PER_CODE.saturating_sub(pairing.wrong());
        let mut notice = |event| match event {
            AgentEvent::Attempt => operator.event(Event::Attempt),
            AgentEvent::Refused { why, left } => {
                // A hello that breaks the rules is refused too, but counts as no guess.
                guesses.with(|count| count.wrong += stands.saturating_sub(left));
                stands = left;
                operator.event(Event::Refused { why, left });
            }
            AgentEvent::Spent(Spent::WrongSecrets | Spent::SilentHellos) => guesses.burn(config.burned_backoff),
            AgentEvent::Spent(Spent::Expired) | AgentEvent::Paired(_) => {}
        };
        let mut delay = RECONNECT;
        let mut connected = false;
        let mut shown = Some(shown);
        // Whether the operator has been told that something else answers at the relay's address.
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
                        operator.event(Event::RelayBack);
                    }
                    if let Some(code) = shown.take() {
                        let expires_in = self.config.code_ttl;
                        operator.event(Event::Code { code, expires_in, instead_of: None });
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
                self.operator.event(Event::RelayLost(lost.to_string()));
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

    /// After a burned code: asks the operator for leave to make another, or waits if there is no terminal. Both are kept with the
    /// guesses, so that the next code asks or waits if this one is given up meanwhile.
    async fn after_burned(&self) -> Result<(), ServeError> {
        let (burned, unanswered, not_before) =
            self.guesses.with(|count| (count.burned, count.unanswered, count.not_before));
        if self.config.attended {
            if unanswered && !self.operator.another_code().await {
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
            self.operator.event(Event::BackingOff(delay));
            sleep(delay).await;
        }
        Ok(())
    }
}

/// The wait before the next code: doubles with every burned code.
fn backoff(first: Duration, burned: u32) -> Duration {
    doubled(first, burned.saturating_sub(1), BURNED_BACKOFF_MAX)
}

/// Closes in order, so that what was sent last arrives. Gives up on a relay that does not answer.
async fn hang_up(mut socket: RelaySocket) {
    let _ = tokio::time::timeout(RECONNECT_MAX, socket.close(None)).await;
}

#[cfg(test)]
mod tests;
