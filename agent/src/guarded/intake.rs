//! A client's connection before hyper reads it: heads are read here, and bodies end where they say.
//!
//! hyper is handed a short head of our making ([`Head::for_hyper`]) and then the body's bytes; the head itself waits in
//! [`Progress`] for whoever answers the request. So a head has no limits but ours, what is wrong with one is answered as
//! any other refusal, and what is judged is what was read, once.
//!
//! A head must be complete within a time from its first byte, while a connection between requests may be idle for ever,
//! as kubectl's are. A request that is sent before the last one was answered is refused: no client of Kubernetes does
//! that, smugglers do. Its bytes do not reach hyper, which would not look for the client's end behind them.
//!
//! Over 500 lines because its tests, which reach into it, stand below.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    framing::Framing,
    head::{Head, Problem, SLACK, too_large},
    room::{HeadRoom, Room, held},
    upgrade::OUTLIVES,
};

/// Read at once where a head is expected.
const READ: usize = 8 * 1024;
/// Bytes that may follow a request before it was answered; who sends more has the connection ended.
const EARLY_MAX: usize = 64 * 1024;
/// Of these so many are kept, for the audit line of the request that they may be.
const EARLY_KEPT: usize = 1024;
/// Reads in a row, of a head or of what is only thrown away: others want their turn.
const TURNS: u32 = 16;

/// What a connection and its requests tell each other.
#[derive(Debug, Default)]
pub(super) struct Progress {
    head: Mutex<Option<Head>>,
    heads: AtomicU32,
    finished: AtomicU32,
    upgraded: AtomicBool,
    /// Of whoever reads on and has something that waits for the answer.
    waits: Mutex<Option<Waker>>,
}

impl Progress {
    /// The head of the request that hyper has read. Nothing where hyper found one where none should be.
    pub(super) fn take(&self) -> Option<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// It was answered: the next head may come.
    pub(super) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        // hyper does not read again before it is woken.
        if let Some(waits) = self.waits.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waits.wake();
        }
    }

    /// The connection becomes something else: all that comes is its own.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    fn put(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        self.heads.fetch_add(1, Ordering::AcqRel);
    }

    /// Wakes this task when it was answered.
    fn wait(&self, cx: &Context<'_>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }

    fn is_answered(&self) -> bool {
        self.finished.load(Ordering::Acquire) >= self.heads.load(Ordering::Acquire)
    }
}

/// How long a head may be, may take, and what it takes it from.
pub(super) struct HeadLimits {
    /// Bytes, but for [`SLACK`].
    pub(super) max: usize,
    /// From its first byte.
    pub(super) time: Duration,
    pub(super) room: HeadRoom,
}

/// A client's connection.
pub(super) struct Intake<S> {
    stream: S,
    progress: Arc<Progress>,
    limits: HeadLimits,
    stage: Stage,
    /// Read from the stream and not yet looked at.
    raw: BytesMut,
    /// Of `raw`, where a head is read: holds no end of a head.
    seen: usize,
    room: Room,
    deadline: Option<Pin<Box<Sleep>>>,
    /// For hyper, before anything else.
    out: Bytes,
    body: BodyWatch,
}

/// Whether a body moves, and whether there is anybody behind it.
#[derive(Default)]
struct BodyWatch {
    /// hyper has read of it since `tick` began.
    moved: bool,
    /// It cannot come to its end any more.
    lost: bool,
    tick: Option<Pin<Box<Sleep>>>,
}

/// What comes next.
enum Stage {
    /// A head.
    Head,
    /// A body.
    Body { framing: Framing, upgrades: bool },
    /// Nothing, until the request was answered. Of what comes all the same, so many bytes were thrown away.
    Answer { upgrades: bool, early: usize },
    /// Nothing that matters: the last answer is on its way.
    Last,
    /// What is not ours to read: bytes of another protocol, or of a body whose end is lost.
    Through,
}

