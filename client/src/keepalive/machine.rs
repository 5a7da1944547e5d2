//! The bytes of one connection, without I/O.
//!
//! Order of calls: `handle_outward` and `handle_inward` with the bytes read on either side, in any pieces,
//! `handle_away` when the channel goes away; after each of them `poll_own`. `finish_outward` and `finish_inward` tell
//! the end of a side. Once `is_plain` is true there is nothing left to do, and nothing is held back.

use std::io::Cursor;

use bytes::{BufMut as _, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

use super::head::{self, Head};

/// Frames to kubectl up to this size, header included, are passed on only whole, so that a pong always finds a
/// boundary. Larger ones pass as they come, and a pong waits for their end. An API server sends frames of up to 32 KiB.
pub const FRAME_MAX: usize = 64 * 1024;
/// RFC 6455, section 5.5.
const CONTROL_MAX: u64 = 125;

/// Follows one connection from its first byte.
#[derive(Debug)]
pub(super) struct Keepalive {
    phase: Phase,
    /// Bytes from kubectl that the stream does not have yet: the begin of a header, or of a ping.
    outward: BytesMut,
    /// How much of a frame's payload is still to pass to the stream.
    outward_left: u64,
    /// Bytes from the server that kubectl does not have yet: a part of a frame.
    inward: BytesMut,
    /// How much of a large frame's payload is still to pass to kubectl.
    inward_left: u64,
    /// The newest ping that went into the stream and has no pong.
    unanswered: Option<Vec<u8>>,
    /// The newest ping that must be answered here: its answer also answers those before it (section 5.5.3).
    due: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The first request's head so far.
    Request(Vec<u8>),
    /// The request asks for a WebSocket; the answer's head so far.
    Response(Vec<u8>),
    /// A WebSocket.
    Frames,
    /// A WebSocket that one side has closed: pongs are neither awaited nor allowed (section 5.5.1).
    Closing,
    /// No WebSocket, or one that cannot be followed.
    Plain,
}

impl Keepalive {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Request(Vec::new()),
            outward: BytesMut::new(),
            outward_left: 0,
            inward: BytesMut::new(),
            inward_left: 0,
            unanswered: None,
            due: None,
        }
    }

    /// Bytes from kubectl; those for the stream are appended to `stream`.
    pub(super) fn handle_outward(&mut self, mut input: &[u8], away: bool, stream: &mut BytesMut) {
        match &mut self.phase {
            Phase::Request(head) => {
                let seen = head.len();
                head.extend_from_slice(input);
                match head::request(head, seen) {
                    Head::Partial => {}
                    Head::WebSocket(len) if len == head.len() => self.phase = Phase::Response(Vec::new()),
                    // Another request, or bytes beyond a request.
                    _ => self.phase = Phase::Plain,
                }
            }
            // A WebSocket's client waits for the answer, so this is none.
            Phase::Response(_) => self.phase = Phase::Plain,
            Phase::Frames | Phase::Closing => {
                while !input.is_empty() {
                    if self.outward_part(&mut input, away, stream).is_err() {
                        self.phase = Phase::Plain;
                        stream.unsplit(self.outward.split());
                        break;
                    }
                }
            }
            Phase::Plain => stream.unsplit(self.outward.split()),
        }
        stream.put_slice(input);
    }

    /// Bytes from the server; those for kubectl are appended to `kubectl`.
    pub(super) fn handle_inward(&mut self, mut input: &[u8], kubectl: &mut BytesMut) {
        match &mut self.phase {
            // An answer to an unfinished request.
            Phase::Request(_) => self.phase = Phase::Plain,
            Phase::Response(head) => {
                let mut head = std::mem::take(head);
                let before = head.len();
                head.extend_from_slice(input);
                let mut len = 0;
                self.phase = loop {
                    match head::response(&head[len..], before.saturating_sub(len)) {
                        Head::Interim(part) => len += part,
                        Head::Partial => {
                            kubectl.put_slice(input);
                            head.drain(..len);
                            self.phase = Phase::Response(head);
                            return;
                        }
                        Head::WebSocket(part) => {
                            len += part;
                            break Phase::Frames;
                        }
                        Head::Other => break Phase::Plain,
                    }
                };
                // The bytes before were only a part of a head.
                let rest = input.split_at(len.saturating_sub(before).min(input.len()));
                kubectl.put_slice(rest.0);
                return self.handle_inward(rest.1, kubectl);
            }
            Phase::Frames | Phase::Closing => {
                while !input.is_empty() {
                    if self.inward_part(&mut input, kubectl).is_err() {
                        self.phase = Phase::Plain;
                        kubectl.unsplit(self.inward.split());
                        break;
                    }
                }
            }
            Phase::Plain => kubectl.unsplit(self.inward.split()),
        }
        kubectl.put_slice(input);
    }

    /// The channel has gone away: the pong to a ping that was under way may come late.
    pub(super) fn handle_away(&mut self) {
        // This ping came after the one whose pong may still be due from the last outage.
        self.due = self.unanswered.take().or(self.due.take());
    }

    /// Appends our pong for kubectl, if one can be sent now; returns whether it did.
    pub(super) fn poll_own(&mut self, kubectl: &mut BytesMut) -> bool {
        match self.phase {
            Phase::Frames if self.inward_left == 0 => {
                let Some(payload) = self.due.take() else { return false };
                kubectl.put_u8(0x80 | u8::from(OpCode::Control(Control::Pong)));
                kubectl.put_u8(u8::try_from(payload.len()).expect("a control frame's payload has at most 125 bytes"));
                kubectl.put_slice(&payload);
                true
            }
            Phase::Plain if !self.inward.is_empty() => {
                kubectl.unsplit(self.inward.split());
                true
            }
            _ => false,
        }
    }

    /// kubectl sends no more: appends all that was held back to `stream`.
    pub(super) fn finish_outward(&mut self, stream: &mut BytesMut) {
        stream.unsplit(self.outward.split());
    }

    /// The server sends no more: appends all that was held back to `kubectl`, after which nothing may come.
    pub(super) fn finish_inward(&mut self, kubectl: &mut BytesMut) {
        kubectl.unsplit(self.inward.split());
        self.phase = Phase::Plain;
    }

    /// Whether both sides' bytes can pass unread from now on.
    pub(super) fn is_plain(&self) -> bool {
        self.phase == Phase::Plain && self.outward.is_empty() && self.inward.is_empty()
    }

    /// Whether it is a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.phase == Phase::Frames
    }

    /// Handles one part of a frame from kubectl. `input` is not empty, and is shorter afterwards.
    fn outward_part(&mut self, input: &mut &[u8], away: bool, stream: &mut BytesMut) -> Result<(), Broken> {
        if self.outward_left > 0 {
            pass(&mut self.outward_left, input, stream);
            return Ok(());
        }
        let Some(frame) = hold_header(&mut self.outward, input)? else { return Ok(()) };
        if frame.opcode == OpCode::Control(Control::Ping) && self.phase == Phase::Frames {
            if !hold(&mut self.outward, input, frame.len()) {
                return Ok(());
            }
            let ping = self.outward.split();
            let payload = Some(frame.unmasked(&ping));
            if away {
                // The server never gets this ping: hours of pings would wait in the stream.
                self.due = payload;
            } else {
                self.unanswered = payload;
                stream.unsplit(ping);
            }
        } else {
            self.saw(&frame);
            self.outward_left = frame.len() - self.outward.len() as u64;
            stream.unsplit(self.outward.split());
        }
        Ok(())
    }

    /// Handles one part of a frame from the server, or a whole one.
    fn inward_part(&mut self, input: &mut &[u8], kubectl: &mut BytesMut) -> Result<(), Broken> {
        if self.inward_left > 0 {
            pass(&mut self.inward_left, input, kubectl);
            return Ok(());
        }
        if self.inward.is_empty()
            && let Some(frame) = Frame::parse(input)?
            && frame.len() <= input.len() as u64
        {
            let whole = take(input, frame.len());
            self.saw_whole(&frame, whole);
            kubectl.put_slice(whole);
            return Ok(());
        }
        let Some(frame) = hold_header(&mut self.inward, input)? else { return Ok(()) };
        if frame.len() > FRAME_MAX as u64 {
            kubectl.unsplit(self.inward.split());
            self.inward_left = frame.payload;
        } else if hold(&mut self.inward, input, frame.len()) {
            let whole = self.inward.split();
            self.saw_whole(&frame, &whole);
            kubectl.unsplit(whole);
        }
        Ok(())
    }

    fn saw(&mut self, frame: &Frame) {
        if frame.opcode == OpCode::Control(Control::Close) {
            self.phase = Phase::Closing;
        }
    }

    fn saw_whole(&mut self, frame: &Frame, whole: &[u8]) {
        self.saw(frame);
        if frame.opcode == OpCode::Control(Control::Pong)
            && self.unanswered.as_ref().is_some_and(|ping| *ping == frame.unmasked(whole))
        {
            self.unanswered = None;
        }
    }
}

