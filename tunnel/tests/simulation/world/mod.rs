//! One schedule: the ends' drivers, the relay between them, and the trouble that befalls both.

mod ends;
mod relay;
mod trouble;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    time::Duration,
};

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Session, Time,
    pairing::{AgentPairing, ClientPairing},
    protocol::{Attempt, Role, SessionId, limits},
    session::Audit,
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

use crate::{model::Model, net::Socket};

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
        self.troubles.len() == TROUBLES.len() && rare.iter().all(|n| *n > 0) && self.unpaired < self.schedules / 10
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
        for (who, timer) in timers.into_iter().enumerate() {
            if timer.is_some_and(|timer| timer <= self.now) {
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
        for (who, role) in ROLES.into_iter().enumerate() {
            let start = self.ends[who].start.clone().expect("a session");
            let audit = self.session(who).expect("a session").audit();
            let books = |a: &Audit| {
                (a.session_allowance, a.growth_left, a.kept, a.queued, a.control, a.under_way, a.kept_bytes)
            };
            assert_eq!(books(&audit), books(&start), "{role}");
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
