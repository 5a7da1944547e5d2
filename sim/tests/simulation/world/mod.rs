//! One schedule: both ends as they ship, the relay between them, and the trouble that befalls all.

mod ends;
mod finale;
mod heed;
mod registry;
mod relay;
mod totals;
mod trouble;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    time::Duration,
};

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Time,
    endpoint::{ConnectionId, Endpoint, Lost, PairingRedial, Status},
    pairing::{AgentPairing, ClientPairing},
    protocol::{Role, SessionId, Ticket, limits},
    session::Audit,
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};
use registry::Relay;
pub(crate) use totals::Totals;

use crate::{model::Model, net::Socket};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Once nothing is in the way any more, all is delivered within this: 20 s until silence is noticed, 10 s until the
/// next attempt, 10 s until a question is asked again, and some round trips.
const CALM: Duration = Duration::from_secs(90);
/// A socket's buffer takes so much.
const BACKLOG: Duration = Duration::from_millis(250);
/// The relay lets go of an end that is silent for so long.
const RELAY_PATIENCE: Duration = Duration::from_secs(45);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// A window is over when it is, or a look at the clock later.
const SLACK: Duration = Duration::from_secs(3);
/// The window of most schedules: longer than any trouble.
const DAYS: Duration = Duration::from_secs(10 * 24 * 3600);
const ROLES: [Role; 2] = [Role::Client, Role::Agent];

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
    DialFailed(usize, u32, Answer),
    Act(usize),
    Trouble,
    RelayUp,
    Wake(usize),
    /// An end is told that its network changed, and whether its connection is still routed.
    NetworkChanged(usize, bool),
}

/// Who answers a dial that fails: nobody, a login page, or a relay that does not take the ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    None,
    Portal,
    Refused,
}

enum Stage {
    Client(Box<ClientPairing>),
    Agent(Box<AgentPairing>),
    Session(Box<Endpoint>),
}

struct End {
    stage: Stage,
    socket: Option<u32>,
    /// What its endpoint calls that.
    id: ConnectionId,
    /// Sockets on their way, and what its endpoint calls them.
    dials: BTreeMap<u32, Option<ConnectionId>>,
    /// Of an end that is not paired yet.
    ticket: Ticket,
    redial: Option<PairingRedial>,
    asleep: bool,
    /// It was, once.
    slept: bool,
    sleeps_since: Time,
    deferred: Vec<Ev>,
    /// A write has failed, and its reader knows of nothing yet.
    failing: bool,
    /// Its network has changed since then: once the connection is gone it dials.
    owes_dial: bool,
    /// Its network has changed since it dialled last: once a dial stands that is looked at.
    kept_change: bool,
    /// When it last asked the relay for life.
    asked: Time,
    /// The connection it let go of last.
    former: Option<(u32, ConnectionId)>,
    start: Option<Audit>,
    forged: bool,
    /// Its endpoint has nothing more to do.
    over: bool,
    /// What its application was last told.
    status: Status,
    /// The newest ticket that reached it.
    received: u32,
    /// When a dial of its was last given up, or failed, and whether that explains the replacement at hand.
    given_up: Option<Time>,
    explained: bool,
    /// The code that ends its session.
    final_code: Option<u16>,
    /// Another connection is dialled beside one that may yet show life.
    on_trial: bool,
    /// Since when it has none, how often it has dialled since then, and whether the network told it to.
    outage: Option<Time>,
    dialled: u64,
    hurried: bool,
    /// The relay does not want it before that.
    not_before: Option<Time>,
    /// Its network is down until then.
    offline: Time,
    delay: Duration,
    rate: u64,
}

