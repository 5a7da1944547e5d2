//! Bench entry point into forwarding.

use mykube_protocol::{Role, limits::FRAME_MAX};

use super::{
    codec::HEADER_MAX,
    frames::{Batch, Frames, Step},
};

/// What is done with the bytes of a client whose agent is here.
#[derive(Debug)]
pub struct Forwarding {
    frames: Frames,
    batch: Batch,
}

impl Forwarding {
    /// Holds at most `buffer` bytes, or one frame.
    #[must_use]
    pub fn new(buffer: usize) -> Self {
        let frames = Frames::new(Role::Client, false, FRAME_MAX, buffer);
        let batch = Batch::new(vec![0; frames.buffer() + HEADER_MAX]);
        Self { frames, batch }
    }

    /// Puts the whole frames of `input`, at most what it holds, into a batch for the agent; how much payload that was.
    pub fn forward(&mut self, input: &[u8]) -> u64 {
        (self.batch.len, self.batch.payload) = (0, 0);
        let mut at = 0;
        while let Ok(Step::Taken(count)) = self.frames.next(true, &mut self.batch, &input[at..]) {
            at += count;
        }
        self.batch.payload
    }
}
