//! One WebSocket after its upgrade: whole frames go to the peer as they are, unmasked, many in one write.
//!
//! A socket has a buffer only while it has data: reading takes one from the thread's pool, and gives it back if there is nothing
//! to read. The reader itself writes to the peer, so a slow peer stops the reading, and nothing queues in between.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use mykube_protocol::{FromAgent, Role, SessionId, close};
use mykube_relay_core::{
    frames::{Batch, Frames, NORMAL, Step, Stop, codec::HEADER_MAX},
    owner::Owner,
    registry::SocketId,
    silence::{Silent, Verdict},
    waiting::{Next, Waiting},
};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    task::coop::consume_budget,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info};

#[cfg(test)]
mod tests;

use crate::{
    connections::Connection,
    hub::{Admission, Hub, Joined},
    metrics::Metrics,
    outlet::{CloseWith, Outlet},
    pool,
    stream::{ReadHalf, Stream},
};

const SILENT: &str = "nothing was heard from this end: dial again";

/// How a socket ended.
enum Ended {
    /// By a close frame, or by breaking the protocol.
    Stop(Stop),
    /// The relay asked for it ([`Outlet::close`]).
    Asked,
    /// The connection broke.
    Lost,
    /// Nothing was heard from its end for too long.
    Silent,
}

/// Serves one socket until its end, which frees the connection's slot. `early`: bytes that came right behind the upgrade.
///
/// Not an `async fn`: its future is most of an idle socket's memory, and would hold every argument twice.
pub(crate) fn serve(
    hub: Arc<Hub>,
    stream: Stream,
    early: &[u8],
    admission: Admission,
    owner: Owner,
    connection: Arc<Connection>,
) -> impl Future<Output = ()> + Send + use<> {
    let (read, write) = stream.into_halves();
    let mut reader = Reader::new(&hub, read, early, &admission);
    let registration = Registration { outlet: Outlet::new(write, hub.metrics.clone()), socket: hub.arrive(), hub };
    let asks = Box::new((admission, owner));
    async move {
        let mut joined = registration.hub.join(registration.socket, &asks.0, asks.1, &registration.outlet, false);
        if let Joined::Taken(_) = joined {
            // Boxed, like everything but idling, because every idle socket's future would be as large otherwise.
            joined = Box::pin(wait_for_slot(&registration, &asks.0, asks.1, &mut reader)).await;
        }
        drop(asks);
        match joined {
            Joined::In => {}
            Joined::Away(close) => {
                let (session, role) = (reader.session, reader.role);
                debug!(%session, %role, code = close.code, reason = close.reason, "socket refused");
                Box::pin(conclude(&registration, &mut reader, Some(close))).await;
                return;
            }
            Joined::Taken(_) => {
                debug!(session = %reader.session, role = %reader.role, "socket lost before it had its place");
                return;
            }
        }
        info!(session = %reader.session, role = %reader.role, "socket open");
        let ended = tokio::select! {
            biased;
            () = registration.outlet.closing() => Ended::Asked,
            ended = reader.run(&registration.hub, &registration.outlet, registration.socket) => ended,
            _ = registration.outlet.write_posted() => Ended::Lost,
        };
        registration.leave(matches!(ended, Ended::Stop(Stop::Closed(NORMAL))));
        let with = |code, reason: &str| Some(CloseWith { code, reason: reason.to_owned() });
        let close = match ended {
            Ended::Asked => registration.outlet.close_reason(),
            Ended::Stop(Stop::Closed(code)) => with(code, ""),
            Ended::Stop(Stop::Violation(code, reason)) => with(code, reason),
            Ended::Silent => with(close::SILENT, SILENT),
            Ended::Lost => None,
        };
        let code = close.as_ref().map(|close| close.code);
        let (session, role) = (reader.session, reader.role);
        info!(%session, %role, code, bytes = reader.forwarded, "socket closed");
        Box::pin(conclude(&registration, &mut reader, close)).await;
        drop(connection);
    }
}

