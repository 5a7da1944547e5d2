//! One schedule: both ends as they ship, the relay between them, and the trouble that befalls all.

mod ends;
mod finale;
mod heed;
mod relay;
mod start;
mod stranger;
mod strangers;
mod totals;
mod trouble;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    fmt,
    time::Duration,
};

use bytes::BytesMut;
use mykube_protocol::{Attempt, Nameplate, Role, SessionId, Ticket};
use mykube_relay_core::owner::Owner;
use mykube_tunnel::{
    Config, Time,
    endpoint::{ConnectionId, Endpoint, Lost, PairingReconnect, PeerStatus},
    pairing::{AgentPairing, ClientPairing},
    session::Audit,
};
use rand::{RngExt as _, rngs::StdRng};
use stranger::Stranger;
pub(crate) use totals::Totals;

use crate::{
    model::Model,
    net::{Item, Socket},
    relay::Relay,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Once nothing is in the way any more, all is delivered within this: 20 s until silence is noticed, 10 s until the
/// next attempt, 10 s until a question is asked again, and some round trips.
const CALM: Duration = Duration::from_secs(90);
/// A socket's buffer takes so much.
const BACKLOG: Duration = Duration::from_millis(250);
/// How often the relay looks at the time. The real one does every half second, and nothing here is as exact.
const TICK: Duration = Duration::from_secs(10);
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
    /// A socket that the relay has closed is gone.
    RelayEnded(u32),
    /// An end dials; the relay admits it; it does not.
    Reconnect(usize),
    Admit(usize, u32),
    DialFailed(usize, u32, Answer),
    Act(usize),
    Trouble,
    Restart,
    RelayUp,
    /// The relay looks at the time, at a socket that waits for its place, and at one that may say nothing any more.
    Tick,
    Place(u32),
    Listen(u32),
    /// A stranger claims the code.
    Claim(usize),
    /// An address asks too often, and then again; an owner that had too many sessions makes one.
    AskMuch(u32, u32),
    AskAgain(u32),
    CreateAgain(u32),
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
    /// The newest ticket that has reached it.
    ticket: Ticket,
    /// The one it paired with.
    first_ticket: Ticket,
    /// Until when, by the relay's clock, it has had its tickets.
    renewed: Option<Duration>,
    /// Who is charged for its session.
    owner: Owner,
    reconnect: Option<PairingReconnect>,
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
    status: PeerStatus,
    /// The relay had a reason to refuse its ticket.
    refused: bool,
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

/// A ticket, and until when its end had had its tickets when it dialled.
struct Shown {
    ticket: Ticket,
    renewed: Option<Duration>,
}

pub(crate) struct World {
    rng: StdRng,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Ev)>>,
    serial: u64,
    sockets: BTreeMap<u32, Socket>,
    next_socket: u32,
    relay: Relay,
    /// It was set up anew: no ticket that was made before is taken.
    forgotten: bool,
    /// The relay is not there; a login page answers in its place until then.
    down: bool,
    portal_until: Time,
    /// What a dial shows.
    shown: BTreeMap<u32, Shown>,
    session: SessionId,
    nameplate: Nameplate,
    /// The client's claim, and the one that the agent has paired.
    attempt: Attempt,
    paired: Option<Attempt>,
    window: Duration,
    ends: [End; 2],
    strangers: Vec<Stranger>,
    /// Addresses that were nobody's before.
    next_address: u32,
    /// Attempts that the relay has made up, and the agent has not refused yet.
    lies: BTreeSet<Attempt>,
    /// The last owner that had too many sessions.
    crowd: u32,
    crowd_owner: Option<Owner>,
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
    /// The word by which the relay was made to end a session.
    last_word: Option<u16>,
    /// An end has ended, and neither has said farewell.
    ended: bool,
    /// It is the handshake that is troubled.
    early: bool,
    /// The applications are through.
    parting: bool,
    counted: Totals,
}

impl World {
    /// From the code to the farewell.
    pub(crate) fn run(mut self, totals: &mut Totals) {
        self.schedule(TICK, Ev::Tick);
        for who in 0..2 {
            self.reconnect(who);
        }
        if self.rng.random_ratio(1, 20) {
            self.race();
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
        // Without a window the first trouble is mostly the end.
        let spared = self.window.is_zero() && self.rng.random_ratio(1, 2);
        for _ in 0..self.rng.random_range(1..4) {
            if self.is_over() {
                break;
            }
            if !spared {
                self.trouble_for_a_while();
            }
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
        let strangers = self.strangers.iter().filter_map(Stranger::due).min();
        let timer = timers.into_iter().flatten().chain(strangers).min();
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
        if strangers.is_some_and(|timer| timer <= self.now) {
            (0..self.strangers.len()).for_each(|stranger| self.service_stranger(stranger + 2));
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
            Ev::Reconnect(who) | Ev::DialFailed(who, ..) | Ev::Act(who) | Ev::NetworkChanged(who, _) => Some(who),
            _ => None,
        };
        if let Some(who) = who.filter(|who| self.ends.get(*who).is_some_and(|end| end.asleep)) {
            self.ends[who].deferred.push(ev);
            return;
        }
        match ev {
            Ev::Arrive(id, up) => {
                let Some(socket) = self.sockets.get_mut(&id) else { return };
                let who = socket.who;
                let Some(item) = socket.pipe(up).pop(self.now) else { return };
                match (item, who) {
                    (Item::Up(bytes), _) => self.relay_hears(id, &bytes),
                    (item, 0 | 1) => self.end_hears(id, who, item),
                    (item, _) => self.stranger_hears(id, who, item),
                }
            }
            Ev::EndLost(id) => {
                if let Some(who) = self.sockets.get(&id).map(|socket| socket.who)
                    && self.ends.get(who).is_some_and(|end| end.socket == Some(id))
                {
                    self.lost(who, Lost::broken("reset"));
                    self.service(who);
                }
            }
            Ev::RelayLost(id) => self.relay_lost(id),
            Ev::RelayEnded(id) => {
                let clean = self.rng.random_ratio(1, 2);
                self.relay.ended(self.now, id, clean);
                self.relay_acts();
            }
            Ev::Reconnect(who) => self.reconnect(who),
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
            Ev::Restart => self.restart_relay(),
            Ev::RelayUp => self.down = false,
            Ev::Tick => self.relay_ticks(),
            Ev::Place(id) => self.relay_asked(id, |relay, now| relay.ask_place(now, id)),
            Ev::Listen(id) => self.relay_asked(id, |relay, now| relay.listen(now, id)),
            Ev::Claim(who) => self.claim(who),
            Ev::AskMuch(n, starts) => self.ask_much(n, starts),
            Ev::AskAgain(n) => self.ask_again(n),
            Ev::CreateAgain(n) => self.create_again(n),
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
        if !self.relay.knows_pairing() || !self.lies.is_empty() {
            return Err(format!("the relay knows: {}, {} wait", self.relay.knows_pairing(), self.lies.len()));
        }
        if let Some(stranger) = self.strangers.iter().find(|stranger| stranger.fate.is_none()) {
            return Err(format!("a stranger is still there: {:?}", stranger.due()));
        }
        self.model.settled()
    }
}
