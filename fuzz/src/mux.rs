//! Sequences of operations on two sessions in lock-step, against a model that counts bytes.
//!
//! Each operation is three bytes: its kind, the end and the stream, and an amount. Checked are: bytes arrive once, in order and
//! unchanged; the end of a stream means that all of it was delivered; honest ends never end a session by error; and at the end no
//! window and no queue holds anything.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Event, Session, Time,
    protocol::{Role, limits},
    session::{ReadState, Write},
    test_api,
};

/// One direction of one stream.
#[derive(Default)]
struct Way {
    written: u64,
    read: u64,
    finished: bool,
}

#[derive(Default)]
struct Stream {
    /// From the client, and from the agent.
    ways: [Way; 2],
    released: [bool; 2],
    opened_at_peer: bool,
}

struct World {
    now: Time,
    /// Client, agent.
    ends: [Session; 2],
    under_way: [VecDeque<BytesMut>; 2],
    streams: BTreeMap<u32, Stream>,
}

/// The byte at an offset of a stream, which differs between streams and offsets.
fn byte(id: u32, from: usize, at: u64) -> u8 {
    (u64::from(id).wrapping_mul(31) + from as u64 * 101 + at.wrapping_mul(0x9e37_79b9_7f4a_7c15) / 7919) as u8
}

pub(super) fn run(data: &[u8]) {
    let mut world = World::new(data.first().copied().unwrap_or(0));
    for op in data.get(1..).unwrap_or(&[]).chunks_exact(3).take(600) {
        world.operate(op[0], op[1], op[2]);
    }
    world.settle();
}

impl World {
    fn new(setting: u8) -> Self {
        let now = Time::default();
        let config = || Config {
            rekey_records: if setting & 1 == 0 { 5 } else { u64::MAX },
            growth: if setting & 2 == 0 { 1 << 20 } else { 0 },
            ..Config::default()
        };
        let end = |role| Session::new(now, test_api::established(role, [1; 32], [2; 32]), config());
        Self {
            now,
            ends: [end(Role::Client), end(Role::Agent)],
            under_way: Default::default(),
            streams: BTreeMap::new(),
        }
    }

    fn operate(&mut self, what: u8, which: u8, much: u8) {
        let (who, now) = (usize::from(which & 1), self.now);
        let open: Vec<u32> = self.streams.keys().copied().collect();
        let id = open.get(usize::from(which >> 1) % open.len().max(1)).copied();
        match (what % 9, id) {
            (0, _) => {
                if let Ok(id) = self.ends[who].open(now, None) {
                    self.streams.insert(id, Stream::default());
                }
            }
            (1, Some(id)) => self.write(who, id, u64::from(much) * u64::from(much) * 9 + 1),
            (2, Some(id)) => self.read(who, id, u64::from(much) * 1500 + 1),
            (3, Some(id)) if self.visible(who, id) => {
                self.ends[who].finish(now, id);
                let stream = self.streams.get_mut(&id).expect("in the model");
                stream.ways[who].finished = true;
            }
            (4, Some(id)) if self.visible(who, id) && much < 64 => {
                self.ends[who].release(now, id, (much & 1 == 1).then_some("reason"));
                self.streams.get_mut(&id).expect("in the model").released[who] = true;
            }
            (5, _) => self.transmit(who, usize::from(much) % 32 + 1),
            (6, _) => self.deliver(who, usize::from(much) % 32 + 1),
            (7, _) => {
                self.now = now + Duration::from_micros(u64::from(much) * u64::from(much) * 20);
                self.ends[who].handle_timeout(self.now);
            }
            (8, _) => {
                self.transmit(who, 1);
                self.deliver(who, 1);
            }
            _ => {}
        }
        self.events();
    }

    /// Whether this end has the stream: it opened it, or its peer's `new` has arrived.
    fn visible(&self, who: usize, id: u32) -> bool {
        let opener = usize::from(id.is_multiple_of(2));
        let stream = &self.streams[&id];
        (who == opener || stream.opened_at_peer) && !stream.released[who]
    }

    fn write(&mut self, who: usize, id: u32, len: u64) {
        if !self.visible(who, id) || self.ends[who].is_full(id) {
            return;
        }
        let way = &mut self.streams.get_mut(&id).expect("in the model").ways[who];
        let payload: Bytes = (way.written..way.written + len).map(|at| byte(id, who, at)).collect();
        match self.ends[who].write(self.now, id, payload) {
            Write::Taken { .. } => {
                assert!(!way.finished, "bytes taken after the end");
                way.written += len;
            }
            Write::Over => {}
        }
    }

