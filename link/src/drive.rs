//! The driver of a channel: it moves bytes between the endpoint and its connections, and does what the endpoint orders.
//!
//! Two tasks for a connection. The reader hands frames to the endpoint, all that are there, and then wakes the streams they
//! concern; the writer asks it for frames, a batch at a time, gives each batch to the socket in one write, and keeps the timers
//! while it has nothing to send. One task for the channel dials, lets go of connections, listens to the network, and keeps the
//! timers otherwise. None of them decides anything.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use mykube_dial::{SocketLost, messages::Incoming};
use mykube_protocol::FromAgent;
use mykube_tunnel::{
    Time,
    endpoint::{BYE_TIMEOUT, ConnectionId, DialFailure, Endpoint, Order},
};
use tokio::{task::JoinHandle, time::timeout};
use tracing::debug;

use crate::{
    clock,
    pair::as_lost,
    path::{Connection, Path, Receiver, Sender},
    route::{Routes, still_routed},
    shared::{Shared, Writer},
};

#[cfg(test)]
mod tests;

/// Frames given to the socket in one write.
const BATCH: usize = 128 * 1024;
/// Frames opened before the tasks that wait for them are woken: of many streams, many in one go.
const BURST: usize = 64;

type Dial<'a, C> = Pin<Box<dyn Future<Output = Result<C, DialFailure>> + Send + 'a>>;

/// Drives the channel until it is over.
pub(crate) async fn drive<P: Path>(shared: Arc<Shared>, path: P, first: P::Connection) {
    let _stops = Stops(&shared);
    let routes = Routes::watch();
    let mut changed = Box::pin(routes.settled());
    let mut dials: Vec<(ConnectionId, Dial<'_, P::Connection>)> = Vec::new();
    let mut connection = Some(ConnectionTasks::start(&shared, ConnectionId::FIRST, first));
    loop {
        while let Some(order) = {
            let mut state = shared.lock();
            state.endpoint.poll_order()
        } {
            match order {
                Order::Dial(id) => {
                    debug!(?id, "dialling the relay");
                    let ticket = shared.lock().endpoint.ticket().clone();
                    dials.push((id, Box::pin(path.dial(ticket))));
                }
                Order::GiveUp(id) => dials.retain(|(other, _)| *other != id),
                Order::LetGo(id) => {
                    if connection.take_if(|connection| connection.id == id).is_some() {
                        shared.lock().writer = Writer::Away;
                    }
                }
                Order::Over => return,
            }
        }
        let due = {
            let mut state = shared.lock();
            state.sleeps_until = state.endpoint.poll_timeout();
            // Orders that came meanwhile are carried out first.
            if state.endpoint.has_orders() { Some(clock::now()) } else { state.sleeps_until }
        };
        tokio::select! {
            (id, dialled) = any(&mut dials) => match dialled {
                Ok(next) => {
                    let routed = is_routed(next.ends());
                    if shared.with_endpoint(|endpoint, now| endpoint.handle_connected(now, id, routed)) {
                        // The former one's tasks end before those of the next begin.
                        drop(connection.take());
                        shared.lock().writer = Writer::Away;
                        connection = Some(ConnectionTasks::start(&shared, id, next));
                    }
                }
                Err(failure) => shared.with_endpoint(|endpoint, now| {
                    endpoint.handle_dial_failed(now, id, failure, &mut rand::rng());
                }),
            },
            (id, over) = over(&mut connection) => shared.with_endpoint(|endpoint, now| match over {
                Over::Read(lost) => endpoint.handle_lost(now, id, as_lost(&lost), &mut rand::rng()),
                Over::Written(Err(lost)) => endpoint.handle_write_failed(now, id, as_lost(&lost)),
                Over::Written(Ok(())) => endpoint.handle_closed(now, id),
            }),
            () = &mut changed => {
                changed.set(routes.settled());
                let routed = connection.as_ref().is_none_or(|connection| is_routed(connection.ends));
                debug!(routed, "the network changed");
                shared.with_endpoint(|endpoint, now| endpoint.handle_network_changed(now, routed));
            }
            () = shared.drive.notified() => {
                #[cfg(test)]
                shared.driver_wakes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            () = clock::sleep_until(due) => {
                shared.with_endpoint(|endpoint, now| endpoint.handle_timeout(now, &mut rand::rng()));
            }
        }
    }
}

/// Ends the channel together with its driver, so that no task waits for a channel without one (after a panic).
struct Stops<'a>(&'a Shared);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.with_endpoint(Endpoint::handle_stopped);
    }
}

/// The first dial that succeeds or fails.
async fn any<C>(dials: &mut Vec<(ConnectionId, Dial<'_, C>)>) -> (ConnectionId, Result<C, DialFailure>) {
    let poll = |cx: &mut Context<'_>| {
        for at in 0..dials.len() {
            if let Poll::Ready(dialled) = dials[at].1.as_mut().poll(cx) {
                return Poll::Ready((dials.remove(at).0, dialled));
            }
        }
        Poll::Pending
    };
    poll_fn(poll).await
}

/// The tasks of a connection. They end with it.
struct ConnectionTasks {
    id: ConnectionId,
    ends: Option<(SocketAddr, SocketAddr)>,
    reader: Option<JoinHandle<SocketLost>>,
    writer: Option<JoinHandle<Result<(), SocketLost>>>,
}

enum Over {
    Read(SocketLost),
    Written(Result<(), SocketLost>),
}

