//! What both applications do, and what they may see: the model every schedule is checked against.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use mykube_protocol::{channel::Welcome, limits};
use mykube_tunnel::{
    Event, Session, Time,
    endpoint::Endpoint,
    session::{ReadState, Write},
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::json;

/// Streams at once: few, so that each gets into much.
const OPEN_MAX: usize = 6;
/// A prime, so that no two places of a stream that are near each other look alike.
const PERIOD: usize = 65_521;
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    let once: Vec<u8> = (0..PERIOD).map(|_| byte()).collect();
    once.repeat(2)
});

/// The bytes at a place of a stream.
fn bytes_at(id: u32, from: usize, at: u64, len: usize) -> &'static [u8] {
    let at = (at + u64::from(id) * 7919 + from as u64 * 32_003) % PERIOD as u64;
    &PATTERN[at as usize..at as usize + len]
}

/// One direction of a stream.
#[derive(Default)]
struct Way {
    written: u64,
    read: u64,
    finished: bool,
    /// How its reader last found it.
    state: Option<ReadState>,
}

#[derive(Default)]
struct Stream {
    target: Option<String>,
    known: [bool; 2],
    /// By their writer: client, agent.
    ways: [Way; 2],
    released: [bool; 2],
    closed: [bool; 2],
}

/// Both applications. 0 is the client, 1 the agent.
#[derive(Default)]
pub(crate) struct Model {
    streams: BTreeMap<u32, Stream>,
    /// Ends that are opened once are never opened again.
    newest: [u32; 2],
    welcomes: (u32, u32),
    bye: [Option<&'static str>; 2],
    heard_bye: [bool; 2],
    pub(crate) stalled: [bool; 2],
    pub(crate) bytes: u64,
}

impl Model {
    /// Does one thing.
    pub(crate) fn act(&mut self, who: usize, session: &mut Session, now: Time, rng: &mut StdRng) {
        let ids: Vec<u32> =
            self.streams.iter().filter(|(_, s)| s.known[who] && !s.released[who]).map(|(id, _)| *id).collect();
        let id = ids.get(rng.random_range(0..ids.len().max(1))).copied();
        match (rng.random_range(0..100), id) {
            (0..15, _) | (_, None) if self.streams.len() < OPEN_MAX => self.open(who, session, now, rng),
            (0..55, Some(id)) => {
                let len = if rng.random_ratio(1, 12) { rng.random_range(1..60_000) } else { rng.random_range(1..900) };
                self.write(who, session, now, id, len);
            }
            (55..63, Some(id)) => {
                session.finish(now, id);
                self.stream(id).ways[who].finished = true;
            }
            (63..67, Some(id)) => self.release(who, session, now, id, Some("enough")),
            (67..71, Some(id)) if self.stream(id).ways[1 - who].state == Some(ReadState::Eof) => {
                self.release(who, session, now, id, None);
            }
            (73..76, Some(id)) => {
                // As much as it takes: the windows of a stream that is let go of may be full both ways.
                while !session.is_full(id) && !self.stream(id).ways[who].finished && !self.stream(id).released[1 - who]
                {
                    self.write(who, session, now, id, 60_000);
                }
                if rng.random_ratio(1, 2) {
                    self.release(who, session, now, id, Some("enough"));
                }
            }
            (71..73, _) if who == 1 => {
                self.welcomes.0 += 1;
                session.welcome(&welcome(self.welcomes.0)).unwrap();
            }
            _ => {}
        }
        if !self.stalled[who] {
            let most = rng.random_range(1..50_000);
            self.read_all(who, session, now, most);
        }
    }

    fn stream(&mut self, id: u32) -> &mut Stream {
        self.streams.get_mut(&id).expect("in the model")
    }

    fn open(&mut self, who: usize, session: &mut Session, now: Time, rng: &mut StdRng) {
        let target = rng.random_ratio(1, 4).then(|| format!("target-{}", rng.random_range(0..1000)));
        let id = session.open(now, target.clone()).expect("few are open");
        let mut stream = Stream { target, ..Stream::default() };
        stream.known[who] = true;
        self.streams.insert(id, stream);
    }

    fn write(&mut self, who: usize, session: &mut Session, now: Time, id: u32, len: usize) {
        if session.is_full(id) {
            return;
        }
        let stream = self.stream(id);
        let way = &mut stream.ways[who];
        match session.write(now, id, Bytes::from_static(bytes_at(id, who, way.written, len))) {
            Write::Taken { .. } => {
                assert!(!way.finished, "bytes taken after the end");
                way.written += len as u64;
            }
            Write::Over => assert!(way.finished || stream.released[1 - who], "nobody has ended stream {id}"),
        }
    }

    fn release(&mut self, who: usize, session: &mut Session, now: Time, id: u32, reason: Option<&str>) {
        session.release(now, id, reason);
        self.stream(id).released[who] = true;
    }

