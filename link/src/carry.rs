//! What carries a channel: one connection to the relay after the other, until the session is over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use mykube_dial::{
    RelaySocket, SocketLost,
    messages::{Incoming, sort},
};
use mykube_protocol::{FromAgent, FromRelay, Role, control::Peer, frame};
use mykube_tunnel::{SessionError, Time};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, info};

use crate::{
    channel::{BYE_TIMEOUT, End, Shared, Status},
    clock,
    redial::Redial,
    rejoin::{Rejoin, asked_delay, is_final, wait_until},
    route::still_routed,
};

/// Frames given to the socket in one write.
const BATCH: usize = 128 * 1024;
/// Frames opened before anybody is woken: of many streams, many in one go.
const BURST: usize = 64;
/// Texts for the relay that may wait.
const TEXTS_MAX: usize = 16;
/// A connection whose peer is away is asked for life this often, by WebSocket pings the relay answers ...
const RELAY_PING: Duration = Duration::from_secs(15);
/// ... and is dead after this.
const RELAY_DEAD: Duration = Duration::from_secs(20);
/// How often the clock is looked at, and how late that must be to mean a suspend (or a stop).
const TICK: Duration = Duration::from_secs(2);
const JUMP: Duration = Duration::from_secs(3);
/// Between looks whether a probed connection has shown life.
const LOOK: Duration = Duration::from_millis(20);
/// A broken socket's reader may know what the relay said before it closed.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a connection ended.
enum Over {
    /// The session may go on over another.
    Lost(SocketLost),
    /// It goes on over this one.
    Replaced(Box<RelaySocket>),
    /// The session is over.
    End(End),
}

/// Carries the channel until its session is over.
pub(crate) async fn carry_on(shared: Arc<Shared>, socket: RelaySocket, rejoin: Rejoin) {
    let window = rejoin.window;
    let redial = Redial::new(shared.clone(), rejoin);
    let end = {
        let over = shared.clone();
        let carried = async {
            let mut socket = Box::new(socket);
            loop {
                match carry(&shared, *socket, &redial).await {
                    Over::End(end) => break end,
                    Over::Replaced(next) => {
                        shared.lost("the network changed".into());
                        socket = next;
                    }
                    // The other end has heard this one's farewell and left.
                    Over::Lost(_) if shared.lock().session.is_over() => break End::Here,
                    Over::Lost(lost) if window.is_zero() => break End::Lost(lost),
                    Over::Lost(lost) if is_final(&lost) && !redial.replaced_it(&lost) => break End::Lost(lost),
                    Over::Lost(lost) => {
                        info!(%lost, "the session waits for another connection");
                        shared.lost(lost.to_string());
                        match redial.until_connected(asked_delay(&lost)).await {
                            Ok(next) => *socket = next,
                            Err(error) => break error.into(),
                        }
                        shared.lost("waiting for the other end".into());
                    }
                }
            }
        };
        tokio::select! {
            end = carried => end,
            end = window_over(&shared, window) => end,
            // Whoever ended it has waited for the farewell; a stuck connection is not waited for longer.
            end = async { let end = over.ended().await; sleep(BYE_TIMEOUT).await; end } => end,
        }
    };
    shared.finish(end);
}

