//! What a channel's tasks and its streams share: the endpoint, behind one mutex, and the tasks to wake.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use mykube_protocol::channel::{StreamId, Welcome};
use mykube_tunnel::{
    Session, Time,
    endpoint::{End, Endpoint, Event, PeerStatus},
    session::{self, ReadState, Write},
};
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use crate::clock;

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The writer has something to do.
    pub(crate) transmit: Notify,
    /// The driver has something to do: an order, or a timer that is due before it would look.
    pub(crate) drive: Notify,
    /// A stream was opened by the peer, or a slot for a new one is free.
    pub(crate) streams: Notify,
    /// How the channel ended, as the endpoint says; kept for the tasks that wait for it.
    pub(crate) end: watch::Sender<Option<End>>,
    pub(crate) welcome: watch::Sender<Option<Arc<Welcome>>>,
    /// Whether the ends hear each other, as the endpoint says.
    pub(crate) status: watch::Sender<PeerStatus>,
    /// See [`Channel::hold`](crate::channel::Channel::hold).
    pub(crate) held: AtomicBool,
    pub(crate) let_go: Notify,
    /// How often the driver was woken to look at what there is to do; its own timers do not count.
    #[cfg(test)]
    pub(crate) driver_wakes: std::sync::atomic::AtomicUsize,
}

pub(crate) struct State {
    pub(crate) endpoint: Endpoint,
    wakers: HashMap<StreamId, Wakers>,
    pub(crate) opened: VecDeque<(StreamId, Option<String>)>,
    /// The driver sleeps until then.
    pub(crate) sleeps_until: Option<Time>,
    pub(crate) writer: Writer,
}

/// What the writer does, and so which task looks at the timers.
pub(crate) enum Writer {
    /// The writer waits for its connection to take more, or there is none: the driver looks at the timers.
    Away,
    /// The writer runs, and will look at the timers and at all that is to be sent.
    Awake,
    /// The writer waits for something to send, no longer than until then.
    Idle(Option<Time>),
}

#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Shared {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        let status = endpoint.status().clone();
        let state = State {
            endpoint,
            wakers: HashMap::new(),
            opened: VecDeque::new(),
            sleeps_until: None,
            writer: Writer::Away,
        };
        Self {
            state: Mutex::new(state),
            transmit: Notify::new(),
            drive: Notify::new(),
            streams: Notify::new(),
            end: watch::Sender::new(None),
            welcome: watch::Sender::new(None),
            status: watch::Sender::new(status),
            held: AtomicBool::new(false),
            let_go: Notify::new(),
            #[cfg(test)]
            driver_wakes: Default::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a task that held it leaves the session consistent: each call completes or does not begin.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the session, then wakes the tasks that its outcome concerns.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session, Time) -> T) -> T {
        self.with_endpoint(|endpoint, now| work(endpoint.session_mut(), now))
    }

    /// Runs `work` on the whole endpoint, then does the same.
    pub(crate) fn with_endpoint<T>(&self, work: impl FnOnce(&mut Endpoint, Time) -> T) -> T {
        let now = clock::now();
        let mut state = self.lock();
        let result = work(&mut state.endpoint, now);
        self.settle(state, now);
        result
    }

    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| end.clone()) {
            Ok(Some(end)) => end,
            // The sender lives in `self`.
            Ok(None) | Err(_) => End::Here,
        }
    }

    /// Delivers what happened, and wakes the writer and the driver if there is something for them, after it has let go of the lock.
    pub(crate) fn settle(&self, mut state: MutexGuard<'_, State>, now: Time) {
        let mut wake: Vec<Waker> = Vec::new();
        let (mut streams, mut waits) = (false, None);
        while let Some(event) = state.endpoint.poll_event() {
            match event {
                Event::Session(event) => streams |= self.deliver(&mut state, event, &mut wake),
                Event::Status(status) => drop(self.status.send_replace(status)),
                Event::Waits(lost) => waits = Some(lost),
                Event::Ended(end) => {
                    debug!(%end, "channel over");
                    self.end.send_replace(Some(end));
                    streams = true;
                }
            }
        }
        let due = state.endpoint.poll_timeout();
        let earlier = |until: Option<Time>| due.zip(until).is_some_and(|(due, until)| due < until);
        // Almost each record moves a timer. Of two tasks the one that is woken for it is the one with something to send.
        let (mut writer, mut driver) = (false, state.endpoint.has_orders());
        match state.writer {
            Writer::Idle(until) if earlier(until) || state.endpoint.wants_transmit(now) => {
                state.writer = Writer::Awake;
                writer = true;
            }
            Writer::Away if earlier(state.sleeps_until) => {
                state.sleeps_until = due;
                driver = true;
            }
            Writer::Idle(_) | Writer::Awake | Writer::Away => {}
        }
        let over = self.end.borrow().is_some() && !self.held.load(Ordering::Acquire);
        if over {
            wake.extend(state.wakers.drain().flat_map(|(_, w)| [w.read, w.write]).flatten());
        }
        drop(state);
        if let Some(lost) = waits {
            info!(%lost, "the session waits for another connection");
        }
        if writer {
            self.transmit.notify_one();
        }
        if driver {
            self.drive.notify_one();
        }
        if streams {
            self.streams.notify_waiters();
        }
        for waker in wake {
            waker.wake();
        }
    }

    /// Gives whether tasks that wait for a new stream, or for room for one, are to be woken.
    fn deliver(&self, state: &mut State, event: session::Event, wake: &mut Vec<Waker>) -> bool {
        match event {
            session::Event::Readable(id) => wake.extend(state.wakers.get_mut(&id).and_then(|w| w.read.take())),
            session::Event::Writable(id) => wake.extend(state.wakers.get_mut(&id).and_then(|w| w.write.take())),
            session::Event::Opened { id, target } => {
                state.opened.push_back((id, target));
                return true;
            }
            session::Event::Closed(id) => {
                state.wakers.remove(&id);
                return true;
            }
            session::Event::Welcome(welcome) => drop(self.welcome.send_replace(Some(Arc::from(welcome)))),
            // The endpoint has drawn its conclusions from these, and tells them itself.
            session::Event::Back | session::Event::Silent | session::Event::Bye(_) => {}
        }
        false
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
        let read = state.endpoint.session_mut().read(now, id, max, chunks);
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
        let poll = if state.endpoint.session().is_full(id) {
            state.wakers.entry(id).or_default().write = Some(cx.waker().clone());
            Poll::Pending
        } else {
            match state.endpoint.session_mut().write(now, id, std::mem::take(payload)) {
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
