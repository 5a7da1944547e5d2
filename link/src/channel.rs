//! The driver: a tunnel session, the relay's socket under it, and the tasks that use its streams.
//!
//! Two tasks per channel. The reader opens frames and wakes the streams they concern; the writer asks the session for
//! frames, a batch at a time, and gives each batch to the socket in one write. Between them and the streams stands one
//! mutex around the session; it is held for a record at a time and never across an await.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use mykube_protocol::{
    FromRelay,
    channel::{StreamId, Welcome},
    control::Peer,
};
use mykube_tunnel::{
    Config, Established, Event, Session, SessionError, Time,
    session::{OpenError, ReadState, Write},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

use crate::{
    ChannelStream, RelaySocket, clock,
    pair::{Incoming, SocketLost, sort},
};

/// Frames given to the socket in one write.
const BATCH: usize = 64 * 1024;
/// How long a farewell may take to reach the socket.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// This end said so.
    #[error("closed here")]
    Here,
    /// The other end said so, in these words (cleaned).
    #[error("the other end closed the session: {0}")]
    Bye(String),
    /// The relay says that the other end is gone.
    #[error("the other end lost its connection to the relay")]
    PeerGone,
    /// This end's connection to the relay is gone.
    #[error(transparent)]
    Lost(#[from] SocketLost),
    /// The session itself failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A running channel. Clones are handles to the same one; it ends when [`Channel::bye`] is called, or by itself.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The session may have something to send.
    transmit: Notify,
    /// A stream was opened by the peer, or a place for a new one is free.
    streams: Notify,
    end: watch::Sender<Option<End>>,
    welcome: watch::Sender<Option<Arc<Welcome>>>,
}

struct State {
    session: Session,
    wakers: HashMap<StreamId, Wakers>,
    opened: VecDeque<(StreamId, Option<String>)>,
    /// The writer sleeps until then.
    writer_until: Option<Time>,
    writer_idle: bool,
}

#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Channel {
    /// Starts the channel's two tasks on the current runtime.
    #[must_use]
    pub fn start(established: Established, socket: RelaySocket) -> Self {
        let session = Session::new(clock::now(), established, Config::default());
        let state =
            State { session, wakers: HashMap::new(), opened: VecDeque::new(), writer_until: None, writer_idle: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            transmit: Notify::new(),
            streams: Notify::new(),
            end: watch::Sender::new(None),
            welcome: watch::Sender::new(None),
        });
        let (sink, stream) = socket.split();
        let reader = tokio::spawn(read(shared.clone(), stream));
        tokio::spawn(write(shared.clone(), sink, reader));
        Self { shared }
    }

    /// Opens a stream to the API server. Waits while 256 are open.
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
    /// It is too long for the protocol.
    pub fn send_welcome(&self, welcome: &Welcome) -> Result<(), SessionError> {
        self.shared.with(|session, _| session.welcome(welcome))
    }

    /// The agent's newest word on the cluster. The client's side.
    #[must_use]
    pub fn welcome(&self) -> watch::Receiver<Option<Arc<Welcome>>> {
        self.shared.welcome.subscribe()
    }

    /// How the channel ended, once it has.
    pub async fn ended(&self) -> End {
        let mut end = self.shared.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            // The sender lives in `self`.
            Ok(None) | Err(_) => End::Here,
        }
    }

    /// Ends the session in this end's own words and waits, a little, until they are on their way.
    pub async fn bye(&self, reason: &str) {
        self.shared.with(|session, _| session.bye(reason));
        let _ = tokio::time::timeout(BYE_TIMEOUT, self.ended()).await;
        self.shared.finish(End::Here);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a task that held it leaves the session consistent: each call completes or does not begin.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the session, then tells whoever is concerned.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session, Time) -> T) -> T {
        let now = clock::now();
        let mut state = self.lock();
        let result = work(&mut state.session, now);
        self.settle(state, now);
        result
    }

    /// Delivers the session's events and wakes the writer if there is something for it; lets go of the lock first.
    fn settle(&self, mut state: MutexGuard<'_, State>, now: Time) {
        let mut wake: Vec<Waker> = Vec::new();
        let mut streams = false;
        while let Some(event) = state.session.poll_event() {
            match event {
                Event::Readable(id) => wake.extend(state.wakers.get_mut(&id).and_then(|w| w.read.take())),
                Event::Writable(id) => wake.extend(state.wakers.get_mut(&id).and_then(|w| w.write.take())),
                Event::Opened { id, target } => {
                    state.opened.push_back((id, target));
                    streams = true;
                }
                Event::Closed(id) => {
                    state.wakers.remove(&id);
                    streams = true;
                }
                Event::Welcome(welcome) => {
                    self.welcome.send_replace(Some(Arc::from(welcome)));
                }
                Event::Bye(reason) => {
                    self.end.send_if_modified(|end| end.is_none().then(|| *end = Some(End::Bye(reason))).is_some());
                }
            }
        }
        let earlier = match (state.session.poll_timeout(), state.writer_until) {
            (Some(due), Some(until)) => due < until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let writer = state.writer_idle && (earlier || state.session.wants_transmit(now));
        if writer {
            state.writer_idle = false;
        }
        let over = self.end.borrow().is_some();
        if over {
            wake.extend(state.wakers.drain().flat_map(|(_, w)| [w.read, w.write]).flatten());
        }
        drop(state);
        if writer {
            self.transmit.notify_one();
        }
        if streams {
            self.streams.notify_waiters();
        }
        for waker in wake {
            waker.wake();
        }
    }

    fn finish(&self, end: End) {
        debug!(%end, "channel over");
        self.end.send_if_modified(|slot| slot.is_none().then(|| *slot = Some(end)).is_some());
        self.settle(self.lock(), clock::now());
        self.transmit.notify_one();
        self.streams.notify_waiters();
    }

    fn failure(&self) -> Option<String> {
        self.end.borrow().as_ref().map(|end| format!("the session is over: {end}"))
    }

    /// Received chunks of a stream, or how it ended.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        id: StreamId,
        max: u64,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<ReadState> {
        let now = clock::now();
        let mut state = self.lock();
        let before = chunks.len();
        let read = state.session.read(now, id, max, chunks);
        let poll = match read {
            ReadState::Open if chunks.len() == before => match self.failure() {
                Some(reason) => Poll::Ready(ReadState::Failed(reason)),
                None => {
                    state.wakers.entry(id).or_default().read = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
            read => Poll::Ready(read),
        };
        self.settle(state, now);
        poll
    }

    /// Gives payload to a stream once it takes some; empties `payload` when it did.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        id: StreamId,
        payload: &mut Bytes,
    ) -> Poll<Result<(), String>> {
        let now = clock::now();
        let mut state = self.lock();
        if let Some(reason) = self.failure() {
            return Poll::Ready(Err(reason));
        }
        let poll = if state.session.is_full(id) {
            state.wakers.entry(id).or_default().write = Some(cx.waker().clone());
            Poll::Pending
        } else {
            match state.session.write(now, id, std::mem::take(payload)) {
                Write::Taken { .. } => Poll::Ready(Ok(())),
                Write::Over => Poll::Ready(Err("the other end closed the stream".into())),
            }
        };
        self.settle(state, now);
        poll
    }
}

/// Opens frames until the socket or the session ends.
async fn read(shared: Arc<Shared>, mut stream: SplitStream<RelaySocket>) {
    let end = loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => break End::Lost(SocketLost::from_error(&error)),
            None => break End::Lost(SocketLost::Broken("closed".into())),
        };
        match sort(message) {
            Ok(Some(Incoming::Frame(frame))) => {
                if let Err(error) = shared.with(|session, now| session.handle_frame(now, frame)) {
                    break End::Session(error);
                }
            }
            Ok(Some(Incoming::Text(FromRelay::PeerGone(Peer::Session)))) => break End::PeerGone,
            Ok(Some(Incoming::Text(_)) | None) => {}
            Err(lost) => break End::Lost(lost),
        }
    };
    shared.finish(end);
}