/// The session has waited for as long as it may.
async fn window_over(shared: &Shared, window: Duration) -> End {
    let mut changes = shared.status_changes();
    loop {
        let status = changes.borrow_and_update().clone();
        match status {
            Status::Away { since, reason } => tokio::select! {
                () = wait_until(since + window) => return End::Window { reason, window },
                changed = changes.changed() => if changed.is_err() { std::future::pending::<()>().await },
            },
            Status::Up => {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// Carries the channel over one connection.
async fn carry(shared: &Arc<Shared>, socket: RelaySocket, redial: &Redial) -> Over {
    let tcp = socket.get_ref().tcp();
    let ends = tcp.local_addr().ok().zip(tcp.peer_addr().ok());
    let (mut sink, stream) = socket.split();
    let heard = Arc::new(AtomicU64::new(clock::now().as_micros()));
    // What is left of an earlier connection's silence says nothing of this one.
    let _ = shared.silent.notified().now_or_never();
    let reader =
        Reader { shared: shared.clone(), attempt: redial.rejoin.attempt, role: redial.role, heard: heard.clone() };
    let mut reader = AbortOnDrop(tokio::spawn(reader.run(stream)));
    let over = tokio::select! {
        over = &mut reader.0 => over.unwrap_or_else(|_| Over::Lost(SocketLost::Broken("the reader stopped".into()))),
        over = write(shared, &mut sink, &heard) => match over {
            Over::Lost(lost) => match timeout(LAST_WORDS, &mut reader.0).await {
                Ok(Ok(said)) => said,
                _ => Over::Lost(lost),
            },
            over => over,
        },
        () = shared.silent.notified() => Over::Lost(SocketLost::Broken("the other end does not answer".into())),
        over = watch(shared, redial, ends) => over,
    };
    if let Over::End(_) = over {
        let _ = timeout(BYE_TIMEOUT, sink.close()).await;
    }
    over
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens frames until the connection or the session ends.
struct Reader {
    shared: Arc<Shared>,
    attempt: mykube_protocol::Attempt,
    role: Role,
    /// When the relay last said something of its own.
    heard: Arc<AtomicU64>,
}

impl Reader {
    /// Opens all frames that are there, then wakes whom they concern: one by one would be most of the work.
    async fn run(self, stream: SplitStream<RelaySocket>) -> Over {
        let mut bursts = stream.ready_chunks(BURST);
        while let Some(burst) = bursts.next().await {
            let over = burst.into_iter().find_map(|message| self.handle(message).err());
            self.shared.settle(self.shared.lock(), clock::now());
            if let Some(over) = over {
                return over;
            }
        }
        Over::Lost(SocketLost::Broken("closed".into()))
    }

    fn handle(&self, message: tungstenite::Result<Message>) -> Result<(), Over> {
        let message = message.map_err(|error| Over::Lost(SocketLost::from_error(&error)))?;
        if !message.is_binary() {
            self.heard.store(clock::now().as_micros(), Ordering::Relaxed);
        }
        match sort(message).map_err(Over::Lost)? {
            Some(Incoming::Frame(frame)) => self.frame(frame).map_err(|error| match error {
                SessionError::Record(_) => Over::Lost(SocketLost::Broken(error.to_string())),
                error => Over::End(End::Session(error)),
            }),
            Some(Incoming::Text(text)) => {
                self.text(text);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn frame(&self, frame: Bytes) -> Result<(), SessionError> {
        let (now, session) = (clock::now(), &mut self.shared.lock().session);
        match frame.first() {
            Some(&(frame::ATTACH_CLIENT | frame::ATTACH_AGENT)) => {
                session.handle_attach(now, &frame, &mut rand::rng());
                Ok(())
            }
            _ => session.handle_frame(now, frame),
        }
    }

    fn text(&self, text: FromRelay) {
        match text {
            FromRelay::PeerHere(Peer::Session) => self.here(),
            // The relay has not heard, or not kept, that this attempt was paired.
            FromRelay::PeerHere(Peer::Attempt(attempt)) if attempt == self.attempt => {
                if self.role == Role::Agent {
                    self.say(FromAgent::Paired(attempt));
                }
                self.here();
            }
            FromRelay::PeerHere(Peer::Attempt(other)) if self.role == Role::Agent => {
                self.say(FromAgent::Refused(other));
            }
            FromRelay::PeerGone(Peer::Session) => {
                self.shared.lost("the other end lost its connection to the relay".into());
            }
            FromRelay::Ticket(ticket) => self.shared.lock().ticket = ticket,
            FromRelay::PeerHere(_) | FromRelay::PeerGone(_) => {}
        }
    }

    fn say(&self, text: FromAgent) {
        self.shared.with_state(|state, _| add(&mut state.texts, text));
    }

    fn here(&self) {
        self.shared.with_state(|state, now| {
            state.reason = "the other end came back over another connection".into();
            state.session.handle_peer_here(now, &mut rand::rng());
        });
    }
}

/// A relay that asks and never reads the answers is not kept for: what waits is said once, and no more than a few.
fn add(texts: &mut Vec<FromAgent>, text: FromAgent) {
    if texts.len() < TEXTS_MAX && !texts.contains(&text) {
        texts.push(text);
    }
}

/// Sends what the session has to say until it is over.
async fn write(shared: &Shared, sink: &mut SplitSink<RelaySocket, Message>, heard: &AtomicU64) -> Over {
    let mut batch: Vec<Bytes> = Vec::new();
    let mut texts: Vec<FromAgent> = Vec::new();
    let mut asked: Option<Time> = None;
    loop {
        if let Err(error) = collect(shared, &mut batch, &mut texts) {
            return Over::End(End::Session(error));
        }
        let mut ping = false;
        if batch.is_empty() && texts.is_empty() {
            if let Some(end) = shared.end.borrow().clone() {
                return Over::End(end);
            }
            let (until, attached) = {
                let state = shared.lock();
                if state.session.is_over() {
                    return Over::End(End::Here);
                }
                (state.writer_until, state.session.is_attached())
            };
            // An attached session looks after its connection itself.
            let relay = (!attached).then(|| Time::from_micros(heard.load(Ordering::Relaxed)));
            if relay.is_none() {
                asked = None;
            }
            let due = relay
                .map(|heard| if asked.is_some_and(|at| at > heard) { heard + RELAY_DEAD } else { heard + RELAY_PING });
            tokio::select! {
                () = shared.transmit.notified() => continue,
                () = clock::sleep_until(until.into_iter().chain(due).min()) => {}
            }
            let now = clock::now();
            if due.is_some_and(|due| due <= now) {
                let still = Time::from_micros(heard.load(Ordering::Relaxed));
                if now.since(still) >= RELAY_DEAD && asked.is_some_and(|at| at > still) {
                    return Over::Lost(SocketLost::Broken("the relay does not answer".into()));
                }
                if now.since(still) >= RELAY_PING && asked.is_none_or(|at| at <= still) {
                    asked = Some(now);
                    ping = true;
                }
            }
        }
        let sent = async {
            for text in texts.drain(..) {
                sink.feed(Message::text(text.to_string())).await?;
            }
            for frame in batch.drain(..) {
                sink.feed(Message::Binary(frame)).await?;
            }
            if ping {
                sink.feed(Message::Ping(Bytes::new())).await?;
            }
            sink.flush().await
        };
        if let Err(error) = sent.await {
            return Over::Lost(SocketLost::from_error(&error));
        }
    }
}

/// Takes frames from the session, up to a batch, and notes how long the writer may sleep after it.
fn collect(shared: &Shared, batch: &mut Vec<Bytes>, texts: &mut Vec<FromAgent>) -> Result<(), SessionError> {
    let now = clock::now();
    let mut state = shared.lock();
    state.session.handle_timeout(now);
    state.session.ask_again(now, &mut rand::rng());
    texts.append(&mut state.texts);
    let mut bytes = 0;
    while bytes < BATCH {
        let Some(frame) = state.session.poll_transmit(now)? else { break };
        bytes += frame.len();
        batch.push(frame.freeze());
    }
    state.writer_until = state.session.poll_timeout();
    shared.settle(state, now);
    if batch.is_empty() && texts.is_empty() {
        // Told from here on: by what came since the last look, if anything did.
        let mut state = shared.lock();
        state.writer_idle = true;
        shared.settle(state, clock::now());
    }
    Ok(())
}

/// Notices that this machine was suspended or its network changed: then the connection must show life, and another one
/// is dialled beside it.
async fn watch(shared: &Shared, redial: &Redial, ends: Option<(SocketAddr, SocketAddr)>) -> Over {
    let mut jumped = Box::pin(jump());
    let mut routed = true;
    loop {
        tokio::select! {
            () = &mut jumped => debug!("the clock jumped"),
            () = redial.routes.settled() => {
                let was = std::mem::replace(&mut routed, ends.is_none_or(|(local, peer)| still_routed(local, peer)));
                // A route that comes back counts: TCP's next try may be seconds away.
                if was && routed {
                    continue;
                }
                debug!(routed, "the route to the relay changed");
            }
        }
        if !redial.rejoin.window.is_zero() {
            shared.with(|session, now| session.probe(now));
            let alive = async {
                while shared.with(|session, _| session.is_probing()) {
                    sleep(LOOK).await;
                }
            };
            tokio::select! {
                () = alive, if shared.status().is_up() => {}
                dialled = redial.dial(|| {}) => match dialled {
                    Ok(Some(socket)) => return Over::Replaced(Box::new(socket)),
                    Ok(None) => {}
                    Err(error) => return Over::End(error.into()),
                },
            }
        }
        jumped.set(jump());
    }
}

/// Waits for a moment that comes much later than it should: the machine was suspended, or this process stopped.
async fn jump() {
    loop {
        let before = clock::now();
        sleep(TICK).await;
        if clock::now().since(before) >= TICK + JUMP {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use mykube_protocol::Attempt;

    use super::*;

    #[test]
    fn a_relay_that_asks_without_end_fills_no_memory() {
        let mut texts = Vec::new();
        for n in 0..=u8::MAX {
            let attempt = Attempt::from_bytes([n; 16]);
            add(&mut texts, FromAgent::Refused(attempt));
            add(&mut texts, FromAgent::Refused(attempt));
        }
        let first: Vec<_> = (0..).take(TEXTS_MAX).map(|n| FromAgent::Refused(Attempt::from_bytes([n; 16]))).collect();
        assert_eq!(texts, first);
    }
}
