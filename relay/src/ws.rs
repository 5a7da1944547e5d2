//! One WebSocket after its upgrade: whole frames go to the peer as they are, unmasked, many in one write.
//!
//! A socket has a buffer only while it has data: reading takes one from the thread and gives it back when nothing is
//! there. The reader itself writes to the peer, so a slow peer stops the reading, and nothing queues in between.

use std::{io, pin::Pin, sync::Arc, task::Poll, time::Duration};

use mykube_protocol::{Claims, FromAgent, Role, SessionId, close};
use tokio::io::{AsyncRead as _, ReadBuf};
use tracing::{debug, info};

pub(crate) mod codec;
mod outlet;
mod pool;

pub(crate) use outlet::{Backpressure, CloseWith, Outlet};

use crate::{
    address::AddressKey,
    hub::Hub,
    registry::SocketId,
    server::Connection,
    stream::{ReadHalf, Stream},
    ws::codec::{BINARY, CLOSE, CONTINUATION, HEADER_MAX, Header, PING, PONG, PROTOCOL_ERROR, TEXT},
};

/// How long a closing socket has to take what waits for it and to answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// RFC 6455 section 7.4.1.
const NORMAL: u16 = 1000;

/// What admits a socket.
#[derive(Clone, Debug)]
pub(crate) enum Admission {
    /// A ticket whose signature was checked.
    Ticket(Claims),
    /// The plain form: knowing the session.
    Plain(SessionId, Role),
}

