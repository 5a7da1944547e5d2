//! Sessions, nameplates, and which socket may be which end of a session. A pure state machine: time and randomness are
//! arguments.
//!
//! Call a `handle_*` method, then [`Registry::poll_action`] until it returns `None`, and carry the actions out in this order.
//! Report every socket that ends, for whatever reason, by [`Registry::handle_leave`], also after the registry itself asked for
//! its end; a second report changes nothing.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Instant,
};

use mykube_protocol::{
    Attempt, Claims, Class, FromAgent, FromRelay, Nameplate, Role, SessionId, close, limits::REPLACE_INTERVAL,
};
use rand::CryptoRng;

mod answer;
mod disclosed;
mod entry;
mod expiry;
mod legacy;
mod legacy_calls;
mod limits;
mod nameplates;
mod owners;
mod readmit;
#[cfg(test)]
mod tests;

pub use answer::{Action, Count, Counts, CreateError, Created, Denied, NoSuchNameplate, Now, Refusal, SocketId};
pub use legacy::LegacyError;
pub use limits::Limits;

use crate::owner::Owner;
use disclosed::Disclosed;
use entry::{EndSlot, SessionEntry, Socket, State, rank};
use legacy::LegacySessions;
use limits::{AGENT_GRACE, CODE_GRACE};
use nameplates::Nameplates;
use owners::Owners;

/// See the module.
#[derive(Debug)]
pub struct Registry {
    limits: Limits,
    sessions: HashMap<SessionId, SessionEntry>,
    sockets: HashMap<SocketId, (SessionId, Role)>,
    nameplates: Nameplates,
    legacy: LegacySessions,
    owners: Owners,
    deadlines: BTreeSet<(Instant, SessionId)>,
    disclosed: Disclosed,
    actions: VecDeque<Action>,
    next_socket: u64,
    waiting: usize,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: HashMap::new(),
            sockets: HashMap::new(),
            nameplates: Nameplates::default(),
            legacy: LegacySessions::default(),
            owners: Owners::default(),
            deadlines: BTreeSet::new(),
            disclosed: Disclosed::default(),
            actions: VecDeque::new(),
            next_socket: 0,
            waiting: 0,
        }
    }

    /// The next action to carry out.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sessions by state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let paired = self.sessions.values().filter(|session| matches!(session.state, State::Paired { .. }));
        let (here, away): (Vec<_>, Vec<_>) = paired.partition(|session| session.is_whole());
        Counts { waiting: self.waiting, paired: here.len(), away: away.len(), legacy: self.legacy.len() }
    }

    /// Makes a session that waits under a new nameplate.
    ///
    /// # Errors
    /// A limit is reached.
    pub fn handle_create(&mut self, now: Now, owner: Owner, rng: &mut impl CryptoRng) -> Result<Created, CreateError> {
        self.admit(owner, true)?;
        let nameplate = self.nameplates.draw(rng, |digits| self.legacy.has_prefix(digits)).ok_or(CreateError::Full)?;
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

    /// A client claims a nameplate; returns the claims of the client's ticket. The nameplate stays until a pairing is confirmed.
    ///
    /// # Errors
    /// No session waits under it.
    pub fn handle_claim(
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

    /// Numbers a socket that has arrived. A later socket replaces an earlier one, never the other way round.
    pub fn handle_arrival(&mut self) -> SocketId {
        self.next_socket += 1;
        SocketId(self.next_socket)
    }

    /// A socket that arrived shows a valid ticket. `heard`: bytes came from it since its upgrade was answered, so it is not an
    /// abandoned dial.
    ///
    /// # Errors
    /// The socket does not get its slot, or not yet.
    pub fn handle_join(
        &mut self,
        now: Now,
        socket: SocketId,
        claims: &Claims,
        owner: Owner,
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

    /// A text of an agent for the relay. Returns whether it changed anything.
    pub fn handle_text(&mut self, now: Now, socket: SocketId, text: FromAgent) -> bool {
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

    /// A socket ended. `clean`: by close code 1000.
    pub fn handle_leave(&mut self, now: Now, socket: SocketId, clean: bool) {
        let Some((id, role)) = self.sockets.remove(&socket) else { return };
        if self.legacy.contains(id) {
            self.leave_legacy(id, role);
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

    /// After a newcomer got its slot: tells both ends, and links them. See [`Action::Link`] for the order.
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

    /// Closes a live socket and forgets it, without telling its peer.
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

    /// Frees the nameplate and the session's count among the waiting; the caller sets the next state or removes the session.
    fn stop_waiting(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let State::Waiting { nameplate, .. } = &mut session.state else { return };
        if let Some(nameplate) = nameplate.take() {
            self.nameplates.free(&nameplate);
        }
        self.waiting -= 1;
        self.owners.stop_waiting(session.owner);
    }

    fn admit(&self, owner: Owner, waiting: bool) -> Result<(), CreateError> {
        if self.sessions.len() + self.legacy.len() >= self.limits.sessions {
            return Err(CreateError::Full);
        }
        if self.owners.has_room(owner, waiting, &self.limits) {
            return Ok(());
        }
        Err(match owner {
            Owner::Address(_) => CreateError::Address,
            Owner::Organisation(_) => CreateError::Organisation,
        })
    }

    /// Charges a session to its agent. After a restart it is charged to the end that comes first, until its agent comes. A
    /// session of an organisation stays the organisation's, whatever address its ends have.
    fn charge(&mut self, id: SessionId, owner: Owner) {
        let room = self.owners.has_room(owner, false, &self.limits);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let known = matches!((session.owner, owner), (Owner::Organisation(_), Owner::Address(_)));
        if session.owner == owner || known || !room {
            return;
        }
        let before = std::mem::replace(&mut session.owner, owner);
        self.owners.add(owner, false);
        self.owners.remove(before);
    }

    fn insert(&mut self, id: SessionId, owner: Owner, state: State) {
        let waiting = matches!(state, State::Waiting { .. });
        self.owners.add(owner, waiting);
        self.waiting += usize::from(waiting);
        let session =
            SessionEntry { owner, state, agent: EndSlot::default(), client: EndSlot::default(), deadline: None };
        self.sessions.insert(id, session);
        self.schedule(id);
    }

    /// Ends a session, and closes its sockets.
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
        self.owners.remove(session.owner);
    }
}
