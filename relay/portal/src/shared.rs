//! What all calls share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mykube_relay_accounts::{
    id::{BootId, TokenId},
    jwt::{Claims, Class, DenyList, Issued, JwtError, Jwts, Policy, Subject},
    keyed_hash::KeyedHash,
    keys::{Keys, Purpose},
    time::UnixTime,
};
use mykube_relay_store::{Store, StoreError};

use crate::{
    limits::Limits,
    origin::Origins,
    settings::{BootScope, Settings},
};

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) jwts: Jwts,
    /// Hashes of the portal's own cookie.
    pub(crate) cookies: KeyedHash,
    /// Hashes of what lives for minutes.
    pub(crate) codes: KeyedHash,
    /// Hashes of refresh tokens.
    pub(crate) refresh: KeyedHash,
    pub(crate) origins: Origins,
    pub(crate) limits: Limits,
    denied: Mutex<DenyList>,
    clock: fn() -> UnixTime,
}

impl Shared {
    /// Reads what is refused from the database.
    pub(crate) async fn new(
        settings: Settings,
        keys: &Keys,
        store: Store,
        clock: fn() -> UnixTime,
    ) -> Result<Self, StoreError> {
        let policy = Policy {
            issuers: names(&settings),
            boot: BootId::random(&mut rand::rng()),
            boot_ends_daemons: settings.boot_scope == BootScope::All,
            devices_life: Class::Devices.life(),
            devices_session: Policy::DEVICES_SESSION,
        };
        let denied = store.denied(clock()).await?;
        Ok(Self {
            origins: Origins::new(&settings.public_url, settings.allow_origins.clone()),
            jwts: Jwts::new(keys, policy),
            cookies: KeyedHash::new(keys, Purpose::Cookies),
            codes: KeyedHash::new(keys, Purpose::Codes),
            refresh: KeyedHash::new(keys, Purpose::Refresh),
            limits: Limits::new(clock()),
            denied: Mutex::new(denied),
            settings,
            store,
            clock,
        })
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.clock)()
    }

    pub(crate) fn denied(&self) -> MutexGuard<'_, DenyList> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a token of these classes.
    pub(crate) fn verify(&self, token: &str, classes: &[Class]) -> Result<Claims, JwtError> {
        self.jwts.verify(token, classes, self.now(), &self.denied())
    }

    /// Makes a token of its own.
    pub(crate) fn issue(&self, class: Class, subject: &Subject, now: UnixTime) -> Issued {
        self.jwts.issue(class, subject, TokenId::random(&mut rand::rng()), now)
    }

    /// The addresses by which this relay knows itself.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.settings)
    }
}

fn names(settings: &Settings) -> Vec<String> {
    let urls = [&settings.public_url].into_iter().chain(&settings.aliases);
    urls.map(|url| url.as_str().to_owned()).collect()
}
