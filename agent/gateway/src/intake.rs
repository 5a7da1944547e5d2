//! A client's connection before hyper reads it: heads are read here, and bodies end where they say.
//!
//! hyper gets a short head of our making ([`Head::for_hyper`]) and then the body's bytes; the head itself waits in
//! [`Progress`] for the code that answers the request. So a head has no limits but ours, a bad head is answered like
//! any other refusal, and a head is read once, for policy and forwarder both.
//!
//! A head must be complete within a time from its first byte; a connection between requests may be idle for ever, as
//! kubectl's are. A request that is sent before the last one was answered is refused: no client of Kubernetes does
//! that, but request smuggling does. Its bytes do not reach hyper, which would not see behind them that the client has
//! closed.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{
    endings::OUTLIVES,
    framing::Framing,
    head::{Head, Problem, SLACK, too_large},
    progress::Progress,
    room::{HeadRoom, Room, held},
};

/// Bytes of one read.
const READ: usize = 8 * 1024;
/// Most bytes after a request that is not answered yet; a client that sends more has its connection ended.
const EARLY_MAX: usize = 64 * 1024;
/// Of these this many are kept: they may be a request, which then gets its line in the audit log.
const EARLY_KEPT: usize = 1024;
/// Most reads in a row, of a head or of bytes that are thrown away: other tasks want their turn.
const TURNS: u32 = 16;

/// How long a head may be, how long it may take, and the room that it takes.
pub(crate) struct HeadLimits {
    /// In bytes, without [`SLACK`].
    pub(crate) max: usize,
    /// From a head's first byte.
    pub(crate) time: Duration,
    pub(crate) room: HeadRoom,
}

/// A client's connection.
pub(crate) struct Intake<S> {
    stream: S,
    progress: Arc<Progress>,
    limits: HeadLimits,
    stage: Stage,
    /// Read from the stream and not yet looked at.
    raw: BytesMut,
    /// How many bytes of `raw` were searched for the head's end without finding it.
    seen: usize,
    room: Room,
    deadline: Option<Pin<Box<Sleep>>>,
    /// The head for hyper, not yet read by it.
    out: Bytes,
    body: BodyWatch,
}

/// Whether a body is being read, and whether its client is still there.
#[derive(Default)]
struct BodyWatch {
    /// hyper has read some of it since `tick` began.
    moved: bool,
    /// The body cannot come to its end any more.
    lost: bool,
    tick: Option<Pin<Box<Sleep>>>,
}

/// What is expected next.
enum Stage {
    /// A head.
    Head,
    /// A body.
    Body { framing: Framing, upgrades: bool },
    /// Nothing until the request was answered. `early` bytes came all the same, and were thrown away.
    Answer { upgrades: bool, early: usize },
    /// Nothing: the last answer is on its way.
    Last,
    /// Bytes that are not ours to read: of another protocol, or of a body whose end is unknown.
    Through,
}

impl<S> Intake<S> {
    pub(crate) fn new(stream: S, progress: Arc<Progress>, limits: HeadLimits) -> Self {
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

    /// Takes a head off `raw` if one is whole, or if its bytes can be none.
    fn head(&mut self) -> Option<Head> {
        if self.seen == 0 {
            // Skips empty lines before a request (RFC 9112, section 2.2).
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
        // A client that speaks another protocol is told at once.
        let mut request = httparse::Request::new(&mut []);
        let foreign = first && request.parse(&self.raw).is_err() && request.method.is_none();
        if foreign {
            return Some(Head::read(&self.raw.split().freeze()));
        }
        let time = self.limits.time;
        self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + time)));
        None
    }

    /// Hands a head over to hyper and to [`Progress`].
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
        // The head keeps its memory; `raw` gets new memory for what follows.
        self.raw = if matches!(self.stage, Stage::Last) { BytesMut::new() } else { BytesMut::from(&self.raw[..]) };
        self.progress.put(head);
    }

    fn refuse(&mut self, problem: Problem) {
        let head = Head::cut(&self.raw, problem);
        self.begin(head);
    }
}

impl<S: AsyncRead + Unpin> Intake<S> {
    /// Reads until a head is handed over; `false` if the client closed before.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        for _ in 0..TURNS {
            if let Some(head) = self.head() {
                self.begin(head);
                return Poll::Ready(Ok(true));
            }
            // Takes as much room as the head will hold once it is read, so that a head that was begun can be finished.
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

    /// The request is whole. Reads on until it was answered, so as to see the client close; `false` if it does.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        for _ in 0..TURNS {
            let Stage::Answer { upgrades, early } = &mut self.stage else { return Poll::Ready(Ok(true)) };
            if *upgrades && self.progress.is_upgraded() {
                self.stage = Stage::Through;
                return Poll::Ready(Ok(true));
            }
            // Bytes before an upgrade are kept for it.
            let kept = self.room.grow(self.raw.capacity());
            if *early > 0 || !self.raw.is_empty() {
                self.progress.wait(cx);
            }
            let answered = self.progress.is_answered();
            // Empty lines begin no request.
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

    /// Throws bytes away; ready when the client has closed and its last request was answered.
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
    /// Fails if none of a body was taken for a while and the client has gone: hyper reads a body only as its reader
    /// takes it, and so would not see the client close.
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
            // A write of nothing fails if the client has gone.
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
                        // hyper fails on these bytes too, and with it the request; no other request is read here.
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

/// Appends one read to `raw`, which holds no memory while it is empty.
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

/// The position after the first empty line. That line, without the end of the line before it, begins at `seen` or
/// later. Line ends are LF with or without CR, as `httparse` reads them.
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
        // hyper flushes in each of its turns, whether or not it reads.
        self.poll_body(cx)?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.progress.flushes.flushed();
        Poll::Ready(Ok(()))
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
mod tests;
