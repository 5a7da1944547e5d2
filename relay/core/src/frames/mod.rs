//! What a socket's bytes mean, frame by frame. Pure: bytes in, a batch of frames for the peer and steps out.
//!
//! The caller offers the bytes it has, at most `buffer` of them, removes as many as the step says are done, and offers the rest
//! again together with newly received ones. When it offers `buffer` bytes, the step is never [`Step::Partial`].

pub mod codec;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;

use mykube_protocol::{FromAgent, Role, close, limits::RELAY_TEXT_MAX};

use codec::{BINARY, CLOSE, CONTINUATION, HEADER_MAX, Header, PING, PONG, PROTOCOL_ERROR, TEXT};

/// RFC 6455 section 7.4.1.
pub const NORMAL: u16 = 1000;
/// RFC 6455 section 7.4.1: text that is not UTF-8.
pub const NOT_UTF_8: u16 = 1007;

/// The frames of one end, on their way to its peer.
#[derive(Debug)]
pub struct Frames {
    role: Role,
    legacy: bool,
    /// Largest frame in version 2, largest message in the legacy form.
    max: u64,
    buffer: usize,
    /// Legacy form: a fragmented message that is under way.
    message: Option<Message>,
    /// Legacy form: a frame larger than the buffer that is under way.
    oversize: Option<Oversize>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    len: u64,
    /// Whether there was a peer when it began: a message is forwarded from its start or not at all.
    deliver: bool,
}

#[derive(Debug)]
struct Oversize {
    left: u64,
    fin: bool,
    opcode: u8,
    key: [u8; 4],
    deliver: bool,
}

/// The result of one look at the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The input holds no whole frame.
    Partial,
    /// This many bytes are done.
    Taken(usize),
    /// A text of the agent for the relay; this many bytes are done.
    Text(FromAgent, usize),
    /// A ping with this payload; this many bytes are done.
    Ping(Vec<u8>, usize),
}

/// Why no more frames follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A close frame with this code.
    Closed(u16),
    /// The protocol is broken: the code and the reason to close with.
    Violation(u16, &'static str),
}

/// Frames for the peer, not yet sent.
#[derive(Debug)]
pub struct Batch {
    /// The buffer that holds them.
    pub buf: Vec<u8>,
    /// How many bytes of it they take.
    pub len: usize,
    /// Their payload, in bytes.
    pub payload: u64,
}

/// The largest batch, in bytes: in version 2 a frame is forwarded whole.
#[must_use]
pub fn batch_max(frame_max: usize, buffer: usize) -> usize {
    buffer.max(frame_max + HEADER_MAX + 4)
}

impl Frames {
    /// `buffer` is the least number of bytes that the caller can offer at once; it must be able to hold [`Frames::buffer`].
    #[must_use]
    pub fn new(role: Role, legacy: bool, max: usize, buffer: usize) -> Self {
        let buffer = if legacy { buffer } else { batch_max(max, buffer) };
        Self { role, legacy, max: max as u64, buffer, message: None, oversize: None }
    }

    /// How many bytes of input the caller must be able to hold. A batch needs room for [`HEADER_MAX`] more.
    #[must_use]
    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// Looks at one frame, or at the part of a large one that the input has, and puts data into the batch. `peer`: whether there
    /// is a peer to send it to.
    ///
    /// # Errors
    /// No more frames follow: the end closes, or breaks the protocol.
    pub fn next(&mut self, peer: bool, batch: &mut Batch, input: &[u8]) -> Result<Step, Stop> {
        if self.oversize.is_some() {
            return Ok(self.next_part(batch, input));
        }
        let malformed = |error: codec::Malformed| Stop::Violation(PROTOCOL_ERROR, error.0);
        let Some(header) = codec::parse(input).map_err(malformed)? else { return Ok(Step::Partial) };
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = input.get(header.size..).and_then(|rest| rest.get(..len));
        if header.opcode >= CLOSE {
            let Some(payload) = whole else { return Ok(Step::Partial) };
            return control(header, payload, header.size + len);
        }
        let deliver = self.check(header, peer)?;
        let Some(payload) = whole else {
            if len.saturating_add(header.size) <= self.buffer {
                return Ok(Step::Partial);
            }
            self.count_message(header, deliver);
            let Header { fin, opcode, key, .. } = header;
            self.oversize = Some(Oversize { left: header.len, fin, opcode, key, deliver });
            return Ok(Step::Taken(header.size));
        };
        if !self.legacy && header.opcode == TEXT {
            let mut text = vec![0; len.min(RELAY_TEXT_MAX)];
            if text.len() < len {
                return Err(Stop::Violation(close::POLICY, "a text frame is too long"));
            }
            codec::unmask(payload, &mut text, header.key);
            let text = std::str::from_utf8(&text).map_err(|_| Stop::Violation(NOT_UTF_8, "a text is not UTF-8"))?;
            let unknown = |_| Stop::Violation(close::POLICY, "not a text frame of this protocol");
            return text.parse().map(|text| Step::Text(text, header.size + len)).map_err(unknown);
        }
        self.count_message(header, deliver);
        if deliver {
            batch.put(header.fin, header.opcode, header.key, payload);
        }
        Ok(Step::Taken(header.size + len))
    }

