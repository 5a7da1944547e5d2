//! The portal: its calls, and what they share.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use mykube_relay_accounts::{keys::Keys, time::UnixTime};
use mykube_relay_store::{Store, StoreError};
use tokio::time::sleep;
use tracing::warn;

use crate::{
    agents, audit, auth, failure::Failure, health, mail::Mailer, pages, settings::Settings, shared::Shared, v1,
};

/// How often what is over is forgotten.
const SWEEP: Duration = Duration::from_hours(1);
/// How often a database that is a server is asked whether it is there, and each how many of these what other relays on it
/// have ended.
const WATCH: Duration = Duration::from_secs(2);
const HEAR: u32 = 5;
/// How much longer than its token a channel may last.
const TICK: Duration = Duration::from_secs(1);

/// A relay's calls for people and programs.
pub struct Portal {
    shared: Arc<Shared>,
    router: Router,
}

impl Portal {
    /// With these secrets, on this database. What is over is forgotten on the runtime that this is called on.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn new(settings: Settings, keys: &Keys, store: Store) -> Result<Self, StoreError> {
        let mailer = settings.mail.clone().map(Mailer::start);
        let portal = Self::with_clock(settings, keys, store, system_time, mailer).await?;
        tokio::spawn(sweep(Arc::downgrade(&portal.shared)));
        if portal.shared.store.is_server() {
            tokio::spawn(watch(Arc::downgrade(&portal.shared)));
        }
        tokio::spawn(tick(Arc::downgrade(&portal.shared)));
        Ok(portal)
    }

    /// The same, by another clock, and with mail that somebody else takes.
    pub(crate) async fn with_clock(
        settings: Settings,
        keys: &Keys,
        store: Store,
        clock: fn() -> UnixTime,
        mailer: Option<Mailer>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(settings, keys, store, clock, mailer).await?);
        let router = Router::new()
            .route("/health", axum::routing::get(health::health))
            .merge(auth::router())
            .merge(v1::router())
            .merge(audit::router())
            .merge(pages::router())
            .merge(agents::router())
            .fallback(|| async { Failure::not_found() })
            .with_state(shared.clone());
        Ok(Self { shared, router })
    }

    /// Takes these secrets instead of those before: what was made with one that is no longer among them is worth nothing.
    pub fn replace_keys(&self, keys: &Keys) {
        self.shared.replace_keys(keys);
    }

    /// Whether it can answer what needs the database.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.store.is_up()
    }

    /// Tells agents that the relay stops, and lets go of the database, once what is under way is written.
    pub async fn close(&self) {
        self.shared.control.drain(self.shared.instant());
        self.shared.store.close().await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }
}

/// Sweeps for as long as there is a portal. What fails is tried again with the next.
async fn sweep(shared: Weak<Shared>) {
    loop {
        sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = shared.sweep().await {
            warn!(%error, "what is over could not be forgotten");
        }
    }
}

/// Asks for as long as there is a portal.
async fn watch(shared: Weak<Shared>) {
    let mut round = (0..HEAR).cycle();
    loop {
        sleep(WATCH).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.store.check().await;
        // What cannot be heard now is heard the next time: that the database is gone is said by then.
        if shared.store.is_up()
            && round.next() == Some(0)
            && let Err(error) = shared.hear_denied().await
        {
            warn!(%error, "what other relays have ended could not be heard: it counts here still");
        }
    }
}

/// Ends the channels whose tokens have ended, for as long as there is a portal.
async fn tick(shared: Weak<Shared>) {
    loop {
        sleep(TICK).await;
        let Some(shared) = shared.upgrade() else { return };
        shared.control.tick(shared.instant());
    }
}

/// The time by the system's clock.
#[must_use]
pub fn system_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
