//! What drives a channel: it moves bytes between the endpoint and its connections, and does what the endpoint orders.
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

/// Frames given to the socket in one write.
const BATCH: usize = 128 * 1024;
/// Frames opened before anybody is woken: of many streams, many in one go.
const BURST: usize = 64;

type Dial<'a, C> = Pin<Box<dyn Future<Output = Result<C, DialFailure>> + Send + 'a>>;

/// Drives the channel until it is over.
pub(crate) async fn drive<P: Path>(shared: Arc<Shared>, path: P, first: P::Connection) {
    let _stops = Stops(&shared);
    let routes = Routes::watch();
    let mut changed = Box::pin(routes.settled());
    let mut dials: Vec<(ConnectionId, Dial<'_, P::Connection>)> = Vec::new();
    let mut connection = Some(Carrier::start(&shared, ConnectionId::FIRST, first));
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
            // What was ordered meanwhile is done first.
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
                        connection = Some(Carrier::start(&shared, id, next));
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
            () = shared.drive.notified() => {}
            () = clock::sleep_until(due) => {
                shared.with_endpoint(|endpoint, now| endpoint.handle_timeout(now, &mut rand::rng()));
            }
        }
    }
}

/// Ends the channel with whoever drives it, so that nobody waits for one that nobody drives (after a panic).
struct Stops<'a>(&'a Shared);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.with_endpoint(Endpoint::handle_stopped);
    }
}

/// The first dial that comes to something.
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
struct Carrier {
    id: ConnectionId,
    ends: Option<(SocketAddr, SocketAddr)>,
    reader: Option<JoinHandle<SocketLost>>,
    writer: Option<JoinHandle<Result<(), SocketLost>>>,
}

enum Over {
    Read(SocketLost),
    Written(Result<(), SocketLost>),
}

impl Carrier {
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

impl Drop for Carrier {
    fn drop(&mut self) {
        self.reader.iter().for_each(JoinHandle::abort);
        self.writer.iter().for_each(JoinHandle::abort);
    }
}

/// What ends of a connection, its reading or its writing.
async fn over(connection: &mut Option<Carrier>) -> (ConnectionId, Over) {
    let Some(Carrier { id, reader, writer, .. }) = connection else { return std::future::pending().await };
    let over = tokio::select! {
        lost = done(reader) => Over::Read(lost.unwrap_or_else(|| SocketLost::Broken("the reader stopped".into()))),
        sent = done(writer) => {
            Over::Written(sent.unwrap_or_else(|| Err(SocketLost::Broken("the writer stopped".into()))))
        }
    };
    (*id, over)
}

/// What a task left, once; nothing where it panicked.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return std::future::pending().await };
    let left = running.await.ok();
    *task = None;
    left
}

