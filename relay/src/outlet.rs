//! The sending half of a socket. Three tasks write to it: the peer's reader (frames), the relay (texts, pongs), and the socket's
//! own at its end (close).
//!
//! The task that gets the writer sends first the rest that a cancelled task left, then the relay's texts, then its own bytes. So
//! a `ticket:` that is posted before a frame arrives before it, and a cancelled write never leaves half a frame behind.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use mykube_relay_core::frames::codec;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
};

use crate::{lock::lock, metrics::Metrics, pool, stream::WriteHalf};

/// Texts that may wait for a reader. A reader behind which more gather has stopped reading.
const TEXTS_MAX: usize = 32;

/// Why a socket is closed by the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CloseWith {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// See the module.
pub(crate) struct Outlet {
    link: Mutex<Link>,
    mail: Mutex<Mail>,
    posted: Notify,
    writer: tokio::sync::Mutex<Writer>,
    /// The socket is ending: frames for it are dropped, and no task waits for it any more.
    closing: AtomicBool,
    closes: Notify,
    metrics: Arc<Metrics>,
}

/// The peer to which this socket's frames go. Each change gets a new number, so that frames read before a change are not sent to
/// the peer after it.
#[derive(Default)]
struct Link {
    peer: Option<Arc<Outlet>>,
    number: u64,
}

#[derive(Default)]
struct Mail {
    texts: VecDeque<String>,
    pong: Option<Vec<u8>>,
    ping: bool,
    close: Option<CloseWith>,
}

struct Writer {
    half: Option<WriteHalf>,
    pending: Vec<u8>,
    pending_end: usize,
    pending_at: usize,
    metrics: Arc<Metrics>,
}

/// The socket is over; frames for it are dropped.
#[derive(Debug)]
pub(crate) struct Gone;

impl Outlet {
    pub(crate) fn new(half: WriteHalf, metrics: Arc<Metrics>) -> Arc<Self> {
        let writer =
            Writer { half: Some(half), pending: Vec::new(), pending_end: 0, pending_at: 0, metrics: metrics.clone() };
        Arc::new(Self {
            link: Mutex::default(),
            mail: Mutex::default(),
            posted: Notify::new(),
            writer: tokio::sync::Mutex::new(writer),
            closing: AtomicBool::new(false),
            closes: Notify::new(),
            metrics,
        })
    }

    /// The number of its link: frames that are read now may go to the peer at this number ([`Outlet::peer_at`]).
    pub(crate) fn link(&self) -> u64 {
        lock(&self.link).number
    }

    /// The peer, if the link has not changed since it had this number.
    pub(crate) fn peer_at(&self, number: u64) -> Option<Arc<Self>> {
        let link = lock(&self.link);
        (link.number == number).then(|| link.peer.clone()).flatten()
    }

    fn is_peer(&self, other: &Self) -> bool {
        lock(&self.link).peer.as_deref().is_some_and(|peer| std::ptr::eq(peer, other))
    }

    pub(crate) fn set_peer(&self, peer: Option<Arc<Self>>) {
        let mut link = lock(&self.link);
        link.number += 1;
        let before = std::mem::replace(&mut link.peer, peer);
        drop(link);
        drop(before);
    }

    /// Posts a text frame.
    pub(crate) fn post(&self, text: String) {
        let mut mail = lock(&self.mail);
        if mail.texts.len() < TEXTS_MAX {
            mail.texts.push_back(text);
            drop(mail);
            self.posted.notify_one();
        } else {
            drop(mail);
            self.close(mykube_protocol::close::POLICY, "the relay's messages are not read");
        }
    }

    /// Posts a pong; only the latest ping is answered (RFC 6455 section 5.5.3).
    pub(crate) fn post_pong(&self, payload: Vec<u8>) {
        lock(&self.mail).pong = Some(payload);
        self.posted.notify_one();
    }

    /// Posts a ping, which a live end must answer (RFC 6455 section 5.5.2).
    pub(crate) fn post_ping(&self) {
        lock(&self.mail).ping = true;
        self.posted.notify_one();
    }