/// The bytes are no frames of RFC 6455.
#[derive(Debug)]
struct Broken;

/// A frame's header.
#[derive(Debug)]
struct Frame {
    opcode: OpCode,
    mask: Option<[u8; 4]>,
    /// The header's own length.
    header: usize,
    payload: u64,
}

impl Frame {
    /// Reads a header; `None` while more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let mut cursor = Cursor::new(bytes);
        let Some((header, payload)) = FrameHeader::parse(&mut cursor).map_err(|_| Broken)? else { return Ok(None) };
        let control = matches!(header.opcode, OpCode::Control(_));
        // The first bit of a 64-bit length is 0 (section 5.2).
        if control && (payload > CONTROL_MAX || !header.is_final) || payload > i64::MAX as u64 {
            return Err(Broken);
        }
        // Not `header.len()`: a length may be written with more bytes than it needs.
        let Ok(length) = usize::try_from(cursor.position()) else { return Err(Broken) };
        Ok(Some(Self { opcode: header.opcode, mask: header.mask, header: length, payload }))
    }

    fn len(&self) -> u64 {
        self.header as u64 + self.payload
    }

    /// The payload of `whole`, this frame.
    fn unmasked(&self, whole: &[u8]) -> Vec<u8> {
        let mask = self.mask.unwrap_or_default();
        whole[self.header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// Takes up to `max` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: u64) -> &'a [u8] {
    let (part, rest) = input.split_at(usize::try_from(max).map_or(input.len(), |max| max.min(input.len())));
    *input = rest;
    part
}

fn pass(left: &mut u64, input: &mut &[u8], out: &mut BytesMut) {
    let part = take(input, *left);
    *left -= part.len() as u64;
    out.put_slice(part);
}

/// Takes bytes until `held` begins with a whole header.
fn hold_header(held: &mut BytesMut, input: &mut &[u8]) -> Result<Option<Frame>, Broken> {
    loop {
        if let Some(frame) = Frame::parse(held)? {
            return Ok(Some(frame));
        }
        match take(input, 1) {
            [] => return Ok(None),
            byte => held.put_slice(byte),
        }
    }
}

/// Takes bytes until `held` has `len` of them.
fn hold(held: &mut BytesMut, input: &mut &[u8], len: u64) -> bool {
    held.put_slice(take(input, len - held.len() as u64));
    held.len() as u64 == len
}
