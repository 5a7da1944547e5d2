//! Sessions, nameplates and who may open which socket. A pure state machine: time and randomness are arguments.
//!
//! Call a `handle_*` method, then [`Registry::poll_action`] until it gives nothing: the actions, in this order, are
//! what the sockets must be told. A socket that ends for whatever reason is reported by [`Registry::handle_leave`], also
//! after the registry itself asked for its end; more than once changes nothing.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use mykube_protocol::{
    Attempt, Claims, Class, FromAgent, FromRelay, Nameplate, Role, SessionId, close,
    control::Peer,
    limits::{REPLACE_INTERVAL, SESSION_TICKET_RENEWALS},
};
use rand::CryptoRng;

mod disclosed;
mod expiry;
mod nameplates;
mod plain;
mod published;
mod readmit;
#[cfg(test)]
mod tests;

use disclosed::Disclosed;
use nameplates::Nameplates;
pub(crate) use plain::PlainError;

use crate::address::{AddressKey, Network};

/// After a code's time is over: what a handshake that began in time may still take.
const CODE_GRACE: Duration = Duration::from_secs(15);
/// How long a waiting session stays without its agent's socket: a redial, but not the rest of the code's time.
const AGENT_GRACE: Duration = Duration::from_secs(30);

/// The time, on both clocks: one never jumps, the other is what tickets carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Never goes back.
    pub(crate) mono: Instant,
    /// Seconds since the Unix epoch.
    pub(crate) unix: u64,
}

/// Limits and times; all of them are settings of the relay.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a code waits.
    pub code_ttl: Duration,
    /// How long a claim may take to open its socket.
    pub pair_ticket_ttl: Duration,
    /// How long a session ticket lives; renewed in band several times in it.
    pub ticket_ttl: Duration,
    /// How long one end waits for the other to come back.
    pub session_grace: Duration,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions an address.
    pub sessions_per_address: usize,
    /// Sessions an address that wait to be paired: nobody lengthens everyone's codes alone.
    pub waiting_per_address: usize,
    /// How long a plain-form code waits.
    pub plain_ttl: Duration,
    /// Pair requests a plain-form code.
    pub plain_attempts: u32,
}

/// One WebSocket, as the registry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SocketId(u64);

/// What the sockets must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this text frame.
    Send(SocketId, FromRelay),
    /// Plain form: send the text `paired`.
    SendPaired(SocketId),
    /// Sign these claims and send them as `ticket:`.
    SendTicket(SocketId, Claims),
    /// Send a close frame with this code and reason, and end. The socket has no peer from now on.
    Close(SocketId, u16, &'static str),
    /// Forward between these two from now on. What the newcomer is told about it comes before, so that no frame does;
    /// what the one that stays is told comes after, so that its answer finds the newcomer.
    Link(SocketId, SocketId),
    /// This socket has no peer any more.
    Unlink(SocketId),
    /// Count this.
    Count(Count),
}

/// What is worth a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// A client was confirmed.
    Paired,
    /// A client was refused.
    Refused,
    /// A code was burned.
    Burned,
    /// A newer socket took an older one's place.
    Replaced,
    /// An end of a paired session came back.
    Returned,
    /// A session was made again from a ticket.
    Readmitted,
}

/// Why no session is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CreateError {
    /// This address has too many.
    #[error("too many sessions from this address: end one, or wait for a code to expire")]
    Address,
    /// All are taken.
    #[error("this relay is full: try again later")]
    Full,
}

/// No waiting session has this nameplate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no session waits under this code: it may be mistyped, expired or used already; ask for a new one")]
pub(crate) struct NoSuchNameplate;

/// A close code and its reason.
pub(crate) type Refusal = (u16, &'static str);

/// Why a socket does not get its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It never will.
    Refused(Refusal),
    /// Another socket of this end has it. Ask again after this time, when something was heard from the new one.
    Taken(Duration),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A new session.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    /// Its nameplate.
    pub(crate) nameplate: Nameplate,
    /// The agent's ticket.
    pub(crate) claims: Claims,
    /// When the code ends, in seconds since the Unix epoch.
    pub(crate) expires_at: u64,
}

/// Sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Not paired yet.
    pub(crate) waiting: usize,
    /// Paired, both ends are here.
    pub(crate) paired: usize,
    /// Paired, one end is away.
    pub(crate) away: usize,
    /// Plain form.
    pub(crate) plain: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    limits: Limits,
    sessions: HashMap<SessionId, Session>,
    sockets: HashMap<SocketId, (SessionId, Role)>,
    nameplates: Nameplates,
    plain: plain::Plain,
    owners: HashMap<Network, Owned>,
    deadlines: BTreeSet<(Instant, SessionId)>,
    disclosed: Disclosed,
    actions: VecDeque<Action>,
    next_socket: u64,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Owned {
    waiting: usize,
    all: usize,
}

#[derive(Debug)]
struct Session {
    owner: AddressKey,
    state: State,
    agent: Slot,
    client: Slot,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// Waits for its client. The nameplate is free again once the code's time is over.
    Waiting { nameplate: Option<Nameplate>, code_ends: Instant, agent_until: Option<Instant> },
    /// The code is spent; the agent's socket may linger.
    Burned { until: Instant },
    /// The ends know each other; `attempt` is the one that was confirmed.
    Paired { attempt: Option<Attempt>, renew_at: Instant, half_until: Option<Instant> },
}

#[derive(Debug, Default)]
struct Slot {
    socket: Option<Socket>,
    replaced: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Socket {
    id: SocketId,
    class: Class,
}

impl Registry {
    /// An empty registry.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            sockets: HashMap::new(),
            nameplates: Nameplates::default(),
            plain: plain::Plain::default(),
            owners: HashMap::new(),
            deadlines: BTreeSet::new(),
            disclosed: Disclosed::default(),
            actions: VecDeque::new(),
            next_socket: 0,
            waiting: 0,
        }
    }

    /// The next thing to do, in order.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sessions by state.
    pub(crate) fn counts(&self) -> Counts {
        let paired = self.sessions.values().filter(|session| matches!(session.state, State::Paired { .. }));
        let (here, away): (Vec<_>, Vec<_>) = paired.partition(|session| session.is_whole());
        Counts { waiting: self.waiting, paired: here.len(), away: away.len(), plain: self.plain.len() }
    }

    /// A session asks for a nameplate.
    ///
    /// # Errors
    /// A limit is reached.
    pub(crate) fn handle_create(
        &mut self,
        now: Now,
        owner: AddressKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Created, CreateError> {
        self.admit(owner, true)?;
        let nameplate = self.nameplates.draw(rng, |digits| self.plain.has_prefix(digits)).ok_or(CreateError::Full)?;
        let id = SessionId::random(rng);
        self.nameplates.take(nameplate.clone(), id);
        let state = State::Waiting {
            nameplate: Some(nameplate.clone()),
            code_ends: now.mono + self.limits.code_ttl,
            agent_until: Some(now.mono + AGENT_GRACE),
        };
        self.insert(id, owner, state);
        let expires_at = now.unix + self.limits.code_ttl.as_secs();
        let claims = Claims {
            session: id,
            role: Role::Agent,
            class: Class::Session,
            confirmed: None,
            nameplate: Some(nameplate.clone()),
            expires_at: expires_at + CODE_GRACE.as_secs(),
        };
        Ok(Created { nameplate, claims, expires_at })
    }

    /// A client claims a nameplate: the claims of its ticket. The nameplate stays until a pairing is confirmed.
    ///
    /// # Errors
    /// Nobody waits under it.
    pub(crate) fn handle_claim(
        &mut self,
        now: Now,
        nameplate: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<(Attempt, Claims), NoSuchNameplate> {
        let nameplate: Nameplate = nameplate.parse().map_err(|_| NoSuchNameplate)?;
        let session = self.nameplates.get(&nameplate).ok_or(NoSuchNameplate)?;
        let attempt = Attempt::random(rng);
        let expires_at = now.unix + self.limits.pair_ticket_ttl.as_secs();
        let class = Class::Pair(attempt);
        let claims = Claims { session, role: Role::Client, class, confirmed: None, nameplate: None, expires_at };
        Ok((attempt, claims))
    }

    /// A socket has come: its number. A later one replaces an earlier one, never the other way round.
    pub(crate) fn handle_arrival(&mut self) -> SocketId {
        self.next_socket += 1;
        SocketId(self.next_socket)
    }

    /// A socket that arrived shows a valid ticket. `heard`: there is still somebody behind it.
    ///
    /// # Errors
    /// It does not get its place, or not yet.
    pub(crate) fn handle_join(
        &mut self,
        now: Now,
        socket: SocketId,
        claims: &Claims,
        owner: AddressKey,
        heard: bool,
    ) -> Result<(), Denied> {
        let (id, role) = (claims.session, claims.role);
        if self.disclosed.contains(id) {
            return Err(Denied::Refused((close::UPGRADE, "mykube 2 clients only")));
        }
        let readmitted = !self.sessions.contains_key(&id);
        if readmitted {
            self.readmit(now, claims, owner)?;
        } else {
            self.reconcile(now, claims)?;
        }
        let session = self.sessions.get_mut(&id).ok_or((close::NO_SESSION, "no such session"))?;
        let class = match (&session.state, claims.class) {
            (State::Paired { attempt, .. }, Class::Pair(of)) if *attempt == Some(of) => Class::Session,
            (State::Waiting { .. }, class) | (State::Paired { .. }, class @ Class::Session) => class,
            (State::Burned { .. }, class @ Class::Session) if role == Role::Agent => class,
            _ => return Err(Denied::Refused((close::NO_SESSION, "this code is spent: a new code is needed"))),
        };
        let paired = matches!(session.state, State::Paired { .. });
        let slot = session.slot_mut(role);
        if let Some(old) = slot.socket {
            if old.id > socket || rank(old.class) > rank(class) {
                return Err(Denied::Refused((close::REPLACED, "a newer connection took over")));
            }
            let next = slot.replaced.map_or(now.mono, |at| at + REPLACE_INTERVAL);
            let wait = next.saturating_duration_since(now.mono);
            if !heard || !wait.is_zero() {
                return Err(Denied::Taken(wait));
            }
            slot.replaced = Some(now.mono);
        }
        let old = slot.socket.replace(Socket { id: socket, class });
        self.sockets.insert(socket, (id, role));
        if let Some(old) = old {
            self.sockets.remove(&old.id);
            self.actions.push_back(Action::Close(old.id, close::REPLACED, "a newer connection took over"));
            self.actions.push_back(Action::Count(Count::Replaced));
        } else if readmitted {
            self.actions.push_back(Action::Count(Count::Readmitted));
        } else if paired {
            self.actions.push_back(Action::Count(Count::Returned));
        }
        if paired && role == Role::Agent {
            self.charge(id, owner);
        }
        self.link(now, id, role);
        self.schedule(id);
        Ok(())
    }

    /// The agent said something to the relay: whether anything came of it.
    pub(crate) fn handle_text(&mut self, now: Now, socket: SocketId, text: FromAgent) -> bool {
        let Some(&(id, Role::Agent)) = self.sockets.get(&socket) else { return false };
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let State::Waiting { .. } = session.state else { return false };
        let live = session.client.socket.filter(|client| match text {
            FromAgent::Paired(attempt) | FromAgent::Refused(attempt) => client.class == Class::Pair(attempt),
            FromAgent::Burned => true,
        });
        match (text, live) {
            (FromAgent::Paired(attempt), Some(client)) => {
                session.client.socket = Some(Socket { id: client.id, class: Class::Session });
                self.set_paired(now, id, Some(attempt));
                self.send_ticket(now, id, Role::Client);
                self.send_ticket(now, id, Role::Agent);
                self.actions.push_back(Action::Count(Count::Paired));
            }
            (FromAgent::Refused(_), Some(client)) => {
                self.close(client.id, close::REFUSED, "refused: wrong code");
                self.actions.push_back(Action::Count(Count::Refused));
            }
            (FromAgent::Burned, client) => {
                if let Some(client) = client {
                    self.close(client.id, close::REFUSED, "refused: this code is spent");
                }
                self.set_burned(now, id);
                self.actions.push_back(Action::Count(Count::Burned));
            }
            (_, None) => return false,
        }
        self.schedule(id);
        true
    }

    /// A socket ended. `clean`: its end said goodbye (close code 1000).
    pub(crate) fn handle_leave(&mut self, now: Now, socket: SocketId, clean: bool) {
        let Some((id, role)) = self.sockets.remove(&socket) else { return };
        if self.plain.contains(id) {
            self.leave_plain(id, role);
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(left) = session.slot_mut(role).socket.take() else { return };
        let peer = session.slot_mut(role.peer()).socket;
        let whom = session.peer_name(Some(left.class));
        let over = match &mut session.state {
            State::Waiting { agent_until, .. } => {
                *agent_until = (role == Role::Agent).then(|| now.mono + AGENT_GRACE).or(*agent_until);
                role == Role::Agent && clean
            }
            State::Burned { .. } => role == Role::Agent,
            State::Paired { half_until, .. } => {
                *half_until = Some(now.mono + self.limits.session_grace);
                peer.is_none()
            }
        };
        self.actions.push_back(Action::Unlink(socket));
        if let Some(peer) = peer {
            self.actions.push_back(Action::Unlink(peer.id));
            self.actions.push_back(Action::Send(peer.id, FromRelay::PeerGone(whom)));
        }
        if over {
            self.end(id, close::NO_SESSION, "the other end is gone");
        } else {
            self.schedule(id);
        }
    }

    /// The newcomer has its place: both are told, and linked. See [`Action::Link`] for the order.
    fn link(&mut self, now: Now, id: SessionId, newcomer: Role) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let whole = session.is_whole();
        match &mut session.state {
            State::Waiting { agent_until, .. } => {
                if session.agent.socket.is_some() {
                    *agent_until = None;
                }
            }
            State::Paired { half_until, .. } => {
                if whole {
                    *half_until = None;
                }
            }
            State::Burned { .. } => return,
        }
        let paired = matches!(session.state, State::Paired { .. });
        let here = FromRelay::PeerHere(session.peer_name(None));
        let both = session.agent.socket.zip(session.client.socket).map(|(agent, client)| match newcomer {
            Role::Agent => (agent.id, client.id, Action::Link(agent.id, client.id)),
            Role::Client => (client.id, agent.id, Action::Link(agent.id, client.id)),
        });
        if let Some((newcomer, ..)) = both {
            self.actions.push_back(Action::Send(newcomer, here.clone()));
        }
        if paired {
            self.send_ticket(now, id, newcomer);
        }
        if let Some((_, stays, link)) = both {
            self.actions.push_back(link);
            self.actions.push_back(Action::Send(stays, here));
        }
    }

    fn send_ticket(&mut self, now: Now, id: SessionId, role: Role) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let confirmed = match session.state {
            State::Paired { attempt, .. } => attempt,
            State::Waiting { .. } | State::Burned { .. } => None,
        };
        let Some(socket) = session.slot_mut(role).socket else { return };
        let expires_at = now.unix + self.limits.ticket_ttl.as_secs();
        let claims = Claims { session: id, role, class: Class::Session, confirmed, nameplate: None, expires_at };
        self.actions.push_back(Action::SendTicket(socket.id, claims));
    }

    /// Closes a live socket and forgets it; its peer is not told.
    fn close(&mut self, socket: SocketId, code: u16, reason: &'static str) {
        if let Some((id, role)) = self.sockets.remove(&socket)
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.slot_mut(role).socket = None;
            if let Some(peer) = session.slot_mut(role.peer()).socket {
                self.actions.push_back(Action::Unlink(peer.id));
            }
        }
        self.actions.push_back(Action::Close(socket, code, reason));
    }

    fn paired_state(&self, now: Now, attempt: Option<Attempt>) -> State {
        State::Paired {
            attempt,
            renew_at: now.mono + self.limits.renewal(),
            half_until: Some(now.mono + self.limits.session_grace),
        }
    }

    fn set_paired(&mut self, now: Now, id: SessionId, attempt: Option<Attempt>) {
        let mut state = self.paired_state(now, attempt);
        if let (Some(session), State::Paired { half_until, .. }) = (self.sessions.get(&id), &mut state)
            && session.is_whole()
        {
            *half_until = None;
        }
        self.stop_waiting(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = state;
        }
    }

    fn set_burned(&mut self, now: Now, id: SessionId) {
        self.stop_waiting(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.state = State::Burned { until: now.mono + self.limits.code_ttl };
        }
    }

    /// Frees the nameplate and the place among the waiting; the caller sets the next state or removes the session.
    fn stop_waiting(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let State::Waiting { nameplate, .. } = &mut session.state else { return };
        if let Some(nameplate) = nameplate.take() {
            self.nameplates.free(&nameplate);
        }
        self.waiting -= 1;
        for (network, _) in session.owner.networks() {
            if let Some(owned) = self.owners.get_mut(&network) {
                owned.waiting -= 1;
            }
        }
    }

    fn admit(&self, owner: AddressKey, waiting: bool) -> Result<(), CreateError> {
        if self.sessions.len() + self.plain.len() >= self.limits.sessions {
            return Err(CreateError::Full);
        }
        let waiting_max = if waiting { self.limits.waiting_per_address } else { usize::MAX };
        let room =
            self.has_room(owner, |owned| [(owned.all, self.limits.sessions_per_address), (owned.waiting, waiting_max)]);
        if room { Ok(()) } else { Err(CreateError::Address) }
    }

    /// Whether none of the networks an address is charged to has as much of anything as it may.
    fn has_room<const N: usize>(&self, owner: AddressKey, of: impl Fn(&Owned) -> [(usize, usize); N]) -> bool {
        let nothing = Owned::default();
        owner.networks().all(|(network, times)| {
            let owned = self.owners.get(&network).unwrap_or(&nothing);
            of(owned).iter().all(|(has, limit)| *has < limit.saturating_mul(times))
        })
    }

    /// After a restart whoever comes first is charged for a session; in the end its agent is, as at the beginning.
    fn charge(&mut self, id: SessionId, owner: AddressKey) {
        let room = self.has_room(owner, |owned| [(owned.all, self.limits.sessions_per_address)]);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.owner == owner || !room {
            return;
        }
        let before = std::mem::replace(&mut session.owner, owner);
        for (network, _) in owner.networks() {
            self.owners.entry(network).or_default().all += 1;
        }
        self.discharge(before);
    }

    fn discharge(&mut self, owner: AddressKey) {
        for (network, _) in owner.networks() {
            if let Some(owned) = self.owners.get_mut(&network) {
                owned.all -= 1;
                if owned.all == 0 {
                    self.owners.remove(&network);
                }
            }
        }
    }

    fn insert(&mut self, id: SessionId, owner: AddressKey, state: State) {
        let waiting = usize::from(matches!(state, State::Waiting { .. }));
        for (network, _) in owner.networks() {
            let owned = self.owners.entry(network).or_default();
            owned.all += 1;
            owned.waiting += waiting;
        }
        self.waiting += waiting;
        let session = Session { owner, state, agent: Slot::default(), client: Slot::default(), deadline: None };
        self.sessions.insert(id, session);
        self.schedule(id);
    }

    /// Ends a session: what sockets it has are closed.
    fn end(&mut self, id: SessionId, code: u16, reason: &'static str) {
        self.stop_waiting(id);
        let Some(session) = self.sessions.remove(&id) else { return };
        if let Some(at) = session.deadline {
            self.deadlines.remove(&(at, id));
        }
        for socket in [session.agent.socket, session.client.socket].into_iter().flatten() {
            self.sockets.remove(&socket.id);
            self.actions.push_back(Action::Close(socket.id, code, reason));
        }
        self.discharge(session.owner);
    }
}

impl Limits {
    /// How often session tickets are renewed.
    fn renewal(&self) -> Duration {
        self.ticket_ttl / SESSION_TICKET_RENEWALS
    }
}

impl Session {
    fn slot_mut(&mut self, role: Role) -> &mut Slot {
        match role {
            Role::Agent => &mut self.agent,
            Role::Client => &mut self.client,
        }
    }

    fn is_whole(&self) -> bool {
        self.agent.socket.is_some() && self.client.socket.is_some()
    }

    /// How `peer:` frames name the ends: by attempt until the session is paired. `left` is the class of a socket
    /// that is no longer in its slot.
    fn peer_name(&self, left: Option<Class>) -> Peer {
        let client = self.client.socket.map(|socket| socket.class);
        match (&self.state, client.or(left)) {
            (State::Waiting { .. }, Some(Class::Pair(attempt))) => Peer::Attempt(attempt),
            _ => Peer::Session,
        }
    }
}

/// A socket is replaced by one of the same or a higher rank.
const fn rank(class: Class) -> u8 {
    match class {
        Class::Pair(_) => 0,
        Class::Session => 1,
    }
}
