//! The relay: all that it decides is `relay/core`'s. Here is what has sockets in the real one, and no more: which of them are
//! open, what was read before a socket had its place, and what is written to whom.

mod known;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use mykube_protocol::{
    Attempt, Claims, Class, FromAgent, FromRelay, Nameplate, Role, SessionId, Ticket, close, limits,
};
use mykube_relay_core::{
    address::AddressKey,
    defaults::{BUFFER, HANDSHAKE_TIMEOUT, SILENCE},
    frames::{Batch, Frames, NORMAL, Step, Stop, codec::HEADER_MAX},
    owner::Owner,
    quota::RequestQuota,
    registry::{Action, Count, CreateError, Created, Denied, Limits, NoSuchNameplate, Now, Registry, SocketId},
    silence::{Silent, Verdict},
    ticket::{TicketError, TicketKey},
    waiting::{Next, Waiting},
};
use mykube_tunnel::Time;
use rand::CryptoRng;

use crate::books::Books;

/// The Unix time at which a schedule begins.
const EPOCH: u64 = 1_700_000_000;

/// What the relay does of itself.
#[derive(Debug)]
pub(crate) enum Effect {
    Say(u32, FromRelay),
    /// A socket has its place.
    Joined(u32),
    /// What an agent has said is heard.
    Heard(FromAgent),
    Forward {
        from: u32,
        to: u32,
        frame: BytesMut,
    },
    Ping(u32),
    Pong(u32),
    Close(u32, u16, String),
    /// To be asked again then: [`Relay::ask_place`], [`Relay::listen`].
    Place(u32, Duration),
    Listen(u32, Duration),
}

/// Why a nameplate is not claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimError {
    /// Too many requests of that address; the next one is answered after this time.
    TooMany(Duration),
    NoSuchNameplate,
}

/// A socket whose upgrade was answered.
struct Socket {
    id: SocketId,
    claims: Claims,
    owner: Owner,
    frames: Frames,
    peer: Option<u32>,
    place: Place,
    /// When it last said something, since when it is listened to, and how long it has said nothing by then.
    heard: Time,
    listened: Time,
    silent: Silent,
}

enum Place {
    Taken {
        waiting: Waiting,
        /// Read, and not looked at yet.
        early: Vec<Vec<u8>>,
    },
    In {
        since: Duration,
    },
}

pub(crate) struct Relay {
    limits: Limits,
    registry: Registry,
    quota: RequestQuota,
    key: TicketKey,
    start: Instant,
    /// So much further are its clocks than the ends'.
    ahead: Duration,
    sockets: BTreeMap<u32, Socket>,
    numbers: BTreeMap<SocketId, u32>,
    /// Those that the registry has closed, and that have not ended yet.
    closing: BTreeMap<u32, SocketId>,
    /// Client, agent: when, by this clock, a socket last lost its place.
    left: [Duration; 2],
    effects: VecDeque<Effect>,
    starts: u32,
    books: Books,
    /// A session was made again for the socket that joins.
    readmitted: bool,
    /// It was stopped before either end had the ticket that says that this claim has paired: until it is told so again.
    unaware: Option<(Nameplate, Attempt)>,
    /// It has known of the pairing since it was started, or since neither end was there.
    aware: bool,
}

