//! One schedule: the ends' drivers, the relay between them, and the trouble that befalls both.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    time::Duration,
};

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Event, Session, SessionError, Time,
    pairing::{AgentEvent, AgentPairing, ClientPairing, Transmit},
    protocol::{Attempt, FromAgent, FromRelay, Role, SessionId, control::Peer, frame, limits},
    session::Audit,
};
use rand::{Rng as _, RngExt as _, SeedableRng, rngs::StdRng};

use crate::{
    model::Model,
    net::{Item, Pipe, Socket},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Once nothing is in the way any more, all is delivered within this: 20 s until silence is noticed, 10 s until the
/// next attempt, 10 s until a question is asked again, and some round trips.
const CALM: Duration = Duration::from_secs(90);
/// A socket's buffer takes so much.
const BACKLOG: Duration = Duration::from_millis(250);
/// An end whose peer is away asks the relay for life, and this long after its last word the socket is dead.
const RELAY_DEAD: Duration = Duration::from_secs(20);
/// The relay lets go of an end that is silent for so long.
const RELAY_PATIENCE: Duration = Duration::from_secs(45);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const ROLES: [Role; 2] = [Role::Client, Role::Agent];
const ATTEMPT: Attempt = Attempt::from_bytes([1; 16]);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ev {
    /// The head of a pipe arrives.
    Arrive(u32, bool),
    /// An end, or the relay, notices that a connection is gone.
    EndLost(u32),
    RelayLost(u32),
    /// An end dials; the relay admits it; it does not.
    Redial(usize),
    Admit(usize, u32),
    DialFailed(usize, u32),
    Act(usize),
    Trouble,
    RelayUp,
    Wake(usize),
    KeepAlive(usize),
}

enum Stage {
    Client(Box<ClientPairing>),
    Agent(Box<AgentPairing>),
    Session(Box<Session>),
}

struct End {
    stage: Stage,
    socket: Option<u32>,
    dialling: Option<u32>,
    /// Since when it is without one, and the next delay.
    away: Time,
    backoff: Duration,
    asleep: bool,
    deferred: Vec<Ev>,
    heard: Time,
    start: Option<Audit>,
    forged: bool,
    /// Its network is down until then.
    offline: Time,
    delay: Duration,
    rate: u64,
}

#[derive(Default)]
struct Relay {
    down: bool,
    /// It knows that the attempt was paired.
    paired: bool,
    slots: [Option<u32>; 2],
}

/// What all schedules together went through.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) schedules: u64,
    pub(crate) time: Duration,
    attaches: u64,
    bytes: u64,
    frames: u64,
    troubles: BTreeMap<&'static str, u64>,
    /// Schedules that ended before they were paired, and by the fifth record in a row that was not the peer's.
    unpaired: u64,
    forged: u64,
    late_proofs: u64,
    silences: u64,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.time.as_secs() as f64 / 3600.0;
        write!(
            f,
            "{} schedules, {hours:.1} simulated hours, {} attaches, {} frames, {} bytes delivered and compared; {} never \
             paired, {} paired over an attach, {} ended as tampered with, {} silences noticed; {:?}",
            self.schedules,
            self.attaches,
            self.frames,
            self.bytes,
            self.unpaired,
            self.late_proofs,
            self.forged,
            self.silences,
            self.troubles
        )
    }
}

impl Totals {
    /// Whether everything that can happen did, so that a passing run says something.
    pub(crate) fn shows_everything(&self) -> bool {
        let rare = [self.unpaired, self.forged, self.late_proofs, self.silences];
        self.troubles.len() == TROUBLES.len() && rare.iter().all(|n| *n > 0) && self.unpaired < self.schedules / 20
    }
}

const TROUBLES: [&str; 14] = [
    "cut",
    "closed",
    "silent",
    "half open",
    "relay restart",
    "offline",
    "suspended",
    "stalled reader",
    "other path",
    // Only of a hostile relay:
    "replayed",
    "forged",
    "swallowed",
    "spurious text",
    "reflected",
];
const HONEST: usize = 9;