/// A socket as the registry and its peer know it. However the socket's task ends, even by a panic or by being dropped, the drop
/// of this tells the registry, and so the peer.
struct Registration {
    hub: Arc<Hub>,
    outlet: Arc<Outlet>,
    socket: SocketId,
}

impl Registration {
    /// Tells the registry that the socket ended; a second call does nothing.
    fn leave(&self, clean: bool) {
        self.outlet.release();
        self.hub.leave(self.socket, clean);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave(false);
    }
}

/// Another socket of this end has the slot. This one gets it once its end has answered the ping, or said anything else,
/// and once the last replacement is long enough ago. `Taken` if this socket is lost meanwhile.
///
/// An abandoned dial may arrive late, after the one that followed it: it must not replace a live socket.
async fn wait_for_slot(
    registration: &Registration,
    admission: &Admission,
    owner: Owner,
    reader: &mut Reader,
) -> Joined {
    let Registration { hub, outlet, socket } = registration;
    outlet.post_ping();
    let mut waiting = Waiting::default();
    loop {
        match waiting.poll(Instant::now().into_std()) {
            Next::Join => match hub.join(*socket, admission, owner, outlet, waiting.heard()) {
                Joined::Taken(wait) => {
                    waiting.handle_taken(Instant::now().into_std(), wait, hub.config.handshake_timeout);
                }
                joined => return joined,
            },
            Next::Wait(until) => tokio::select! {
                () = sleep_until(until.into()) => {}
                alive = reader.hear(outlet) => {
                    if !alive {
                        return Joined::Taken(Duration::ZERO);
                    }
                    waiting.handle_heard();
                }
                _ = outlet.write_posted() => return Joined::Taken(Duration::ZERO),
            },
            Next::GiveUp => return Joined::Away(CloseWith { code: close::SILENT, reason: SILENT.to_owned() }),
        }
    }
}

async fn conclude(Registration { hub, outlet, .. }: &Registration, reader: &mut Reader, close: Option<CloseWith>) {
    if let Some(close) = close {
        let goodbye = async {
            if outlet.finish(&close).await.is_ok() {
                // Closing with unread bytes would reset the connection, and the close frame might be lost with it.
                reader.skip_to_end(outlet).await;
            }
        };
        let _ = timeout(hub.config.close_timeout, goodbye).await;
    }
    outlet.drop_half().await;
}

/// A buffer and how much of it is data; `None` at the end of the stream.
type Filled = io::Result<Option<(Vec<u8>, usize)>>;

/// The receiving half of a socket.
struct Reader {
    read: ReadHalf,
    session: SessionId,
    role: Role,
    /// Legacy ends are not pinged: they may not answer while they are busy.
    pinged: bool,
    frames: Frames,
    /// The start of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// The link when [`Self::partial`] was read. A frame that began before a `peer:here` is not for the peer that it announced.
    partial_at: u64,
    /// The link when the last data was read.
    read_at: u64,
    /// Payload sent to the peer so far.
    forwarded: u64,
    metrics: Arc<Metrics>,
}

impl Reader {
    fn new(hub: &Hub, read: ReadHalf, early: &[u8], admission: &Admission) -> Self {
        let legacy = matches!(admission, Admission::Legacy(..));
        let max = if legacy { hub.config.legacy_frame_max } else { hub.config.frame_max };
        let mut reader = Self {
            read,
            session: admission.session(),
            role: admission.role(),
            pinged: !legacy,
            frames: Frames::new(admission.role(), legacy, max, hub.config.buffer),
            partial: Vec::new(),
            partial_at: 0,
            read_at: 0,
            forwarded: 0,
            metrics: hub.metrics.clone(),
        };
        reader.set_partial(early);
        reader
    }

    async fn run(&mut self, hub: &Hub, outlet: &Outlet, socket: SocketId) -> Ended {
        if !self.partial.is_empty() {
            let early = Box::pin(self.catch_up(hub, outlet, socket));
            if let Err(stop) = early.await {
                return Ended::Stop(stop);
            }
        }
        loop {
            let processed = match self.listen(hub, outlet).await {
                Ok((input, filled)) => Box::pin(self.process(hub, outlet, socket, input, filled)),
                Err(ended) => return ended,
            };
            if let Err(stop) = processed.await {
                return Ended::Stop(stop);
            }
        }
    }