    /// Reads what is there, of every stream.
    pub(crate) fn read_all(&mut self, who: usize, session: &mut Session, now: Time, most: u64) {
        for (id, stream) in &mut self.streams {
            if !stream.known[who] || stream.released[who] {
                continue;
            }
            let (mut chunks, released) = (Vec::new(), stream.released[1 - who]);
            let state = session.read(now, *id, most, &mut chunks);
            let way = &mut stream.ways[1 - who];
            for chunk in chunks {
                for piece in chunk.chunks(60_000) {
                    assert!(way.read + piece.len() as u64 <= way.written, "more of stream {id} than was written");
                    let expected = bytes_at(*id, 1 - who, way.read, piece.len());
                    assert!(piece == expected, "stream {id} differs after {} bytes", way.read);
                    way.read += piece.len() as u64;
                    self.bytes += piece.len() as u64;
                }
            }
            match &state {
                ReadState::Open => {}
                ReadState::Eof => {
                    assert!(way.finished, "stream {id}: an end the peer never said");
                    assert_eq!(way.read, way.written, "stream {id}: an end before all of it");
                }
                ReadState::Failed(reason) => assert!(released, "stream {id} fails, and nobody let it go: {reason}"),
            }
            way.state = Some(state);
        }
    }

    pub(crate) fn event(&mut self, who: usize, event: Event) {
        match event {
            Event::Opened { id, target } => {
                assert!(id > self.newest[who], "stream {id} opened twice");
                self.newest[who] = id;
                let stream = self.stream(id);
                assert_eq!((stream.known[who], &target), (false, &stream.target));
                stream.known[who] = true;
            }
            Event::Closed(id) => {
                let stream = self.stream(id);
                assert!(stream.released == [true; 2], "stream {id} closed before both let it go");
                stream.closed[who] = true;
                if stream.closed == [true; 2] {
                    self.streams.remove(&id);
                }
            }
            Event::Welcome(got) => {
                assert_eq!(who, 0);
                // One that nobody has heard a word of when the next is said need not come.
                let come = (self.welcomes.1 + 1..=self.welcomes.0).find(|n| *got == welcome(*n));
                self.welcomes.1 = come.expect("welcomes come once and in order");
            }
            Event::Bye(reason) => {
                assert_eq!(Some(reason.as_str()), self.bye[1 - who], "an end in words the peer never said");
                assert!(!std::mem::replace(&mut self.heard_bye[who], true), "a second farewell");
            }
            Event::Readable(_) | Event::Writable(_) | Event::Back | Event::Silent => {}
        }
    }

    /// What one end keeps is bounded by what the other end lets it send.
    pub(crate) fn check_memory(session: &Session) {
        let audit = session.audit();
        assert!(audit.kept_bytes <= limits::SESSION_WINDOW - audit.session_credit, "{audit:?}");
        // A stream may have been alone when it was filled; with a write begun below that.
        assert!(
            audit.control <= limits::CONTROL_UNACKED_MAX && audit.queued <= OPEN_MAX * (512 + 64) * 1024,
            "{audit:?}"
        );
        assert!(audit.session_allowance <= limits::SESSION_WINDOW, "{audit:?}");
    }

    /// Whether all that was said has arrived, or why not.
    pub(crate) fn settled(&self) -> Result<(), String> {
        if self.welcomes.0 != self.welcomes.1 {
            return Err(format!("{} welcomes of {}", self.welcomes.1, self.welcomes.0));
        }
        for (id, stream) in &self.streams {
            for who in 0..2 {
                if !stream.known[who] {
                    return Err(format!("stream {id} is not known at {who}"));
                }
                let way = &stream.ways[1 - who];
                let over = matches!(way.state, Some(ReadState::Eof | ReadState::Failed(_)));
                let right = match stream.released {
                    [true, true] => false,
                    _ if stream.released[who] => true,
                    _ if stream.released[1 - who] => over,
                    _ => way.read == way.written && over == way.finished,
                };
                if !right {
                    return Err(format!("stream {id} at {who}: {} of {}, {:?}", way.read, way.written, way.state));
                }
            }
        }
        Ok(())
    }

    /// Lets everything go.
    pub(crate) fn release_all(&mut self, who: usize, session: &mut Session, now: Time) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            if self.streams[&id].known[who] && !self.streams[&id].released[who] {
                self.release(who, session, now, id, None);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub(crate) fn say_bye(&mut self, who: usize, session: &mut Session) {
        self.bye[who] = Some("farewell");
        session.bye("farewell");
    }

    /// Whether that end has said farewell.
    pub(crate) fn said_bye(&self, who: usize) -> bool {
        self.bye[who].is_some()
    }

    /// Leaves: says farewell, and does not wait for long until it is heard.
    pub(crate) fn leave(&mut self, now: Time, who: usize, endpoint: &mut Endpoint) {
        self.bye[who] = Some("farewell");
        endpoint.leave(now, "farewell");
    }

    /// Whether every farewell was heard.
    pub(crate) fn byes_heard(&self) -> bool {
        (0..2).all(|who| self.bye[1 - who].is_none() || self.heard_bye[who] || self.bye[who].is_some())
    }
}

fn welcome(n: u32) -> Welcome {
    // Some take several parts.
    let ca = "A".repeat(if n.is_multiple_of(3) { 40_000 } else { 0 });
    serde_json::from_value(json!({ "mode": "guarded", "cluster": format!("c{n}"), "ca": ca })).unwrap()
}