/// Sends what the session has to say until it is over, then closes the socket.
async fn write(shared: Arc<Shared>, mut sink: SplitSink<RelaySocket, Message>, reader: JoinHandle<()>) {
    let mut batch: Vec<Bytes> = Vec::new();
    let end = loop {
        let collected = collect(&shared, &mut batch);
        if let Err(error) = collected {
            break Some(End::Session(error));
        }
        if batch.is_empty() {
            if shared.end.borrow().is_some() {
                break None;
            }
            if shared.lock().session.is_over() {
                break Some(End::Here);
            }
            let until = shared.lock().writer_until;
            tokio::select! {
                () = shared.transmit.notified() => {}
                () = clock::sleep_until(until) => {}
            }
            continue;
        }
        let sent = async {
            for frame in batch.drain(..) {
                sink.feed(Message::Binary(frame)).await?;
            }
            sink.flush().await
        };
        if let Err(error) = sent.await {
            // The reader may know more: what the relay said before it closed.
            let told = tokio::time::timeout(Duration::from_millis(500), poll_end(&shared)).await.is_ok();
            break (!told).then(|| End::Lost(SocketLost::from_error(&error)));
        }
    };
    if let Some(end) = end {
        shared.finish(end);
    }
    let _ = tokio::time::timeout(BYE_TIMEOUT, sink.close()).await;
    reader.abort();
}

async fn poll_end(shared: &Shared) {
    let mut end = shared.end.subscribe();
    let _ = end.wait_for(Option::is_some).await;
}

/// Takes frames from the session, up to a batch, and notes how long the writer may sleep after it.
fn collect(shared: &Shared, batch: &mut Vec<Bytes>) -> Result<(), SessionError> {
    let now = clock::now();
    let mut state = shared.lock();
    state.session.handle_timeout(now);
    let mut bytes = 0;
    while bytes < BATCH {
        let Some(frame) = state.session.poll_transmit(now)? else { break };
        bytes += frame.len();
        batch.push(frame.freeze());
    }
    state.writer_until = state.session.poll_timeout();
    shared.settle(state, now);
    if batch.is_empty() {
        // Told from here on: by what came since the last look, if anything did.
        let mut state = shared.lock();
        state.writer_idle = true;
        shared.settle(state, clock::now());
    }
    Ok(())
}

/// Waits for `poll` to be ready.
pub(crate) async fn ready<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    poll_fn(poll).await
}
