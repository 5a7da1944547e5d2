//! Refresh families: how one sign-in of a machine goes on without the person.
//!
//! A sign-in has one family, a row of the database. A refresh shows a token and a [statement](crate::statement) that the
//! machine has signed, and gets its successor and an access token:
//!
//! | shown | what happens |
//! | --- | --- |
//! | the successor | it has arrived: it is the current token now, what was before it is spent, and it gets a successor |
//! | the current token again | the answer was lost: a **new** successor. The one before it is void, and so is the access token that came with it |
//! | a void or spent token | two machines have this sign-in: the family ends, for both |
//!
//! A machine that has stored a successor says so ([`Family::handle_received`]), which makes it current at once. From then
//! on whatever somebody copied from the machine before is spent: a thief who refreshed before the owner did, beside them
//! or after, has either ended the family at the owner's next refresh or ends it by trying
//! (docs/decisions/0021).
//!
//! Statements have a time, and the family takes only those later than the last it took. So a request that was held up on
//! its way, and arrives when it was long repeated, does nothing. A machine whose clock is wrong is told which time to use,
//! and keeps by how much it was wrong: a statement that is far ahead could otherwise arrive when its time has come.
//!
//! Nothing is remembered of tokens that are spent or void: who signs with the family's key and shows any other token of
//! this sign-in had one of them. Without that signature nothing happens, so that nobody can end another's sign-in.

use std::time::Duration;

use rand::CryptoRng;

use crate::{
    id::{AccountId, SignInId, TokenId},
    keyed_hash::{Digest, KeyedHash},
    statement::{Act, MachineKey, Statement},
    time::UnixTime,
};

mod token;

pub use token::RefreshToken;

/// A family that nobody refreshes ends after this.
pub const IDLE: Duration = Duration::from_hours(30 * 24);
/// A family ends this long after the person signed in.
pub const LIFE: Duration = Duration::from_hours(90 * 24);
/// How far a statement's time may be from the relay's: further ahead, and a thief could keep the owner from ever being
/// later; further behind, and who recorded requests could show them for long.
pub const CLOCK: Duration = Duration::from_mins(5);

/// Why a family ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A token was shown that its owner cannot have had last.
    Theft,
    /// The person, or an owner of the organisation, ended it.
    Revoked,
}

/// A family as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The sign-in.
    pub sid: SignInId,
    /// Whose it is.
    pub account: AccountId,
    /// The machine's key for this relay.
    pub key: MachineKey,
    /// When the person signed in.
    pub created_at: UnixTime,
    /// The last refresh.
    pub refreshed_at: UnixTime,
    /// The time of the last statement that was taken, in milliseconds since 1970.
    pub signed_at: u64,
    /// Hash of the token that the machine has shown last, or got first.
    pub current: Digest,
    /// What was given for it and has not been shown yet.
    pub successor: Option<Successor>,
    /// When and why it ended, if it did.
    pub ended: Option<(UnixTime, End)>,
}

/// A token that may or may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its hash.
    pub token: Digest,
    /// The access token that went with it.
    pub access: TokenId,
}

/// What a machine sends, the signature included.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The token, of this family's sign-in.
    pub token: &'a RefreshToken,
    /// Of the statement: milliseconds since 1970.
    pub time: u64,
    /// Of the statement.
    pub signature: &'a [u8],
}

/// What a refresh gives.
#[derive(Debug)]
pub struct Refreshed {
    /// The successor.
    pub token: RefreshToken,
    /// The `jti` of the access token to be made with it.
    pub access: TokenId,
    /// The access token that is void now, if there is one: denied until it would end.
    pub denied: Option<TokenId>,
}

/// Why nothing is given. What changed in the family is stored all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The statement was not signed by this family's machine, or not for this relay. Nothing changes.
    #[error("this is no refresh token of this machine: sign in again")]
    Signature,
    /// The statement's time is too far from the relay's, or not later than that of the last one. Nothing changes; the
    /// machine signs again, with the later of `now` and `after + 1`.
    #[error("the statement's time is not the relay's: sign again")]
    Time {
        /// The relay's time, in milliseconds since 1970.
        now: u64,
        /// The last time that was taken.
        after: u64,
    },
    /// It has ended: idle for too long, too old, or ended by somebody.
    #[error("the sign-in has ended: sign in again")]
    Ended,
    /// It ends with this.
    #[error("the sign-in was used from two places and has been ended: sign in again")]
    Theft,
}

