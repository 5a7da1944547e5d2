//! The portal: its calls, and what they share.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::Router;
use mykube_relay_accounts::{keys::Keys, time::UnixTime};
use mykube_relay_store::{Store, StoreError};

use crate::{auth, failure::Failure, health, settings::Settings, shared::Shared, v1};

/// A relay's calls for people and programs.
pub struct Portal {
    shared: Arc<Shared>,
    router: Router,
}

impl Portal {
    /// With these secrets, on this database.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn new(settings: Settings, keys: &Keys, store: Store) -> Result<Self, StoreError> {
        Self::with_clock(settings, keys, store, system_time).await
    }

    /// The same, by another clock.
    pub(crate) async fn with_clock(
        settings: Settings,
        keys: &Keys,
        store: Store,
        clock: fn() -> UnixTime,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(settings, keys, store, clock).await?);
        let router = Router::new()
            .route("/health", axum::routing::get(health::health))
            .merge(auth::router())
            .merge(v1::router())
            .fallback(|| async { Failure::not_found() })
            .with_state(shared.clone());
        Ok(Self { shared, router })
    }

    /// Lets go of the database, once what is under way is written.
    pub async fn close(&self) {
        self.shared.store.close().await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }
}

fn system_time() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
