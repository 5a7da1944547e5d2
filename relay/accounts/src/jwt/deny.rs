//! Tokens and sign-ins that were ended before their time. Kept in memory, loaded from the database at start: a token is
//! judged without asking anybody.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use super::{claims::Claims, class::Class};
use crate::{
    id::{SignInId, TokenId},
    time::UnixTime,
};

/// How long after its end a token can be renewed, and thus must be denied.
pub const RENEWABLE: Duration = Duration::from_hours(24);
/// Renewing counts whole seconds, and takes the last one.
const LAST: Duration = Duration::from_secs(1);
/// How long an ended sign-in is denied at least: no ticket of the tunnel lasts longer.
pub const DENIED_MIN: Duration = Duration::from_hours(48);

/// What is denied, each until nothing of it could be accepted any more.
#[derive(Debug, Default)]
pub struct DenyList {
    tokens: HashMap<TokenId, UnixTime>,
    sign_ins: HashMap<SignInId, UnixTime>,
}

impl DenyList {
    /// Denies one token. Says until when, for the database: its end and the time in which it could be renewed.
    pub fn deny_token(&mut self, claims: &Claims) -> UnixTime {
        let until = Self::token_until(claims);
        self.restore_token(claims.jti, until);
        until
    }

    /// Until when one token could be shown: its end, and the time in which it could be renewed.
    #[must_use]
    pub fn token_until(claims: &Claims) -> UnixTime {
        let leeway = claims.class().map_or(Duration::ZERO, Class::leeway);
        claims.expires_at() + RENEWABLE.max(leeway) + LAST
    }

    /// Denies a sign-in and all its tokens. `ends_at` is when the last of them would end (of a family: its own end). Says
    /// until when, for the database.
    pub fn deny_sign_in(&mut self, sid: SignInId, now: UnixTime, ends_at: UnixTime) -> UnixTime {
        let until = (now + DENIED_MIN).max(ends_at + RENEWABLE + LAST);
        self.restore_sign_in(sid, until);
        until
    }

    /// Denies what this one denies, too.
    pub fn extend(&mut self, other: Self) {
        other.tokens.into_iter().for_each(|(jti, until)| self.restore_token(jti, until));
        other.sign_ins.into_iter().for_each(|(sid, until)| self.restore_sign_in(sid, until));
    }

    /// A token as the database has it.
    pub fn restore_token(&mut self, jti: TokenId, until: UnixTime) {
        later(self.tokens.entry(jti), until);
    }

    /// A sign-in as the database has it.
    pub fn restore_sign_in(&mut self, sid: SignInId, until: UnixTime) {
        later(self.sign_ins.entry(sid), until);
    }

    /// Whether the token or its sign-in is denied.
    #[must_use]
    pub fn denies(&self, claims: &Claims) -> bool {
        self.tokens.contains_key(&claims.jti) || self.denies_sign_in(claims.sid)
    }

    /// Whether the sign-in is denied.
    #[must_use]
    pub fn denies_sign_in(&self, sid: SignInId) -> bool {
        self.sign_ins.contains_key(&sid)
    }

    /// Forgets what would not be accepted any more anyway.
    pub fn handle_tick(&mut self, now: UnixTime) {
        self.tokens.retain(|_, until| *until > now);
        self.sign_ins.retain(|_, until| *until > now);
    }
}

fn later<K>(entry: Entry<'_, K, UnixTime>, until: UnixTime) {
    entry.and_modify(|kept| *kept = until.max(*kept)).or_insert(until);
}
