//! Connections to the relay, as TCP has them: in order, at their own pace, cut at any byte, closed, or silent for ever.

use std::{collections::VecDeque, time::Duration};

use bytes::BytesMut;
use mykube_relay_core::frames::codec;
use mykube_tunnel::Time;

/// What travels on a connection: bytes to the relay, whose codec reads them, and to an end what its WebSocket makes of them.
#[derive(Debug)]
pub(crate) enum Item {
    /// A whole WebSocket frame of an end.
    Up(Vec<u8>),
    /// The connection stands, as its end sees it.
    Open,
    Frame(BytesMut),
    Text(String),
    /// The relay asks an end for life, and answers one.
    Ping,
    Pong,
    /// An orderly close, with a code and a reason.
    Close(u16, String),
}

impl Item {
    /// A frame as an end's WebSocket writes it. It masks with zeros: which key is drawn decides nothing.
    pub(crate) fn up(opcode: u8, payload: &[u8]) -> Self {
        let mut bytes = vec![0; codec::HEADER_MAX];
        let size = codec::put_header(&mut bytes, true, opcode, payload.len());
        bytes[1] |= 0x80;
        bytes.truncate(size);
        bytes.extend([0; 4]);
        bytes.extend_from_slice(payload);
        Self::Up(bytes)
    }

    fn len(&self) -> u64 {
        match self {
            Self::Up(bytes) => bytes.len() as u64 + 72,
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
    items: VecDeque<(Time, Option<Duration>, Item)>,
    renewed: Option<Duration>,
    dead: bool,
}

impl Pipe {
    /// Takes an item; says when it arrives, if it does. `renewed`: until when, by the relay's clock, all tickets are said that
    /// whoever is there is to have.
    pub(crate) fn push(
        &mut self,
        now: Time,
        item: Item,
        renewed: Option<Duration>,
        rate: u64,
        delay: Duration,
    ) -> Option<Time> {
        if self.dead {
            return None;
        }
        let took = (item.len() * 1_000_000).checked_div(rate).unwrap_or(0);
        self.free_at = self.free_at.max(now) + Duration::from_micros(took);
        self.last_at = self.last_at.max(self.free_at + delay);
        self.items.push_back((self.last_at, renewed, item));
        Some(self.last_at)
    }

    /// What has arrived by then.
    pub(crate) fn pop(&mut self, by: Time) -> Option<Item> {
        let (_, renewed, item) = self.items.pop_front_if(|(at, ..)| *at <= by)?;
        self.renewed = self.renewed.max(renewed);
        Some(item)
    }

    /// Until when, by the relay's clock, its reader has had its tickets from here.
    pub(crate) fn renewed(&self) -> Option<Duration> {
        self.renewed
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

/// A connection to the relay.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    /// Client, agent, and strangers after them.
    pub(crate) who: usize,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
}

impl Socket {
    pub(crate) fn pipe(&mut self, up: bool) -> &mut Pipe {
        if up { &mut self.up } else { &mut self.down }
    }
}