pub(crate) struct World {
    rng: StdRng,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Ev)>>,
    serial: u64,
    sockets: BTreeMap<u32, Socket>,
    next_socket: u32,
    relay: Relay,
    /// The relay is not there; a login page answers in its place until then.
    down: bool,
    portal_until: Time,
    /// The number of the ticket that a dial shows.
    shown: BTreeMap<u32, u32>,
    window: Duration,
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
    /// An end has ended, and neither has said farewell.
    ended: bool,
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
            id: ConnectionId::FIRST,
            dials: BTreeMap::new(),
            ticket: registry::ticket(0),
            redial: None,
            asleep: false,
            slept: false,
            sleeps_since: now,
            deferred: Vec::new(),
            failing: false,
            owes_dial: false,
            kept_change: false,
            asked: now,
            former: None,
            start: None,
            forged: false,
            over: false,
            status: Status::Up,
            received: 0,
            given_up: None,
            explained: false,
            final_code: None,
            on_trial: false,
            outage: None,
            dialled: 0,
            hurried: false,
            not_before: None,
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
        let short = [Duration::ZERO, 5 * SECOND, 60 * SECOND, 600 * SECOND][rng.random_range(0..4)];
        let window = if rng.random_ratio(1, 16) { short } else { DAYS };
        Self {
            rng,
            now,
            queue: BinaryHeap::new(),
            serial: 0,
            sockets: BTreeMap::new(),
            next_socket: 0,
            relay: Relay::default(),
            down: false,
            portal_until: now,
            shown: BTreeMap::new(),
            window,
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
            ended: false,
            early: false,
            parting: false,
            counted: Totals::default(),
        }
    }

    /// From the code to the farewell.
    pub(crate) fn run(mut self, totals: &mut Totals) {
        for who in 0..2 {
            self.redial(who);
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
            if self.rng.random_ratio(1, 4) {
                self.finale();
            } else {
                self.part();
            }
        }
        self.add_to(totals);
    }

    fn is_over(&self) -> bool {
        self.unpaired || self.ended
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

    fn random_delay(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.random_range(0..=most.as_micros() as u64))
    }

    fn next_timer(&self, who: usize) -> Option<Time> {
        let end = &self.ends[who];
        if end.asleep || end.over {
            return None;
        }
        let own = match &end.stage {
            Stage::Client(pairing) => pairing.poll_timeout(),
            Stage::Agent(pairing) => pairing.poll_timeout(),
            Stage::Session(endpoint) => endpoint.poll_timeout(),
        };
        let free = end.socket.and_then(|id| self.sockets.get(&id)).map(|socket| socket.up.free_at());
        let free = free.filter(|at| at.since(self.now) > BACKLOG);
        own.into_iter().chain(free).min().map(|at| at.max(self.now))
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
            Ev::Redial(who) | Ev::DialFailed(who, ..) | Ev::Act(who) | Ev::NetworkChanged(who, _) => Some(who),
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
                    self.lost(who, Lost::broken("reset"));
                    self.service(who);
                }
            }
            Ev::RelayLost(id) => self.relay_lost(id),
            Ev::Redial(who) => self.redial(who),
            Ev::Admit(who, id) => self.admit(who, id),
            Ev::DialFailed(who, id, answer) => self.dial_failed(who, id, answer),
            Ev::Act(who) => {
                let now = self.now;
                if let Stage::Session(endpoint) = &mut self.ends[who].stage {
                    self.model.act(who, endpoint.session_mut(), now, &mut self.rng);
                    Model::check_memory(endpoint.session());
                    self.service(who);
                }
            }
            Ev::Trouble => self.trouble(),
            Ev::RelayUp => self.down = false,
            Ev::Wake(who) => self.wake(who),
            Ev::NetworkChanged(who, routed) => self.network_changed(who, routed),
        }
    }

    /// Who sleeps has to wake, and a relay that is down comes back.
    fn wait_until_up(&mut self) {
        for end in &mut self.ends {
            end.offline = self.now;
        }
        self.portal_until = self.now;
        let sent_away = |end: &End, now: Time| end.not_before.is_some_and(|at| now < at);
        while (self.down || self.ends.iter().any(|end| end.asleep || sent_away(end, self.now))) && !self.is_over() {
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
                if let Stage::Session(endpoint) = &mut self.ends[who].stage {
                    self.model.read_all(who, endpoint.session_mut(), now, u64::MAX);
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
            if !self.ends[who].dials.is_empty() {
                return Err(format!("{who} still dials"));
            }
            assert!(self.ends[who].status.is_up(), "the application was not told");
        }
        if !self.relay.paired || !self.relay.strangers.is_empty() {
            return Err(format!("the relay knows: {}, {} wait", self.relay.paired, self.relay.strangers.len()));
        }
        self.model.settled()
    }
}
