//! The state that a connection's two readers share: the intake before hyper, and the code that answers requests.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Waker},
};

use crate::{flushes::Flushes, head::Head};

/// How far a connection's requests are.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    head: Mutex<Option<Head>>,
    heads: AtomicU32,
    finished: AtomicU32,
    upgraded: AtomicBool,
    pub(crate) flushes: Flushes,
    /// The intake's task, while it holds bytes that must wait for the answer.
    waits: Mutex<Option<Waker>>,
}

impl Progress {
    /// Takes the head of the request that hyper has read. `None` if hyper read a request where the intake handed over
    /// none.
    pub(crate) fn take(&self) -> Option<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A request was answered: the next head may come.
    pub(crate) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        // hyper does not read again unless it is woken.
        if let Some(waits) = self.waits.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waits.wake();
        }
    }

    /// The connection becomes something else: all further bytes belong to the new protocol.
    pub(crate) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// See [`Self::upgrade`].
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// Stores a head; hyper reads its request next.
    pub(crate) fn put(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        self.heads.fetch_add(1, Ordering::AcqRel);
    }

    /// Wakes this task when a request was answered.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }

    /// Whether every request that was read has been answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.finished.load(Ordering::Acquire) >= self.heads.load(Ordering::Acquire)
    }
}
