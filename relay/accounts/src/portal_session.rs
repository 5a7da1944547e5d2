//! The portal's own session: an opaque cookie, `__Host-mykube`, `HttpOnly`, `SameSite=Lax`. It survives the relay's restarts.
//!
//! What a form or script sends with it proves that it comes from the portal's own page: a value that is derived from the
//! cookie, so that none need be kept, and that no other page can read.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::CryptoRng;

use crate::{
    id::{AccountId, SignInId},
    keyed_hash::{Digest, KeyedHash},
    secret::Secret,
    sign_in::Method,
    time::UnixTime,
};

/// A session that nobody uses ends after this.
pub const IDLE: Duration = Duration::from_hours(7 * 24);
/// A session ends this long after the person signed in.
pub const LIFE: Duration = Duration::from_hours(30 * 24);
/// Its use is written down this often at most: reading a page is not writing to the database.
const NOTED: Duration = Duration::from_hours(1);

/// A session as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalSession {
    /// Hash of the cookie.
    pub cookie: Digest,
    /// The sign-in.
    pub sid: SignInId,
    /// Whose it is.
    pub account: AccountId,
    /// How they have shown who they are.
    pub method: Method,
    /// When they did.
    pub created_at: UnixTime,
    /// When it was used last, give or take an hour.
    pub seen_at: UnixTime,
}

impl PortalSession {
    /// A new one, and its cookie. `hash` is that of [`Purpose::Cookies`](crate::keys::Purpose::Cookies).
    #[must_use]
    pub fn begin(
        sid: SignInId,
        account: AccountId,
        method: Method,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, Secret) {
        let cookie = Secret::random(rng);
        let (_, digest) = hash.hash(now, &[b"portal", cookie.expose().as_bytes()]);
        (Self { cookie: digest, sid, account, method, created_at: now, seen_at: now }, cookie)
    }

    /// By what a shown cookie is looked for.
    #[must_use]
    pub fn candidates(cookie: &Secret, hash: &KeyedHash) -> Vec<Digest> {
        let candidates = hash.candidates(&[b"portal", cookie.expose().as_bytes()]);
        candidates.into_iter().map(|(_, digest)| digest).collect()
    }

    /// When it ends if nothing happens.
    #[must_use]
    pub fn ends_at(&self) -> UnixTime {
        (self.seen_at + IDLE).min(self.created_at + LIFE)
    }

    /// Whether it is good.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        now < self.ends_at()
    }

    /// It is used. Says whether the row is to be stored.
    pub fn handle_use(&mut self, now: UnixTime) -> bool {
        let note = now.since(self.seen_at) >= NOTED;
        if note {
            self.seen_at = now;
        }
        note
    }
}

/// What the portal's pages send with each change. `hash` is that of [`Purpose::Csrf`](crate::keys::Purpose::Csrf).
#[must_use]
pub fn csrf_token(cookie: &Secret, hash: &KeyedHash, now: UnixTime) -> String {
    let (_, digest) = hash.hash(now, &[cookie.expose().as_bytes()]);
    BASE64_URL_SAFE_NO_PAD.encode(digest.to_bytes())
}

/// Whether this came from a page that was made for this cookie.
#[must_use]
pub fn verify_csrf_token(shown: &str, cookie: &Secret, hash: &KeyedHash) -> bool {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(shown).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.is_some_and(|bytes| hash.verify(Digest::from_bytes(bytes), &[cookie.expose().as_bytes()]))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::keys::{Keys, Purpose};

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn begun(keys: &Keys, seed: u64) -> (PortalSession, Secret) {
        let (sid, account) = (SignInId::from_bytes([2; 16]), AccountId::from_bytes([1; 16]));
        let hash = KeyedHash::new(keys, Purpose::Cookies);
        PortalSession::begin(sid, account, Method::Browser, &hash, NOW, &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let keys = Keys::from_configured(&[7; 32]).unwrap();
        let (mut session, cookie) = begun(&keys, 1);
        let hash = KeyedHash::new(&keys, Purpose::Cookies);
        assert_eq!(PortalSession::candidates(&cookie, &hash), [session.cookie]);
        assert_ne!(PortalSession::candidates(&begun(&keys, 2).1, &hash), [session.cookie]);
        assert!(session.is_live(NOW + IDLE - MS) && !session.is_live(NOW + IDLE));
        assert!(!session.handle_use(NOW + NOTED - MS), "not every use is written down");
        for day in 1..30 {
            let now = NOW + Duration::from_hours(24 * day);
            assert!(session.is_live(now) && session.handle_use(now));
        }
        assert!(session.is_live(NOW + LIFE - MS) && !session.is_live(NOW + LIFE));
    }

    #[test]
    fn a_forms_token_is_of_one_cookie_and_outlives_a_rotation() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut keys = Keys::generate(&mut rng);
        let (cookie, other) = (begun(&keys, 1).1, begun(&keys, 2).1);
        let token = csrf_token(&cookie, &KeyedHash::new(&keys, Purpose::Csrf), NOW);
        keys.rotate(NOW, &mut rng).unwrap();
        let hash = KeyedHash::new(&keys, Purpose::Csrf);
        assert!(verify_csrf_token(&token, &cookie, &hash));
        assert!(verify_csrf_token(&csrf_token(&cookie, &hash, NOW), &cookie, &hash));
        assert!(!verify_csrf_token(&token, &other, &hash));
        assert!(!verify_csrf_token(&token, &cookie, &KeyedHash::new(&keys, Purpose::Cookies)));
        for shown in ["", cookie.expose(), &token[1..], &format!("{token}=")] {
            assert!(!verify_csrf_token(shown, &cookie, &hash), "{shown}");
        }
    }
}