    /// Puts the part of an oversize frame that the input has into the batch, as a fragment (RFC 6455 section 5.4 allows this to
    /// intermediaries).
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

    /// Whether a data frame has a receiver: the peer, or the relay for a text of the agent.
    ///
    /// # Errors
    /// The frame is not allowed.
    fn check(&self, header: Header, peer: bool) -> Result<bool, Stop> {
        let before = self.message.map_or(0, |message| message.len);
        if before.saturating_add(header.len) > self.max {
            return Err(Stop::Violation(close::TOO_BIG, "a frame is over this relay's limit"));
        }
        if self.legacy {
            return match (header.opcode, self.message) {
                (CONTINUATION, Some(message)) => Ok(message.deliver),
                (TEXT | BINARY, None) => Ok(peer),
                _ => Err(Stop::Violation(PROTOCOL_ERROR, "a fragment has no message")),
            };
        }
        match (header.opcode, self.role) {
            _ if !header.fin => Err(Stop::Violation(PROTOCOL_ERROR, "fragmented messages are not forwarded")),
            (BINARY, _) => Ok(peer),
            (TEXT, Role::Agent) => Ok(true),
            (TEXT, Role::Client) => Err(Stop::Violation(close::POLICY, "a client sends binary frames only")),
            _ => Err(Stop::Violation(PROTOCOL_ERROR, "fragmented messages are not forwarded")),
        }
    }

    fn count_message(&mut self, header: Header, deliver: bool) {
        let len = self.message.map_or(0, |message| message.len) + header.len;
        self.message = (!header.fin).then_some(Message { len, deliver });
    }
}

/// Pongs need no answer, a close is answered with its code.
fn control(header: Header, payload: &[u8], size: usize) -> Result<Step, Stop> {
    if header.opcode == PONG {
        return Ok(Step::Taken(size));
    }
    let mut plain = vec![0; payload.len()];
    codec::unmask(payload, &mut plain, header.key);
    if header.opcode == PING {
        return Ok(Step::Ping(plain, size));
    }
    match *plain.as_slice() {
        [] => Err(Stop::Closed(NORMAL)),
        [high, low, ref reason @ ..] => match u16::from_be_bytes([high, low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 if std::str::from_utf8(reason).is_err() => {
                Err(Stop::Violation(NOT_UTF_8, "a close reason is not UTF-8"))
            }
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Err(Stop::Closed(code)),
            _ => Err(Stop::Violation(PROTOCOL_ERROR, "not a close code")),
        },
        [_] => Err(Stop::Violation(PROTOCOL_ERROR, "not a close code")),
    }
}

impl Batch {
    /// Into this buffer.
    #[must_use]
    pub fn new(buf: Vec<u8>) -> Self {
        Self { buf, len: 0, payload: 0 }
    }

    fn put(&mut self, fin: bool, opcode: u8, key: [u8; 4], payload: &[u8]) {
        let start = self.len + codec::put_header(&mut self.buf[self.len..], fin, opcode, payload.len());
        self.len = start + payload.len();
        codec::unmask(payload, &mut self.buf[start..self.len], key);
        self.payload += payload.len() as u64;
    }
}
