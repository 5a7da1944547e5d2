//! Back to the relay: when to dial, and what to do about a dial that was begun on a network that is gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::select_all;
use mykube_dial::{DialError, RelaySocket, SocketLost};
use mykube_protocol::{Role, close};
use mykube_tunnel::Time;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::{
    channel::Shared,
    clock,
    rejoin::{Backoff, Rejoin},
    route::Routes,
};

/// Between changes of the network that each begin another dial: at least this, doubled each time, up to the most.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// The relay may hear of a dial for so long after it was given up here.
const ECHO: Duration = Duration::from_secs(30);

/// Dials for one channel.
pub(crate) struct Redial {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rejoin: Rejoin,
    pub(crate) role: Role,
    pub(crate) routes: Routes,
    unsure: Unsure,
}

impl Redial {
    pub(crate) fn new(shared: Arc<Shared>, rejoin: Rejoin) -> Self {
        let role = shared.lock().session.role();
        Self { shared, rejoin, role, routes: Routes::watch(), unsure: Unsure::default() }
    }

    /// Dials until it stands; begins at once when the network changes.
    ///
    /// # Errors
    /// The relay does not take the ticket and never will.
    pub(crate) async fn until_connected(&self, first: Option<Duration>) -> Result<RelaySocket, DialError> {
        let mut backoff = Backoff::new(clock::now());
        let mut delay = first.unwrap_or_else(|| backoff.next(clock::now()));
        loop {
            tokio::select! {
                () = sleep(delay) => {}
                () = self.routes.settled() => backoff.hurry(clock::now()),
            }
            if let Some(socket) = self.dial(|| backoff.hurry(clock::now())).await? {
                return Ok(socket);
            }
            delay = backoff.next(clock::now());
        }
    }

    /// Dials once, and again whenever the network changes meanwhile, which `changed` is told: packets of the first dial
    /// may be lost, and TCP's next try seconds away. The oldest goes on beside the newest, as on some machines routes
    /// change all the time. `Ok(None)` where all have failed.
    ///
    /// # Errors
    /// See [`Redial::until_connected`].
    pub(crate) async fn dial(&self, mut changed: impl FnMut()) -> Result<Option<RelaySocket>, DialError> {
        let mut dials = vec![Box::pin(self.once())];
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                (dialled, which, _) = select_all(dials.iter_mut()) => match dialled {
                    Ok(None) if dials.len() > 1 => drop(dials.remove(which)),
                    over => return over,
                },
                () = async { sleep(pause).await; self.routes.settled().await } => {
                    debug!("the network changed, dialling beside what was begun before");
                    changed();
                    dials.truncate(1);
                    dials.push(Box::pin(self.once()));
                    pause = (pause * 2).clamp(PAUSE, PAUSE_MAX);
                }
            }
        }
    }

    /// Whether a connection was closed for one that this end has opened itself, and given up.
    pub(crate) fn replaced_it(&self, lost: &SocketLost) -> bool {
        lost.code() == Some(close::REPLACED) && self.unsure.take(clock::now())
    }

    async fn once(&self) -> Result<Option<RelaySocket>, DialError> {
        let unsure = Note(&self.unsure);
        match self.rejoin.dialer.websocket(self.role, &self.rejoin.session, &self.shared.ticket()).await {
            Ok(socket) => {
                std::mem::forget(unsure);
                Ok(Some(socket))
            }
            Err(error @ DialError::TicketRefused) => Err(error),
            Err(error) => {
                info!(%error, "not connected to the relay yet");
                if error.is_answer() {
                    self.shared.why_away(error.to_string());
                }
                Ok(None)
            }
        }
    }
}

/// When a dial was last given up, or failed, that the relay may have admitted; 0 for none.
#[derive(Default)]
struct Unsure(AtomicU64);

impl Unsure {
    /// Once for each: another holder of the ticket is not answered in kind for ever.
    fn take(&self, now: Time) -> bool {
        let at = self.0.swap(0, Ordering::Relaxed);
        at != 0 && now.since(Time::from_micros(at)) < ECHO
    }
}

/// Takes note of a dial that goes without a connection.
struct Note<'a>(&'a Unsure);

impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.0.0.store(clock::now().as_micros(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_given_up_explains_one_replacement_and_not_for_ever() {
        let unsure = Unsure::default();
        assert!(!unsure.take(clock::now()), "nothing was given up");
        drop(Note(&unsure));
        assert!(unsure.take(clock::now()));
        assert!(!unsure.take(clock::now()), "once");
        drop(Note(&unsure));
        assert!(!unsure.take(clock::now() + ECHO), "too late");
    }
}
