//! Signing in by email: six digits that are sent to an address. One row an address, made for anybody who asks, known or
//! not, so that no answer says who has an account.

use std::{fmt, time::Duration};

use rand::{CryptoRng, RngExt as _};
use zeroize::Zeroizing;

use crate::{
    email::Email,
    keyed_hash::{Digest, KeyedHash},
    time::UnixTime,
};

/// How long a code is good.
pub const LIFE: Duration = Duration::from_mins(10);
/// Wrong tries of a code; with the last the address is locked.
pub const TRIES: u8 = 5;
/// How long nobody can sign in by this address after that.
pub const LOCK: Duration = Duration::from_mins(15);
/// Wrong tries of all codes of an address in [`DAY`]: of a million codes, with all the codes that can be asked for.
pub const WRONG_A_DAY: u8 = 20;
/// The time for [`WRONG_A_DAY`].
pub const DAY: Duration = Duration::from_hours(24);
/// Between two codes for an address.
pub const PAUSE: Duration = Duration::from_mins(1);
/// Codes for an address in [`HOUR`]. An address's network has a limit of its own ([`limits`](crate::limits)).
pub const CODES_AN_HOUR: usize = 5;
/// The time for [`CODES_AN_HOUR`].
pub const HOUR: Duration = Duration::from_hours(1);

/// Six digits, for the mail. Wiped on drop, prints nothing.
pub struct Code(Zeroizing<String>);

impl Code {
    fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Zeroizing::new(format!("{:06}", rng.random_range(0..1_000_000))))
    }

    /// What was typed, spaces and dashes aside. None if it is not six digits: then it is no try.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        let signs = Some(typed).filter(|typed| typed.len() <= 32)?.chars();
        let digits: String = signs.filter(|sign| !matches!(sign, ' ' | '-' | '\t' | '\r' | '\n')).collect();
        let form = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        form.then(|| Self(Zeroizing::new(digits)))
    }

    /// The digits.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

/// An address's codes, as the database has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailCode {
    /// The address.
    pub email: Email,
    /// Hash of address and newest code, until it is used or tried too often.
    pub code: Option<Digest>,
    /// When codes were asked for within [`HOUR`], the last one last.
    pub asked_at: Vec<UnixTime>,
    /// Wrong tries of the newest code.
    pub wrong: u8,
    /// Until when nobody signs in by this address.
    pub locked_until: Option<UnixTime>,
    /// Wrong tries since that time, within [`DAY`].
    pub wrong_since: Option<(UnixTime, u8)>,
}

/// A code may be had later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many codes were asked for: try again in {} s", .0.as_secs().max(1))]
pub struct TooManyCodes(pub Duration);

/// Why a code signs nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Another code.
    #[error("this is not the code that was sent: {left} tries left")]
    Wrong {
        /// Tries left.
        left: u8,
    },
    /// There is no code that is good: used, over, or never sent.
    #[error("the code is no longer good: ask for a new one")]
    Expired,
    /// Too many wrong tries.
    #[error("too many wrong codes: try again in {} s", .0.as_secs().max(1))]
    Locked(Duration),
}

impl EmailCode {
    /// An address for which nobody has asked before.
    #[must_use]
    pub fn new(email: Email) -> Self {
        Self { email, code: None, asked_at: Vec::new(), wrong: 0, locked_until: None, wrong_since: None }
    }

    /// Somebody asks for a code. It takes the place of the one before. `unlocks` is the setting `otp_reset_unlocks`: a new
    /// code lifts the lock that wrong tries of the last one brought, though not that of the whole day.
    ///
    /// # Errors
    /// How long until the next may be asked for.
    pub fn handle_request(
        &mut self,
        unlocks: bool,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Code, TooManyCodes> {
        self.asked_at.retain(|at| now.since(*at) < HOUR);
        let pause = self.asked_at.last().map_or(Duration::ZERO, |last| PAUSE.saturating_sub(now.since(*last)));
        let of_hour = self.asked_at.len().checked_sub(CODES_AN_HOUR).and_then(|over| self.asked_at.get(over));
        let hour = of_hour.map_or(Duration::ZERO, |oldest| HOUR.saturating_sub(now.since(*oldest)));
        let wait = pause.max(hour);
        if !wait.is_zero() {
            return Err(TooManyCodes(wait));
        }
        self.asked_at.push(now);
        let code = Code::random(rng);
        self.code = Some(hash.hash(now, &self.parts(&code)).1);
        self.wrong = 0;
        if unlocks && self.wrong_today(now) < WRONG_A_DAY {
            self.locked_until = None;
        }
        Ok(code)
    }

    /// Somebody shows a code. A right one is used with this.
    ///
    /// # Errors
    /// It is wrong, over, or the address is locked, which a right code does not change.
    pub fn handle_verify(&mut self, code: &Code, hash: &KeyedHash, now: UnixTime) -> Result<(), CodeError> {
        if let Some(until) = self.locked_until.filter(|until| *until > now) {
            return Err(CodeError::Locked(until.since(now)));
        }
        let in_time = self.asked_at.last().is_some_and(|sent| now.since(*sent) < LIFE);
        let kept = self.code.filter(|_| in_time).ok_or(CodeError::Expired)?;
        if hash.verify(kept, &self.parts(code)) {
            (self.code, self.wrong) = (None, 0);
            return Ok(());
        }
        self.count_wrong(now)
    }

    /// When nothing of the row is of use any more, and it can be deleted.
    #[must_use]
    pub fn useless_at(&self) -> UnixTime {
        let asked = self.asked_at.last().map(|at| *at + HOUR);
        let wrong = self.wrong_since.map(|(since, _)| since + DAY);
        [asked, wrong, self.locked_until].into_iter().flatten().max().unwrap_or_default()
    }

    fn count_wrong(&mut self, now: UnixTime) -> Result<(), CodeError> {
        self.wrong += 1;
        let today = self.wrong_today(now).saturating_add(1);
        let since = self.wrong_since.filter(|_| today > 1).map_or(now, |(since, _)| since);
        self.wrong_since = Some((since, today));
        let lock = if today >= WRONG_A_DAY { Some(since + DAY) } else { (self.wrong >= TRIES).then(|| now + LOCK) };
        let Some(until) = lock else { return Err(CodeError::Wrong { left: TRIES - self.wrong }) };
        (self.code, self.locked_until) = (None, Some(until));
        Err(CodeError::Locked(until.since(now)))
    }

    fn wrong_today(&self, now: UnixTime) -> u8 {
        self.wrong_since.filter(|(since, _)| now.since(*since) < DAY).map_or(0, |(_, wrong)| wrong)
    }

    fn parts<'a>(&'a self, code: &'a Code) -> [&'a [u8]; 3] {
        [b"email", self.email.as_str().as_bytes(), code.expose().as_bytes()]
    }
}

#[cfg(test)]
mod tests;
