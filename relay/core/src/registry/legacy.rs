//! The legacy form: eight digits drawn by the relay, two sockets, no tickets. A namespace of its own.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use mykube_protocol::{Role, SessionId};
use rand::{CryptoRng, RngExt as _};

use super::answer::SocketId;

const DIGITS: usize = 8;
const TRIES: usize = 1000;

/// Why a legacy pair request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LegacyError {
    /// Not eight digits.
    #[error("invalid code")]
    Invalid,
    /// No such code.
    #[error("session not found")]
    NotFound,
    /// Paired by somebody already.
    #[error("session already paired")]
    AlreadyPaired,
    /// Its time is over.
    #[error("session expired")]
    Expired,
    /// Tried too often.
    #[error("max pair attempts exceeded")]
    TooManyAttempts,
}

/// Legacy sessions by code.
#[derive(Debug, Default)]
pub(super) struct LegacySessions {
    codes: BTreeMap<String, SessionId>,
    sessions: HashMap<SessionId, LegacySession>,
}

#[derive(Debug)]
pub(super) struct LegacySession {
    code: String,
    expires: Instant,
    forget: Instant,
    attempts: u32,
    paired: bool,
    pub(super) agent: Option<SocketId>,
    pub(super) client: Option<SocketId>,
}

impl LegacySession {
    pub(super) fn slot(&mut self, role: Role) -> &mut Option<SocketId> {
        match role {
            Role::Agent => &mut self.agent,
            Role::Client => &mut self.client,
        }
    }

    pub(super) fn is_open_to(&self, role: Role, now: Instant) -> bool {
        self.paired || (role == Role::Agent && now < self.expires)
    }
}

impl LegacySessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether these digits are a prefix of a code in use.
    pub(super) fn has_prefix(&self, digits: &str) -> bool {
        self.codes.range(digits.to_owned()..).next().is_some_and(|(code, _)| code.starts_with(digits))
    }

    pub(super) fn create(
        &mut self,
        now: Instant,
        ttl: Duration,
        rng: &mut impl CryptoRng,
        blocked: impl Fn(&str) -> bool,
    ) -> Option<(SessionId, String)> {
        let free = |code: &String| !self.codes.contains_key(code) && !blocked(code);
        let code = (0..TRIES).map(|_| format!("{:0DIGITS$}", rng.random_range(0..10u32.pow(8)))).find(free)?;
        let id = SessionId::random(rng);
        self.codes.insert(code.clone(), id);
        let session = LegacySession {
            code: code.clone(),
            expires: now + ttl,
            forget: now + 2 * ttl,
            attempts: 0,
            paired: false,
            agent: None,
            client: None,
        };
        self.sessions.insert(id, session);
        Some((id, code))
    }

    pub(super) fn pair(&mut self, now: Instant, code: &str, attempts_max: u32) -> Result<SessionId, LegacyError> {
        let code = digits(code).ok_or(LegacyError::Invalid)?;
        let id = *self.codes.get(&code).ok_or(LegacyError::NotFound)?;
        let session = self.sessions.get_mut(&id).ok_or(LegacyError::NotFound)?;
        if now >= session.expires {
            return Err(LegacyError::Expired);
        }
        if session.attempts >= attempts_max {
            return Err(LegacyError::TooManyAttempts);
        }
        session.attempts += 1;
        if session.paired {
            return Err(LegacyError::AlreadyPaired);
        }
        session.paired = true;
        Ok(id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut LegacySession> {
        self.sessions.get_mut(&id)
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.codes.remove(&session.code);
        }
    }

    /// Forgets sessions that expired long ago, and returns the sockets of those that have just expired.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<(SessionId, Vec<SocketId>)> {
        let unused = |s: &LegacySession| !s.paired || (s.agent.is_none() && s.client.is_none());
        let mut over = Vec::new();
        self.sessions.retain(|&id, session| {
            if !unused(session) || now < session.expires {
                return true;
            }
            let sockets: Vec<_> = session.agent.take().into_iter().chain(session.client.take()).collect();
            if !sockets.is_empty() {
                over.push((id, sockets));
            }
            if now < session.forget {
                return true;
            }
            self.codes.remove(&session.code);
            false
        });
        over
    }
}

/// The eight digits of a code, without white space and dashes.
pub(super) fn digits(code: &str) -> Option<String> {
    let digits: String = code.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}
