//! Sessions made again from their tickets: a relay keeps nothing, and may be started again at any time.

use std::time::Duration;

use mykube_protocol::{Claims, Class, close};

use super::{AGENT_GRACE, CODE_GRACE, Now, Refusal, Registry, State};
use crate::address::AddressKey;

impl Registry {
    /// Makes a session again from a ticket: after a restart, or on another node.
    pub(super) fn readmit(&mut self, now: Now, claims: &Claims, owner: AddressKey) -> Result<(), Refusal> {
        let waiting = matches!(claims.class, Class::Pair(_)) || claims.nameplate.is_some();
        self.admit(owner, waiting).map_err(|_| (close::TOO_MANY, "too many sessions"))?;
        // The ticket that creates a session ends CODE_GRACE after its code.
        let left = Duration::from_secs(claims.expires_at.saturating_sub(now.unix));
        let state = match (&claims.nameplate, claims.class) {
            (Some(nameplate), _) => {
                let Some(left) = left.checked_sub(CODE_GRACE).filter(|left| !left.is_zero()) else {
                    return Err((close::EXPIRED, "this code has expired: a new one is needed"));
                };
                if self.plain.has_prefix(nameplate.as_str()) || !self.nameplates.take(nameplate.clone(), claims.session)
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
            (None, Class::Session) => self.paired_state(now, None),
        };
        self.insert(claims.session, owner, state);
        Ok(())
    }

    /// A ticket may know more than the registry does, when the other end of a restarted relay came first.
    pub(super) fn reconcile(&mut self, now: Now, claims: &Claims) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(&claims.session) else { return Ok(()) };
        let State::Waiting { nameplate, code_ends, .. } = &mut session.state else { return Ok(()) };
        match (&claims.nameplate, claims.class) {
            (Some(wanted), _) if nameplate.is_none() => {
                let left = Duration::from_secs(claims.expires_at.saturating_sub(now.unix)).saturating_sub(CODE_GRACE);
                if left.is_zero() {
                    return Ok(());
                }
                if self.plain.has_prefix(wanted.as_str()) || !self.nameplates.take(wanted.clone(), claims.session) {
                    self.end(claims.session, close::NO_SESSION, "this nameplate is taken: a new code is needed");
                    return Err((close::NO_SESSION, "this nameplate is taken: a new code is needed"));
                }
                *nameplate = Some(wanted.clone());
                *code_ends = now.mono + left.min(self.limits.code_ttl);
            }
            (None, Class::Session) => self.set_paired(now, claims.session, None),
            _ => {}
        }
        Ok(())
    }
}
