//! The bytes of one connection, without I/O.
//!
//! Order of calls: `handle_outward` and `handle_inward` with what was read on either side, as it comes, `handle_away`
//! when the channel goes away; after each of them `poll_own`. An end is told by `finish_outward` and `finish_inward`.
//! Once `is_plain` there is nothing left to do, and nothing held back.

use std::io::Cursor;

use bytes::{BufMut as _, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

use super::head::{self, Head};

/// Frames to kubectl up to this size, header included, are handed on only whole, so that a pong always finds a
/// boundary. Larger ones pass as they come, and a pong waits for their end. What an API server sends has 32 KiB.
pub const FRAME_MAX: usize = 64 * 1024;
/// RFC 6455, section 5.5.
const CONTROL_MAX: u64 = 125;

/// Follows one connection from its first byte.
#[derive(Debug)]
pub(super) struct Keepalive {
    phase: Phase,
    /// Bytes of kubectl's that are not in the stream yet: the begin of a header, or of a ping.
    outward: Vec<u8>,
    /// How much of a frame's payload is still to pass to the stream.
    outward_left: u64,
    /// Bytes of the server's that kubectl does not have yet: a frame that is not whole.
    inward: BytesMut,
    /// How much of a large frame's payload is still to pass to kubectl.
    inward_left: u64,
    /// The newest ping in the stream that has no pong.
    unanswered: Option<Vec<u8>>,
    /// The newest ping that is to be answered here. RFC 6455, section 5.5.3: the newest is enough.
    due: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Phase {
    /// The first request's head so far.
    Request(Vec<u8>),
    /// It asks for a WebSocket; the answer's head so far.
    Response(Vec<u8>),
    /// A WebSocket.
    Frames,
    /// A WebSocket that one side has closed: nobody waits for pongs, and none may be sent (section 5.5.1).
    Closing,
    /// None, or none that can be followed.
    Plain,
}

impl Keepalive {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Request(Vec::new()),
            outward: Vec::new(),
            outward_left: 0,
            inward: BytesMut::new(),
            inward_left: 0,
            unanswered: None,
            due: None,
        }
    }

    /// Bytes from kubectl; what the stream is to have is appended to `stream`.
    pub(super) fn handle_outward(&mut self, mut input: &[u8], away: bool, stream: &mut BytesMut) {
        match &mut self.phase {
            Phase::Request(head) => {
                head.extend_from_slice(input);
                stream.put_slice(input);
                match head::request(head) {
                    Head::Partial => {}
                    Head::WebSocket(len) if len == head.len() => self.phase = Phase::Response(Vec::new()),
                    // Another request, or more than a request.
                    _ => self.phase = Phase::Plain,
                }
            }
            // A WebSocket's client waits for the answer.
            Phase::Response(_) => {
                self.phase = Phase::Plain;
                stream.put_slice(input);
            }
            Phase::Frames | Phase::Closing => {
                while !input.is_empty() && self.outward_step(&mut input, away, stream) {}
                stream.put_slice(input);
            }
            Phase::Plain => {
                self.finish_outward(stream);
                stream.put_slice(input);
            }
        }
    }

    /// One part of one frame. `false` when frames can no longer be followed.
    fn outward_step(&mut self, input: &mut &[u8], away: bool, stream: &mut BytesMut) -> bool {
        if self.outward_left > 0 {
            stream.put_slice(take(input, self.outward_left));
            self.outward_left = self.outward_left.saturating_sub(stream.len() as u64);
            return true;
        }
        self.outward.push(input[0]);
        *input = &input[1..];
        let Some(frame) = Frame::parse(&self.outward) else { return self.give_up(stream) };
        todo!()
    }
}