impl Relay {
    #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    pub(crate) fn new(limits: Limits, owner: Owner) -> Self {
        Self {
            registry: Registry::new(limits.clone()),
            limits,
            quota: RequestQuota::new(limits::API_REQUESTS_PER_MINUTE),
            key: TicketKey::new([1; 32].into()),
            start: Instant::now(),
            ahead: Duration::ZERO,
            sockets: BTreeMap::new(),
            numbers: BTreeMap::new(),
            closing: BTreeMap::new(),
            left: [Duration::ZERO; 2],
            effects: VecDeque::new(),
            starts: 1,
            books: Books::new(owner),
            readmitted: false,
            unaware: None,
            aware: false,
        }
    }

    /// Its own clock.
    pub(crate) fn clock(&self, at: Time) -> Duration {
        self.ahead + at.since(Time::default())
    }

    fn now(&self, at: Time) -> Now {
        let since = self.clock(at);
        Now { mono: self.start + since, unix: EPOCH + since.as_secs() }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn create(
        &mut self,
        at: Time,
        owner: Owner,
        rng: &mut impl CryptoRng,
    ) -> Result<(Created, Ticket), CreateError> {
        let created = self.registry.handle_create(self.now(at), owner, rng)?;
        let ticket = self.key.sign(&created.claims);
        Ok((created, ticket))
    }

    /// A code whose agent never comes.
    pub(crate) fn create_idle(&mut self, at: Time, owner: Owner, rng: &mut impl CryptoRng) -> Result<(), CreateError> {
        self.create(at, owner, rng)?;
        self.books.create_idle(self.clock(at), owner);
        Ok(())
    }

    pub(crate) fn claim(
        &mut self,
        at: Time,
        address: AddressKey,
        nameplate: &Nameplate,
        rng: &mut impl CryptoRng,
    ) -> Result<(SessionId, Attempt, Ticket), ClaimError> {
        let now = self.now(at);
        self.quota.handle_request(now.mono, address).map_err(ClaimError::TooMany)?;
        let claimed = self.registry.handle_claim(now, nameplate.as_str(), rng);
        let (attempt, claims) = claimed.map_err(|NoSuchNameplate| ClaimError::NoSuchNameplate)?;
        Ok((claims.session, attempt, self.key.sign(&claims)))
    }

    /// What a ticket says, if it admits to that end of that session.
    pub(crate) fn admit(
        &self,
        at: Time,
        ticket: &Ticket,
        session: SessionId,
        role: Role,
    ) -> Result<Claims, TicketError> {
        self.key.admit(ticket, self.now(at).unix, session, role)
    }

    /// A socket's upgrade is answered: it asks for its place.
    pub(crate) fn open(&mut self, at: Time, number: u32, mut claims: Claims, owner: Owner) {
        self.age(at, &mut claims);
        let id = self.registry.handle_arrival();
        let frames = Frames::new(claims.role, false, limits::FRAME_MAX, BUFFER);
        let place = Place::Taken { waiting: Waiting::default(), early: Vec::new() };
        let (heard, listened, silent) = (at, at, Silent::default());
        let socket = Socket { id, claims, owner, frames, peer: None, place, heard, listened, silent };
        self.sockets.insert(number, socket);
        self.numbers.insert(id, number);
        self.ask_place(at, number);
        if self.sockets.get(&number).is_some_and(|socket| matches!(socket.place, Place::Taken { .. })) {
            self.effects.push_back(Effect::Ping(number));
        }
    }

    /// Of a relay that is unaware of the pairing, the ends have the tickets that they paired with.
    fn age(&self, at: Time, claims: &mut Claims) {
        let Some((nameplate, attempt)) = &self.unaware else { return };
        if claims.class != Class::Session || self.knows_pairing() {
            return;
        }
        if claims.role == Role::Agent {
            claims.expires_at = self.now(at).unix + self.limits.code_ttl.as_secs();
            (claims.confirmed, claims.nameplate) = (None, Some(nameplate.clone()));
        } else if self.place_of(Role::Agent).is_some() {
            // A client that waits for its agent would not wait for long.
            (claims.confirmed, claims.class) = (None, Class::Pair(*attempt));
        }
    }

    fn becomes_aware(&mut self) {
        if self.knows_pairing() {
            (self.aware, self.unaware) = (true, None);
        }
    }

    /// A socket whose place another one has gets it when something was heard of it, and when it is time.
    pub(crate) fn ask_place(&mut self, at: Time, number: u32) {
        let (now, mono) = (self.now(at), self.start + at.since(Time::default()));
        loop {
            let Some(socket) = self.sockets.get_mut(&number) else { return };
            let Place::Taken { waiting, .. } = &mut socket.place else { return };
            match waiting.poll(mono) {
                Next::Join => {}
                Next::Wait(until) => return self.effects.push_back(Effect::Place(number, until - mono)),
                Next::GiveUp => return self.close(at, number, close::SILENT, ""),
            }
            let heard = waiting.heard();
            match self.registry.handle_join(now, socket.id, &socket.claims, socket.owner, heard) {
                Ok(()) => return self.joined(at, number),
                Err(Denied::Taken(wait)) => {
                    waiting.handle_taken(mono, wait, HANDSHAKE_TIMEOUT);
                    // Its ticket may have told the relay of the pairing.
                    self.act(at);
                    self.becomes_aware();
                }
                Err(Denied::Refused((code, reason))) => {
                    self.act(at);
                    return self.close(at, number, code, reason);
                }
            }
        }
    }

    /// A socket has its place: what was read before is heard now.
    fn joined(&mut self, at: Time, number: u32) {
        let since = self.clock(at);
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        let Place::Taken { waiting, early } = std::mem::replace(&mut socket.place, Place::In { since }) else { return };
        (socket.heard, socket.listened) = (at, at);
        let (role, owner, look) = (socket.claims.role, socket.owner, socket.silent.wait(SILENCE));
        self.effects.extend([Effect::Joined(number), Effect::Listen(number, look)]);
        self.act(at);
        if std::mem::take(&mut self.readmitted) {
            self.books.readmit(owner);
        }
        if role == Role::Agent && self.knows_pairing() {
            self.books.charge(owner, &self.limits);
        }
        self.becomes_aware();
        let replaces = self.effects().any(|effect| matches!(effect, Effect::Close(_, close::REPLACED, _)));
        assert!(waiting.heard() || !replaces, "nobody is there, and takes another's place");
        for bytes in early {
            self.hear(at, number, &bytes);
        }
    }

    /// A whole frame was read.
    pub(crate) fn hear(&mut self, at: Time, number: u32, bytes: &[u8]) {
        let now = self.now(at);
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        socket.heard = at;
        if let Place::Taken { waiting, early } = &mut socket.place {
            waiting.handle_heard();
            early.push(bytes.to_vec());
            return self.ask_place(at, number);
        }
        let mut batch = Batch::new(vec![0; bytes.len() + HEADER_MAX]);
        match socket.frames.next(socket.peer.is_some(), &mut batch, bytes) {
            Ok(Step::Taken(taken)) => {
                assert_eq!(taken, bytes.len(), "whole frames arrive");
                let payload = usize::try_from(batch.payload).expect("it is in memory");
                if let (Some(to), 1..) = (socket.peer, batch.len) {
                    let frame = BytesMut::from(&batch.buf[batch.len - payload..batch.len]);
                    self.effects.push_back(Effect::Forward { from: number, to, frame });
                }
            }
            Ok(Step::Text(text, _)) => {
                self.registry.handle_text(now, socket.id, text);
                self.effects.push_back(Effect::Heard(text));
                self.act(at);
                self.becomes_aware();
            }
            Ok(Step::Ping(..)) => self.effects.push_back(Effect::Pong(number)),
            Ok(Step::Partial) => panic!("whole frames arrive"),
            Err(Stop::Closed(code)) => {
                self.leave(at, number, code == NORMAL);
                self.effects.push_back(Effect::Close(number, code, String::new()));
            }
            Err(Stop::Violation(code, reason)) => panic!("an end breaks the protocol: {code} {reason}"),
        }
    }

    /// A look at a socket that may have said nothing.
    pub(crate) fn listen(&mut self, at: Time, number: u32) {
        let Some(socket) = self.sockets.get_mut(&number) else { return };
        if socket.heard > socket.listened {
            (socket.listened, socket.silent) = (socket.heard, Silent::default());
            let due = socket.heard + socket.silent.wait(SILENCE);
            return self.effects.push_back(Effect::Listen(number, due.since(at)));
        }
        match socket.silent.handle_timeout(SILENCE) {
            Verdict::Ping => {
                let again = socket.silent.wait(SILENCE);
                self.effects.extend([Effect::Ping(number), Effect::Listen(number, again)]);
            }
            Verdict::GiveUp => self.close(at, number, close::SILENT, ""),
        }
    }

    /// Closes a socket, and hears nothing more of it.
    pub(crate) fn close(&mut self, at: Time, number: u32, code: u16, reason: &str) {
        if self.sockets.contains_key(&number) {
            self.effects.push_back(Effect::Close(number, code, reason.to_owned()));
            self.leave(at, number, false);
        }
    }

    /// A socket ended.
    pub(crate) fn leave(&mut self, at: Time, number: u32, clean: bool) {
        if let Some(socket) = self.sockets.remove(&number) {
            self.loses_place(at, &socket);
            // It keeps nothing of a session that neither end is at.
            self.aware &= [Role::Client, Role::Agent].into_iter().any(|role| self.place_of(role).is_some());
            self.registry.handle_leave(self.now(at), socket.id, clean);
            self.numbers.remove(&socket.id);
            self.act(at);
        }
    }

    /// Whether a socket has its place.
    pub(crate) fn has_place(&self, number: u32) -> bool {
        self.sockets.get(&number).is_some_and(|socket| matches!(socket.place, Place::In { .. }))
    }

    /// A socket that the registry has closed ended by now, however it did.
    pub(crate) fn ended(&mut self, at: Time, number: u32, clean: bool) {
        if let Some(id) = self.closing.remove(&number) {
            self.registry.handle_leave(self.now(at), id, clean);
            self.act(at);
        }
    }

    fn loses_place(&mut self, at: Time, socket: &Socket) {
        if let Place::In { .. } = socket.place {
            self.left[index(socket.claims.role)] = self.clock(at);
        }
    }

    pub(crate) fn tick(&mut self, at: Time) {
        let now = self.now(at);
        self.registry.handle_tick(now);
        self.quota.handle_tick(now.mono);
        self.books.tick(self.clock(at));
        self.act(at);
    }

    /// So much time passes here at once.
    pub(crate) fn pass(&mut self, at: Time, time: Duration) {
        self.ahead += time;
        self.starts += 1;
        self.tick(at);
    }

    /// It is started again: all that it knows is its key. `unaware`: and what has paired, neither end has a ticket that says so.
    pub(crate) fn restart(&mut self, at: Time, unaware: Option<(Nameplate, Attempt)>) {
        (self.aware, self.unaware) = (false, unaware);
        self.books.restart();
        self.registry = Registry::new(self.limits.clone());
        self.quota = RequestQuota::new(limits::API_REQUESTS_PER_MINUTE);
        (self.sockets, self.numbers, self.closing) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.left = [self.clock(at); 2];
        self.effects.clear();
        self.starts += 1;
    }

    /// It is set up anew: no ticket that was made before is taken.
    pub(crate) fn forget_key(&mut self) {
        self.key = TicketKey::new([2; 32].into());
    }

    /// Does what the registry says, as the real one's hub.
    fn act(&mut self, at: Time) {
        while let Some(action) = self.registry.poll_action() {
            match action {
                Action::Send(id, text) => self.say(id, text),
                Action::SendTicket(id, claims) => self.say(id, FromRelay::Ticket(self.key.sign(&claims))),
                Action::Close(id, code, reason) => {
                    if let Some(number) = self.numbers.remove(&id) {
                        let socket = self.sockets.remove(&number).expect("it is open");
                        self.loses_place(at, &socket);
                        self.closing.insert(number, id);
                        self.effects.push_back(Effect::Close(number, code, reason.to_owned()));
                    }
                }
                Action::Link(one, other) => {
                    let (one, other) = (self.numbers[&one], self.numbers[&other]);
                    self.set_peer(one, Some(other));
                    self.set_peer(other, Some(one));
                }
                Action::Unlink(id) => {
                    if let Some(number) = self.numbers.get(&id) {
                        self.set_peer(*number, None);
                    }
                }
                Action::Count(count) => self.readmitted |= count == Count::Readmitted,
                Action::SendPaired(_) => panic!("nobody speaks the legacy form"),
            }
        }
    }

    fn say(&mut self, id: SocketId, text: FromRelay) {
        let number = self.numbers.get(&id).expect("the registry speaks to sockets that are there");
        self.effects.push_back(Effect::Say(*number, text));
    }

    fn set_peer(&mut self, number: u32, peer: Option<u32>) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.peer = peer;
        }
    }
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Agent)
}