impl Admission {
    pub(crate) fn role(&self) -> Role {
        match self {
            Self::Ticket(claims) => claims.role,
            Self::Plain(_, role) => *role,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        match self {
            Self::Ticket(claims) => claims.session,
            Self::Plain(session, _) => *session,
        }
    }
}

/// How a socket ended.
enum Ended {
    /// By a close frame.
    Closed(u16),
    /// The relay wants it.
    Asked,
    /// The connection broke.
    Lost,
    /// It broke the protocol.
    Violation(u16, &'static str),
}

/// Serves one socket until its end, which frees the connection's place. `early` is what came right behind the upgrade.
///
/// Not an `async fn`: the future is what an idle socket costs, and would hold every argument twice.
pub(crate) fn serve(
    hub: Arc<Hub>,
    stream: Stream,
    early: &[u8],
    admission: Admission,
    owner: AddressKey,
    connection: Arc<Connection>,
) -> impl Future<Output = ()> + Send + use<> {
    let (read, write) = stream.into_halves();
    let outlet = Outlet::new(write, hub.metrics.clone());
    let mut reader = Reader::new(&hub, read, early, &admission);
    let joined = hub.join(&admission, owner, &outlet);
    let (session, role) = (reader.session, reader.role);
    async move {
        let socket = match joined {
            Ok(socket) => socket,
            Err((code, reason)) => {
                debug!(%session, %role, code, reason, "socket refused");
                conclude(&outlet, &mut reader, Some(CloseWith { code, reason: reason.to_owned() })).await;
                return;
            }
        };
        info!(%session, %role, "socket open");
        let ended = tokio::select! {
            biased;
            () = outlet.closing() => Ended::Asked,
            ended = reader.run(&hub, &outlet, socket) => ended,
            _ = outlet.write_posted() => Ended::Lost,
        };
        hub.leave(socket, matches!(ended, Ended::Closed(NORMAL)));
        let close = match ended {
            Ended::Asked => outlet.close_reason(),
            Ended::Closed(code) => Some(CloseWith { code, reason: String::new() }),
            Ended::Violation(code, reason) => Some(CloseWith { code, reason: reason.to_owned() }),
            Ended::Lost => None,
        };
        let code = close.as_ref().map(|close| close.code);
        info!(%session, %role, code, bytes = reader.forwarded, "socket closed");
        conclude(&outlet, &mut reader, close).await;
        drop(connection);
    }
}

async fn conclude(outlet: &Outlet, reader: &mut Reader, close: Option<CloseWith>) {
    if let Some(close) = close {
        let goodbye = async {
            if outlet.finish(&close).await.is_ok() {
                // Closing with unread bytes would reset the connection, and the close frame might be lost with it.
                reader.skip_to_end(outlet).await;
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
    outlet.drop_half().await;
}

/// The receiving half of a socket.
struct Reader {
    read: ReadHalf,
    session: SessionId,
    role: Role,
    plain: bool,
    /// Largest frame in version 2, largest message in the plain form.
    max: u64,
    buffer: usize,
    /// The start of a frame whose rest has not come.
    carry: Vec<u8>,
    /// Plain form: a fragmented message that is under way.
    message: Option<Message>,
    /// Plain form: a frame larger than the buffer that is under way.
    oversize: Option<Oversize>,
    /// Payload sent to the peer so far.
    forwarded: u64,
    metrics: Arc<crate::metrics::Metrics>,
}

#[derive(Clone, Copy)]
struct Message {
    len: u64,
    /// Began while there was a peer; a message is forwarded from its start or not at all.
    deliver: bool,
}

struct Oversize {
    left: u64,
    fin: bool,
    opcode: u8,
    key: [u8; 4],
    deliver: bool,
}

/// Frames for the peer, not yet sent.
struct Batch {
    buf: Vec<u8>,
    len: usize,
    payload: u64,
}

impl Reader {
    fn new(hub: &Hub, read: ReadHalf, early: &[u8], admission: &Admission) -> Self {
        let plain = matches!(admission, Admission::Plain(..));
        let max = if plain { hub.config.plain_frame_max } else { hub.config.frame_max };
        let buffer = if plain { hub.config.buffer } else { hub.config.buffer.max(max + HEADER_MAX + 4) };
        let mut reader = Self {
            read,
            session: admission.session(),
            role: admission.role(),
            plain,
            max: max as u64,
            buffer,
            carry: Vec::new(),
            message: None,
            oversize: None,
            forwarded: 0,
            metrics: hub.metrics.clone(),
        };
        reader.set_carry(early);
        reader
    }

    async fn run(&mut self, hub: &Hub, outlet: &Outlet, socket: SocketId) -> Ended {
        if !self.carry.is_empty() {
            let early = self.carry.clone();
            self.set_carry(&[]);
            let len = early.len();
            if let Err(ended) = self.process(hub, outlet, socket, early, len).await {
                return ended;
            }
        }
        loop {
            let filled = match self.fill().await {
                Ok(Some(filled)) => filled,
                Ok(None) | Err(_) => return Ended::Lost,
            };
            if let Err(ended) = self.process(hub, outlet, socket, filled.0, filled.1).await {
                return ended;
            }
        }
    }

    /// Waits for data, and only then holds a buffer: what was carried over, then what came.
    async fn fill(&mut self) -> io::Result<Option<(Vec<u8>, usize)>> {
        let carried = self.carry.len();
        let (read, size) = (&mut self.read, self.buffer);
        let (mut buf, len) = std::future::poll_fn(|cx| {
            let mut buf = pool::take(size + HEADER_MAX);
            let mut window = ReadBuf::new(&mut buf[carried..size]);
            match Pin::new(&mut *read).poll_read(cx, &mut window) {
                Poll::Ready(Ok(())) => {
                    let len = window.filled().len();
                    Poll::Ready(Ok((buf, len)))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => {
                    pool::give(buf);
                    Poll::Pending
                }
            }
        })
        .await?;
        if len == 0 {
            pool::give(buf);
            return Ok(None);
        }
        buf[..carried].copy_from_slice(&self.carry);
        self.set_carry(&[]);
        Ok(Some((buf, carried + len)))
    }

    /// Forwards every whole frame of `input[..filled]` and carries the rest.
    async fn process(
        &mut self,
        hub: &Hub,
        outlet: &Outlet,
        socket: SocketId,
        input: Vec<u8>,
        filled: usize,
    ) -> Result<(), Ended> {
        // A fragment of an oversize frame gets a header, everything else gets shorter.
        let mut batch = Batch { buf: pool::take(self.buffer + HEADER_MAX), len: 0, payload: 0 };
        let mut at = 0;
        let done = loop {
            match self.next(outlet, &mut batch, &input[at..filled]) {
                Ok(Step::Partial) => break Ok(()),
                Ok(Step::Taken(n)) => at += n,
                Ok(Step::Text(text, n)) => {
                    // What the relay does about it comes after the frames before it and before those behind it.
                    batch = self.send(outlet, batch).await;
                    info!(session = %self.session, said = verb(text), "agent");
                    hub.text(socket, text);
                    at += n;
                }
                Err(ended) => break Err(ended),
            }
        };
        self.set_carry(&input[at..filled]);
        pool::give_if_large(input);
        let batch = self.send(outlet, batch).await;
        pool::give(batch.buf);
        done
    }

    /// Looks at one frame; data goes into the batch.
    fn next(&mut self, outlet: &Outlet, batch: &mut Batch, input: &[u8]) -> Result<Step, Ended> {
        if self.oversize.is_some() {
            return Ok(self.next_part(batch, input));
        }
        let malformed = |error: codec::Malformed| Ended::Violation(PROTOCOL_ERROR, error.0);
        let Some(header) = codec::parse(input).map_err(malformed)? else { return Ok(Step::Partial) };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = input.get(header.size..).and_then(|rest| rest.get(..len));
        if header.opcode >= CLOSE {
            let Some(payload) = whole else { return Ok(Step::Partial) };
            control(outlet, header, payload)?;
            return Ok(Step::Taken(header.size + len));
        }
        let deliver = self.check(header, outlet)?;
        let Some(payload) = whole else {
            if len.saturating_add(header.size) <= self.buffer {
                return Ok(Step::Partial);
            }
            self.count_message(header, deliver);
            let Header { fin, opcode, key, .. } = header;
            self.oversize = Some(Oversize { left: header.len, fin, opcode, key, deliver });
            return Ok(Step::Taken(header.size));
        };
        if !self.plain && header.opcode == TEXT {
            let mut text = vec![0; len.min(mykube_protocol::limits::RELAY_TEXT_MAX)];
            if text.len() < len {
                return Err(Ended::Violation(close::POLICY, "a text frame is too long"));
            }
            codec::unmask(payload, &mut text, header.key);
            let text = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            let unknown = Ended::Violation(close::POLICY, "not a text frame of this protocol");
            return text.map(|text| Step::Text(text, header.size + len)).ok_or(unknown);
        }
        self.count_message(header, deliver);
        if deliver {
            batch.put(header.fin, header.opcode, header.key, payload);
        }
        Ok(Step::Taken(header.size + len))
    }

    /// What is there of an oversize frame goes on as a fragment (RFC 6455 section 5.4 allows this to intermediaries).
    fn next_part(&mut self, batch: &mut Batch, input: &[u8]) -> Step {
        let Some(frame) = &mut self.oversize else { return Step::Partial };
        let len = input.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Step::Partial;
        }
        frame.left -= len as u64;
        let last = frame.left == 0;
        if frame.deliver {
            batch.put(frame.fin && last, frame.opcode, frame.key, &input[..len]);
        }
        frame.opcode = CONTINUATION;
        frame.key = codec::rotate(frame.key, len);
        if last {
            self.oversize = None;
        }
        Step::Taken(len)
    }

    /// Whether a data frame is allowed, and has somebody to go to.
    fn check(&self, header: Header, outlet: &Outlet) -> Result<bool, Ended> {
        let before = self.message.map_or(0, |message| message.len);
        if before.saturating_add(header.len) > self.max {
            return Err(Ended::Violation(close::TOO_BIG, "a frame is over this relay's limit"));
        }
        if self.plain {
            return match (header.opcode, self.message) {
                (CONTINUATION, Some(message)) => Ok(message.deliver),
                (TEXT | BINARY, None) => Ok(outlet.peer().is_some()),
                _ => Err(Ended::Violation(PROTOCOL_ERROR, "a fragment has no message")),
            };
        }
        match (header.opcode, self.role) {
            _ if !header.fin => Err(Ended::Violation(PROTOCOL_ERROR, "fragmented messages are not forwarded")),
            (BINARY, _) | (TEXT, Role::Agent) => Ok(true),
            (TEXT, Role::Client) => Err(Ended::Violation(close::POLICY, "a client sends binary frames only")),
            _ => Err(Ended::Violation(PROTOCOL_ERROR, "fragmented messages are not forwarded")),
        }
    }

    fn count_message(&mut self, header: Header, deliver: bool) {
        let len = self.message.map_or(0, |message| message.len) + header.len;
        self.message = (!header.fin).then_some(Message { len, deliver });
    }

    /// Sends a batch to whoever is the peer now; gives back an empty one.
    async fn send(&mut self, outlet: &Outlet, batch: Batch) -> Batch {
        if batch.len == 0 {
            return batch;
        }
        let size = batch.buf.len();
        match outlet.peer() {
            Some(peer) => {
                self.forwarded += batch.payload;
                self.metrics.forwarded(self.role, batch.payload);
                // A peer that is over drops its frames; its own task reports its end.
                let _ = peer.forward(batch.buf, batch.len).await;
            }
            None => pool::give(batch.buf),
        }
        Batch { buf: pool::take(size), len: 0, payload: 0 }
    }

    /// Reads and drops until the other side has answered the close frame, or closed.
    async fn skip_to_end(&mut self, outlet: &Outlet) {
        let mut dropped = Batch { buf: pool::take(self.buffer + HEADER_MAX), len: 0, payload: 0 };
        while let Ok(Some((input, filled))) = self.fill().await {
            let mut at = 0;
            loop {
                match self.next(outlet, &mut dropped, &input[at..filled]) {
                    Ok(Step::Partial) => break,
                    Ok(Step::Taken(n) | Step::Text(_, n)) => at += n,
                    Err(Ended::Closed(_)) => return,
                    Err(_) => at = filled,
                }
                dropped.len = 0;
            }
            self.set_carry(&input[at..filled]);
            pool::give(input);
        }
    }

    fn set_carry(&mut self, rest: &[u8]) {
        if rest.len() != self.carry.len() {
            self.metrics.buffered(self.carry.len(), false);
            self.metrics.buffered(rest.len(), true);
        }
        self.carry = rest.to_vec();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.set_carry(&[]);
    }
}

/// What a look at the input gave.
enum Step {
    /// Nothing whole is left.
    Partial,
    /// So many bytes are done.
    Taken(usize),
    /// The agent speaks to the relay; so many bytes are done.
    Text(FromAgent, usize),
}

impl Batch {
    fn put(&mut self, fin: bool, opcode: u8, key: [u8; 4], payload: &[u8]) {
        let start = self.len + codec::put_header(&mut self.buf[self.len..], fin, opcode, payload.len());
        self.len = start + payload.len();
        codec::unmask(payload, &mut self.buf[start..self.len], key);
        self.payload += payload.len() as u64;
    }
}

/// Pings are answered here, pongs need no answer, a close is answered with its code.
fn control(outlet: &Outlet, header: Header, payload: &[u8]) -> Result<(), Ended> {
    if header.opcode == PONG {
        return Ok(());
    }
    let mut plain = vec![0; payload.len()];
    codec::unmask(payload, &mut plain, header.key);
    if header.opcode == PING {
        outlet.post_pong(plain);
        return Ok(());
    }
    match *plain.as_slice() {
        [] => Err(Ended::Closed(NORMAL)),
        [high, low, ..] => match u16::from_be_bytes([high, low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Err(Ended::Closed(code)),
            _ => Err(Ended::Violation(PROTOCOL_ERROR, "not a close code")),
        },
        [_] => Err(Ended::Violation(PROTOCOL_ERROR, "not a close code")),
    }
}

fn verb(text: FromAgent) -> &'static str {
    match text {
        FromAgent::Paired(_) => "paired",
        FromAgent::Refused(_) => "refused",
        FromAgent::Burned => "burned",
    }
}
