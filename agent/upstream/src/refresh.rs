//! Welcomes for clients, and new ones when the credentials change or are about to expire.

use std::{
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use mykube_protocol::channel::Welcome;
use tokio::{
    sync::{Mutex, watch},
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{error::KubeconfigError, expiry::Expiry, upstream::Upstream};

/// How often token and certificate files are read, and a plugin's credential is checked for being due. Kubernetes
/// replaces a pod's token hours before it expires; after ten seconds a rotated file is noticed.
pub const POLL: Duration = Duration::from_secs(10);
/// The longest wait between attempts while credentials cannot be refreshed; it begins at [`POLL`] and doubles.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// Makes welcomes and refreshes their credentials, in a task that ends with this value.
pub struct Credentialer {
    shared: Arc<Shared>,
    newest: watch::Receiver<Option<Arc<Welcome>>>,
    /// Ends the task between two checks: a running plugin is not stopped halfway.
    _watches: DropGuard,
}

struct Shared {
    upstream: Arc<Upstream>,
    loaded: Mutex<Option<Loaded>>,
    newest: watch::Sender<Option<Arc<Welcome>>>,
    given: StdMutex<Option<Arc<Welcome>>>,
}

struct Loaded {
    welcome: Arc<Welcome>,
    expiry: Option<Expiry>,
}

impl Credentialer {
    /// Begins to check the upstream's credentials once a first welcome was asked for. Must be used within a tokio
    /// runtime.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let (sender, newest) = watch::channel(None);
        let changes = upstream.credentials.changes();
        let shared =
            Arc::new(Shared { upstream, loaded: Mutex::new(None), newest: sender, given: StdMutex::new(None) });
        let over = CancellationToken::new();
        if changes {
            tokio::spawn(Arc::clone(&shared).watch(over.clone()));
        }
        Self { shared, newest, _watches: over.drop_guard() }
    }

    /// What to tell a client now. Runs an exec plugin if it never ran or its credential is due. The server calls this
    /// before it shows a code, so that the operator is still there to read of a fault.
    ///
    /// # Errors
    /// No credentials can be had, and there are no earlier ones that are still valid.
    pub async fn welcome(&self) -> Result<Welcome, KubeconfigError> {
        let mut loaded = self.shared.loaded.lock().await;
        let welcome = match self.shared.upstream.shared_welcome().await {
            Ok((welcome, expiry)) => self.shared.keep(&mut loaded, welcome, expiry),
            Err(error) => match loaded.as_ref() {
                Some(last) if !last.expiry.is_some_and(|expiry| expiry.is_over()) => {
                    tracing::warn!(%error, "the credentials cannot be refreshed; the last ones are used");
                    Arc::clone(&last.welcome)
                }
                _ => return Err(error),
            },
        };
        *self.given() = Some(Arc::clone(&welcome));
        Ok((*welcome).clone())
    }

    /// Waits for a welcome that differs from the last one returned. Cancel-safe: dropping this loses nothing and begins
    /// nothing again. A refresh that fails is logged and tried again.
    pub async fn changed(&mut self) -> Welcome {
        loop {
            let newest = self.newest.borrow_and_update().clone();
            if let Some(newest) = newest {
                let mut given = self.given();
                if given.as_ref() != Some(&newest) {
                    *given = Some(Arc::clone(&newest));
                    return (*newest).clone();
                }
            }
            if self.newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Option<Arc<Welcome>>> {
        self.shared.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Stores a welcome and publishes it if it is new.
    fn keep(&self, loaded: &mut Option<Loaded>, welcome: Welcome, expiry: Option<Expiry>) -> Arc<Welcome> {
        let welcome = match loaded.take() {
            Some(last) if *last.welcome == welcome => last.welcome,
            _ => Arc::new(welcome),
        };
        *loaded = Some(Loaded { welcome: Arc::clone(&welcome), expiry });
        self.newest.send_if_modified(|newest| {
            let is_new = newest.as_ref() != Some(&welcome);
            *newest = Some(Arc::clone(&welcome));
            is_new
        });
        welcome
    }

    async fn watch(self: Arc<Self>, over: CancellationToken) {
        let reads_files = self.upstream.credentials.reads_files();
        let mut wait = POLL;
        let mut failing = false;
        loop {
            tokio::select! {
                () = sleep(wait) => {}
                () = over.cancelled() => return,
            }
            let mut loaded = self.loaded.lock().await;
            let Some(last) = loaded.as_ref() else { continue };
            if !reads_files && !last.expiry.is_some_and(|expiry| expiry.is_due()) {
                continue;
            }
            match self.upstream.shared_welcome().await {
                Ok((welcome, expiry)) => {
                    if failing {
                        tracing::info!("the credentials are refreshed again");
                    }
                    if *last.welcome != welcome {
                        tracing::debug!("the credentials have changed");
                    }
                    self.keep(&mut loaded, welcome, expiry);
                    (wait, failing) = (POLL, false);
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "the credentials cannot be refreshed; the last ones are kept");
                    }
                    wait = if failing { (wait * 2).min(RETRY_MAX) } else { POLL };
                    failing = true;
                }
            }
        }
    }
}
