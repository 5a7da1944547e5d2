//! The code with which a program fetches its sign-in from `/auth/exchange`, after a person clicked in a browser. It lives a
//! minute and is good once: the row is taken from the database when the code is shown, whatever comes of it.

use std::time::Duration;

use rand::CryptoRng;

use crate::{
    device_code::Confirmation,
    jwt::Class,
    keyed_hash::{Digest, KeyedHash},
    pkce::Challenge,
    secret::Secret,
    statement::{Act, MachineKey, Statement},
    time::UnixTime,
};

/// How long a code is good.
pub const LIFE: Duration = Duration::from_mins(1);

/// A code as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginCode {
    /// Hash of the code.
    pub code: Digest,
    /// Who clicked, in which sign-in.
    pub by: Confirmation,
    /// What the sign-in brought, if it did: then the code wants its verifier.
    pub challenge: Option<Challenge>,
    /// When it was made.
    pub created_at: UnixTime,
}

/// What a program sends with a code.
#[derive(Clone, Copy, Default)]
pub struct Exchange<'a> {
    /// The code's text.
    pub code: &'a str,
    /// The verifier of the challenge.
    pub verifier: Option<&'a str>,
    /// The machine's key, and its signature over [`Act::SignIn`] and the code.
    pub key: Option<Signed<'a>>,
}

/// A key that a machine shows, and proves to have.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The key.
    pub key: MachineKey,
    /// Of the statement: milliseconds since 1970. Only the machine's clock counts: the code is good once.
    pub time: u64,
    /// Of the statement.
    pub signature: &'a [u8],
}

/// What a code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A sign-in of our own program, bound to its machine's key: class [`Class::Mykube`].
    Mykube(MachineKey),
    /// The published exchange: class [`Class::Daemon`].
    Daemon,
}

impl Granted {
    /// The class of the tokens.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Mykube(_) => Class::Mykube,
            Self::Daemon => Class::Daemon,
        }
    }
}

/// A code that is good for nothing. The message is the published text, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid or expired auth code")]
pub struct InvalidCode;

impl LoginCode {
    /// A new code of this person's.
    #[must_use]
    pub fn new(
        by: Confirmation,
        challenge: Option<Challenge>,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, Secret) {
        let code = Secret::random(rng);
        let (_, digest) = hash.hash(now, &[b"login", code.expose().as_bytes()]);
        (Self { code: digest, by, challenge, created_at: now }, code)
    }

    /// By what a shown code is looked for.
    #[must_use]
    pub fn candidates(code: &str, hash: &KeyedHash) -> Vec<Digest> {
        let candidates = hash.candidates(&[b"login", code.as_bytes()]);
        candidates.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Redeems it. `published_exchange` is the setting: without it a code that came of no challenge is good for nothing.
    ///
    /// # Errors
    /// It is over, or what came with it is not what its sign-in brought.
    pub fn redeem(
        self,
        exchange: Exchange<'_>,
        published_exchange: bool,
        base_urls: &[String],
        now: UnixTime,
    ) -> Result<Granted, InvalidCode> {
        if now.since(self.created_at) >= LIFE {
            return Err(InvalidCode);
        }
        match (self.challenge, exchange.verifier, exchange.key) {
            (Some(challenge), Some(verifier), Some(signed)) if challenge.accepts(verifier) => {
                let statement = Statement { act: Act::SignIn, shown: exchange.code, time: signed.time };
                let proved = signed.key.has_signed(&statement, signed.signature, base_urls);
                if proved { Ok(Granted::Mykube(signed.key)) } else { Err(InvalidCode) }
            }
            (None, None, None) if published_exchange => Ok(Granted::Daemon),
            // A verifier without a challenge is somebody else's program (RFC 9700, section 2.1.1).
            _ => Err(InvalidCode),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{
        id::{AccountId, SignInId},
        keys::{Keys, Purpose},
    };

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn made(challenge: Option<Challenge>) -> (LoginCode, Secret) {
        let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes);
        let (account, sid) = (AccountId::from_bytes([1; 16]), SignInId::from_bytes([2; 16]));
        let by = Confirmation { account, sid, auth_time: NOW, from: [192, 0, 2, 1].into() };
        let (row, code) = LoginCode::new(by, challenge, &hash, NOW, &mut StdRng::seed_from_u64(1));
        assert_eq!(LoginCode::candidates(code.expose(), &hash), [row.code]);
        assert_ne!(LoginCode::candidates(&code.expose()[1..], &hash), [row.code]);
        (row, code)
    }

    #[test]
    fn a_code_of_a_challenge_wants_its_verifier_and_a_machines_key() {
        let urls = ["https://relay.example.com".to_owned()];
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = MachineKey::from_bytes(pair.public_key().as_ref()).unwrap();
        let (row, code) = made(Some(Challenge::of(VERIFIER)));
        let sign = |act, url: &str| {
            let statement = Statement { act, shown: code.expose(), time: 5 };
            pair.sign(&SystemRandom::new(), &statement.bytes(url)).unwrap()
        };
        let (good, other_act) = (sign(Act::SignIn, &urls[0]), sign(Act::Refresh, &urls[0]));
        let elsewhere = sign(Act::SignIn, "https://other.example");
        let signed = |signature| Some(Signed { key, time: 5, signature });
        let redeem = |verifier, key| {
            let exchange = Exchange { code: code.expose(), verifier, key };
            row.clone().redeem(exchange, true, &urls, NOW + LIFE - Duration::from_millis(1))
        };
        let granted = redeem(Some(VERIFIER), signed(good.as_ref())).unwrap();
        assert_eq!((granted, granted.class()), (Granted::Mykube(key), Class::Mykube));
        for (verifier, key) in [
            (None, None),
            (None, signed(good.as_ref())),
            (Some(VERIFIER), None),
            (Some(&VERIFIER[..42]), signed(good.as_ref())),
            (Some("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXX"), signed(good.as_ref())),
            (Some(VERIFIER), signed(other_act.as_ref())),
            (Some(VERIFIER), signed(elsewhere.as_ref())),
            (Some(VERIFIER), signed(&[])),
        ] {
            assert_eq!(redeem(verifier, key), Err(InvalidCode), "{verifier:?}");
        }
        let late = Exchange { code: code.expose(), verifier: Some(VERIFIER), key: signed(good.as_ref()) };
        assert_eq!(row.redeem(late, true, &urls, NOW + LIFE), Err(InvalidCode));
    }

    #[test]
    fn the_published_exchange_is_a_setting_and_gives_a_daemons_token() {
        let (row, code) = made(None);
        let exchange = |verifier| Exchange { code: code.expose(), verifier, key: None };
        let granted = row.clone().redeem(exchange(None), true, &[], NOW).unwrap();
        assert_eq!((granted, granted.class()), (Granted::Daemon, Class::Daemon));
        assert_eq!(row.clone().redeem(exchange(None), false, &[], NOW), Err(InvalidCode));
        assert_eq!(row.redeem(exchange(Some(VERIFIER)), true, &[], NOW), Err(InvalidCode), "of another program");
        assert_eq!(InvalidCode.to_string(), "Invalid or expired auth code");
    }
}