    /// Forwards the bytes that came before the socket was admitted.
    async fn catch_up(&mut self, hub: &Hub, outlet: &Outlet, socket: SocketId) -> Result<(), Stop> {
        self.read_at = outlet.link();
        self.partial_at = self.read_at;
        let early = self.take_partial();
        let mut rest = early.as_slice();
        while let Some((input, filled)) = self.refill(&mut rest) {
            self.process(hub, outlet, socket, input, filled).await?;
        }
        Ok(())
    }

    /// Waits for data. An end that sends nothing is pinged, and given up if it does not answer. Only the time spent waiting here
    /// counts: an end whose peer is slow is not read meanwhile, and may have sent much.
    async fn listen(&mut self, hub: &Hub, outlet: &Outlet) -> Result<(Vec<u8>, usize), Ended> {
        let limits = || hub.config.silence();
        let mut silent = Silent::default();
        let mut due = pin!(sleep(silent.wait(limits())));
        loop {
            tokio::select! {
                biased;
                filled = self.fill(outlet) => return filled.ok().flatten().ok_or(Ended::Lost),
                () = &mut due, if self.pinged => {
                    match silent.handle_timeout(limits()) {
                        Verdict::Ping => outlet.post_ping(),
                        Verdict::GiveUp => return Err(Ended::Silent),
                    }
                    due.as_mut().reset(Instant::now() + silent.wait(limits()));
                }
            }
        }
    }

    /// Before admission: waits for bytes, and keeps them for later. Returns whether some came before the connection ended.
    async fn hear(&mut self, outlet: &Outlet) -> bool {
        if self.partial.len() >= self.frames.buffer() {
            return std::future::pending().await;
        }
        let Ok(Some((input, filled))) = self.fill(outlet).await else { return false };
        self.set_partial(&input[..filled]);
        pool::give(input);
        true
    }

    /// The partial frame kept so far, then as much of `early` as a buffer holds: more than `--buffer` bytes may have been read
    /// together with a request. `None` when all of `early` has been given.
    fn refill(&mut self, early: &mut &[u8]) -> Option<(Vec<u8>, usize)> {
        let (kept, size) = (self.partial.len(), self.frames.buffer());
        let (now, later) = early.split_at(early.len().min(size - kept));
        if now.is_empty() {
            return None;
        }
        *early = later;
        let filled = kept + now.len();
        let mut buf = pool::take(size + HEADER_MAX);
        buf[..kept].copy_from_slice(&self.partial);
        buf[kept..filled].copy_from_slice(now);
        self.set_partial(&[]);
        Some((buf, filled))
    }

    /// Waits for data, and only then holds a buffer: the partial frame kept so far, then the new bytes.
    fn fill(&mut self, outlet: &Outlet) -> impl Future<Output = Filled> + Send {
        std::future::poll_fn(|cx| self.poll_fill(cx, outlet))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, outlet: &Outlet) -> Poll<Filled> {
        let (kept, size) = (self.partial.len(), self.frames.buffer());
        let link = outlet.link();
        let mut buf = pool::take(size + HEADER_MAX);
        let mut window = ReadBuf::new(&mut buf[kept..size]);
        let read = Pin::new(&mut self.read).poll_read(cx, &mut window);
        let len = window.filled().len();
        if len == 0 || !matches!(read, Poll::Ready(Ok(()))) {
            pool::give(buf);
            return read.map_ok(|()| None);
        }
        self.read_at = link;
        if kept == 0 {
            self.partial_at = link;
        }
        buf[..kept].copy_from_slice(&self.partial);
        self.set_partial(&[]);
        Poll::Ready(Ok(Some((buf, kept + len))))
    }