pub(crate) struct World {
    rng: StdRng,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Ev)>>,
    serial: u64,
    sockets: BTreeMap<u32, Socket>,
    next_socket: u32,
    relay: Relay,
    ends: [End; 2],
    model: Model,
    config: Config,
    /// What the relay has seen, by its sender.
    tape: [Vec<BytesMut>; 2],
    hostile: bool,
    swallow: [u32; 2],
    spoil: [u32; 2],
    /// It spoils whatever follows an attach, by the sender that has had its first record.
    spoils_all: Option<[bool; 2]>,
    tampered: u32,
    trace: bool,
    unpaired: bool,
    /// It is the handshake that is troubled.
    early: bool,
    /// The applications are through.
    parting: bool,
    counted: Totals,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Time::from_micros(1_000_000);
        let id = SessionId::from_bytes([7; 16]);
        let code = || "483 20417".parse().unwrap();
        let mut end = |stage| End {
            stage,
            socket: None,
            dialling: None,
            away: now,
            backoff: 100 * MS,
            asleep: false,
            deferred: Vec::new(),
            heard: now,
            start: None,
            forged: false,
            offline: now,
            delay: MS * [0, 1, 5, 30, 100, 400][rng.random_range(0..6)],
            rate: [0, 0, 0, 100_000, 1_000_000][rng.random_range(0..5)],
        };
        let client = end(Stage::Client(Box::new(ClientPairing::new(now, id, code(), false))));
        let agent = end(Stage::Agent(Box::new(AgentPairing::new(now, id, code(), false, limits::CODE_TTL))));
        let config = Config {
            rekey_records: [1, 3, 17, u64::MAX][rng.random_range(0..4)],
            growth: [0, 1 << 20][rng.random_range(0..2)],
            ..Config::default()
        };
        let hostile = rng.random_ratio(1, 2);
        Self {
            rng,
            now,
            queue: BinaryHeap::new(),
            serial: 0,
            sockets: BTreeMap::new(),
            next_socket: 0,
            relay: Relay::default(),
            ends: [client, agent],
            model: Model::default(),
            config,
            tape: Default::default(),
            hostile,
            swallow: [0; 2],
            spoil: [0; 2],
            spoils_all: None,
            tampered: 0,
            trace,
            unpaired: false,
            early: false,
            parting: false,
            counted: Totals::default(),
        }
    }

    /// From the code to the farewell.
    pub(crate) fn run(mut self, totals: &mut Totals) {
        for who in 0..2 {
            self.redial(who);
            self.schedule(5 * SECOND, Ev::KeepAlive(who));
        }
        // Mostly the trouble begins when both are there.
        if self.rng.random_ratio(7, 8) {
            self.calm();
        } else {
            for _ in 0..self.rng.random_range(1..4) {
                let at = self.random_delay(3 * SECOND);
                self.schedule(at, Ev::Trouble);
            }
            self.early = true;
            self.run_until(self.now + 6 * SECOND);
            self.early = false;
        }
        for _ in 0..self.rng.random_range(1..4) {
            if self.is_over() {
                break;
            }
            self.trouble_for_a_while();
            self.calm();
        }
        if !self.is_over() {
            self.part();
        }
        self.add_to(totals);
    }

    fn is_over(&self) -> bool {
        self.unpaired || self.ends.iter().any(|end| end.forged)
    }

    fn add_to(mut self, totals: &mut Totals) {
        totals.schedules += 1;
        totals.time += self.now.since(Time::from_micros(1_000_000));
        totals.attaches += self.session(0).map_or(0, |session| session.attaches());
        totals.bytes += self.model.bytes;
        totals.frames += self.counted.frames;
        totals.unpaired += u64::from(self.unpaired);
        totals.forged += u64::from(self.ends.iter().any(|end| end.forged));
        totals.late_proofs += self.counted.late_proofs;
        totals.silences += self.counted.silences;
        for (name, n) in self.counted.troubles {
            *totals.troubles.entry(name).or_default() += n;
        }
    }

    fn say(&self, what: &dyn fmt::Display) {
        if self.trace {
            eprintln!("{:>12.6} {what}", self.now.as_micros() as f64 / 1e6);
        }
    }

    fn schedule(&mut self, after: Duration, ev: Ev) {
        self.serial += 1;
        self.queue.push(Reverse((self.now + after, self.serial, ev)));
    }

    fn session(&mut self, who: usize) -> Option<&mut Session> {
        match &mut self.ends[who].stage {
            Stage::Session(session) => Some(session),
            _ => None,
        }
    }

    fn random_delay(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most.as_micros() as u64))
    }

    // Time.

    fn next_timer(&self, who: usize) -> Option<Time> {
        let end = &self.ends[who];
        if end.asleep || end.forged {
            return None;
        }
        // A writer that waits for its socket waits for nothing else.
        let free = end.socket.and_then(|id| self.sockets.get(&id)).map(|socket| socket.up.free_at());
        if let Some(free) = free.filter(|at| at.since(self.now) > BACKLOG) {
            return Some(free);
        }
        let own = match &end.stage {
            Stage::Client(pairing) => pairing.poll_timeout(),
            Stage::Agent(pairing) => pairing.poll_timeout(),
            Stage::Session(_) if end.socket.is_none() => None,
            Stage::Session(session) => session.poll_timeout(),
        };
        own.map(|at| at.max(self.now))
    }

    /// Goes to the next thing that happens; not past `until`.
    fn step(&mut self, until: Time) -> bool {
        let timers = [self.next_timer(0), self.next_timer(1)];
        let timer = timers.into_iter().flatten().min();
        let queued = self.queue.peek().map(|Reverse((at, ..))| *at);
        let Some(at) = timer.into_iter().chain(queued).min().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if queued.is_some_and(|queued| queued <= self.now) {
            let Some(Reverse((_, _, ev))) = self.queue.pop() else { return false };
            self.happen(ev);
        }
        for who in 0..2 {
            if timers[who].is_some_and(|timer| timer <= self.now) {
                self.service(who);
            }
        }
        true
    }

    fn run_until(&mut self, until: Time) {
        let mut steps = 0_u64;
        while !self.is_over() && self.step(until) {
            steps += 1;
            assert!(
                steps < 1_000_000,
                "it spins at {:?}: timers {:?}, queue {:?}",
                self.now,
                [self.next_timer(0), self.next_timer(1)],
                self.queue.peek()
            );
        }
    }

    fn happen(&mut self, ev: Ev) {
        let who = match ev {
            Ev::Arrive(id, false) | Ev::EndLost(id) => self.sockets.get(&id).map(|socket| socket.who),
            Ev::Redial(who) | Ev::DialFailed(who, _) | Ev::Act(who) | Ev::KeepAlive(who) => Some(who),
            _ => None,
        };
        if let Some(who) = who.filter(|who| self.ends[*who].asleep) {
            self.ends[who].deferred.push(ev);
            return;
        }
        match ev {
            Ev::Arrive(id, up) => {
                let Some(socket) = self.sockets.get_mut(&id) else { return };
                let who = socket.who;
                let Some(item) = socket.pipe(up).pop() else { return };
                if up { self.relay_hears(id, who, item) } else { self.end_hears(id, who, item) }
            }
            Ev::EndLost(id) => {
                if let Some(who) = self.sockets.get(&id).map(|socket| socket.who)
                    && self.ends[who].socket == Some(id)
                {
                    self.lost(who, "broken");
                }
            }
            Ev::RelayLost(id) => self.relay_lost(id),
            Ev::Redial(who) => self.redial(who),
            Ev::Admit(who, id) => self.admit(who, id),
            Ev::DialFailed(who, id) => {
                if self.ends[who].dialling == Some(id) {
                    self.ends[who].dialling = None;
                    self.later(who);
                }
            }
            Ev::Act(who) => {
                let now = self.now;
                if let Stage::Session(session) = &mut self.ends[who].stage {
                    self.model.act(who, session, now, &mut self.rng);
                    Model::check_memory(session);
                    self.service(who);
                }
            }
            Ev::Trouble => self.trouble(),
            Ev::RelayUp => self.relay.down = false,
            Ev::Wake(who) => self.wake(who),
            Ev::KeepAlive(who) => self.keep_alive(who),
        }
    }

    // The ends' drivers.

    fn redial(&mut self, who: usize) {
        if self.ends[who].socket.is_some() || self.ends[who].dialling.is_some() {
            return;
        }
        self.dial(who);
    }

    fn dial(&mut self, who: usize) {
        self.next_socket += 1;
        let id = self.next_socket;
        self.ends[who].dialling = Some(id);
        let took = self.ends[who].delay * 3 + self.random_delay(20 * MS);
        self.schedule(took, Ev::Admit(who, id));
        self.schedule(DIAL_TIMEOUT, Ev::DialFailed(who, id));
    }

    fn later(&mut self, who: usize) {
        let end = &mut self.ends[who];
        let most = if self.now.since(end.away) < 30 * SECOND { SECOND } else { 10 * SECOND };
        let delay = end.backoff.min(most);
        end.backoff = (delay * 2).min(10 * SECOND);
        let delay = delay / 2 + self.random_delay(delay / 2);
        self.schedule(delay, Ev::Redial(who));
    }

    /// The end's connection is gone.
    fn lost(&mut self, who: usize, why: &str) {
        self.say(&format_args!("{} lost: {why}", ROLES[who]));
        let now = self.now;
        let end = &mut self.ends[who];
        if let Some(id) = end.socket.take() {
            // What is in the socket's buffer may still arrive, or not.
            let close = self.rng.random_ratio(1, 2);
            if let Some(socket) = self.sockets.get_mut(&id)
                && !socket.up.is_dead()
            {
                if close {
                    self.push(id, true, Item::Close);
                } else {
                    socket.up.kill();
                    let after = self.random_delay(2 * SECOND);
                    self.schedule(after, Ev::RelayLost(id));
                }
            }
        }
        let end = &mut self.ends[who];
        (end.away, end.backoff) = (now, 100 * MS);
        match &mut end.stage {
            Stage::Session(session) => session.handle_transport_lost(now),
            Stage::Client(pairing) => self.unpaired |= !pairing.handle_lost(now),
            Stage::Agent(_) => {}
        }
        if self.ends[who].dialling.is_none() {
            self.later(who);
        }
    }

    /// The session uses another connection from here on.
    fn adopt(&mut self, who: usize, id: u32) {
        let now = self.now;
        if self.ends[who].dialling != Some(id) {
            return;
        }
        self.ends[who].dialling = None;
        if let Some(old) = self.ends[who].socket.replace(id)
            && let Some(old) = self.sockets.get_mut(&old)
        {
            old.up.kill();
        }
        self.ends[who].heard = now;
        if let Some(session) = self.session(who) {
            session.handle_transport_lost(now);
        }
    }

    fn end_hears(&mut self, id: u32, who: usize, item: Item) {
        if matches!(item, Item::Open) {
            self.adopt(who, id);
        }
        if self.ends[who].socket != Some(id) {
            return;
        }
        self.ends[who].heard = self.now;
        match item {
            Item::Frame(frame) => self.frame(who, frame),
            Item::FromRelay(text) => self.text(who, &text),
            Item::Close => self.lost(who, "closed"),
            Item::Open | Item::FromAgent(_) => {}
        }
        self.service(who);
    }

    fn text(&mut self, who: usize, text: &FromRelay) {
        self.say(&format_args!("{} hears {text}", ROLES[who]));
        let (now, rng) = (self.now, &mut self.rng);
        let socket = self.ends[who].socket;
        match (&mut self.ends[who].stage, text) {
            (Stage::Agent(pairing), text) => pairing.handle_relay(now, text, rng),
            (Stage::Client(pairing), FromRelay::PeerHere(_)) => pairing.handle_peer_here(rng),
            (Stage::Session(session), FromRelay::PeerHere(peer)) => {
                session.handle_peer_here(now, rng);
                if who == 1
                    && let (Peer::Attempt(attempt), Some(id)) = (peer, socket)
                {
                    self.push(id, true, Item::FromAgent(FromAgent::Paired(*attempt)));
                }
            }
            (Stage::Session(session), FromRelay::PeerGone(Peer::Session)) => session.handle_transport_lost(now),
            _ => {}
        }
    }

    fn frame(&mut self, who: usize, frame: BytesMut) {
        let now = self.now;
        match &mut self.ends[who].stage {
            Stage::Client(pairing) => match pairing.handle_frame(now, frame, &mut self.rng) {
                Ok(Some(established)) => {
                    let session = Session::new(now, *established, self.config);
                    self.counted.late_proofs += u64::from(session.attaches() > 0);
                    self.become_session(who, session);
                }
                Ok(None) => {}
                Err(error) => {
                    self.say(&format_args!("not paired: {error}"));
                    self.unpaired = true;
                }
            },
            Stage::Agent(pairing) => pairing.handle_frame(now, frame),
            Stage::Session(session) => {
                let result = match frame.first() {
                    Some(&(frame::ATTACH_CLIENT | frame::ATTACH_AGENT)) => {
                        session.handle_attach(now, &frame, &mut self.rng);
                        Ok(())
                    }
                    _ => session.handle_frame(now, frame),
                };
                match result {
                    Ok(()) => {}
                    Err(SessionError::Record(_)) => {
                        assert!(self.hostile, "an honest relay and a record that does not open");
                        self.lost(who, "a bad record");
                    }
                    Err(SessionError::Forged) => {
                        assert!(self.tampered >= limits::BAD_RECORDS_MAX);
                        self.ends[who].forged = true;
                    }
                    Err(error) => panic!("{}: {error}", ROLES[who]),
                }
            }
        }
    }

    fn become_session(&mut self, who: usize, session: Session) {
        self.say(&format_args!("{} is paired", ROLES[who]));
        self.ends[who].start = Some(session.audit());
        self.ends[who].stage = Stage::Session(Box::new(session));
        // The handshake's last message is on its way: the moment at which a loss hurts most, and those after it.
        if self.early && who == 1 && self.rng.random_ratio(1, 2) {
            if let Some(id) = self.ends[0].socket {
                self.cut(id, true, true);
            }
            for _ in 0..self.rng.random_range(0..4) {
                let at = self.random_delay(3 * SECOND);
                self.schedule(at, Ev::Trouble);
            }
        }
    }

    /// Timers, events, and what is to be sent.
    fn service(&mut self, who: usize) {
        let now = self.now;
        if self.ends[who].asleep || self.is_over() {
            return;
        }
        match &mut self.ends[who].stage {
            Stage::Client(pairing) => {
                let late = pairing.handle_timeout(now).is_err();
                let frames: Vec<_> = std::iter::from_fn(|| pairing.poll_transmit()).collect();
                self.unpaired |= late;
                self.push_all(who, frames.into_iter().map(|frame| Item::Frame(BytesMut::from(frame))));
            }
            Stage::Agent(pairing) => {
                pairing.handle_timeout(now);
                let items = std::iter::from_fn(|| pairing.poll_transmit()).map(|transmit| match transmit {
                    Transmit::Relay(text) => Item::FromAgent(text),
                    Transmit::Peer(frame) => Item::Frame(BytesMut::from(frame)),
                });
                let items: Vec<_> = items.collect();
                let mut paired = None;
                while let Some(event) = pairing.poll_event() {
                    match event {
                        AgentEvent::Paired(established) => paired = Some(established),
                        AgentEvent::Spent(_) => self.unpaired = true,
                        _ => {}
                    }
                }
                self.push_all(who, items);
                if let Some(established) = paired {
                    let session = Session::new(now, *established, self.config);
                    self.become_session(who, session);
                }
            }
            Stage::Session(_) => self.service_session(who),
        }
    }

    fn service_session(&mut self, who: usize) {
        let now = self.now;
        loop {
            let Stage::Session(session) = &mut self.ends[who].stage else { return };
            session.handle_timeout(now);
            session.ask_again(now, &mut self.rng);
            let mut silent = false;
            while let Some(event) = session.poll_event() {
                silent |= event == Event::Silent;
                self.model.event(who, event);
            }
            if silent {
                self.counted.silences += 1;
                self.lost(who, "silent");
                return;
            }
            let Some(id) = self.ends[who].socket else { return };
            let full = self.sockets.get(&id).is_none_or(|socket| socket.up.free_at().since(now) > BACKLOG);
            if full {
                return;
            }
            let Stage::Session(session) = &mut self.ends[who].stage else { return };
            let Some(frame) = session.poll_transmit(now).expect("both ends are honest") else { return };
            self.counted.frames += 1;
            self.push(id, true, Item::Frame(frame));
        }
    }

    fn push_all(&mut self, who: usize, items: impl IntoIterator<Item = Item>) {
        // Without a connection they are lost, as what was given to a broken one is.
        if let Some(id) = self.ends[who].socket {
            for item in items {
                self.push(id, true, item);
            }
        }
    }

    /// While nobody is there, an end asks the relay whether the connection lives.
    fn keep_alive(&mut self, who: usize) {
        self.schedule(5 * SECOND, Ev::KeepAlive(who));
        let now = self.now;
        let Some(id) = self.ends[who].socket else { return };
        let alive = self.sockets.get(&id).is_some_and(|socket| !socket.up.is_dead() && !socket.down.is_dead());
        if alive {
            self.ends[who].heard = now;
        }
        let attached = self.session(who).is_some_and(|session| session.is_attached());
        if !attached && now.since(self.ends[who].heard) >= RELAY_DEAD {
            self.lost(who, "the relay does not answer");
        }
    }

    fn wake(&mut self, who: usize) {
        self.say(&format_args!("{} wakes", ROLES[who]));
        self.ends[who].asleep = false;
        for ev in std::mem::take(&mut self.ends[who].deferred) {
            self.schedule(Duration::ZERO, ev);
        }
        // Whichever notices first.
        if self.rng.random_ratio(1, 2) {
            self.service(who);
        }
        let now = self.now;
        if let Some(session) = self.session(who) {
            session.probe(now);
            if self.ends[who].socket.is_some() && self.ends[who].dialling.is_none() {
                self.dial(who);
            }
        }
        self.service(who);
    }

    // The network and the relay.

    fn push(&mut self, id: u32, up: bool, item: Item) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let end = &self.ends[socket.who];
        let jitter = Duration::from_micros(self.rng.random_range(0..=end.delay.as_micros() as u64 / 4 + 50));
        if let Some(at) = socket.pipe(up).push(self.now, item, end.rate, end.delay + jitter) {
            self.serial += 1;
            self.queue.push(Reverse((at, self.serial, Ev::Arrive(id, up))));
        }
    }

    fn admit(&mut self, who: usize, id: u32) {
        let now = self.now;
        if self.ends[who].dialling != Some(id) {
            return;
        }
        if self.relay.down || self.ends[who].offline > now {
            let after = self.random_delay(SECOND);
            self.schedule(after, Ev::DialFailed(who, id));
            return;
        }
        // A dial beside a connection that has shown life meanwhile is given up.
        if self.ends[who].socket.is_some()
            && let Some(session) = self.session(who)
            && session.is_attached()
            && !session.is_probing()
        {
            self.ends[who].dialling = None;
            return;
        }
        self.sockets.insert(id, Socket { who, ..Socket::default() });
        self.push(id, false, Item::Open);
        if let Some(old) = self.relay.slots[who].replace(id)
            && let Some(socket) = self.sockets.get_mut(&old)
        {
            socket.up.kill();
            self.push(old, false, Item::Close);
        }
        if let [Some(client), Some(agent)] = self.relay.slots {
            let here = FromRelay::PeerHere(if self.relay.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) });
            for socket in [client, agent] {
                self.push(socket, false, Item::FromRelay(here.clone()));
            }
        }
    }

    fn relay_lost(&mut self, id: u32) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let who = socket.who;
        socket.up.kill();
        if self.relay.slots[who] == Some(id) {
            self.relay.slots[who] = None;
            if let Some(peer) = self.relay.slots[1 - who] {
                let gone = FromRelay::PeerGone(if self.relay.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) });
                self.push(peer, false, Item::FromRelay(gone));
            }
        }
        self.push(id, false, Item::Close);
    }

    fn relay_hears(&mut self, id: u32, who: usize, item: Item) {
        if self.relay.slots[who] != Some(id) {
            return;
        }
        let peer = self.relay.slots[1 - who];
        match item {
            Item::Frame(mut frame) => {
                if self.hostile {
                    if self.tape[who].len() < 40 {
                        self.tape[who].push(frame.clone());
                    } else if self.rng.random_ratio(1, 4) {
                        let at = self.rng.random_range(0..40);
                        self.tape[who][at] = frame.clone();
                    }
                    if self.swallow[who] > 0 {
                        self.swallow[who] -= 1;
                        self.tampered += 1;
                        return;
                    }
                    let mut spoilt = self.spoil[who] > 0;
                    self.spoil[who] = self.spoil[who].saturating_sub(1);
                    if let Some(had_first) = &mut self.spoils_all {
                        match frame[0] {
                            frame::ATTACH_AGENT => *had_first = [false; 2],
                            frame::RECORD => spoilt |= std::mem::replace(&mut had_first[who], true),
                            _ => {}
                        }
                    }
                    if spoilt {
                        self.tampered += 1;
                        let at = self.rng.random_range(0..frame.len());
                        frame[at] ^= 1 << self.rng.random_range(0..8);
                        let len = self.rng.random_range(1..=frame.len() * 3);
                        frame.truncate(len);
                    }
                }
                if let Some(peer) = peer {
                    self.push(peer, false, Item::Frame(frame));
                }
            }
            Item::FromAgent(FromAgent::Paired(_)) if peer.is_some() => self.relay.paired = true,
            Item::Close => self.relay_lost(id),
            _ => {}
        }
    }

    // Trouble.

    fn trouble_for_a_while(&mut self) {
        let long = [2, 20, 120, 900, 4000][[0, 1, 1, 2, 2, 2, 3, 4][self.rng.random_range(0..8)]] * SECOND;
        let (long, early) = (self.random_delay(long), self.rng.random_ratio(1, 3));
        for _ in 0..self.rng.random_range(0..9) {
            // Some of it in a heap.
            let at = self.random_delay(if early { long / 20 } else { long });
            self.schedule(at, Ev::Trouble);
        }
        for _ in 0..if self.parting { 0 } else { self.rng.random_range(3..60) } {
            let (at, who) = (self.random_delay(if early { long / 10 } else { long }), self.rng.random_range(0..2));
            self.schedule(at, Ev::Act(who));
        }
        self.run_until(self.now + long);
        self.model.stalled = [false; 2];
        (self.swallow, self.spoil, self.spoils_all) = ([0; 2], [0; 2], None);
    }

    fn trouble(&mut self) {
        let kind = self.rng.random_range(0..if self.hostile { TROUBLES.len() } else { HONEST });
        let who = self.rng.random_range(0..2);
        self.say(&format_args!("trouble: {} at the {}", TROUBLES[kind], ROLES[who]));
        *self.counted.troubles.entry(TROUBLES[kind]).or_default() += 1;
        let current = self.ends[who].socket;
        match TROUBLES[kind] {
            "cut" => current.into_iter().for_each(|id| self.cut(id, true, true)),
            "closed" => current.into_iter().for_each(|id| self.relay_lost(id)),
            "silent" => current.into_iter().for_each(|id| self.silence(id, true, true)),
            "half open" => {
                let up = self.rng.random_ratio(1, 2);
                current.into_iter().for_each(|id| self.silence(id, up, !up));
            }
            "relay restart" => self.restart_relay(),
            "offline" => {
                let most = [SECOND, 30 * SECOND, 600 * SECOND][self.rng.random_range(0..3)];
                let long = self.random_delay(most);
                self.ends[who].offline = self.now + long;
                let noticed = self.rng.random_ratio(1, 2);
                if let Some(id) = current {
                    if noticed { self.cut(id, true, true) } else { self.silence(id, true, true) }
                }
            }
            "suspended" => self.suspend(who),
            "stalled reader" => self.model.stalled[who] ^= true,
            "other path" => {
                self.ends[who].delay = MS * [0, 1, 5, 30, 100, 400][self.rng.random_range(0..6)];
                self.ends[who].rate = [0, 0, 0, 100_000, 1_000_000][self.rng.random_range(0..5)];
            }
            "replayed" => {
                for _ in 0..self.rng.random_range(1..4) {
                    self.replay(1 - who, who);
                }
            }
            "reflected" => self.replay(who, who),
            "forged" => self.forge(who),
            "swallowed" => self.swallow[who] += self.rng.random_range(1..4),
            _ => self.spurious(who),
        }
    }

    /// The connection breaks in both directions or in one; its two sides notice at their own time.
    fn cut(&mut self, id: u32, end_notices: bool, relay_notices: bool) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            let frames: &mut [&mut Pipe] = &mut [&mut socket.up, &mut socket.down];
            frames.iter_mut().for_each(|pipe| pipe.kill());
        }
        if end_notices {
            let after = self.random_delay(2 * SECOND);
            self.schedule(after, Ev::EndLost(id));
        }
        if relay_notices {
            let after = self.random_delay(2 * SECOND);
            self.schedule(after, Ev::RelayLost(id));
        }
    }

    /// Frames vanish, and nobody is told.
    fn silence(&mut self, id: u32, up: bool, down: bool) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if up {
            socket.up.kill();
        }
        if down {
            socket.down.kill();
        }
        let after = RELAY_PATIENCE + self.random_delay(15 * SECOND);
        self.schedule(after, Ev::RelayLost(id));
    }

    fn restart_relay(&mut self) {
        for id in self.relay.slots.into_iter().flatten() {
            self.cut(id, true, false);
        }
        // What it knew, it reads from the tickets, if those were out.
        let paired = self.relay.paired && self.rng.random_ratio(7, 8);
        self.relay = Relay { down: true, paired, ..Relay::default() };
        let most = [100 * MS, 5 * SECOND, 60 * SECOND][self.rng.random_range(0..3)];
        let after = self.random_delay(most);
        self.schedule(after, Ev::RelayUp);
    }

    fn suspend(&mut self, who: usize) {
        if self.ends[who].asleep {
            return;
        }
        let most = [SECOND, 60 * SECOND, 3600 * SECOND][self.rng.random_range(0..3)];
        let long = self.random_delay(most);
        self.ends[who].asleep = true;
        self.schedule(long, Ev::Wake(who));
        if long > RELAY_PATIENCE
            && let Some(id) = self.relay.slots[who]
        {
            self.schedule(RELAY_PATIENCE, Ev::RelayLost(id));
        }
    }

    /// The relay says again what `from` once said.
    fn replay(&mut self, from: usize, to: usize) {
        let Some(id) = self.relay.slots[to] else { return };
        if let Some(frame) = self.tape[from].get(self.rng.random_range(0..self.tape[from].len().max(1))) {
            let frame = frame.clone();
            self.tampered += 1;
            self.push(id, false, Item::Frame(frame));
        }
    }

    fn forge(&mut self, who: usize) {
        if self.rng.random_ratio(1, 2) {
            self.spoil[who] += self.rng.random_range(1..4);
            if self.rng.random_ratio(1, 10) {
                self.spoils_all = Some([true; 2]);
            }
        } else if let Some(id) = self.relay.slots[who] {
            let mut frame = BytesMut::zeroed(self.rng.random_range(1..200));
            self.rng.fill_bytes(&mut frame);
            frame[0] = self.rng.random_range(1..7);
            self.tampered += 1;
            self.push(id, false, Item::Frame(frame));
        }
    }

    fn spurious(&mut self, who: usize) {
        let Some(id) = self.relay.slots[who] else { return };
        let text = match self.rng.random_range(0..4) {
            0 => FromRelay::PeerGone(Peer::Session),
            1 => FromRelay::PeerHere(Peer::Attempt(ATTEMPT)),
            _ => FromRelay::PeerHere(Peer::Session),
        };
        self.push(id, false, Item::FromRelay(text));
    }

    // Calm.

    /// Who sleeps has to wake, and a relay that is down comes back.
    fn wait_until_up(&mut self) {
        for end in &mut self.ends {
            end.offline = self.now;
        }
        while (self.relay.down || self.ends.iter().any(|end| end.asleep)) && !self.is_over() {
            self.run_until(self.now + SECOND);
        }
    }

    /// Nothing is in the way any more: everything arrives, and in time.
    fn calm(&mut self) {
        self.wait_until_up();
        let by = self.now + CALM;
        let mut why = String::new();
        while !self.is_over() {
            assert!(self.now < by, "no progress although nothing is in the way: {why}");
            self.run_until(self.now + 200 * MS);
            let now = self.now;
            for who in 0..2 {
                if let Stage::Session(session) = &mut self.ends[who].stage {
                    self.model.read_all(who, session, now, u64::MAX);
                    self.service(who);
                }
            }
            match self.is_calm() {
                Ok(()) => return,
                Err(reason) => why = reason,
            }
        }
    }

    fn is_calm(&mut self) -> Result<(), String> {
        for who in 0..2 {
            let Some(session) = self.session(who) else { return Err(format!("{who} is not paired")) };
            if !session.is_attached() || session.unacknowledged() > 0 {
                return Err(format!("{who}: attached {}, {} kept", session.is_attached(), session.unacknowledged()));
            }
        }
        self.model.settled()
    }

    /// Everything is let go, the books are as at the start, and one end says farewell, perhaps in trouble.
    fn part(&mut self) {
        let now = self.now;
        for who in 0..2 {
            if let Stage::Session(session) = &mut self.ends[who].stage {
                self.model.release_all(who, session, now);
                self.service(who);
            }
        }
        self.calm();
        if self.is_over() {
            return;
        }
        assert!(self.model.is_empty(), "every stream was closed at both ends");
        for who in 0..2 {
            let start = self.ends[who].start.clone().expect("a session");
            let audit = self.session(who).expect("a session").audit();
            let books = |a: &Audit| {
                (a.session_allowance, a.growth_left, a.kept, a.queued, a.control, a.under_way, a.kept_bytes)
            };
            assert_eq!(books(&audit), books(&start), "{}", ROLES[who]);
        }
        let [client, agent] = [0, 1].map(|who| self.session(who).expect("a session").audit());
        assert!(client.session_credit <= agent.session_allowance && agent.session_credit <= client.session_allowance);
        self.parting = true;
        let says = [&[0][..], &[1], &[0, 1]][self.rng.random_range(0..3)];
        for who in says {
            if let Stage::Session(session) = &mut self.ends[*who].stage {
                self.model.say_bye(*who, session);
            }
        }
        let troubled = self.rng.random_ratio(1, 2);
        if troubled {
            self.trouble_for_a_while();
        }
        self.wait_until_up();
        let by = self.now + CALM;
        while !self.is_over() {
            assert!(self.now < by, "a farewell that never arrives");
            // With its acknowledgement lost, only the time that its sender waits ends the session there.
            let over = (0..2).all(|who| self.session(who).is_some_and(|session| session.is_over()));
            if self.model.byes_heard() && (over || troubled) {
                return;
            }
            self.run_until(self.now + 200 * MS);
        }
    }
}
