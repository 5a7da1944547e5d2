//! What all calls share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mykube_relay_accounts::{
    device_code::{INTERVAL, PENDING_MAX},
    id::{BootId, SignInId, TokenId},
    identity::DEV_ISSUER,
    jwt::{Claims, Class, DenyList, Issued, JwtError, Jwts, Policy, Subject},
    keyed_hash::{Digest, KeyedHash},
    keys::{Keys, Purpose},
    refresh::LIFE,
    time::UnixTime,
};
use mykube_relay_store::{MARGIN, Store, StoreError};
use tracing::info;

use crate::{
    control::state::Control,
    limits::Limits,
    mail::Mailer,
    origin::Origins,
    settings::{BootScope, Settings},
    tokens::Tokens,
};

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) jwts: Jwts,
    /// Hashes of the portal's own cookie.
    pub(crate) cookies: KeyedHash,
    /// What forms of the portal's own pages are known by.
    pub(crate) csrf: KeyedHash,
    /// Hashes of what lives for minutes.
    pub(crate) codes: KeyedHash,
    /// Hashes of refresh tokens.
    pub(crate) refresh: KeyedHash,
    pub(crate) origins: Origins,
    pub(crate) limits: Limits,
    pub(crate) tokens: Tokens,
    pub(crate) control: Arc<Control>,
    /// Where codes are sent by email.
    pub(crate) mailer: Option<Mailer>,
    /// When each program with a device code has asked last.
    polled: Mutex<HashMap<[u8; 32], UnixTime>>,
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
        mailer: Option<Mailer>,
    ) -> Result<Self, StoreError> {
        let policy = Policy {
            issuers: names(&settings),
            boot: BootId::random(&mut rand::rng()),
            boot_ends_daemons: settings.boot_scope == BootScope::All,
            devices_life: settings.devices_life,
            devices_session: Policy::DEVICES_SESSION,
        };
        if settings.dev.is_none() {
            end_dev(&store, clock()).await?;
        }
        let denied = store.denied().await?;
        let limits = Limits::new(clock());
        Ok(Self {
            origins: Origins::new(
                [&settings.public_url].into_iter().chain(&settings.aliases),
                settings.allow_origins.clone(),
            ),
            jwts: Jwts::new(keys, policy),
            cookies: KeyedHash::new(keys, Purpose::Cookies),
            csrf: KeyedHash::new(keys, Purpose::Csrf),
            codes: KeyedHash::new(keys, Purpose::Codes),
            refresh: KeyedHash::new(keys, Purpose::Refresh),
            tokens: Tokens::new(keys),
            control: Arc::new(Control::new(limits.instant(clock()))),
            limits,
            mailer,
            polled: Mutex::default(),
            denied: Mutex::new(denied),
            settings,
            store,
            clock,
        })
    }

    /// Hears what another relay on this database has ended.
    pub(crate) async fn hear_denied(&self) -> Result<(), StoreError> {
        let denied = self.store.denied().await?;
        self.denied().extend(denied);
        Ok(())
    }

    /// With these secrets from now on.
    pub(crate) fn replace_keys(&self, keys: &Keys) {
        self.jwts.replace(keys);
        self.tokens.replace(keys);
        for hash in [&self.cookies, &self.csrf, &self.codes, &self.refresh] {
            hash.replace(keys);
        }
    }

    pub(crate) fn now(&self) -> UnixTime {
        (self.clock)()
    }

    /// The same time, of a clock that nobody sets.
    pub(crate) fn instant(&self) -> Instant {
        self.limits.instant(self.now())
    }

    pub(crate) fn denied(&self) -> MutexGuard<'_, DenyList> {
        self.denied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the program with this device code has asked last.
    pub(crate) fn polled(&self, code: Digest) -> Option<UnixTime> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner).get(&code.to_bytes()).copied()
    }

    /// It asks now. Kept in memory: an answer that nothing has happened is worth no write.
    pub(crate) fn note_poll(&self, code: Digest, now: UnixTime) {
        let mut polled = self.polled.lock().unwrap_or_else(PoisonError::into_inner);
        if polled.len() >= PENDING_MAX {
            polled.retain(|_, at| now.since(*at) < INTERVAL);
        }
        polled.insert(code.to_bytes(), now);
    }

    /// Forgets what is over, in steps between which others have the database.
    pub(crate) async fn sweep(&self) -> Result<(), StoreError> {
        let time = self.store.swept_at(self.now()).await?;
        self.denied().handle_tick(time - MARGIN);
        while self.store.forget(time).await? {}
        Ok(())
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

/// What dev mode gave does not outlive it: this relay may be reached by others now.
async fn end_dev(store: &Store, now: UnixTime) -> Result<(), StoreError> {
    let until = DenyList::default().deny_sign_in(SignInId::from_bytes([0; 16]), now, now + LIFE);
    let mut transaction = store.begin().await?;
    let ended = transaction.end_sign_ins_of(DEV_ISSUER, until, now).await?;
    transaction.commit().await?;
    if ended > 0 {
        info!(sign_ins = ended, "dev mode is off: the sign-ins that it gave have ended");
    }
    Ok(())
}

fn names(settings: &Settings) -> Vec<String> {
    let urls = [&settings.public_url].into_iter().chain(&settings.aliases);
    urls.map(|url| url.as_str().to_owned()).collect()
}
