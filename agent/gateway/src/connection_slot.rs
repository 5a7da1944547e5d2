//! What a request holds while it has a connection to the API server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

/// One of the connections that there may be.
pub(crate) struct ConnectionSlot {
    _connection: OwnedSemaphorePermit,
    lasting: Option<Arc<AtomicUsize>>,
}

impl ConnectionSlot {
    /// Counted in `lasting` where it goes on until somebody ends it.
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
