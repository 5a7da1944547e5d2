//! Tokens of agents: finding what is shown, and the slow hash on a thread of its own.
//!
//! A token that nobody has is not found by its keyed hash, and costs one look into the database. The slow hash (bcrypt, a
//! quarter of a second) is computed for a token that is found, [`AT_ONCE`]; others wait, [`WAITING`] at most. What passed is
//! remembered for [`REMEMBERED`]: an agent whose connection was lost comes back without it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mykube_relay_accounts::{
    keyed_hash::{Digest, KeyedHash},
    keys::{Keys, Purpose},
    time::UnixTime,
    token::{Kind, Token, TokenRow},
};
use mykube_relay_store::{Agent, Store, StoreError};
use rand::RngExt as _;
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Slow hashes at once: sessions' bytes need the processors too.
const AT_ONCE: usize = 1;
/// How many wait for one: they have their answer within half a minute, or ask again.
const WAITING: usize = 100;
/// How long what passed is remembered. The token's row is read each time: what is revoked is refused at once.
const REMEMBERED: Duration = Duration::from_mins(10);
/// Of how many tokens: further ones are checked anew.
const REMEMBERED_MAX: usize = 100_000;

/// No slow hash could be computed: too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// What finds tokens, and hashes them.
pub(crate) struct Tokens {
    hash: KeyedHash,
    at_once: Semaphore,
    waiting: Semaphore,
    passed: Mutex<HashMap<[u8; 32], Instant>>,
    /// How many slow hashes were computed.
    #[cfg(test)]
    pub(crate) computed: std::sync::atomic::AtomicUsize,
}

impl Tokens {
    pub(crate) fn new(keys: &Keys) -> Self {
        Self {
            hash: KeyedHash::new(keys, Purpose::Tokens),
            at_once: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(WAITING),
            passed: Mutex::default(),
            #[cfg(test)]
            computed: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// With these secrets from now on.
    pub(crate) fn replace(&self, keys: &Keys) {
        self.hash.replace(keys);
    }

    /// What is kept of a new token of this agent, which is its newest: a row without an end.
    pub(crate) async fn row(&self, token: Token, of: &Agent, now: UnixTime) -> Result<(Token, TokenRow), Busy> {
        let (kid, digest) = token.digest(&self.hash, now);
        let salt = rand::rng().random();
        let hashed = move || (token.slow_hash(salt), token);
        let (slow, token) = self.slowly(hashed).await?;
        self.remember(digest);
        let row = TokenRow {
            organisation: of.organisation,
            kind: Kind::Agent,
            name: of.name.clone(),
            generation: of.generation,
            kid,
            digest,
            slow,
            created_at: now,
            expires_at: None,
            replaced_until: None,
            strict: false,
            revoked_at: None,
        };
        Ok((token, row))
    }

    /// The agent whose token this is, and the token's row, which is to be judged.
    pub(crate) async fn find(&self, store: &Store, token: &Token) -> Result<Option<(Agent, TokenRow)>, StoreError> {
        store.agent_token(&token.candidates(&self.hash)).await
    }

    /// Whether the slow hash of its row is this token's too.
    pub(crate) async fn is_of(&self, token: Token, row: &TokenRow) -> Result<bool, Busy> {
        if self.has_passed(row.digest) {
            return Ok(true);
        }
        let slow = row.slow.clone();
        let is_of = self.slowly(move || token.verify_slow(&slow)).await?;
        if is_of {
            self.remember(row.digest);
        }
        Ok(is_of)
    }

    /// The row as it has to be kept where it was found by an older secret: else it would be lost with that.
    pub(crate) fn kept_anew(&self, token: &Token, row: &TokenRow, now: UnixTime) -> Option<TokenRow> {
        let (kid, digest) = token.digest(&self.hash, now);
        (kid != row.kid).then(|| TokenRow { kid, digest, ..row.clone() })
    }

    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _waits = self.waiting.try_acquire().map_err(|_| Busy)?;
        let _turn = self.at_once.acquire().await.map_err(|_| Busy)?;
        #[cfg(test)]
        self.computed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        spawn_blocking(work).await.map_err(|_| Busy)
    }

    fn has_passed(&self, digest: Digest) -> bool {
        let now = Instant::now();
        self.passed().get(&digest.to_bytes()).is_some_and(|until| *until > now)
    }

    fn remember(&self, digest: Digest) {
        let now = Instant::now();
        let mut passed = self.passed();
        if passed.len() >= REMEMBERED_MAX {
            passed.retain(|_, until| *until > now);
        }
        if passed.len() < REMEMBERED_MAX {
            passed.insert(digest.to_bytes(), now + REMEMBERED);
        }
    }

    fn passed(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if as many waited as may.
    #[cfg(test)]
    pub(crate) fn hold_all(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.waiting.try_acquire_many(u32::try_from(WAITING).unwrap_or(u32::MAX)).expect("nobody waits")
    }

    /// As after a start of the relay.
    #[cfg(test)]
    pub(crate) fn forget_passed(&self) {
        self.passed().clear();
    }
}
