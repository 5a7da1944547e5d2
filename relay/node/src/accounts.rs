//! What knows people: keys, database and portal, on a thread of their own, so that no password hash and no slow disk ever
//! holds up a session's bytes.

use std::{
    io,
    sync::{Arc, Weak, mpsc},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use mykube_relay::{Accepted, Accepting, Answering, Arrival, Fallback, Transport};
use mykube_relay_portal::{Portal, is_socket, system_time};
use mykube_relay_store::{Store, StoreError};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinError,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    config::Accounts as Wanted,
    keys::{self, KeysError, Watched},
};

/// What is left of the five seconds in which a relay stops, when its sessions have had theirs.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Why there are no accounts.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Its secrets.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Its database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A fault of this program.
    #[error("a fault in this program while accounts were opened: {0}")]
    Fault(JoinError),
}

/// The portal, and where it runs.
#[derive(Clone)]
pub(crate) struct Accounts {
    portal: Arc<Portal>,
    thread: Arc<Thread>,
}

/// A thread that runs what it is given until it is dropped.
struct Thread {
    handle: Handle,
    /// Dropped, the thread ends.
    _stop: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let ((stop, stopped), (made, handle)) = (oneshot::channel::<()>(), mpsc::channel());
        // Made there: a runtime must not be dropped where another one runs, as it would be if there is no thread.
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = made.send(Ok(runtime.handle().clone()));
                let _ = runtime.block_on(stopped);
            }
            Err(error) => {
                let _ = made.send(Err(error));
            }
        };
        std::thread::Builder::new().name("portal".to_owned()).spawn(run)?;
        let handle = handle.recv().map_err(io::Error::other)??;
        Ok(Self { handle, _stop: stop })
    }
}

/// Opens keys and database, and makes the portal.
pub(crate) async fn open(wanted: Wanted) -> Result<Accounts, AccountsError> {
    // Keys that were configured are not in the file.
    let (keys, watched) = match wanted.keys {
        Some(keys) => (keys, None),
        None => (keys::load_or_create(&wanted.keys_file)?, Some(wanted.keys_file)),
    };
    let thread = Thread::start().map_err(AccountsError::Thread)?;
    let opened = thread.handle.spawn(async move {
        let store = Store::open(&wanted.database).await?;
        let portal = Portal::new(wanted.settings, &keys, store).await?;
        Ok::<_, StoreError>((Arc::new(portal), keys))
    });
    let (portal, keys) = opened.await.map_err(AccountsError::Fault)??;
    if let Some(file) = watched {
        thread.handle.spawn(watch_keys(Watched::new(file, keys), Arc::downgrade(&portal)));
    }
    Ok(Accounts { portal, thread: Arc::new(thread) })
}

/// Takes new keys as they are written, for as long as there is a portal.
async fn watch_keys(mut watched: Watched, portal: Weak<Portal>) {
    loop {
        let Some(portal) = portal.upgrade() else { return };
        if let Some(keys) = watched.look(system_time()) {
            portal.replace_keys(keys);
            let kids: Vec<_> = keys.accepted().map(|key| key.kid().to_string()).collect();
            info!(signs = %keys.signing(system_time()).kid(), ?kids, "keys read");
        }
        drop(portal);
        sleep(keys::LOOK).await;
    }
}

impl Accounts {
    /// Lets go of the database, once what is under way is written; a database that does not answer is not waited for.
    pub(crate) async fn close(&self) {
        let portal = self.portal.clone();
        let closed = self.thread.handle.spawn(async move { portal.close().await });
        if timeout(CLOSE_MAX, closed).await.is_err() {
            warn!("the database does not answer: what was not written to it is lost");
        }
    }
}

impl Fallback for Accounts {
    fn is_ready(&self) -> bool {
        self.portal.is_ready()
    }

    fn answer(&self, request: Request<Incoming>, arrival: Arrival) -> Answering {
        let (portal, arrival) = (self.portal.clone(), arrived(arrival));
        // What it began it ends, whether whoever asked waits for it or not.
        let answered = self.thread.handle.spawn(async move { portal.answer(request, arrival).await });
        Box::pin(async move { answered.await.unwrap_or_else(|_| fault()) })
    }

    fn has_socket(&self, path: &str) -> bool {
        is_socket(path)
    }

    fn accept(&self, request: Request<()>, arrival: Arrival) -> Accepting {
        let (portal, arrival, runtime) = (self.portal.clone(), arrived(arrival), self.thread.handle.clone());
        let accepted = runtime.spawn(async move { portal.accept(&request, arrival).await });
        Box::pin(async move {
            let serve = match accepted.await {
                Ok(accepted) => accepted?,
                Err(_) => return Err(fault()),
            };
            Ok(Accepted { runtime, serve: Box::new(|socket| serve(Box::new(socket))) })
        })
    }
}

fn arrived(arrival: Arrival) -> mykube_relay_portal::Arrival {
    let is_private = matches!(arrival.transport, Transport::Tls | Transport::Proxy);
    mykube_relay_portal::Arrival { address: arrival.address, is_private }
}

/// The answer where this program has one.
fn fault() -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}
