//! Sessions made again from their tickets: a relay stores none, and may be started again at any time.

use std::time::Duration;

use mykube_protocol::{Claims, Class, Role, close};

use super::{
    Registry,
    answer::{Now, Refusal},
    entry::State,
    limits::{AGENT_GRACE, CODE_GRACE},
};
use crate::owner::Owner;

impl Registry {
    /// Makes a session again from a ticket: after a restart, or on another node.
    pub(super) fn readmit(&mut self, now: Now, claims: &Claims, owner: Owner) -> Result<(), Refusal> {
        let waiting = matches!(claims.class, Class::Pair(_)) || claims.nameplate.is_some();
        self.admit(owner, waiting).map_err(|_| (close::TOO_MANY, "retry-after=10000; too many sessions"))?;
        // The ticket that creates a session ends CODE_GRACE after its code.
        let left = Duration::from_secs(claims.expires_at.saturating_sub(now.unix));
        let state = match (&claims.nameplate, claims.class) {
            (Some(nameplate), _) => {
                let Some(left) = left.checked_sub(CODE_GRACE).filter(|left| !left.is_zero()) else {
                    return Err((close::EXPIRED, "this code has expired: a new one is needed"));
                };
                if self.legacy.has_prefix(nameplate.as_str())
                    || !self.nameplates.take(nameplate.clone(), claims.session)
                {
                    return Err((close::NO_SESSION, "this nameplate is taken: a new code is needed"));
                }
                let code_ends = now.mono + left.min(self.limits.code_ttl);
                State::Waiting { nameplate: Some(nameplate.clone()), code_ends, agent_until: None }
            }
            (None, Class::Pair(_)) => {
                let until = now.mono + left.min(AGENT_GRACE);
                State::Waiting { nameplate: None, code_ends: until, agent_until: Some(until) }
            }
            (None, Class::Session) => self.paired_state(now, claims.confirmed),
        };
        self.insert(claims.session, owner, state);
        Ok(())
    }

    /// Takes over what a ticket says and the registry does not know: after a restart the end that came first may have known less.
    pub(super) fn reconcile(&mut self, now: Now, claims: &Claims) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&claims.session) else { return Ok(()) };
        let (nameplate, code_ends) = match &mut session.state {
            State::Waiting { nameplate, code_ends, .. } => (nameplate, code_ends),
            State::Paired { attempt, .. } => {
                *attempt = attempt.or(claims.confirmed);
                return Ok(());
            }
            State::Burned { .. } => return Ok(()),
        };
        match (&claims.nameplate, claims.class) {
            (Some(wanted), _) if nameplate.is_none() => {
                let left = Duration::from_secs(claims.expires_at.saturating_sub(now.unix)).saturating_sub(CODE_GRACE);
                if left.is_zero() {
                    return Ok(());
                }
                if self.legacy.has_prefix(wanted.as_str()) || !self.nameplates.take(wanted.clone(), claims.session) {
                    self.end(claims.session, close::NO_SESSION, "this nameplate is taken: a new code is needed");
                    return Err((close::NO_SESSION, "this nameplate is taken: a new code is needed"));
                }
                *nameplate = Some(wanted.clone());
                *code_ends = now.mono + left.min(self.limits.code_ttl);
                self.schedule(claims.session);
            }
            (None, Class::Session) => self.reconcile_paired(now, claims),
            _ => {}
        }
        Ok(())
    }

    /// Makes a waiting session paired, because a session ticket came. The end that is here already knew less, and gets a session
    /// ticket.
    fn reconcile_paired(&mut self, now: Now, claims: &Claims) {
        let id = claims.session;
        self.set_paired(now, id, claims.confirmed);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(client) = &mut session.client.socket
            && let Class::Pair(attempt) = client.class
        {
            let id = client.id;
            client.class = Class::Session;
            if claims.confirmed.is_some_and(|confirmed| confirmed != attempt) {
                self.close(id, close::NO_SESSION, "this code is spent: a new code is needed");
            }
        }
        self.send_ticket(now, id, Role::Client);
        self.send_ticket(now, id, Role::Agent);
        self.schedule(id);
    }
}