    /// Asks the socket's task to end it. The first reason counts.
    pub(crate) fn close(&self, code: u16, reason: impl Into<String>) {
        lock(&self.mail).close.get_or_insert(CloseWith { code, reason: reason.into() });
        self.release();
    }

    /// Drops frames for this socket from now on, and wakes a peer that waits to write to it: the peer may have a newer socket to
    /// write to.
    pub(crate) fn release(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.closes.notify_waiters();
    }

    /// Resolves when the relay wants this socket closed.
    pub(crate) async fn closing(&self) {
        // Made before the flag is read, so that a close between the two is not missed.
        let closes = self.closes.notified();
        if !self.closing.load(Ordering::SeqCst) {
            closes.await;
        }
    }

    pub(crate) fn close_reason(&self) -> Option<CloseWith> {
        lock(&self.mail).close.clone()
    }

    /// Sends a batch of whole frames (`batch[..len]`), waiting until this end reads. Safe to cancel. Drops the batch if `from` is
    /// no longer this socket's peer: after a `peer:here` no frame of an older peer follows.
    pub(crate) async fn forward(&self, from: &Self, batch: Vec<u8>, len: usize) -> Result<(), Gone> {
        let unfinished = Unfinished { posted: &self.posted, armed: true };
        let sent = tokio::select! {
            biased;
            () = self.closing() => Err(Gone),
            sent = self.forward_now(from, batch, len) => sent.map_err(|_| Gone),
        };
        unfinished.disarm();
        sent
    }

    async fn forward_now(&self, from: &Self, batch: Vec<u8>, len: usize) -> io::Result<()> {
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(_) => {
                let _waiting = self.metrics.backpressure();
                self.writer.lock().await
            }
        };
        self.write_mail(&mut writer).await?;
        // A link changes before its `peer:here` is posted: while `from` is still the peer, no newer one has been announced.
        if !from.is_peer(self) {
            pool::give_if_large(batch);
            return Ok(());
        }
        writer.set_pending(batch, len);
        writer.flush().await
    }

    /// Writes texts, pings and pongs as they are posted. Returns only with an error. Safe to cancel: the next call goes on.
    pub(crate) async fn write_posted(&self) -> io::Error {
        loop {
            self.posted.notified().await;
            // Boxed, so that it takes no memory in an idle socket's future.
            let write = Box::pin(async {
                let unfinished = Unfinished { posted: &self.posted, armed: true };
                let written = self.write_mail(&mut *self.writer.lock().await).await;
                unfinished.disarm();
                written
            });
            if let Err(error) = write.await {
                return error;
            }
        }
    }

    async fn write_mail(&self, writer: &mut Writer) -> io::Result<()> {
        writer.flush().await?;
        loop {
            let frames = {
                let mut mail = lock(&self.mail);
                // The queue's memory is freed with it: most of the time nothing is posted.
                let texts = std::mem::take(&mut mail.texts);
                let mut frames: Vec<u8> =
                    texts.iter().flat_map(|text| codec::frame(codec::TEXT, text.as_bytes())).collect();
                if let Some(pong) = mail.pong.take() {
                    frames.extend(codec::frame(codec::PONG, &pong));
                }
                if std::mem::take(&mut mail.ping) {
                    frames.extend(codec::frame(codec::PING, &[]));
                }
                frames
            };
            if frames.is_empty() {
                return Ok(());
            }
            let len = frames.len();
            writer.set_pending(frames, len);
            writer.flush().await?;
        }
    }

    /// Sends the bytes that wait and a close frame, and shuts the half down.
    pub(crate) async fn finish(&self, close: &CloseWith) -> io::Result<()> {
        let mut writer = self.writer.lock().await;
        self.write_mail(&mut writer).await?;
        let frame = codec::close_frame(close.code, &close.reason);
        let len = frame.len();
        writer.set_pending(frame, len);
        writer.flush().await?;
        match &mut writer.half {
            Some(half) => half.shutdown().await,
            None => Ok(()),
        }
    }

    /// Drops the sending half, and wakes a peer that waits to write to it.
    pub(crate) async fn drop_half(&self) {
        self.release();
        self.set_peer(None);
        let mut writer = self.writer.lock().await;
        writer.half = None;
        writer.clear_pending();
    }
}