/// Hands over all that is there, then wakes whom it concerns: one by one would be most of the work.
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
                // If this was woken in the next one's stead.
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

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use mykube_protocol::{Attempt, FromRelay, Role, Ticket, relay_text::Peer};
    use mykube_tunnel::{Established, endpoint::Settings, seam};
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::channel::{Channel, End, Status};

    /// A relay in memory: it joins the newest connections of the two ends, and can cut them.
    #[derive(Default)]
    struct Relay {
        ends: Mutex<[Option<UnboundedSender<Incoming>>; 2]>,
        dials: AtomicUsize,
        away: AtomicBool,
        panics: AtomicBool,
    }

    impl Relay {
        fn join(self: &Arc<Self>, who: usize) -> Pipe {
            let (tell, told) = unbounded_channel();
            let mut ends = self.ends.lock().unwrap();
            ends[who] = Some(tell);
            if self.dials.fetch_add(1, Ordering::Relaxed) >= 2
                && let [Some(one), Some(other)] = &*ends
            {
                for end in [one, other] {
                    let _ = end.send(Incoming::Text(FromRelay::PeerHere(Peer::Session)));
                }
            }
            Pipe { relay: self.clone(), who, told }
        }

        /// Both connections are gone.
        fn cut(&self) {
            *self.ends.lock().unwrap() = [None, None];
        }
    }

    struct To(Arc<Relay>, usize);

    struct Pipe {
        relay: Arc<Relay>,
        who: usize,
        told: UnboundedReceiver<Incoming>,
    }

    impl Path for To {
        type Connection = Pipe;

        async fn dial(&self, _: Ticket) -> Result<Pipe, DialFailure> {
            assert!(!self.0.panics.load(Ordering::Relaxed), "on purpose");
            if self.0.away.load(Ordering::Relaxed) {
                return Err(DialFailure::Answered("closed for today".into()));
            }
            Ok(self.0.join(self.1))
        }
    }

    impl Connection for Pipe {
        type Receiver = UnboundedReceiver<Incoming>;
        type Sender = To;

        fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
            None
        }

        fn split(self) -> (Self::Receiver, To) {
            (self.told, To(self.relay, self.who))
        }
    }

    impl Receiver for UnboundedReceiver<Incoming> {
        fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, SocketLost>> {
            self.poll_recv(cx).map(|came| came.map(Some).ok_or(SocketLost::Broken("cut".into())))
        }
    }

    impl Sender for To {
        async fn send(
            &mut self,
            texts: &mut Vec<FromAgent>,
            frames: &mut Vec<Bytes>,
            _: bool,
        ) -> Result<(), SocketLost> {
            texts.clear();
            if let Some(peer) = &self.0.ends.lock().unwrap()[1 - self.1] {
                for frame in frames.drain(..) {
                    let _ = peer.send(Incoming::Frame(frame));
                }
            }
            frames.clear();
            Ok(())
        }

        async fn close(&mut self) {
            self.0.ends.lock().unwrap()[self.1] = None;
        }
    }

    fn channels(window: Duration) -> (Arc<Relay>, Channel, Channel) {
        let relay = Arc::new(Relay::default());
        let [client, agent] = [(0, Role::Client), (1, Role::Agent)].map(|(who, role)| {
            let established: Established = seam::established(role, [1; 32], [2; 32]);
            let settings = Settings {
                attempt: Attempt::from_bytes([1; 16]),
                ticket: Ticket::from_bytes(b"ticket"),
                window,
                unsure: None,
            };
            (To(relay.clone(), who), established, settings)
        });
        let (first, second) = (relay.join(0), relay.join(1));
        let client = Channel::over(client.0, client.1, first, client.2);
        let agent = Channel::over(agent.0, agent.1, second, agent.2);
        (relay, client, agent)
    }

    async fn within<T>(work: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(60), work).await.expect("it hangs")
    }

    #[tokio::test]
    async fn anything_that_moves_frames_carries_a_channel() {
        within(async {
            let (relay, client, agent) = channels(Duration::from_secs(60));
            let opened = client.open().await.unwrap();
            let (accepted, _) = agent.accept().await.unwrap();
            let (mut chunks, mut sent) = (Vec::new(), 0);
            for round in 0..3_u8 {
                opened.write(Bytes::from(vec![round; 100_000])).await.unwrap();
                sent += 100_000;
                if round == 1 {
                    relay.cut();
                }
                while chunks.iter().map(Bytes::len).sum::<usize>() < sent {
                    assert!(accepted.read(u64::MAX, &mut chunks).await.unwrap());
                }
            }
            let expected: Vec<u8> = (0..3_u8).flat_map(|round| vec![round; 100_000]).collect();
            assert!(chunks.concat() == expected, "across a cut");
            assert!(relay.dials.load(Ordering::Relaxed) >= 4, "both have dialled again");
            client.bye("through").await;
            assert_eq!(client.ended().await, End::Here);
            assert_eq!(agent.ended().await, End::Bye("through".into()));
        })
        .await;
    }

    #[tokio::test]
    async fn who_waits_is_told_why_and_then_that_it_is_over() {
        within(async {
            let (relay, client, agent) = channels(Duration::from_secs(1));
            relay.away.store(true, Ordering::Relaxed);
            relay.cut();
            let mut status = client.status();
            status
                .wait_for(|status| matches!(status, Status::Away { reason, .. } if reason == "closed for today"))
                .await
                .unwrap();
            for end in [client.ended().await, agent.ended().await] {
                assert!(matches!(&end, End::Window { reason, .. } if reason == "closed for today"), "{end}");
            }
            assert!(client.open().await.is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_channel_whose_driver_has_panicked() {
        within(async {
            let (relay, client, agent) = channels(Duration::from_secs(60));
            let opened = client.open().await.unwrap();
            relay.panics.store(true, Ordering::Relaxed);
            relay.cut();
            let mut chunks = Vec::new();
            let (read, accepted) = tokio::join!(opened.read(1, &mut chunks), agent.accept());
            assert!(read.is_err() && accepted.is_none() && client.open().await.is_err());
            client.bye("too late").await;
            let end = client.ended().await;
            assert_eq!(end.to_string(), "the connection to the relay was lost: the driver stopped");
        })
        .await;
    }
}
