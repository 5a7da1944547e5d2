//! Two real endpoints on a virtual clock, and a line between them: delay, rate, a queue, and a hostile relay.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Established, Event, Session, SessionError, Time,
    pairing::{AgentEvent, AgentPairing, ClientPairing, Transmit},
    protocol::{Attempt, FromRelay, PairingCode, Role, SessionId, relay_text::Peer},
    session::{ReadState, Write},
};
use rand::{SeedableRng, rngs::StdRng};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const CODE: &str = "483 20417";

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn session_id() -> SessionId {
    SessionId::from_bytes([7; 16])
}

pub(crate) fn code(text: &str) -> PairingCode {
    text.parse().unwrap()
}

pub(crate) fn attempt(n: u8) -> Attempt {
    Attempt::from_bytes([n; 16])
}

pub(crate) fn here(n: u8) -> FromRelay {
    FromRelay::PeerHere(Peer::Attempt(attempt(n)))
}

/// A whole pairing over an honest relay: agent's and client's end.
pub(crate) fn established(seed: u64) -> (Established, Established) {
    let (rng, now) = (&mut rng(seed), Time::default());
    let mut agent = AgentPairing::new(now, session_id(), code(CODE), false, 120 * SECOND);
    let mut client = ClientPairing::new(now, session_id(), code(CODE), false);
    agent.handle_relay(now, &here(1), rng);
    let hello = peer_frame(agent.poll_transmit());
    assert!(client.handle_frame(now, hello, rng).unwrap().is_none());
    while let Some(frame) = client.poll_transmit() {
        agent.handle_frame(now, BytesMut::from(frame));
    }
    assert!(matches!(agent.poll_event(), Some(AgentEvent::Attempt)));
    let Some(AgentEvent::Paired(at_agent)) = agent.poll_event() else { panic!("not paired") };
    assert!(matches!(agent.poll_transmit(), Some(Transmit::Relay(_))));
    let answer = peer_frame(agent.poll_transmit());
    let at_client = client.handle_frame(now, answer, rng).unwrap().unwrap();
    (*at_agent, *at_client)
}

pub(crate) fn peer_frame(transmit: Option<Transmit>) -> BytesMut {
    match transmit {
        Some(Transmit::Peer(frame)) => BytesMut::from(frame),
        other => panic!("{other:?} instead of a frame"),
    }
}

/// What carries the frames, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) delay: Duration,
    /// Bytes a second; 0 for no limit.
    pub(crate) rate: u64,
    /// Bytes that wait below the scheduler before the transport takes no more: a bloated socket buffer.
    pub(crate) queue: usize,
}

impl Line {
    pub(crate) const fn new(delay: Duration, rate: u64) -> Self {
        Self { delay, rate, queue: 16 << 20 }
    }
}

/// What a hostile relay makes of one frame.
pub(crate) type Relay = Box<dyn FnMut(Role, BytesMut) -> Vec<BytesMut>>;

struct Way {
    free_at: Time,
    /// When it arrives, and its serial number.
    under_way: BinaryHeap<Reverse<(Time, u64)>>,
    frames: std::collections::HashMap<u64, BytesMut>,
}

impl Way {
    fn new() -> Self {
        Self { free_at: Time::default(), under_way: BinaryHeap::new(), frames: Default::default() }
    }

    fn next(&self) -> Option<Time> {
        self.under_way.peek().map(|Reverse((at, _))| *at)
    }
}

/// One end and what its application sees.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) events: Vec<Event>,
    pub(crate) error: Option<SessionError>,
    way: Way,
    /// Frames and bytes this end handed to its transport.
    pub(crate) sent_frames: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) frame_lengths: Vec<usize>,
}

/// Both ends.
pub(crate) struct Pair {
    pub(crate) now: Time,
    pub(crate) agent: End,
    pub(crate) client: End,
    pub(crate) line: Line,
    pub(crate) relay: Option<Relay>,
    serial: u64,
}

impl Pair {
    pub(crate) fn new(line: Line) -> Self {
        Self::with(line, Config::default(), Config::default())
    }

    pub(crate) fn with(line: Line, agent: Config, client: Config) -> Self {
        let now = Time::from_micros(1_000_000);
        let (a, c) = established(1);
        let end = |established, config| End {
            session: Session::new(now, established, config),
            events: Vec::new(),
            error: None,
            way: Way::new(),
            sent_frames: 0,
            sent_bytes: 0,
            frame_lengths: Vec::new(),
        };
        Self { now, agent: end(a, agent), client: end(c, client), line, relay: None, serial: 0 }
    }

