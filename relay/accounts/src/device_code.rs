//! Device codes: a program without a browser shows a short code, which a person types on a page of the relay, where they
//! are signed in, and confirms. `/auth/device`, `/auth/device/poll`, `/auth/device/verify` and the page `/device`.
//!
//! A code goes one way: pending, confirmed by one account, fetched. Whoever shows one that is over, unknown or fetched is
//! told the same. Guesses are counted by address, account and in all ([`limits`](crate::limits::Call)): of 32^8 codes at most
//! [`PENDING_MAX`] are live.

use std::{fmt, net::IpAddr, time::Duration};

use rand::{CryptoRng, RngExt as _};
use zeroize::Zeroizing;

use crate::{
    id::{AccountId, SignInId},
    jwt::Class,
    keyed_hash::{Digest, KeyedHash},
    limits,
    sign_in::plain_program,
    statement::{Act, MachineKey, Statement},
    time::UnixTime,
};

/// How long a code is good: `expiresIn`.
pub const LIFE: Duration = Duration::from_mins(15);
/// How long a program waits between two questions: `interval`.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Of [`INTERVAL`] so much may be lacking: the last question may have been slower on its way than this one.
const SLACK: Duration = Duration::from_secs(1);
/// Live codes at once: what a flood can make the database keep, and the odds of a guess.
pub const PENDING_MAX: usize = 16_384;
/// Live codes of one [network](limits::network): more than its programs can want at once.
pub const NETWORK_MAX: usize = 256;
/// Letters and digits that are not taken for one another.
const ALPHABET: &[u8; 32] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";

/// What the program asks with: a random UUID (version 4). Wiped on drop, prints nothing.
pub struct DeviceCode(Zeroizing<String>);

impl DeviceCode {
    fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 16]);
        rng.fill_bytes(bytes.as_mut());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = Zeroizing::new(data_encoding::HEXLOWER.encode(bytes.as_ref()));
        let mut text = Zeroizing::new(String::with_capacity(36));
        for (at, part) in [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().enumerate() {
            if at > 0 {
                text.push('-');
            }
            text.push_str(&hex[part]);
        }
        Self(text)
    }

    /// The text, for the program.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceCode")
    }
}

/// What the person types: `XXXX-XXXX`. Wiped on drop, prints nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct UserCode(Zeroizing<String>);

impl UserCode {
    fn random(rng: &mut impl CryptoRng) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(9));
        for at in 0..8 {
            if at == 4 {
                text.push('-');
            }
            text.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
        }
        Self(text)
    }

    /// What was typed: case, and all but letters and digits, do not count. None if it has not eight of them.
    #[must_use]
    pub fn parse(typed: &str) -> Option<Self> {
        // The length first: what is typed is anybody's.
        let signs = Some(typed).filter(|typed| typed.len() <= 64)?.chars().filter(char::is_ascii_alphanumeric);
        let mut code = Zeroizing::new(signs.map(|sign| sign.to_ascii_uppercase()).collect::<String>());
        (code.len() == 8).then(|| {
            code.insert(4, '-');
            Self(code)
        })
    }

    /// The text, for the program to show.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode")
    }
}

/// Whose program asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// One of the published contract's: it gets a token of class [`Class::Daemon`].
    Daemon,
    /// Ours, `{"client":"mykube","key"}`: it gets a sign-in bound to that key.
    Mykube(MachineKey),
}

impl Client {
    /// The class of the tokens.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Daemon => Class::Daemon,
            Self::Mykube(_) => Class::Mykube,
        }
    }
}

/// How the person who confirms has shown who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The cookie `lukan_token`, or dev mode's address and secret, as the published page does.
    Published,
    /// The portal's session and its page's CSRF token.
    Portal,
}

/// Who has confirmed a code, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Whose sign-in the program gets.
    pub account: AccountId,
    /// The sign-in that was shown: when it has ended, the program gets nothing.
    pub sid: SignInId,
    /// When the person proved who they are, which confirming is not.
    pub auth_time: UnixTime,
    /// The address it came from.
    pub from: IpAddr,
}

/// How far a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has confirmed it.
    Pending,
    /// Somebody has, and the program has not fetched it yet.
    Confirmed(Confirmation),
    /// The program has it.
    Fetched,
    /// Somebody who was asked said no.
    Refused,
}

/// A device code as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSignIn {
    /// Hash of the device code.
    pub device_code: Digest,
    /// Hash of the user code.
    pub user_code: Digest,
    /// Whose program asks.
    pub client: Client,
    /// What it calls itself (`User-Agent`), for the page: plain characters, a claim.
    pub program: String,
    /// The address that it asked from, for the page.
    pub asked_from: IpAddr,
    /// When it asked.
    pub created_at: UnixTime,
    /// The last question that was answered. Not kept: it is worth no write for each question.
    pub polled_at: Option<UnixTime>,
    /// How far it is.
    pub stage: Stage,
}