    fn read(&mut self, who: usize, id: u32, max: u64) {
        if !self.visible(who, id) {
            return;
        }
        let mut chunks = Vec::new();
        let state = self.ends[who].read(self.now, id, max, &mut chunks);
        let stream = self.streams.get_mut(&id).expect("in the model");
        let failed = stream.released[1 - who];
        let way = &mut stream.ways[1 - who];
        for got in chunks.iter().flatten() {
            assert_eq!(*got, byte(id, 1 - who, way.read), "stream {id} at {}", way.read);
            way.read += 1;
        }
        assert!(way.read <= way.written);
        match state {
            ReadState::Open => {}
            ReadState::Eof => assert!(way.finished && way.read == way.written, "an end before all was read"),
            // A stream fails only if the peer releases or refuses it.
            ReadState::Failed(reason) => {
                assert!(failed || reason.starts_with("256 streams") || reason.starts_with("more than 50"), "{reason}");
            }
        }
    }

    fn transmit(&mut self, who: usize, frames: usize) {
        for _ in 0..frames {
            match self.ends[who].poll_transmit(self.now).expect("an honest peer ends nothing") {
                Some(frame) => {
                    assert!(frame.len() <= limits::RECORD_PLAINTEXT_MAX + 17);
                    self.under_way[who].push_back(frame);
                }
                None => break,
            }
        }
    }

    fn deliver(&mut self, who: usize, frames: usize) {
        for _ in 0..frames {
            let Some(frame) = self.under_way[who].pop_front() else { break };
            self.ends[1 - who].handle_frame(self.now, frame).expect("an honest peer ends nothing");
        }
    }

    fn events(&mut self) {
        for who in 0..2 {
            while let Some(event) = self.ends[who].poll_event() {
                match event {
                    Event::Opened { id, .. } => {
                        let stream = self.streams.get_mut(&id).expect("what was opened is in the model");
                        assert!(!std::mem::replace(&mut stream.opened_at_peer, true), "opened twice");
                    }
                    Event::Closed(id) => assert!(self.streams[&id].released[who], "closed before it was let go"),
                    Event::Readable(_) | Event::Writable(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            let audit = self.ends[who].audit();
            assert!(
                audit.session_allowance <= limits::SESSION_WINDOW && audit.session_credit <= limits::SESSION_WINDOW
            );
            assert!(self.ends[who].streams() <= limits::STREAMS_MAX_ASKED);
        }
    }

    /// Lets both ends send, read and release everything, and checks that no window and no queue holds anything.
    fn settle(&mut self) {
        self.exchange();
        for (id, stream) in &self.streams {
            if stream.opened_at_peer && stream.released == [false, false] {
                for way in &stream.ways {
                    assert_eq!(way.read, way.written, "stream {id}: all that was written is read");
                }
            }
        }
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            for who in 0..2 {
                self.ends[who].release(self.now, id, None);
                self.streams.get_mut(&id).expect("in the model").released[who] = true;
            }
        }
        self.exchange();
        for end in &self.ends {
            assert_eq!(end.streams(), 0, "{end:?}");
            let audit = end.audit();
            assert_eq!(
                (audit.session_allowance, audit.kept, audit.queued, audit.control),
                (limits::SESSION_WINDOW, 0, 0, 0)
            );
        }
    }

    fn exchange(&mut self) {
        let mut quiet = 0;
        for _ in 0..20_000 {
            self.now = self.now + Duration::from_millis(10);
            let mut moved = false;
            for who in 0..2 {
                self.ends[who].handle_timeout(self.now);
                self.transmit(who, 64);
                moved |= !self.under_way[who].is_empty();
                self.deliver(who, usize::MAX);
            }
            self.events();
            for id in self.streams.keys().copied().collect::<Vec<_>>() {
                for who in 0..2 {
                    self.read(who, id, u64::MAX);
                }
            }
            quiet = if moved { 0 } else { quiet + 1 };
            // Longer than any delay of an acknowledgement, and any pause between two pings.
            if quiet > 110 {
                return;
            }
        }
        panic!("it never comes to rest");
    }
}