impl<S> Intake<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>, limits: HeadLimits) -> Self {
        let room = limits.room.enter();
        Self {
            stream,
            progress,
            limits,
            stage: Stage::Head,
            raw: BytesMut::new(),
            seen: 0,
            room,
            deadline: None,
            out: Bytes::new(),
            body: BodyWatch::default(),
        }
    }

    /// A head that is whole in `raw`, or can be none.
    fn head(&mut self) -> Option<Head> {
        if self.seen == 0 {
            // Empty lines before a request (RFC 9112, section 2.2).
            let lines = self.raw.iter().take_while(|byte| is_line_end(byte)).count();
            self.raw.advance(lines);
        }
        if self.raw.is_empty() {
            self.deadline = None;
            return None;
        }
        let first = self.seen == 0;
        let end = end_of_head(&self.raw, self.seen);
        self.seen = self.raw.len();
        if end.unwrap_or(self.seen) > self.limits.max + SLACK {
            let what = format!("has a head of more than {} KiB (--header-limit)", self.limits.max.div_ceil(1024));
            return Some(Head::cut(&self.raw, Problem::new(too_large(), what)));
        }
        if let Some(end) = end {
            let bytes = self.raw.split_to(end).freeze();
            let head = Head::read(&bytes);
            let fits = self.room.grow(held(bytes.len(), head.headers.len()));
            return Some(if fits { head } else { Head::cut(&bytes, crowded()) });
        }
        // Whoever speaks something else is told at once.
        let mut request = httparse::Request::new(&mut []);
        let foreign = first && request.parse(&self.raw).is_err() && request.method.is_none();
        if foreign {
            return Some(Head::read(&self.raw.split().freeze()));
        }
        let time = self.limits.time;
        self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + time)));
        None
    }

    /// Hands a head over.
    fn begin(&mut self, mut head: Head) {
        self.deadline = None;
        self.body = BodyWatch::default();
        self.seen = 0;
        head.room = Some(std::mem::replace(&mut self.room, self.limits.room.enter()));
        self.out = head.for_hyper();
        self.stage = match (&head.problem, &head.framing) {
            (Some(_), _) => Stage::Last,
            (None, framing) if framing.is_over() => Stage::Answer { upgrades: head.upgrades(), early: 0 },
            (None, framing) => Stage::Body { framing: framing.clone(), upgrades: head.upgrades() },
        };
        // The head's memory is the head's.
        self.raw = if matches!(self.stage, Stage::Last) { BytesMut::new() } else { BytesMut::from(&self.raw[..]) };
        self.progress.put(head);
    }

    fn refuse(&mut self, problem: Problem) {
        let head = Head::cut(&self.raw, problem);
        self.begin(head);
    }
}

