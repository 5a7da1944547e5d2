//! Connections to the relay, as TCP has them: in order, at their own pace, cut at any byte, closed, or silent for ever.

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;
use mykube_tunnel::{
    Time,
    protocol::{FromAgent, FromRelay},
};

/// What travels on a connection.
#[derive(Debug)]
pub(crate) enum Item {
    /// The connection stands, as its end sees it.
    Open,
    Frame(BytesMut),
    FromRelay(FromRelay),
    FromAgent(FromAgent),
    /// An end asks the relay for life, and the relay answers.
    Ping,
    Pong,
    /// An orderly close, with a code and a reason.
    Close(u16, String),
}

impl Item {
    fn len(&self) -> u64 {
        match self {
            Self::Frame(frame) => frame.len() as u64 + 80,
            _ => 120,
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    free_at: Time,
    last_at: Time,
    items: VecDeque<Item>,
    dead: bool,
}

impl Pipe {
    /// Takes an item; says when it arrives, if it does.
    pub(crate) fn push(&mut self, now: Time, item: Item, rate: u64, delay: Duration) -> Option<Time> {
        if self.dead {
            return None;
        }
        let took = (item.len() * 1_000_000).checked_div(rate).unwrap_or(0);
        self.free_at = self.free_at.max(now) + Duration::from_micros(took);
        self.last_at = self.last_at.max(self.free_at + delay);
        self.items.push_back(item);
        Some(self.last_at)
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    /// When its sender may go on.
    pub(crate) fn free_at(&self) -> Time {
        self.free_at
    }

    /// Takes nothing more until then: who should read it does not.
    pub(crate) fn stall(&mut self, until: Time) {
        self.free_at = self.free_at.max(until);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whatever has not arrived never does: the frame that was cut in two as well.
    pub(crate) fn kill(&mut self) {
        self.dead = true;
        self.items.clear();
    }
}

/// A connection of one end to the relay.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    pub(crate) who: usize,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
}

impl Socket {
    pub(crate) fn pipe(&mut self, up: bool) -> &mut Pipe {
        if up { &mut self.up } else { &mut self.down }
    }
}
