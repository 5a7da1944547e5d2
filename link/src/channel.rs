//! The driver: a tunnel session, whatever connection to the relay is under it, and the tasks that use its streams.
//!
//! Two tasks per connection (`carry`). The reader opens frames and wakes the streams they concern; the writer asks the
//! session for frames, a batch at a time, and gives each batch to the socket in one write. Between them and the streams
//! stands one mutex around the session; it is held for a record at a time and never across an await. When the
//! connection is lost the session stays, and `carry` brings another one.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use mykube_dial::{DialError, RelaySocket, SocketLost};
use mykube_protocol::{
    FromAgent, Ticket,
    channel::{StreamId, Welcome},
};
use mykube_tunnel::{
    Config, Established, Event, Session, SessionError, Time,
    session::{OpenError, ReadState, Write},
};
use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::{ChannelStream, carry::carry_on, clock, rejoin::Rejoin};

/// How long a farewell may take to be heard.
pub(crate) const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// This end said so.
    #[error("closed here")]
    Here,
    /// The other end said so, in these words (cleaned).
    #[error("the other end closed the session: {0}")]
    Bye(String),
    /// The connection was lost, and for the resume window nothing brought it back.
    #[error("{reason}, and it did not come back within {}", whole(*.window))]
    Window {
        /// What was lost.
        reason: String,
        /// `--resume-window`.
        window: Duration,
    },
    /// The relay closed the connection for good.
    #[error(transparent)]
    Lost(#[from] SocketLost),
    /// The relay does not take this end's ticket any more.
    #[error("{0}")]
    Refused(String),
    /// The session itself failed.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<DialError> for End {
    fn from(error: DialError) -> Self {
        Self::Refused(error.to_string())
    }
}

fn whole(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// Whether the two ends hear each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// They do, as far as is known.
    Up,
    /// They do not; the session waits, and everything in it.
    Away {
        /// Since when.
        since: Time,
        /// What was lost, for a person.
        reason: String,
    },
}

impl Status {
    /// Whether the two ends hear each other.
    #[must_use]
    pub fn is_up(&self) -> bool {
        *self == Self::Up
    }
}

/// A running channel. Clones are handles to the same one; it ends when [`Channel::bye`] is called, or by itself.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The session may have something to send.
    pub(crate) transmit: Notify,
    /// The peer is silent: this connection is dead.
    pub(crate) silent: Notify,
    /// A stream was opened by the peer, or a place for a new one is free.
    streams: Notify,
    pub(crate) end: watch::Sender<Option<End>>,
    welcome: watch::Sender<Option<Arc<Welcome>>>,
    status: watch::Sender<Status>,
    /// See [`Channel::hold`].
    held: AtomicBool,
    let_go: Notify,
}

pub(crate) struct State {
    pub(crate) session: Session,
    wakers: HashMap<StreamId, Wakers>,
    opened: VecDeque<(StreamId, Option<String>)>,
    /// What this end has to tell the relay.
    pub(crate) texts: Vec<FromAgent>,
    /// The newest.
    pub(crate) ticket: Ticket,
    /// Why the session would not be attached.
    pub(crate) reason: String,
    /// What the status says, to be looked at with every record.
    was_up: bool,
    /// The writer sleeps until then.
    pub(crate) writer_until: Option<Time>,
    pub(crate) writer_idle: bool,
}

