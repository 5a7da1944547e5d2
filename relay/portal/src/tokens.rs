//! Tokens of agents: finding what is shown, and the slow hash on a thread of its own.
//!
//! A token that nobody has is not found by its keyed hash, and costs one look into the database. The slow hash (bcrypt, a
//! quarter of a second) is computed of one that is found where the relay has not vouched for its row: it does when it makes the
//! token, so that of a thousand agents that come back at once none waits for it. [`AT_ONCE`] are computed at a time, and
//! [`WAITING`] wait at most.

use mykube_relay_accounts::{
    keyed_hash::{Digest, KeyedHash},
    keys::{Keys, Kid, Purpose},
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

/// No slow hash could be computed: too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// What finds tokens, and hashes them.
pub(crate) struct Tokens {
    hash: KeyedHash,
    at_once: Semaphore,
    waiting: Semaphore,
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
        Ok((token, self.new_row(of, (kid, digest), slow, now)))
    }

    fn new_row(&self, of: &Agent, (kid, digest): (Kid, Digest), slow: String, now: UnixTime) -> TokenRow {
        let row = TokenRow {
            organisation: of.organisation,
            kind: Kind::Agent,
            name: of.name.clone(),
            generation: of.generation,
            kid,
            digest,
            slow,
            vouched: None,
            created_at: now,
            expires_at: None,
            replaced_until: None,
            strict: false,
            revoked_at: None,
        };
        TokenRow { vouched: Some(row.vouch(&self.hash, now)), ..row }
    }

    /// The agent whose token this is, and the token's row, which is to be judged.
    pub(crate) async fn find(&self, store: &Store, token: &Token) -> Result<Option<(Agent, TokenRow)>, StoreError> {
        store.agent_token(&token.candidates(&self.hash)).await
    }

    /// Whether the slow hash of its row is this token's too.
    pub(crate) async fn is_of(&self, token: &Token, row: &TokenRow) -> Result<bool, Busy> {
        if row.is_vouched(&self.hash) {
            return Ok(true);
        }
        let (token, slow) = (token.clone(), row.slow.clone());
        self.slowly(move || token.verify_slow(&slow)).await
    }

    /// The row as it has to be kept, where this is its token and it is kept otherwise: hashed by the newest secret, as it would
    /// be lost with an older one, and vouched for.
    pub(crate) fn kept_anew(&self, token: &Token, row: &TokenRow, now: UnixTime) -> Option<TokenRow> {
        let (kid, digest) = token.digest(&self.hash, now);
        if kid == row.kid && row.is_vouched(&self.hash) {
            return None;
        }
        let row = TokenRow { kid, digest, ..row.clone() };
        Some(TokenRow { vouched: Some(row.vouch(&self.hash, now)), ..row })
    }

    async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Busy> {
        let _waits = self.waiting.try_acquire().map_err(|_| Busy)?;
        let _turn = self.at_once.acquire().await.map_err(|_| Busy)?;
        #[cfg(test)]
        self.computed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        spawn_blocking(work).await.map_err(|_| Busy)
    }

    /// A row whose slow hash nobody has computed, as if it had been.
    #[cfg(test)]
    pub(crate) fn row_unhashed(&self, token: &Token, of: &Agent, now: UnixTime) -> TokenRow {
        let (kid, digest) = token.digest(&self.hash, now);
        self.new_row(of, (kid, digest), String::new(), now)
    }

    /// As if as many waited as may.
    #[cfg(test)]
    pub(crate) fn hold_all(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.waiting.try_acquire_many(u32::try_from(WAITING).unwrap_or(u32::MAX)).expect("nobody waits")
    }
}