impl<S: AsyncRead + Unpin> Intake<S> {
    /// Reads heads until one is handed over; `false` at the client's end.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        for _ in 0..TURNS {
            if let Some(head) = self.head() {
                self.begin(head);
                return Poll::Ready(Ok(true));
            }
            // As much as it will hold once it is read: what was begun comes to its end.
            if !self.room.grow(self.raw.capacity().max(held(self.raw.len(), 0))) {
                self.refuse(crowded());
                return Poll::Ready(Ok(true));
            }
            match poll_more(&mut self.stream, cx, &mut self.raw) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                    if !late {
                        return Poll::Pending;
                    }
                    self.refuse(Problem::new(StatusCode::REQUEST_TIMEOUT, "took too long to come (--header-timeout)"));
                    return Poll::Ready(Ok(true));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The request has come whole. Reads on, so that the client's end is seen, until it was answered; `false` at that end.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        for _ in 0..TURNS {
            let Stage::Answer { upgrades, early } = &mut self.stage else { return Poll::Ready(Ok(true)) };
            if *upgrades && self.progress.upgraded.load(Ordering::Acquire) {
                self.stage = Stage::Through;
                return Poll::Ready(Ok(true));
            }
            // What comes before an upgrade is kept for it.
            let kept = self.room.grow(self.raw.capacity());
            if *early > 0 || !self.raw.is_empty() {
                self.progress.wait(cx);
            }
            let answered = self.progress.is_answered();
            // Empty lines are no request.
            if answered && *early == 0 && self.raw.iter().all(is_line_end) {
                self.stage = Stage::Head;
                return Poll::Ready(Ok(true));
            }
            if answered {
                self.refuse(Problem::bad("was sent before the last one was answered"));
                return Poll::Ready(Ok(true));
            }
            if !*upgrades {
                *early += self.raw.len().saturating_sub(EARLY_KEPT);
                self.raw.truncate(EARLY_KEPT);
            }
            if !kept || *early + self.raw.len() > EARLY_MAX {
                return Poll::Ready(Err(io::Error::other("more than one request at once")));
            }
            if ready!(poll_more(&mut self.stream, cx, &mut self.raw))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Throws away what comes; ready at the client's end, once it was answered.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            self.raw.clear();
            if ready!(poll_more(&mut self.stream, cx, &mut self.raw))? == 0 {
                self.progress.wait(cx);
                return if self.progress.is_answered() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Intake<S> {
    /// Fails where nothing of a body was taken for a while, and nobody is behind it: hyper reads no more of a body than is
    /// taken, and so not to the client's end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !matches!(self.stage, Stage::Body { .. }) && !self.body.lost {
            self.body.tick = None;
            return Ok(());
        }
        loop {
            let tick = self.body.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(OUTLIVES)));
            if tick.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.body.tick = None;
            if std::mem::take(&mut self.body.moved) {
                continue;
            }
            if self.body.lost {
                return Err(io::Error::other("the rest of a body is lost"));
            }
            // Who takes no answer any more is gone.
            if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_write(cx, &[]) {
                return Err(error);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.out.is_empty() {
                let len = this.out.len().min(buf.remaining());
                buf.put_slice(&this.out.split_to(len));
                return Poll::Ready(Ok(()));
            }
            match &mut this.stage {
                Stage::Head => {
                    if !ready!(this.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Answer { .. } => {
                    if !ready!(this.poll_answer(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Stage::Last => return this.poll_last(cx),
                Stage::Body { framing, upgrades } if framing.is_over() => {
                    this.stage = Stage::Answer { upgrades: *upgrades, early: 0 };
                }
                Stage::Body { framing, .. } => {
                    let before = buf.filled().len();
                    if this.raw.is_empty() {
                        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
                        this.body.moved = true;
                        if read.is_err() || buf.filled().len() == before {
                            this.body.lost = true;
                            return Poll::Ready(read);
                        }
                    } else {
                        let len = this.raw.len().min(buf.remaining());
                        buf.put_slice(&this.raw.split_to(len));
                    }
                    let Ok(taken) = framing.take(&buf.filled()[before..]) else {
                        // hyper finds the same, and the request fails; no other one is read here.
                        this.stage = Stage::Through;
                        this.body.lost = true;
                        return Poll::Ready(Ok(()));
                    };
                    if before + taken < buf.filled().len() {
                        let mut rest = BytesMut::from(&buf.filled()[before + taken..]);
                        rest.extend_from_slice(&this.raw);
                        this.raw = rest;
                        buf.set_filled(before + taken);
                    }
                    if this.raw.is_empty() {
                        this.raw = BytesMut::new();
                    }
                    return Poll::Ready(Ok(()));
                }
                Stage::Through if this.raw.is_empty() => return Pin::new(&mut this.stream).poll_read(cx, buf),
                Stage::Through => {
                    let len = this.raw.len().min(buf.remaining());
                    buf.put_slice(&this.raw.split_to(len));
                    if this.raw.is_empty() {
                        (this.raw, this.room) = (BytesMut::new(), this.limits.room.enter());
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// The client's other heads leave no room for this one.
fn crowded() -> Problem {
    let what = "is one of too many with a long head at once, of this client; try again";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, what)
}

/// Appends what is there to `raw`, which holds no memory while there is nothing.
fn poll_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    raw: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut buffer = [MaybeUninit::uninit(); READ];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    raw.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Behind the first empty line, which may begin at `seen` at the earliest but for its line's end. Line ends are LF, with
/// or without CR, as `httparse` reads them.
fn end_of_head(raw: &[u8], seen: usize) -> Option<usize> {
    let start = seen.saturating_sub(2);
    let mut lines = raw[start..].iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| start + at + 1);
    lines.find_map(|line| match raw.get(line..)? {
        [b'\n', ..] => Some(line + 1),
        [b'\r', b'\n', ..] => Some(line + 2),
        _ => None,
    })
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked in every turn of hyper's, whether or not it reads.
        self.poll_body(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn intake() -> (DuplexStream, Intake<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let limits = HeadLimits { max: 16 * 1024, time: Duration::from_secs(30), room: HeadRoom::default() };
        (near, Intake::new(far, Arc::default(), limits))
    }

    /// What hyper reads at once.
    async fn read(intake: &mut Intake<DuplexStream>) -> String {
        let mut buf = vec![0; 4096];
        let len = intake.read(&mut buf).await.unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    fn is_waiting(intake: &mut Intake<DuplexStream>) -> bool {
        let mut buf = [0; 64];
        let mut buf = ReadBuf::new(&mut buf);
        Pin::new(intake).poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buf).is_pending()
    }

    const SEEN: &str = "GET / HTTP/1.1\r\n\r\n";
    const LAST: &str = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn heads_come_one_at_a_time_however_they_are_cut() {
        let (mut near, mut intake) = intake();
        for byte in b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n" {
            assert!(is_waiting(&mut intake));
            near.write_all(&[*byte]).await.unwrap();
        }
        assert_eq!(read(&mut intake).await, SEEN);
        let head = intake.progress.take().unwrap();
        assert_eq!((head.target.as_str(), head.headers.len()), ("/a", 1));
        assert!(intake.progress.take().is_none());
        assert!(is_waiting(&mut intake));
        intake.progress.finish();
        near.write_all(b"POST /b HTTP/1.1\nContent-Length: 4\n\nbo").await.unwrap();
        assert_eq!(read(&mut intake).await, "GET / HTTP/1.1\r\ncontent-length: 4\r\n\r\n");
        assert_eq!(intake.progress.take().unwrap().target.as_str(), "/b");
        assert_eq!(read(&mut intake).await, "bo");
        near.write_all(b"dy").await.unwrap();
        assert_eq!(read(&mut intake).await, "dy");
        assert!(is_waiting(&mut intake));
        intake.progress.finish();
        near.write_all(b"GET /c HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut intake).await, SEEN);
    }

    #[tokio::test]
    async fn what_follows_a_request_too_early_reaches_nobody_and_hides_no_end() {
        for request in [
            "GET /a HTTP/1.1\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ] {
            let (mut near, mut intake) = intake();
            near.write_all(format!("{request}X").as_bytes()).await.unwrap();
            let mut given = String::new();
            while let Some(more) = futures_util::FutureExt::now_or_never(read(&mut intake)) {
                given.push_str(&more);
            }
            assert!(!given.contains('X'), "{given}");
            intake.progress.take().unwrap();
            near.shutdown().await.unwrap();
            assert_eq!(read(&mut intake).await, "", "its end is seen: {request}");
            // Or, where it waits for the answer, it has one more.
            intake.progress.finish();
            assert_eq!(read(&mut intake).await, LAST);
            let problem = intake.progress.take().unwrap().problem.unwrap();
            assert_eq!(problem, Problem::bad("was sent before the last one was answered"));
        }
        let (mut near, mut intake) = intake();
        near.write_all(SEEN.as_bytes()).await.unwrap();
        assert_eq!(read(&mut intake).await, SEEN);
        near.write_all(&vec![b'x'; EARLY_MAX + 1]).await.unwrap();
        let ended = std::future::poll_fn(|cx| {
            let mut buf = [0; 64];
            Pin::new(&mut intake).poll_read(cx, &mut ReadBuf::new(&mut buf))
        });
        assert!(ended.await.is_err(), "nobody sends so much in vain");
    }

    #[tokio::test]
    async fn empty_lines_between_requests_are_nothing() {
        for (request, seen) in [
            ("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\r\n", "GET / HTTP/1.1\r\ncontent-length: 2\r\n\r\n"),
            ("GET /a HTTP/1.1\r\n\r\n\r\n\n", SEEN),
            (
                "GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\r\n",
                "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: any\r\n\r\n",
            ),
        ] {
            let (mut near, mut intake) = intake();
            near.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(read(&mut intake).await, seen);
            intake.progress.take().unwrap();
            if request.contains("hi") {
                assert_eq!(read(&mut intake).await, "hi");
            }
            assert!(is_waiting(&mut intake));
            near.write_all(b"\r\n").await.unwrap();
            assert!(is_waiting(&mut intake));
            intake.progress.finish();
            near.write_all(b"GET /b HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(read(&mut intake).await, SEEN, "{request}");
            let head = intake.progress.take().unwrap();
            assert_eq!((head.target.as_str(), head.problem), ("/b", None));
        }
    }

    /// Has empty lines without end, and says how many reads there were.
    struct EmptyLines(u32);

    impl AsyncRead for EmptyLines {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0 += 1;
            if self.0 > 10_000 {
                return Poll::Pending;
            }
            buf.put_slice(b"\r\n\r\n");
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn empty_lines_without_end_leave_others_their_turn() {
        let limits = HeadLimits { max: 16 * 1024, time: Duration::from_secs(30), room: HeadRoom::default() };
        let mut intake = Intake::new(EmptyLines(0), Arc::default(), limits);
        let mut buf = [0; 64];
        let mut buf = ReadBuf::new(&mut buf);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut intake).poll_read(&mut cx, &mut buf).is_pending());
        assert_eq!(intake.stream.0, TURNS);
    }

    #[tokio::test]
    async fn what_comes_before_an_upgrade_belongs_to_it() {
        let (mut near, mut intake) = intake();
        near.write_all(b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nearly").await.unwrap();
        read(&mut intake).await;
        assert!(is_waiting(&mut intake));
        intake.progress.upgrade();
        intake.progress.finish();
        assert_eq!(read(&mut intake).await, "early");
        near.write_all(b"GET /").await.unwrap();
        assert_eq!(read(&mut intake).await, "GET /");
        // It has its room where long heads have theirs.
        let room = HeadRoom::default();
        let mut other = room.enter();
        assert!(other.grow(super::super::room::LONG_HEADS));
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let limits = HeadLimits { max: 1 << 20, time: Duration::from_secs(30), room };
        let mut intake = Intake::new(far, Arc::default(), limits);
        near.write_all(b"GET /a HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await.unwrap();
        read(&mut intake).await;
        near.write_all(&[b'x'; 60_000]).await.unwrap();
        assert!(intake.read(&mut [0; 64]).await.is_err());
    }

    #[tokio::test]
    async fn behind_a_broken_body_nothing_is_a_request() {
        let (mut near, mut intake) = intake();
        near.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        read(&mut intake).await;
        intake.progress.take().unwrap();
        assert!(read(&mut intake).await.starts_with("x\r\n"), "hyper refuses it");
        intake.progress.finish();
        near.write_all(b"GET /c HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(read(&mut intake).await, "GET /c HTTP/1.1\r\n\r\n");
        assert!(intake.progress.take().is_none());
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_or_no_head_is_told_as_one() {
        let room = HeadRoom::default();
        for (sent, status) in [
            (format!("GET /a HTTP/1.1\r\nA: {}", "x".repeat(16 * 1024 + SLACK)), 431),
            (format!("GET /a HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(16 * 1024 + SLACK)), 431),
            ("\x16\x03\x01 a TLS hello".to_owned(), 400),
        ] {
            let (mut near, mut intake) = intake();
            near.write_all(sent.as_bytes()).await.unwrap();
            assert_eq!(read(&mut intake).await, LAST);
            assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, status);
            near.write_all(&[0; 100_000]).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(is_waiting(&mut intake), "the answer is not out");
            intake.progress.finish();
            assert_eq!(read(&mut intake).await, "", "the rest is thrown away");
        }
        // Long heads of one client share what they may hold.
        let mut other = room.enter();
        assert!(other.grow(super::super::room::LONG_HEADS));
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let limits = HeadLimits { max: 1 << 20, time: Duration::from_secs(30), room };
        let mut intake = Intake::new(far, Arc::default(), limits);
        near.write_all(format!("GET /a HTTP/1.1\r\nA: {}", "x".repeat(100_000)).as_bytes()).await.unwrap();
        assert_eq!(read(&mut intake).await, LAST);
        assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_stops_is_given_up_and_idleness_is_not() {
        let (mut near, mut intake) = intake();
        let idle = tokio::time::timeout(Duration::from_secs(3600), read(&mut intake)).await;
        assert!(idle.is_err(), "an idle connection stays");
        near.write_all(b"GET /a H").await.unwrap();
        assert_eq!(read(&mut intake).await, LAST);
        assert_eq!(intake.progress.take().unwrap().problem.unwrap().status, StatusCode::REQUEST_TIMEOUT);
    }
}