impl Family {
    /// A new one, and its first token. `now` is when the person signed in.
    #[must_use]
    pub fn new(
        sid: SignInId,
        account: AccountId,
        key: MachineKey,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, RefreshToken) {
        let token = RefreshToken::random(sid, rng);
        let (_, current) = hash.hash(now, &[token.expose().as_bytes()]);
        let family = Self {
            sid,
            account,
            key,
            created_at: now,
            refreshed_at: now,
            signed_at: 0,
            current,
            successor: None,
            ended: None,
        };
        (family, token)
    }

    /// When it ends if nothing happens.
    #[must_use]
    pub fn ends_at(&self) -> UnixTime {
        (self.refreshed_at + IDLE).min(self.created_at + LIFE)
    }

    /// When the last that came of it ends: so long an ended one is denied.
    #[must_use]
    pub fn denied_until(&self) -> UnixTime {
        self.created_at + LIFE
    }

    /// Whether it can be refreshed.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.ended.is_none() && now < self.ends_at()
    }

    /// Ends it. What it ended of first stays.
    pub fn end(&mut self, now: UnixTime, why: End) {
        self.ended.get_or_insert((now, why));
        self.successor = None;
    }

    /// A refresh. The row is stored in the same transaction in which it was read, whatever comes of it; after
    /// [`Refusal::Theft`] the sign-in is denied.
    ///
    /// # Errors
    /// Why it gives nothing.
    pub fn handle_refresh(
        &mut self,
        request: Request<'_>,
        base_urls: &[String],
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Refreshed, Refusal> {
        self.check_signature(Act::Refresh, request, base_urls)?;
        self.refresh(request.token, request.time, hash, now, rng)
    }

    /// The machine has stored the successor. It may say so again.
    ///
    /// # Errors
    /// As of a refresh.
    pub fn handle_received(
        &mut self,
        request: Request<'_>,
        base_urls: &[String],
        hash: &KeyedHash,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        self.check_signature(Act::Received, request, base_urls)?;
        self.received(request.token, request.time, hash, now)
    }

    fn check_signature(&self, act: Act, request: Request<'_>, base_urls: &[String]) -> Result<(), Refusal> {
        let statement = Statement { act, shown: request.token.expose(), time: request.time };
        let signed = self.key.has_signed(&statement, request.signature, base_urls);
        if signed && request.token.sid() == self.sid { Ok(()) } else { Err(Refusal::Signature) }
    }

    fn refresh(
        &mut self,
        token: &RefreshToken,
        time: u64,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Refreshed, Refusal> {
        self.take(token, time, hash, now)?;
        let next = RefreshToken::random(self.sid, rng);
        let access = TokenId::random(rng);
        let successor = Successor { token: hash.hash(now, &[next.expose().as_bytes()]).1, access };
        let void = self.successor.replace(successor);
        self.refreshed_at = now;
        Ok(Refreshed { token: next, access, denied: void.map(|successor| successor.access) })
    }

    fn received(&mut self, token: &RefreshToken, time: u64, hash: &KeyedHash, now: UnixTime) -> Result<(), Refusal> {
        self.take(token, time, hash, now)
    }

    /// Makes the shown token the current one, or ends the family.
    fn take(&mut self, token: &RefreshToken, time: u64, hash: &KeyedHash, now: UnixTime) -> Result<(), Refusal> {
        if !self.is_live(now) {
            return Err(Refusal::Ended);
        }
        let millis = |time: UnixTime| u64::try_from(time.millis()).unwrap_or(0);
        // The relay's own clock may have been ahead, and been set back since: no time that is taken now would be later.
        let last = millis(now + CLOCK);
        let after = if self.signed_at > last { last - 1 } else { self.signed_at };
        if time <= after || time < millis(now - CLOCK) || time > last {
            return Err(Refusal::Time { now: millis(now), after });
        }
        self.signed_at = time;
        let shown = token.expose().as_bytes();
        if let Some(successor) = self.successor.filter(|successor| hash.verify(successor.token, &[shown])) {
            (self.current, self.successor) = (successor.token, None);
        } else if !hash.verify(self.current, &[shown]) {
            self.end(now, End::Theft);
            return Err(Refusal::Theft);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
