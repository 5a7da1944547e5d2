//! A sign-in that has been sent to a provider and not come back: `state`, `nonce` and the verifier of PKCE.
//!
//! The row has nothing that lets anybody in. Its key is a hash of the state; nonce and verifier are derived from the state,
//! which only the browser has, under the relay's secret, which only the relay has. A browser is known by a cookie
//! (`HttpOnly`, `SameSite=Lax`, `__Host-`), so that nobody can make another's browser finish a sign-in of theirs.
//! The row is taken from the database when the state is shown, whatever comes of it.

use std::time::Duration;

use rand::CryptoRng;

use crate::{
    keyed_hash::{Digest, KeyedHash},
    keys::Kid,
    pkce::Challenge,
    return_path::ReturnPath,
    secret::Secret,
    time::UnixTime,
};

/// How long a sign-in may be at the provider.
pub const LIFE: Duration = Duration::from_mins(10);
/// Sign-ins under way at once: what a flood of begun ones can make the database keep.
pub const PENDING_MAX: usize = 65_536;
/// Of those, begun from one [network](crate::limits::network): more than the people of one site begin in ten minutes.
pub const NETWORK_MAX: usize = 1024;

/// Where a sign-in leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A page of the relay.
    Page(ReturnPath),
    /// A program that listens on a loopback port of the person's machine.
    Program {
        /// Its port.
        port: u16,
        /// Its own state, handed back to it.
        state: Option<String>,
        /// Its challenge: the code that it gets wants the verifier.
        challenge: Option<Challenge>,
    },
}

/// Bytes of a program's own state at most.
const STATE_MAX: usize = 128;

/// The query of a sign-in that cannot be begun. The message is a text of the answer, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGoal {
    /// No port.
    #[error("cli_port is a port, 1 to 65535")]
    Port,
    /// No challenge.
    #[error(
        "code_challenge is the SHA-256 of the verifier in base64url without padding; code_challenge_method, if any, is S256"
    )]
    Challenge,
    /// Too long, or not plain.
    #[error("state has at most {STATE_MAX} letters, digits and -._~")]
    State,
}

impl Goal {
    /// From the query of `/auth/{provider}`: `cli_port` wins over `redirect`. A challenge is one of S256, named or not.
    ///
    /// # Errors
    /// What is wrong with it. A `redirect` that leads elsewhere leads to `/`.
    pub fn parse(
        cli_port: Option<&str>,
        redirect: Option<&str>,
        state: Option<&str>,
        challenge: Option<&str>,
        method: Option<&str>,
    ) -> Result<Self, InvalidGoal> {
        let Some(port) = cli_port else {
            return Ok(Self::Page(redirect.map_or_else(ReturnPath::default, ReturnPath::parse)));
        };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = Some(port).filter(|_| digits).and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let challenge = match (challenge, method) {
            (None, None) => None,
            (Some(challenge), None | Some("S256")) => Some(Challenge::parse(challenge).ok_or(InvalidGoal::Challenge)?),
            _ => return Err(InvalidGoal::Challenge),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if state.is_some_and(|state| state.len() > STATE_MAX || !state.bytes().all(plain)) {
            return Err(InvalidGoal::State);
        }
        Ok(Self::Program { port: port.ok_or(InvalidGoal::Port)?, state: state.map(str::to_owned), challenge })
    }
}

/// A sign-in under way, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Hash of the state.
    pub state: Digest,
    /// The secret with which state, nonce and verifier were made.
    pub kid: Kid,
    /// Hash of the browser's cookie.
    pub browser: Digest,
    /// The provider's name in the configuration.
    pub provider: String,
    /// Where it leads.
    pub goal: Goal,
    /// When it was begun.
    pub created_at: UnixTime,
}

/// What goes to the provider, and comes back of it.
pub struct Sent {
    /// `state`.
    pub state: Secret,
    /// `nonce`, which the ID token must have.
    pub nonce: Secret,
    /// The verifier of `code_challenge`, for the token request.
    pub verifier: Secret,
}

/// A state that is over, unknown, or another browser's. The message is the published reason, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid or expired OAuth state parameter (CSRF check failed)")]
pub struct InvalidState;

impl Pending {
    /// Begins a sign-in. `cookie` is the one that the browser has already, or a new one.
    #[must_use]
    pub fn begin(
        provider: &str,
        goal: Goal,
        cookie: &Secret,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, Sent) {
        let state = Secret::random(rng);
        let (kid, digest) = hash.hash(now, &[b"state", state.expose().as_bytes()]);
        let (_, browser) = hash.hash(now, &[b"browser", cookie.expose().as_bytes()]);
        let sent = derive(state, kid, hash).expect("the secret that signs is there");
        let provider = provider.to_owned();
        (Self { state: digest, kid, browser, provider, goal, created_at: now }, sent)
    }

