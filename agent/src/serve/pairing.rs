//! One code after the other until a client is in.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mykube_link::{
    DialError, Dialer, Rejoin, RelaySocket, clock,
    pair::{self, AgentEvent, AgentOutcome, AgentPairing, Established, SocketLost, Spent},
};
use mykube_protocol::{PairingCode, Role, Secret, close, http::SessionCreated};
use tokio::time::sleep;
use tracing::info;
use zeroize::Zeroizing;

use super::{
    BURNED_BACKOFF, BURNED_BACKOFF_MAX, BURNED_MAX, Config, Event, REDIAL, REDIAL_MAX, ServeError, front::Front,
};

/// Wrong guesses at all codes of this server: a guesser gains nothing by waiting for the next one.
#[derive(Clone, Default)]
pub(super) struct Guesses(Arc<Mutex<Count>>);

#[derive(Default)]
struct Count {
    /// Since the last burned code.
    wrong: u32,
    burned: u32,
}

impl Guesses {
    fn with<T>(&self, work: impl FnOnce(&mut Count) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See the module.
pub(super) struct Pairing<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) config: Config,
    pub(super) guesses: Guesses,
    pub(super) front: &'a Front,
    /// The server's very first code: a relay that is out of reach then is an error, later it is waited for.
    pub(super) first: bool,
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
            let created = self.create().await?;
            let code = PairingCode { nameplate: created.nameplate.clone(), secret: Secret::random(&mut rand::rng()) };
            let Config { code_ttl, verify, .. } = self.config;
            let shown = code.to_display();
            let mut pairing = AgentPairing::new(clock::now(), created.session_id, code, verify, code_ttl);
            let before = self.guesses.with(|count| count.wrong);
            pairing.carry_wrong(before);
            let ended = self.wait(&created, &mut pairing, shown).await?;
            self.guesses.with(|count| count.wrong += pairing.wrong().saturating_sub(before));
            match ended {
                Code::Paired(established, socket, rejoin) => return Ok((established, *socket, *rejoin)),
                Code::Spent(spent @ Spent::Expired) => self.front.event(Event::Spent(spent)),
                Code::Spent(spent) => {
                    self.front.event(Event::Spent(spent));
                    self.after_burned().await?;
                }
                Code::Lost(lost) => {
                    let disclosed = lost.code() == Some(close::UPGRADE);
                    self.front.event(Event::CodeLost(lost));
                    if disclosed {
                        self.after_burned().await?;
                    }
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

    /// A new session. Once one was had, a relay that is out of reach is waited for.
    async fn create(&mut self) -> Result<SessionCreated, DialError> {
        let mut delay = REDIAL_MAX;
        loop {
            match self.dialer.create_session().await {
                Err(error)
                    if !self.first && (error.is_unreachable() || matches!(error, DialError::RateLimited { .. })) =>
                {
                    self.front.event(Event::RelayLost(error.to_string()));
                    sleep(delay).await;
                    delay = (delay * 2).min(BURNED_BACKOFF);
                }
                other => {
                    self.first &= other.is_err();
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
        const FINAL: [u16; 5] = [close::NO_SESSION, close::EXPIRED, close::REPLACED, close::UPGRADE, close::TOO_MANY];
        let mut delay = REDIAL;
        let mut connected = false;
        let mut shown = Some(shown);
        loop {
            let lost = match self.dialer.websocket(Role::Agent, &created.session_id, &created.ticket).await {
                Ok(socket) => {
                    let front = self.front;
                    let socket = self.open.insert(socket);
                    (connected, delay) = (true, REDIAL);
                    if let Some(code) = shown.take() {
                        let expires_in = self.config.code_ttl;
                        front.event(Event::Code { code, expires_in, instead_of: None });
                    }
                    let mut notice = |event| match event {
                        AgentEvent::Attempt => front.event(Event::Attempt),
                        AgentEvent::Refused { why, left } => front.event(Event::Refused { why, left }),
                        AgentEvent::Spent(_) | AgentEvent::Paired(_) => {}
                    };
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
                Err(error) if !connected => return Err(error.into()),
                Err(error) if error.is_unreachable() => SocketLost::Broken(error.to_string()),
                Err(error) => return Ok(Code::Lost(SocketLost::Broken(error.to_string()))),
            };
            if lost.code().is_some_and(|code| FINAL.contains(&code)) {
                return Ok(Code::Lost(lost));
            }
            if delay == REDIAL {
                self.front.event(Event::RelayLost(lost.to_string()));
            }
            info!(%lost, "dialling the relay again");
            sleep(delay).await;
            delay = (delay * 2).min(REDIAL_MAX);
            pairing.handle_timeout(clock::now());
            if let Some(AgentEvent::Spent(spent)) = pairing.poll_event() {
                return Ok(Code::Spent(spent));
            }
        }
    }

    /// After three wrong secrets: a person decides, or time passes.
    async fn after_burned(&self) -> Result<(), ServeError> {
        let burned = self.guesses.with(|count| {
            count.burned += 1;
            count.wrong = 0;
            count.burned
        });
        if self.config.attended {
            return if self.front.another_code().await { Ok(()) } else { Err(ServeError::Burned) };
        }
        if burned >= BURNED_MAX {
            return Err(ServeError::Guessing);
        }
        let delay = backoff(self.config.burned_backoff, burned);
        self.front.event(Event::BackingOff(delay));
        sleep(delay).await;
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
    use super::*;

    #[test]
    fn guessers_wait_longer_each_time() {
        let minutes = |burned| backoff(BURNED_BACKOFF, burned).as_secs() / 60;
        assert_eq!([1, 2, 3, 6, 7, 100].map(minutes), [1, 2, 4, 32, 60, 60]);
    }
}
