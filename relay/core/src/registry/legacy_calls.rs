//! The legacy calls, and what a legacy client may have given away to a version 2 session.

use mykube_protocol::{Nameplate, Role, SessionId, close, limits::NAMEPLATE_MIN_DIGITS};
use rand::CryptoRng;

use super::{
    Registry,
    answer::{Action, CreateError, Now, Refusal, SocketId},
    legacy::{self, LegacyError},
    limits::CODE_GRACE,
};

impl Registry {
    /// Legacy form: a session and its whole code.
    ///
    /// # Errors
    /// The relay is full.
    pub fn handle_legacy_create(
        &mut self,
        now: Now,
        rng: &mut impl CryptoRng,
    ) -> Result<(SessionId, String), CreateError> {
        if self.sessions.len() + self.legacy.len() >= self.limits.sessions {
            return Err(CreateError::Full);
        }
        let nameplates = &self.nameplates;
        self.legacy
            .create(now.mono, self.limits.legacy_ttl, rng, |code| nameplates.is_prefixed(code))
            .ok_or(CreateError::Full)
    }

    /// Legacy form: a client shows the whole code.
    ///
    /// # Errors
    /// [`LegacyError`], whose texts are those of the first mykube's relay.
    pub fn handle_legacy_pair(&mut self, now: Now, code: &str) -> Result<SessionId, LegacyError> {
        self.legacy.pair(now.mono, code, self.limits.legacy_attempts)
    }

    /// Whether this is a legacy session.
    #[must_use]
    pub fn is_legacy(&self, id: SessionId) -> bool {
        self.legacy.contains(id)
    }

    /// Legacy form: a socket that arrived joins a session.
    ///
    /// # Errors
    /// 4403 not paired, 4409 connected already.
    pub fn handle_legacy_join(&mut self, now: Now, socket: SocketId, id: SessionId, role: Role) -> Result<(), Refusal> {
        let session = self
            .legacy
            .get_mut(id)
            .filter(|session| session.is_open_to(role, now.mono))
            .ok_or((close::NOT_PAIRED, "not paired"))?;
        let slot = session.slot(role);
        if slot.is_some() {
            return Err((close::ALREADY_CONNECTED, "already connected"));
        }
        *slot = Some(socket);
        self.sockets.insert(socket, (id, role));
        if let (Some(agent), Some(client)) = (session.agent, session.client) {
            let (link, paired) = (Action::Link(agent, client), Action::SendPaired(agent));
            self.actions.extend(if role == Role::Agent { [paired, link] } else { [link, paired] });
        }
        Ok(())
    }

    /// `{"code"}` from a legacy client that no legacy session has: it may just have disclosed a version 2 secret.
    pub fn handle_unknown_legacy_code(&mut self, now: Now, code: &str) {
        let Some(digits) = legacy::digits(code) else { return };
        let Ok(nameplate) = digits[..NAMEPLATE_MIN_DIGITS].parse::<Nameplate>() else { return };
        if let Some(id) = self.nameplates.get(&nameplate) {
            self.disclosed.insert(id, now.mono + self.limits.code_ttl + CODE_GRACE);
            self.end(id, close::UPGRADE, "mykube 2 clients only");
        }
    }

    /// Ends a legacy session when one of its two sockets ends: the other cannot wait for a new one.
    pub(super) fn leave_legacy(&mut self, id: SessionId, role: Role) {
        let Some(session) = self.legacy.get_mut(id) else { return };
        *session.slot(role) = None;
        let Some(peer) = *session.slot(role.peer()) else { return self.forget_legacy_client(id, role) };
        self.sockets.remove(&peer);
        self.legacy.remove(id);
        self.actions.push_back(Action::Close(peer, 1000, "the other end is gone"));
    }

    /// Ends a session whose client left while its agent was away. An agent that leaves alone may come back until its code
    /// expires.
    fn forget_legacy_client(&mut self, id: SessionId, role: Role) {
        if role == Role::Client {
            self.legacy.remove(id);
        }
    }

    pub(super) fn tick_legacy(&mut self, now: Now) {
        for (_, sockets) in self.legacy.tick(now.mono) {
            for socket in sockets {
                self.sockets.remove(&socket);
                self.actions.push_back(Action::Close(socket, close::NOT_PAIRED, "session expired"));
            }
        }
    }
}