    /// By what a shown state is looked for.
    #[must_use]
    pub fn candidates(state: &Secret, hash: &KeyedHash) -> Vec<Digest> {
        let candidates = hash.candidates(&[b"state", state.expose().as_bytes()]);
        candidates.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Goes on with it: the state that came back, on the callback of this provider, from a browser with this cookie.
    ///
    /// # Errors
    /// It is over, another provider's or another browser's.
    pub fn resume(
        &self,
        state: Secret,
        provider: &str,
        cookie: Option<&Secret>,
        hash: &KeyedHash,
        now: UnixTime,
    ) -> Result<Sent, InvalidState> {
        let in_time = now.since(self.created_at) < LIFE;
        let same_browser =
            cookie.is_some_and(|cookie| hash.verify(self.browser, &[b"browser", cookie.expose().as_bytes()]));
        let same_state = hash.verify(self.state, &[b"state", state.expose().as_bytes()]);
        if !(in_time && same_browser && same_state && provider == self.provider) {
            return Err(InvalidState);
        }
        derive(state, self.kid, hash).ok_or(InvalidState)
    }
}

fn derive(state: Secret, kid: Kid, hash: &KeyedHash) -> Option<Sent> {
    let secret = |label: &[u8]| {
        let digest = hash.hash_with(kid, &[label, state.expose().as_bytes()])?;
        Some(Secret::encode(&digest.to_bytes()))
    };
    Some(Sent { nonce: secret(b"nonce")?, verifier: secret(b"verifier")?, state })
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::keys::{Keys, Purpose};

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn hash() -> KeyedHash {
        KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes)
    }

    fn again(secret: &Secret) -> Secret {
        Secret::parse(secret.expose()).unwrap()
    }

    #[test]
    fn a_sign_in_comes_back_to_the_browser_that_began_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let cookie = Secret::random(&mut rng);
        let (row, sent) = Pending::begin("google", Goal::Page(ReturnPath::default()), &cookie, &hash(), NOW, &mut rng);
        let other = Secret::random(&mut rng);
        assert_eq!(Pending::candidates(&sent.state, &hash()), [row.state]);
        let last = NOW + LIFE - Duration::from_millis(1);
        let resume = |state: &Secret, provider, cookie, now| row.resume(again(state), provider, cookie, &hash(), now);
        let back = resume(&sent.state, "google", Some(&cookie), last).unwrap();
        assert_eq!(back.nonce.expose(), sent.nonce.expose());
        assert!(Challenge::of(sent.verifier.expose()).accepts(back.verifier.expose()));
        let all = [&sent.state, &sent.nonce, &sent.verifier, &cookie].map(Secret::expose);
        assert!((1..4).all(|n| all[n..].iter().all(|other| *other != all[n - 1])), "none is another");
        for (state, provider, cookie, now) in [
            (&sent.state, "google", Some(&cookie), NOW + LIFE),
            (&sent.state, "google", None, NOW),
            (&sent.state, "google", Some(&other), NOW),
            (&sent.state, "github", Some(&cookie), NOW),
            (&other, "google", Some(&cookie), NOW),
        ] {
            assert_eq!(resume(state, provider, cookie, now).err(), Some(InvalidState));
        }
        let changed = KeyedHash::new(&Keys::from_configured(&[8; 32]).unwrap(), Purpose::Codes);
        assert!(row.resume(sent.state, "google", Some(&cookie), &changed, NOW).is_err());
    }

    #[test]
    fn a_rotation_in_between_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Keys::generate(&mut rng);
        let cookie = Secret::random(&mut rng);
        let before = KeyedHash::new(&keys, Purpose::Codes);
        let goal = Goal::Page(ReturnPath::default());
        let (row, sent) = Pending::begin("google", goal, &cookie, &before, NOW, &mut rng);
        keys.rotate(NOW, &mut rng).unwrap();
        let after = KeyedHash::new(&keys, Purpose::Codes);
        assert!(Pending::candidates(&sent.state, &after).contains(&row.state));
        let back = row.resume(again(&sent.state), "google", Some(&cookie), &after, NOW).unwrap();
        assert_eq!((back.nonce.expose(), back.verifier.expose()), (sent.nonce.expose(), sent.verifier.expose()));
    }

    #[test]
    fn a_programs_port_wins_over_a_page() {
        let challenge = Challenge::of("verifier");
        let encoded = challenge.encode();
        let program = |port, state: Option<&str>, challenge| {
            Ok(Goal::Program { port, state: state.map(str::to_owned), challenge })
        };
        let parse = Goal::parse;
        let some = Some(encoded.as_str());
        assert_eq!(parse(Some("9"), Some("/x"), None, None, None), program(9, None, None));
        for method in [None, Some("S256")] {
            let parsed = parse(Some("65535"), None, Some("s-1"), some, method);
            assert_eq!(parsed, program(65_535, Some("s-1"), Some(challenge)));
        }
        for port in ["", "0", "65536", "-1", "+80", "80 ", "0x50", "80@evil.test"] {
            assert_eq!(parse(Some(port), None, None, None, None), Err(InvalidGoal::Port), "{port}");
        }
        for (challenge, method) in
            [(some, Some("plain")), (some, Some("")), (None, Some("S256")), (Some("verifier"), None)]
        {
            assert_eq!(parse(Some("80"), None, None, challenge, method), Err(InvalidGoal::Challenge));
        }
        let longest = "a".repeat(STATE_MAX);
        assert_eq!(parse(Some("80"), None, Some(&longest), None, None), program(80, Some(&longest), None));
        for state in ["a b", "a&code=1", "\r\n", &"a".repeat(STATE_MAX + 1)] {
            assert_eq!(parse(Some("80"), None, Some(state), None, None), Err(InvalidGoal::State));
        }
        let page = |path: &str| Ok(Goal::Page(ReturnPath::parse(path)));
        assert_eq!(parse(None, Some("/device"), None, None, None), page("/device"));
        assert_eq!(parse(None, Some("//evil.test"), None, None, None), page("/"));
        assert_eq!(parse(None, None, None, None, None), page("/"));
    }
}