    pub(crate) fn end(&mut self, role: Role) -> &mut End {
        match role {
            Role::Agent => &mut self.agent,
            Role::Client => &mut self.client,
        }
    }

    /// Hands what is ready to the transports, as far as they take it.
    pub(crate) fn transmit(&mut self) {
        for role in [Role::Client, Role::Agent] {
            self.transmit_of(role);
        }
    }

    fn transmit_of(&mut self, role: Role) {
        let (now, line) = (self.now, self.line);
        loop {
            let end = self.end(role);
            let backlog = u128::from(line.rate) * end.way.free_at.since(now).as_micros() / 1_000_000;
            if end.error.is_some() || backlog > line.queue as u128 {
                break;
            }
            let frame = match end.session.poll_transmit(now) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    end.error = Some(error);
                    break;
                }
            };
            end.sent_frames += 1;
            end.sent_bytes += frame.len() as u64;
            end.frame_lengths.push(frame.len());
            let frames = match &mut self.relay {
                Some(relay) => relay(role, frame),
                None => vec![frame],
            };
            for frame in frames {
                self.serial += 1;
                let serial = self.serial;
                let took = match line.rate {
                    0 => 0,
                    rate => (frame.len() as u64 * 1_000_000).div_ceil(rate),
                };
                let way = &mut self.end(role).way;
                way.free_at = way.free_at.max(now) + Duration::from_micros(took);
                way.under_way.push(Reverse((way.free_at + line.delay, serial)));
                way.frames.insert(serial, frame);
            }
        }
        let end = self.end(role);
        while let Some(event) = end.session.poll_event() {
            end.events.push(event);
        }
    }

    /// When something happens by itself.
    fn next(&self) -> Option<Time> {
        let free = |end: &End| (end.way.free_at > self.now).then_some(end.way.free_at);
        [
            self.agent.way.next(),
            self.client.way.next(),
            self.agent.session.poll_timeout().map(|at| at.max(self.now)),
            self.client.session.poll_timeout().map(|at| at.max(self.now)),
            free(&self.agent).filter(|_| self.line.queue < 1 << 20),
            free(&self.client).filter(|_| self.line.queue < 1 << 20),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Goes to the next moment at which something happens, not past `until`. False when that is reached.
    pub(crate) fn step(&mut self, until: Time) -> bool {
        self.transmit();
        let Some(at) = self.next().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        let now = self.now;
        for role in [Role::Client, Role::Agent] {
            if self.end(role).session.poll_timeout().is_some_and(|at| at <= now) {
                self.end(role).session.handle_timeout(now);
            }
            while let Some(Reverse((_, serial))) =
                self.end(role).way.under_way.peek().copied().filter(|Reverse((at, _))| *at <= now)
            {
                let way = &mut self.end(role).way;
                way.under_way.pop();
                let frame = way.frames.remove(&serial).unwrap();
                let peer = self.end(role.peer());
                if peer.error.is_none() {
                    peer.error = peer.session.handle_frame(now, frame).err();
                }
                while let Some(event) = peer.session.poll_event() {
                    peer.events.push(event);
                }
            }
        }
        self.transmit();
        true
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Until nothing but the clock moves: long enough for any acknowledgement and round trip.
    pub(crate) fn settle(&mut self) {
        self.run(10 * SECOND);
    }

    pub(crate) fn open(&mut self, role: Role) -> u32 {
        let now = self.now;
        self.end(role).session.open(now, None).unwrap()
    }

    pub(crate) fn write(&mut self, role: Role, id: u32, payload: &[u8]) -> Write {
        let now = self.now;
        self.end(role).session.write(now, id, Bytes::copy_from_slice(payload))
    }

    pub(crate) fn finish(&mut self, role: Role, id: u32) {
        let now = self.now;
        self.end(role).session.finish(now, id);
    }

    pub(crate) fn release(&mut self, role: Role, id: u32, reason: Option<&str>) {
        let now = self.now;
        self.end(role).session.release(now, id, reason);
    }

    pub(crate) fn read(&mut self, role: Role, id: u32) -> (Vec<u8>, ReadState) {
        self.read_up_to(role, id, u64::MAX)
    }

    pub(crate) fn read_up_to(&mut self, role: Role, id: u32, max: u64) -> (Vec<u8>, ReadState) {
        let (now, mut chunks) = (self.now, Vec::new());
        let state = self.end(role).session.read(now, id, max, &mut chunks);
        (chunks.concat(), state)
    }

    pub(crate) fn ok(&self) {
        assert_eq!((&self.agent.error, &self.client.error), (&None, &None));
    }
}
