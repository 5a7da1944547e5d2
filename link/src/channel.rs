//! A running channel: a tunnel's endpoint, driven over one connection to the relay after the other, for the tasks that use its
//! streams. What they share is in `shared`, the tasks that move the bytes are in `drive`, and `tunnel::endpoint` decides.

use std::sync::{Arc, atomic::Ordering};

use mykube_dial::RelaySocket;
use mykube_protocol::channel::Welcome;
pub use mykube_tunnel::endpoint::{End, PeerStatus};
use mykube_tunnel::{
    Config, Established, SessionError,
    endpoint::{Endpoint, Settings},
    session::OpenError,
};
use tokio::sync::watch;

use crate::{
    clock,
    drive::drive,
    path::{Path, ToRelay},
    reconnect::Reconnect,
    shared::Shared,
    stream::ChannelStream,
};

/// A running channel. Clones are handles to the same one; it ends when [`Channel::bye`] is called, or by itself.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

impl Channel {
    /// Starts the channel's tasks on the current runtime.
    #[must_use]
    pub fn start(established: Established, socket: RelaySocket, reconnect: Reconnect) -> Self {
        let Reconnect { attempt, window, unsure, .. } = reconnect;
        let settings = Settings { attempt, ticket: reconnect.ticket.clone(), window, unsure };
        let role = established.role;
        Self::over(ToRelay { reconnect, role }, established, socket, settings)
    }

    /// Starts a channel over any path, as the tests do.
    pub(crate) fn over<P: Path>(path: P, established: Established, first: P::Connection, settings: Settings) -> Self {
        let endpoint = Endpoint::new(clock::now(), established, Config::default(), settings);
        let shared = Arc::new(Shared::new(endpoint));
        tokio::spawn(drive(shared.clone(), path, first));
        Self { shared }
    }

    /// Opens a stream to the API server. Waits while as many are open as the agent keeps: 256, or 1,024. Safe to cancel.
    ///
    /// # Errors
    /// The channel is over.
    pub async fn open(&self) -> Result<ChannelStream, End> {
        loop {
            let freed = self.shared.streams.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(end) = self.shared.end.borrow().clone() {
                return Err(end);
            }
            match self.shared.with(|session, now| session.open(now, None)) {
                Ok(id) => return Ok(ChannelStream::new(self.shared.clone(), id)),
                Err(OpenError::Closed) => return Err(self.ended().await),
                Err(OpenError::TooMany) => tokio::select! {
                    () = freed => {}
                    end = self.ended() => return Err(end),
                },
            }
        }
    }

    /// The next stream the peer opens, and where to. `None` when the channel is over.
    pub async fn accept(&self) -> Option<(ChannelStream, Option<String>)> {
        loop {
            let opened = self.shared.streams.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if let Some((id, target)) = self.shared.lock().opened.pop_front() {
                return Some((ChannelStream::new(self.shared.clone(), id), target));
            }
            tokio::select! {
                () = opened => {}
                _ = self.ended() => return None,
            }
        }
    }

    /// Tells the client of the cluster. The agent's side.
    ///
    /// # Errors
    /// The welcome is too long for the protocol.
    pub fn send_welcome(&self, welcome: &Welcome) -> Result<(), SessionError> {
        self.shared.with(|session, _| session.welcome(welcome))
    }

    /// The agent's newest word on the cluster. The client's side.
    #[must_use]
    pub fn welcome(&self) -> watch::Receiver<Option<Arc<Welcome>>> {
        self.shared.welcome.subscribe()
    }

    /// Whether the two ends hear each other, and every change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<PeerStatus> {
        self.shared.status.subscribe()
    }

    /// From here on streams do not fail with the channel: they wait. For a caller that wants to stop the programs that use
    /// them before these see the failure, as some take it for an end (kubectl over SPDY exits with 0).
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::Release);
    }

    /// The programs that were to be stopped first are stopped: streams fail with the channel again.
    pub fn let_go(&self) {
        self.shared.held.store(false, Ordering::Release);
        self.shared.let_go.notify_waiters();
        self.shared.settle(self.shared.lock(), clock::now());
    }

    /// How the channel ended, once it has and streams fail with it.
    pub async fn failed(&self) -> End {
        let end = self.ended().await;
        loop {
            let let_go = self.shared.let_go.notified();
            tokio::pin!(let_go);
            let_go.as_mut().enable();
            if !self.shared.held.load(Ordering::Acquire) {
                return end;
            }
            let_go.await;
        }
    }

    /// How the channel ended, once it has.
    pub async fn ended(&self) -> End {
        self.shared.ended().await
    }

    /// Ends the session in this end's own words. The channel lives on until they are heard and a little longer, or until its resume
    /// window is over.
    pub fn say_bye(&self, reason: &str) {
        self.shared.with(|session, _| session.bye(reason));
    }

    /// Ends the session in this end's own words and waits, a little, until they are heard.
    pub async fn bye(&self, reason: &str) {
        self.shared.with_endpoint(|endpoint, now| endpoint.leave(now, reason));
        self.ended().await;
    }

    /// How often the driver was woken to look at what there is to do; its own timers do not count.
    #[cfg(test)]
    pub(crate) fn driver_wakes(&self) -> usize {
        self.shared.driver_wakes.load(Ordering::Relaxed)
    }
}