/// What a program is told, with 200 but for [`Self::TooSoon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// `{"status":"pending"}`
    Pending,
    /// `{"status":"authorized",...}`: a sign-in of this account is made, if that of the confirmation has not ended. The row
    /// has no more use.
    Authorised(Confirmation),
    /// `{"status":"expired"}`: also for what is unknown.
    Expired,
    /// `{"status":"denied"}` for a program of ours; published ones know no such answer, and it has expired for them.
    Refused,
    /// 429 and a text. Nothing changes.
    TooSoon,
}

/// Why nothing is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// Over, confirmed already or unknown: the published text, with 400.
    #[error("Invalid or expired code")]
    Invalid,
    /// The published page cannot confirm a sign-in of our own program.
    #[error("open /device on the relay and confirm this code there")]
    Credential,
}

impl DeviceSignIn {
    /// A new one, with what the program gets.
    #[must_use]
    pub fn begin(
        client: Client,
        program: &str,
        asked_from: IpAddr,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, DeviceCode, UserCode) {
        let (device_code, user_code) = (DeviceCode::random(rng), UserCode::random(rng));
        let row = Self {
            device_code: hash.hash(now, &[b"device", device_code.expose().as_bytes()]).1,
            user_code: hash.hash(now, &[b"user", user_code.expose().as_bytes()]).1,
            client,
            program: plain_program(program.as_bytes()),
            asked_from,
            created_at: now,
            polled_at: None,
            stage: Stage::Pending,
        };
        (row, device_code, user_code)
    }

    /// By what the device code that a program shows is looked for.
    #[must_use]
    pub fn device_candidates(shown: &str, hash: &KeyedHash) -> Vec<Digest> {
        hash.candidates(&[b"device", shown.as_bytes()]).into_iter().map(|(_, digest)| digest).collect()
    }

    /// By what the user code that a person typed is looked for.
    #[must_use]
    pub fn user_candidates(typed: &UserCode, hash: &KeyedHash) -> Vec<Digest> {
        hash.candidates(&[b"user", typed.expose().as_bytes()]).into_iter().map(|(_, digest)| digest).collect()
    }

    /// Whether it may ask: a program of ours signs each question, over the device code as it is sent, with the key that it
    /// asked for the code with. `signed`: the time of its clock, in milliseconds since 1970, and the signature.
    #[must_use]
    pub fn may_poll(&self, shown: &str, signed: Option<(u64, &[u8])>, base_urls: &[String]) -> bool {
        match (self.client, signed) {
            (Client::Daemon, _) => true,
            (Client::Mykube(_), None) => false,
            (Client::Mykube(key), Some((time, signature))) => {
                key.has_signed(&Statement { act: Act::SignIn, shown, time }, signature, base_urls)
            }
        }
    }

    /// What codes are counted by.
    #[must_use]
    pub fn network(&self) -> String {
        limits::network(self.asked_from)
    }

    /// Whether it can still be confirmed: the page shows no other.
    #[must_use]
    pub fn is_pending(&self, now: UnixTime) -> bool {
        self.stage == Stage::Pending && !self.is_over(now)
    }

    /// The program asks.
    pub fn handle_poll(&mut self, now: UnixTime) -> Poll {
        if self.is_over(now) || self.stage == Stage::Fetched {
            return Poll::Expired;
        }
        if self.stage == Stage::Refused {
            return Poll::Refused;
        }
        if self.polled_at.is_some_and(|last| now.since(last) < INTERVAL.saturating_sub(SLACK)) {
            return Poll::TooSoon;
        }
        self.polled_at = Some(now);
        match self.stage {
            Stage::Confirmed(confirmation) => {
                self.stage = Stage::Fetched;
                Poll::Authorised(confirmation)
            }
            _ => Poll::Pending,
        }
    }

    /// A person has typed the code, seen who asks, and clicked.
    ///
    /// # Errors
    /// It is not pending, or this credential does not confirm such a one.
    pub fn handle_confirm(
        &mut self,
        by: Confirmation,
        credential: Credential,
        now: UnixTime,
    ) -> Result<(), ConfirmError> {
        if !self.is_pending(now) {
            return Err(ConfirmError::Invalid);
        }
        if matches!(self.client, Client::Mykube(_)) && credential != Credential::Portal {
            return Err(ConfirmError::Credential);
        }
        self.stage = Stage::Confirmed(by);
        Ok(())
    }

    /// A person has typed the code, seen who asks, and said no.
    ///
    /// # Errors
    /// It is not pending.
    pub fn handle_refuse(&mut self, now: UnixTime) -> Result<(), ConfirmError> {
        if !self.is_pending(now) {
            return Err(ConfirmError::Invalid);
        }
        self.stage = Stage::Refused;
        Ok(())
    }

    fn is_over(&self, now: UnixTime) -> bool {
        now.since(self.created_at) >= LIFE
    }
}

#[cfg(test)]
mod tests;