impl ConnectionTasks {
    fn start(shared: &Arc<Shared>, id: ConnectionId, connection: impl Connection) -> Self {
        let ends = connection.ends();
        let (from, to) = connection.split();
        Self {
            id,
            ends,
            reader: Some(tokio::spawn(read(shared.clone(), id, from))),
            writer: Some(tokio::spawn(write(shared.clone(), id, to))),
        }
    }
}

/// Whether a connection's packets would still leave from where it was opened.
fn is_routed(ends: Option<(SocketAddr, SocketAddr)>) -> bool {
    ends.is_none_or(|(local, peer)| still_routed(local, peer))
}

impl Drop for ConnectionTasks {
    fn drop(&mut self) {
        self.reader.iter().for_each(JoinHandle::abort);
        self.writer.iter().for_each(JoinHandle::abort);
    }
}

/// Which task of a connection ends first, the reader or the writer, and with what.
async fn over(connection: &mut Option<ConnectionTasks>) -> (ConnectionId, Over) {
    let Some(ConnectionTasks { id, reader, writer, .. }) = connection else { return std::future::pending().await };
    let over = tokio::select! {
        lost = done(reader) => Over::Read(lost.unwrap_or_else(|| SocketLost::Broken("the reader stopped".into()))),
        sent = done(writer) => {
            Over::Written(sent.unwrap_or_else(|| Err(SocketLost::Broken("the writer stopped".into()))))
        }
    };
    (*id, over)
}

/// A task's result, once; `None` where the task panicked.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return std::future::pending().await };
    let left = running.await.ok();
    *task = None;
    left
}

/// Hands over all frames that have come, then wakes the tasks they concern: one by one would be most of the work.
async fn read(shared: Arc<Shared>, id: ConnectionId, mut from: impl Receiver) -> SocketLost {
    loop {
        let mut received = poll_fn(|cx| from.poll_receive(cx)).await;
        let mut lost = None;
        for left in (0..BURST).rev() {
            match received {
                Ok(incoming) => handle(&shared, id, incoming),
                Err(error) => {
                    lost = Some(error);
                    break;
                }
            }
            if left == 0 {
                break;
            }
            match poll_fn(|cx| Poll::Ready(from.poll_receive(cx))).await {
                Poll::Ready(next) => received = next,
                Poll::Pending => break,
            }
        }
        shared.settle(shared.lock(), clock::now());
        if let Some(lost) = lost {
            return lost;
        }
    }
}

fn handle(shared: &Shared, id: ConnectionId, incoming: Option<Incoming>) {
    let now = clock::now();
    let endpoint = &mut shared.lock().endpoint;
    match incoming {
        Some(Incoming::Frame(frame)) => endpoint.handle_frame(now, id, frame, &mut rand::rng()),
        Some(Incoming::Text(text)) => endpoint.handle_text(now, id, text, &mut rand::rng()),
        None => endpoint.handle_heard(now, id),
    }
}

/// What the writer does next.
enum Turn {
    Send {
        ping: bool,
    },
    /// No longer than until then.
    Wait {
        until: Option<Time>,
    },
    Close,
    /// Another connection carries the channel.
    Gone,
}

/// Sends what the endpoint has to say until it is over, or the connection.
async fn write(shared: Arc<Shared>, id: ConnectionId, mut to: impl Sender) -> Result<(), SocketLost> {
    let mut frames: Vec<Bytes> = Vec::new();
    let mut texts: Vec<FromAgent> = Vec::new();
    loop {
        match collect(&shared, id, &mut texts, &mut frames) {
            Turn::Send { ping } => to.send(&mut texts, &mut frames, ping).await?,
            Turn::Wait { until } => tokio::select! {
                () = shared.transmit.notified() => {}
                () = clock::sleep_until(until) => {}
            },
            Turn::Close => {
                let _ = timeout(BYE_TIMEOUT, to.close()).await;
                return Ok(());
            }
            Turn::Gone => {
                // The wake-up may have been meant for the next connection's writer.
                shared.transmit.notify_one();
                return std::future::pending().await;
            }
        }
    }
}

/// Takes what the endpoint has to say, up to a batch.
fn collect(shared: &Shared, id: ConnectionId, texts: &mut Vec<FromAgent>, frames: &mut Vec<Bytes>) -> Turn {
    let now = clock::now();
    let mut state = shared.lock();
    let endpoint = &mut state.endpoint;
    endpoint.handle_blocked(id, false);
    endpoint.handle_timeout(now, &mut rand::rng());
    if !endpoint.is_carried_by(id) {
        shared.settle(state, now);
        return Turn::Gone;
    }
    state.writer = Writer::Awake;
    let endpoint = &mut state.endpoint;
    while let Some(text) = endpoint.poll_text(id) {
        texts.push(text);
    }
    let mut bytes = 0;
    while bytes < BATCH
        && let Some(frame) = endpoint.poll_transmit(now, id)
    {
        bytes += frame.len();
        frames.push(frame.freeze());
    }
    let ping = endpoint.poll_ping(id);
    let turn = if ping || !texts.is_empty() || !frames.is_empty() {
        endpoint.handle_blocked(id, true);
        state.writer = Writer::Away;
        Turn::Send { ping }
    } else if endpoint.is_closing(id) {
        state.writer = Writer::Away;
        Turn::Close
    } else {
        let until = endpoint.poll_timeout();
        state.writer = Writer::Idle(until);
        Turn::Wait { until }
    };
    shared.settle(state, now);
    turn
}
