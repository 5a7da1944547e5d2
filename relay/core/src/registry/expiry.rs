//! What the registry does as time passes.

use mykube_protocol::{Role, SessionId, close};

use super::{Registry, answer::Now, entry::State, limits::CODE_GRACE};

impl Registry {
    /// Does everything that is due.
    pub fn handle_tick(&mut self, now: Now) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now.mono
        {
            self.deadlines.pop_first();
            self.expire(now, id);
        }
        self.disclosed.tick(now.mono);
        self.tick_legacy(now);
    }

    fn expire(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.deadline = None;
        match &mut session.state {
            State::Waiting { nameplate, code_ends, agent_until } => {
                if agent_until.is_some_and(|at| at <= now.mono) || *code_ends + CODE_GRACE <= now.mono {
                    self.end(id, close::EXPIRED, "this code has expired: a new one is needed");
                    return;
                }
                if *code_ends <= now.mono
                    && let Some(nameplate) = nameplate.take()
                {
                    self.nameplates.free(&nameplate);
                }
            }
            State::Burned { .. } => {
                self.end(id, close::EXPIRED, "this code is spent: a new one is needed");
                return;
            }
            State::Paired { half_until, renew_at, .. } => {
                if half_until.is_some_and(|at| at <= now.mono) {
                    self.end(id, close::EXPIRED, "the other end did not come back");
                    return;
                }
                if *renew_at <= now.mono {
                    *renew_at = now.mono + self.limits.renewal();
                    self.send_ticket(now, id, Role::Client);
                    self.send_ticket(now, id, Role::Agent);
                }
            }
        }
        self.schedule(id);
    }

    /// Sets the session's next deadline from its state.
    pub(super) fn schedule(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let next = match &session.state {
            State::Waiting { nameplate, code_ends, agent_until } => {
                let code = if nameplate.is_some() { *code_ends } else { *code_ends + CODE_GRACE };
                agent_until.map_or(code, |at| at.min(code))
            }
            State::Burned { until } => *until,
            State::Paired { renew_at, half_until, .. } => half_until.map_or(*renew_at, |at| at.min(*renew_at)),
        };
        if let Some(old) = session.deadline.replace(next) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.insert((next, id));
    }
}
