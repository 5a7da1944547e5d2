//! Copies between a TCP connection and a stream, each direction with its own end (half-close).
//!
//! An end is passed on only when its source said so: the peer's `eof` becomes a FIN, a FIN becomes `eof`. Anything
//! else becomes a failure on the other side, so that what was cut never looks complete. What came before a failure is
//! passed on before it.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use mykube_dial::{Abort, STALLED, cut, drain, drain_until};
use mykube_protocol::limits::RELEASED_UNTAKEN;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use crate::stream::{ChannelStream, StreamFailed};

/// Bytes that are read at once from a connection that has little to say, and from one that has much. Where many streams share
/// the room, a read takes this many of a stream's shares, and the stream waits for its turn with nothing more in hand: larger
/// steps cost fewer turns.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 256 * 1024;
const READ_SHARES: usize = 8;
/// A connection is read for this long after the last write to it, so that the write survives three retransmissions in a row
/// (200, 400 and 800 ms, RFC 6298 with Linux's least timeout).
const LINGER: Duration = Duration::from_secs(2);
/// ... and up to this many bytes more: the connection's program may have to be rid of them before it reads.
const FORGOTTEN_MAX: u64 = 1024 * 1024;
/// Bytes that are taken from a stream at once.
const WRITE_MAX: u64 = 256 * 1024;

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The connection on this end.
    #[error("{0}")]
    Local(#[from] io::Error),
    /// The other end failed the stream before it gave a single byte, and says why.
    #[error("{0}")]
    Refused(StreamFailed),
    /// The stream was cut, in the other end's words.
    #[error(transparent)]
    Stream(#[from] StreamFailed),
}

/// Copies both ways until both ended. On failure the stream fails at the peer and the connection is cut, both after what came
/// before.
///
/// # Errors
/// Whichever side failed first.
pub async fn copy<T>(connection: T, stream: ChannelStream) -> Result<(), CopyError>
where
    T: AsyncRead + AsyncWrite + Abort + Unpin,
{
    // Until both directions have ended a close is a reset, also when this future is dropped.
    connection.abort();
    let (mut reader, mut writer) = tokio::io::split(connection);
    let (tell, received) = oneshot::channel();
    let deaf = AtomicBool::new(false);
    let mut chunks = Vec::new();
    let inward = async {
        match inward(&mut writer, &stream, &mut chunks).await {
            Ok(written) => {
                // Where the other direction has ended by itself its task asks no more.
                let _ = tell.send(written);
                Ok(None)
            }
            // The connection takes no more; what it said before that is still read, to its end.
            Err(CopyError::Local(error)) => {
                deaf.store(true, Ordering::Relaxed);
                drop(tell);
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    };
    let believed = || T::TELLS || !deaf.load(Ordering::Relaxed);
    let result = tokio::try_join!(outward(&mut reader, &stream, received, believed), inward);
    let mut connection = reader.unsplit(writer);
    let error = match result {
        Ok(((), None)) => {
            connection.settle();
            return Ok(());
        }
        Ok(((), Some(error))) => CopyError::Local(error),
        Err(error) => error,
    };
    let mut ended = false;
    if let CopyError::Local(error) = &error {
        ended = take_rest(&stream, &mut chunks);
        stream.fail(&format!("connection lost: {}", error.kind()));
    }
    // The stream's slot is free before the connection's last bytes have arrived.
    drop(stream);
    if matches!(timeout(STALLED, write_rest(&mut connection, chunks, ended)).await, Ok(Ok(()))) {
        cut(connection).await;
    }
    Err(error)
}

/// Takes from the stream what has come for a connection that says no more, which may still read. Gives whether the other end
/// was done with the stream.
fn take_rest(stream: &ChannelStream, chunks: &mut Vec<Bytes>) -> bool {
    let mut read = || stream.read(u64::MAX, chunks).now_or_never();
    // The end comes after all bytes that are queued.
    match read() {
        Some(Ok(true)) => matches!(read(), Some(Ok(false))),
        first => matches!(first, Some(Ok(false))),
    }
}

/// Writes the chunks, and a FIN where the other end had ended its direction.
async fn write_rest<W: AsyncWrite + Unpin>(writer: &mut W, mut chunks: Vec<Bytes>, ended: bool) -> io::Result<()> {
    write_all(writer, &mut chunks, || None).await.map_err(io::Error::other)?;
    if ended { writer.shutdown().await } else { writer.flush().await }
}

/// From the connection into the stream. Where the other end takes no more, the rest is read and dropped, and the bytes that the
/// other end has sent before still reach the connection; whether these are whole, the other direction knows. A connection that
/// is closed with something unread is reset, and bytes on their way to it are lost. `received` says that the other direction
/// is through, and when its last byte was written. `believed` says whether an end of the connection is one: the system tells of
/// a reset once, to the task that asks first, and of an end from then on.
async fn outward<R: AsyncRead + Unpin>(
    reader: &mut R,
    stream: &ChannelStream,
    received: oneshot::Receiver<Instant>,
    believed: impl Fn() -> bool,
) -> Result<(), CopyError> {
    let mut buffer = BytesMut::new();
    let mut step = READ_MIN;
    loop {
        if stream.room().await.is_err() {
            break;
        }
        if buffer.capacity() < step / 2 || buffer.capacity() > step * 2 {
            buffer = BytesMut::with_capacity(step);
        }
        let read = reader.read_buf(&mut buffer).await?;
        if read == 0 && !believed() {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        if read == 0 {
            stream.finish();
            return Ok(());
        }
        if read >= step / 2 {
            step *= 2;
        }
        step = step.min(stream.share() * READ_SHARES).min(READ_MAX);
        if stream.write(take(&mut buffer)).await.is_err() {
            break;
        }
    }
    forget(reader, received).await;
    Ok(())
}

/// What was read, in little more memory than it takes: it may be kept until the other end acknowledges it, and is counted for
/// its length.
fn take(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() * 4 >= buffer.capacity() * 3 {
        return std::mem::take(buffer).freeze();
    }
    let read = Bytes::copy_from_slice(buffer);
    buffer.clear();
    read
}

/// Reads and drops the bytes that the stream does not take any more, until their sender is done too. When the other direction is
/// through as well, a sender without end (a download that was left) is given up [`LINGER`] after the last byte that it was
/// sent, which may be long ago: the bytes that it sends on stand in the kernel's buffers.
async fn forget<R: AsyncRead + Unpin>(reader: &mut R, received: oneshot::Receiver<Instant>) {
    // Where the other direction failed the whole copy ends.
    let Some(Ok(written)) = drain_until(reader, received).await else { return };
    let mut some = reader.take(FORGOTTEN_MAX);
    if timeout(LINGER, drain(&mut some)).await.is_ok() && some.limit() == 0 {
        sleep_until(written + LINGER).await;
    }
}

/// From the stream into the connection. Gives when the last byte was written. `chunks` has the bytes that are not written yet,
/// also where this future is dropped.
async fn inward<W: AsyncWrite + Unpin>(
    writer: &mut W,
    stream: &ChannelStream,
    chunks: &mut Vec<Bytes>,
) -> Result<Instant, CopyError> {
    let mut first = true;
    let mut written = Instant::now();
    loop {
        let read = stream.read(WRITE_MAX, chunks).await;
        if !read.map_err(|reason| if first { CopyError::Refused(reason) } else { CopyError::Stream(reason) })? {
            break;
        }
        first = false;
        write_all(writer, chunks, || stream.is_left()).await?;
        written = Instant::now();
    }
    // The direction is whole, and waits for the other one.
    match writer.shutdown().await {
        // The other direction may have ended the connection already.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        other => other?,
    }
    Ok(written)
}

/// Writes all chunks, and flushes the connection. `left`: why the client has failed the stream that they came from, if it has.
async fn write_all<W: AsyncWrite + Unpin>(
    writer: &mut W,
    chunks: &mut Vec<Bytes>,
    left: impl Fn() -> Option<StreamFailed>,
) -> Result<(), CopyError> {
    const SLICES: usize = 16;
    let mut first = chunks.iter().take_while(|chunk| chunk.is_empty()).count();
    while first < chunks.len() {
        let mut slices = [io::IoSlice::new(&[]); SLICES];
        let mut n = 0;
        for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
            *slice = io::IoSlice::new(chunk);
            n += 1;
        }
        let written = unless_left(writer.write_vectored(&slices[..n]), &left).await;
        if matches!(written, Err(CopyError::Stream(_))) {
            chunks.clear();
        }
        let mut written = written?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        while written > 0 {
            let chunk = &mut chunks[first];
            let part = written.min(chunk.len());
            chunk.advance(part);
            written -= part;
            if chunk.is_empty() {
                first += 1;
            }
        }
    }
    chunks.clear();
    unless_left(writer.flush(), &left).await
}

/// Does a write or a flush. Where the client has failed the stream before it was whole, the rest is given up once an API server
/// takes nothing of it for [`RELEASED_UNTAKEN`], as the client's system does with the rest on a connection whose program is gone;
/// until then the rest keeps the stream's slot. A stream that is whole waits for as long as the session lasts, and so does
/// everything that comes to a client: there a person may be reading.
async fn unless_left<T>(
    work: impl Future<Output = io::Result<T>>,
    left: impl Fn() -> Option<StreamFailed>,
) -> Result<T, CopyError> {
    let mut work = pin!(work);
    if let Some(done) = work.as_mut().now_or_never() {
        return Ok(done?);
    }
    // A send in several steps is woken for each of them; the copy's other direction does not wake it.
    let woken = AtomicBool::new(false);
    let steps = poll_fn(|cx| {
        woken.store(true, Ordering::Relaxed);
        work.as_mut().poll(cx)
    });
    let mut alone: FuturesUnordered<_> = [steps].into_iter().collect();
    let mut done = alone.next().now_or_never();
    woken.store(false, Ordering::Relaxed);
    let mut before = None;
    loop {
        if let Some(Some(done)) = done {
            return Ok(done?);
        }
        done = timeout(RELEASED_UNTAKEN, alone.next()).await.ok();
        let still = !woken.swap(false, Ordering::Relaxed);
        match before.take().filter(|_| still && done.is_none()) {
            Some(reason) => return Err(CopyError::Stream(reason)),
            None => before = left(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::io::{BufWriter, ReadBuf};

    use super::*;

    /// Always has more, and counts what was taken.
    struct Endless(u64);

    impl AsyncRead for Endless {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0 += buf.remaining() as u64;
            let len = buf.initialize_unfilled().len();
            buf.advance(len);
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_was_read_keeps_little_else_in_memory() {
        let kept = |len: usize| {
            let mut buffer = BytesMut::with_capacity(READ_MIN);
            buffer.extend_from_slice(&vec![7; len]);
            let read = take(&mut buffer);
            assert!(read.len() == len && buffer.is_empty());
            // Where it has the buffer itself, none of it is left for others.
            (buffer.capacity() == 0, read.try_into_mut().unwrap().capacity())
        };
        for len in [1, READ_MIN / 2 + 1, READ_MIN * 3 / 4 - 1] {
            assert_eq!(kept(len), (false, len));
        }
        for len in [READ_MIN * 3 / 4, READ_MIN] {
            assert_eq!(kept(len), (true, READ_MIN));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_that_is_gone_has_said_is_given_up_where_nobody_takes_it() {
        let written = async |held: usize, left: fn() -> Option<StreamFailed>| {
            let (near, mut far) = tokio::io::duplex(3);
            // As TLS does, it takes all of it at once where it has the room.
            let mut near = BufWriter::with_capacity(held, near);
            let mut chunks = vec![Bytes::from_static(b"some"), Bytes::from_static(b"more")];
            let start = Instant::now();
            let reads = async {
                // But for the last, never at a moment at which the copy looks whether anything was taken.
                for (at, len) in [(RELEASED_UNTAKEN / 2, 1), (RELEASED_UNTAKEN * 7 / 6, 1), (RELEASED_UNTAKEN * 6, 3)] {
                    sleep_until(start + at).await;
                    far.read_exact(&mut [0; 3][..len]).await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let written = tokio::select! {
                written = write_all(&mut near, &mut chunks, left) => written,
                () = reads => unreachable!(),
            };
            assert!(chunks.is_empty(), "what is given up is not kept");
            (written, start.elapsed())
        };
        // From the last write that took something on, or, of one write in several steps, from its beginning.
        for (held, given_up) in [(0, RELEASED_UNTAKEN * 19 / 6), (64, RELEASED_UNTAKEN * 3)] {
            let (whole, took) = written(held, || None).await;
            assert!(whole.is_ok() && took == RELEASED_UNTAKEN * 6, "a reader may take its time: {took:?}");
            let (rest, took) = written(held, || Some(StreamFailed("gone".into()))).await;
            assert!(matches!(rest, Err(CopyError::Stream(reason)) if reason.0 == "gone"));
            assert_eq!(took, given_up, "a reader that takes some now and then is given time");
        }
    }

    fn received(written: Instant) -> oneshot::Receiver<Instant> {
        let (tell, received) = oneshot::channel();
        tell.send(written).unwrap();
        received
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_without_end_is_given_up_some_time_after_its_last_byte() {
        let (mut endless, start) = (Endless(0), Instant::now());
        forget(&mut endless, received(start)).await;
        assert_eq!(endless.0, FORGOTTEN_MAX);
        assert_eq!(start.elapsed(), LINGER, "what was sent before may still be on its way");
        // By now it is there.
        forget(&mut endless, received(start)).await;
        assert_eq!((endless.0, start.elapsed()), (2 * FORGOTTEN_MAX, LINGER));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_pauses_is_not_waited_for_without_end() {
        let ((_held, mut pauses), start) = (tokio::io::duplex(1), Instant::now());
        forget(&mut pauses, received(start - LINGER)).await;
        assert_eq!(start.elapsed(), LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_ends_is_not_waited_for() {
        let (mut ending, start) = (AsyncReadExt::take(Endless(0), 100), Instant::now());
        forget(&mut ending, received(start)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