#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Channel {
    /// Starts the channel's tasks on the current runtime.
    #[must_use]
    pub fn start(established: Established, socket: RelaySocket, rejoin: Rejoin) -> Self {
        let session = Session::new(clock::now(), established, Config::default());
        let state = State {
            session,
            wakers: HashMap::new(),
            opened: VecDeque::new(),
            texts: Vec::new(),
            ticket: rejoin.ticket.clone(),
            reason: String::new(),
            was_up: true,
            writer_until: None,
            writer_idle: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            transmit: Notify::new(),
            silent: Notify::new(),
            streams: Notify::new(),
            end: watch::Sender::new(None),
            welcome: watch::Sender::new(None),
            status: watch::Sender::new(Status::Up),
            held: AtomicBool::new(false),
            let_go: Notify::new(),
        });
        tokio::spawn(carry_on(shared.clone(), socket, rejoin));
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
    /// It is too long for the protocol.
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
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// From here on streams do not fail with the channel: they wait. For whoever wants to stop those that use them
    /// before they see the failure, as some take it for an end (kubectl over SPDY exits with 0).
    pub fn hold(&self) {
        self.shared.held.store(true, Ordering::Release);
    }

    /// Whoever was to be stopped first is: streams fail with the channel again.
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

    /// Ends the session in this end's own words. The channel lives on until they are heard, or its resume window is over.
    pub fn say_bye(&self, reason: &str) {
        self.shared.with(|session, _| session.bye(reason));
    }

    /// Ends the session in this end's own words and waits, a little, until they are heard.
    pub async fn bye(&self, reason: &str) {
        self.say_bye(reason);
        let _ = tokio::time::timeout(BYE_TIMEOUT, self.ended()).await;
        self.shared.finish(End::Here);
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a task that held it leaves the session consistent: each call completes or does not begin.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the session, then tells whoever is concerned.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session, Time) -> T) -> T {
        self.with_state(|state, now| work(&mut state.session, now))
    }

    /// The same, with what stands beside the session.
    pub(crate) fn with_state<T>(&self, work: impl FnOnce(&mut State, Time) -> T) -> T {
        let now = clock::now();
        let mut state = self.lock();
        let result = work(&mut state, now);
        self.settle(state, now);
        result
    }

    /// The connection is gone, or the peer's.
    pub(crate) fn lost(&self, reason: String) {
        self.with_state(|state, now| {
            state.reason = reason;
            state.session.handle_transport_lost(now);
        });
    }

    /// What keeps an end away that is away.
    pub(crate) fn why_away(&self, reason: String) {
        self.with_state(|state, _| {
            if !state.session.is_attached() {
                state.reason = reason;
            }
        });
    }

    pub(crate) fn ticket(&self) -> Ticket {
        self.lock().ticket.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn status_changes(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            // The sender lives in `self`.
            Ok(None) | Err(_) => End::Here,
        }
    }

    /// Delivers the session's events and wakes the writer if there is something for it; lets go of the lock first.
    pub(crate) fn settle(&self, mut state: MutexGuard<'_, State>, now: Time) {
        let mut wake: Vec<Waker> = Vec::new();
        let (mut streams, mut silent) = (false, false);
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
                Event::Back => {}
                Event::Silent => {
                    state.reason = "the other end does not answer".into();
                    silent = true;
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
        let ready = earlier || state.session.is_over() || !state.texts.is_empty() || state.session.wants_transmit(now);
        let writer = state.writer_idle && ready;
        if writer {
            state.writer_idle = false;
        }
        self.tell_status(&mut state, now);
        let over = self.end.borrow().is_some() && !self.held.load(Ordering::Acquire);
        if over {
            wake.extend(state.wakers.drain().flat_map(|(_, w)| [w.read, w.write]).flatten());
        }
        drop(state);
        if writer {
            self.transmit.notify_one();
        }
        if silent {
            self.silent.notify_one();
        }
        if streams {
            self.streams.notify_waiters();
        }
        for waker in wake {
            waker.wake();
        }
    }

    fn tell_status(&self, state: &mut State, now: Time) {
        let attached = state.session.is_attached();
        if attached && state.was_up {
            return;
        }
        state.was_up = attached;
        self.status.send_if_modified(|status| match status {
            Status::Up if !attached => {
                *status = Status::Away { since: now, reason: state.reason.clone() };
                true
            }
            Status::Away { .. } if attached => {
                *status = Status::Up;
                true
            }
            Status::Away { reason, .. } if *reason != state.reason => {
                reason.clone_from(&state.reason);
                true
            }
            _ => false,
        });
    }

    pub(crate) fn finish(&self, end: End) {
        debug!(%end, "channel over");
        self.end.send_if_modified(|slot| slot.is_none().then(|| *slot = Some(end)).is_some());
        self.settle(self.lock(), clock::now());
        self.transmit.notify_one();
        self.streams.notify_waiters();
    }

    fn failure(&self) -> Option<String> {
        if self.held.load(Ordering::Acquire) {
            return None;
        }
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

/// Waits for `poll` to be ready.
pub(crate) async fn ready<T>(poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    poll_fn(poll).await
}