impl Writer {
    fn set_pending(&mut self, frames: Vec<u8>, len: usize) {
        self.metrics.buffered(len, true);
        self.pending = frames;
        self.pending_at = 0;
        self.pending_end = len;
    }

    fn clear_pending(&mut self) {
        self.metrics.buffered(self.pending_end, false);
        self.pending_at = 0;
        self.pending_end = 0;
        pool::give_if_large(std::mem::take(&mut self.pending));
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.pending_end == 0 {
            return Ok(());
        }
        let half = self.half.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let metrics = &self.metrics;
        let (pending, end, at) = (&self.pending, self.pending_end, &mut self.pending_at);
        let mut waiting = None;
        std::future::poll_fn(|cx| {
            while *at < end {
                match Pin::new(&mut *half).poll_write(cx, &pending[*at..end]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => *at += n,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        waiting.get_or_insert_with(|| metrics.backpressure());
                        return Poll::Pending;
                    }
                }
            }
            Pin::new(&mut *half).poll_flush(cx)
        })
        .await?;
        drop(waiting);
        self.clear_pending();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.clear_pending();
    }
}

/// Wakes the socket's own task if a write is cancelled before it is done.
struct Unfinished<'a> {
    posted: &'a Notify,
    armed: bool,
}

impl Unfinished<'_> {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.posted.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::stream::{ReadHalf, Stream};

    /// The test fails if an expected event takes longer than this.
    const BOUND: std::time::Duration = std::time::Duration::from_secs(30);

    /// An outlet, its receiving half, and the other side of its connection.
    async fn outlet() -> (Arc<Outlet>, ReadHalf, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (read, write) = Stream::Plain(listener.accept().await.unwrap().0).into_halves();
        (Outlet::new(write, Arc::default()), read, far)
    }

    #[tokio::test]
    async fn a_text_is_not_forgotten_with_the_call_that_wrote_it() {
        use futures_util::FutureExt as _;
        let (outlet, _read, mut far) = outlet().await;
        let (peer, _peer_read, _) = self::outlet().await;
        peer.set_peer(Some(outlet.clone()));
        // Until the connection takes no more.
        let mut sent = 0;
        loop {
            sent += 1 << 20;
            if outlet.forward(&peer, vec![7; 1 << 20], 1 << 20).now_or_never().is_none() {
                break;
            }
        }
        outlet.post("a text".to_owned());
        assert!(outlet.write_posted().now_or_never().is_none(), "as long as nobody reads");
        let expected = sent + codec::frame(codec::TEXT, b"a text").len();
        let mut got = vec![0; expected];
        tokio::select! {
            error = outlet.write_posted() => panic!("{error}"),
            read = tokio::time::timeout(BOUND, far.read_exact(&mut got)) => drop(read.unwrap().unwrap()),
        }
        assert!(got.ends_with(b"a text"));
    }

    #[tokio::test]
    async fn after_peer_here_nothing_of_an_older_socket_follows() {
        let (agent, _agent_read, mut far) = outlet().await;
        let (old, _old_read, _) = outlet().await;
        let (new, _new_read, _) = outlet().await;
        let link = |client: &Arc<Outlet>| {
            client.set_peer(Some(agent.clone()));
            agent.set_peer(Some(client.clone()));
        };
        link(&old);
        agent.forward(&old, b"<old>".to_vec(), 5).await.unwrap();
        // The old socket's reader has looked up its peer already when a newer socket comes.
        let in_hand = old.peer_at(old.link()).unwrap();
        old.set_peer(None);
        link(&new);
        agent.post("peer:here:session".to_owned());
        in_hand.forward(&old, b"<late>".to_vec(), 6).await.unwrap();
        agent.forward(&new, b"<new>".to_vec(), 5).await.unwrap();
        agent.finish(&CloseWith { code: 1000, reason: String::new() }).await.unwrap();
        let mut out = Vec::new();
        far.read_to_end(&mut out).await.unwrap();
        let expected = [&b"<old>"[..], b"\x81\x11peer:here:session", b"<new>", b"\x88\x02\x03\xe8"].concat();
        assert_eq!(out, expected);
    }
}
