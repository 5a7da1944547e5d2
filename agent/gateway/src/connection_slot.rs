//! What a request holds while it has a connection to the API server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

/// One of the `--max-requests` connections to the API server.
pub(crate) struct ConnectionSlot {
    _connection: OwnedSemaphorePermit,
    lasting: Option<Arc<AtomicUsize>>,
}

impl ConnectionSlot {
    /// A request that goes on until somebody ends it (a watch, an exec) is counted in `lasting`.
    pub(crate) fn new(connection: OwnedSemaphorePermit, lasting: Option<Arc<AtomicUsize>>) -> Self {
        if let Some(lasting) = &lasting {
            lasting.fetch_add(1, Ordering::Relaxed);
        }
        Self { _connection: connection, lasting }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if let Some(lasting) = &self.lasting {
            lasting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