    /// Forwards every whole frame of `input[..filled]` and keeps the rest. Texts and pings for the relay itself use up the task's
    /// budget as reads do: a buffer may hold ten thousand of them, and other tasks of this thread get their turn in between.
    async fn process(
        &mut self,
        hub: &Hub,
        outlet: &Outlet,
        socket: SocketId,
        input: Vec<u8>,
        filled: usize,
    ) -> Result<(), Stop> {
        // A fragment of an oversize frame gets a header, everything else gets shorter.
        let mut batch = Batch::new(pool::take(self.frames.buffer() + HEADER_MAX));
        let mut at = 0;
        let done = loop {
            let read_at = if at == 0 { self.partial_at } else { self.read_at };
            match self.frames.next(outlet.peer_at(read_at).is_some(), &mut batch, &input[at..filled]) {
                Ok(Step::Partial) => break Ok(()),
                Ok(Step::Taken(n)) => at += n,
                Ok(Step::Text(text, n)) => {
                    // The relay acts on it after the frames before it are sent, and before those behind it.
                    batch = self.send(outlet, batch).await;
                    // Only texts that changed something are logged: an agent may send any number of others.
                    if hub.text(socket, text) {
                        info!(session = %self.session, said = verb(text), "agent");
                    }
                    at += n;
                    consume_budget().await;
                }
                Ok(Step::Ping(payload, n)) => {
                    outlet.post_pong(payload);
                    at += n;
                    consume_budget().await;
                }
                Err(stop) => break Err(stop),
            }
        };
        if at > 0 {
            self.partial_at = self.read_at;
        }
        self.set_partial(&input[at..filled]);
        pool::give_if_large(input);
        let batch = self.send(outlet, batch).await;
        pool::give(batch.buf);
        done
    }

    /// Sends a batch to the socket that was the peer when it was read, if it still is; returns an empty batch.
    async fn send(&mut self, outlet: &Outlet, batch: Batch) -> Batch {
        if batch.len == 0 {
            return batch;
        }
        let size = batch.buf.len();
        match outlet.peer_at(self.read_at) {
            Some(peer) => {
                self.forwarded += batch.payload;
                self.metrics.forwarded(self.role, batch.payload);
                // A peer that has ended drops its frames; its own task reports its end.
                let _ = peer.forward(outlet, batch.buf, batch.len).await;
            }
            None => pool::give(batch.buf),
        }
        Batch::new(pool::take(size))
    }

    /// Reads and drops until the other side has answered the close frame, or closed.
    async fn skip_to_end(&mut self, outlet: &Outlet) {
        let mut dropped = Batch::new(pool::take(self.frames.buffer() + HEADER_MAX));
        let early = self.take_partial();
        let mut early = early.as_slice();
        loop {
            let (input, filled) = match self.refill(&mut early) {
                Some(refilled) => refilled,
                None => match self.fill(outlet).await {
                    Ok(Some(filled)) => filled,
                    Ok(None) | Err(_) => return,
                },
            };
            let mut at = 0;
            loop {
                match self.frames.next(false, &mut dropped, &input[at..filled]) {
                    Ok(Step::Partial) => break,
                    Ok(Step::Taken(n) | Step::Text(_, n) | Step::Ping(_, n)) => at += n,
                    Err(Stop::Closed(_)) => return,
                    Err(_) => at = filled,
                }
                dropped.len = 0;
            }
            self.set_partial(&input[at..filled]);
            pool::give(input);
        }
    }

    fn set_partial(&mut self, rest: &[u8]) {
        if rest.len() != self.partial.len() {
            self.metrics.buffered(self.partial.len(), false);
            self.metrics.buffered(rest.len(), true);
        }
        self.partial = rest.to_vec();
    }

    fn take_partial(&mut self) -> Vec<u8> {
        let partial = self.partial.clone();
        self.set_partial(&[]);
        partial
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.set_partial(&[]);
    }
}

fn verb(text: FromAgent) -> &'static str {
    match text {
        FromAgent::Paired(_) => "paired",
        FromAgent::Refused(_) => "refused",
        FromAgent::Burned => "burned",
    }
}
