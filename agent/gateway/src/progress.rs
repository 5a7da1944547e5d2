//! What the two readers of a connection tell each other: the one before hyper, and the one that answers.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Waker},
};

use crate::{flushes::Flushes, head::Head};

/// What a connection and its requests tell each other.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    head: Mutex<Option<Head>>,
    heads: AtomicU32,
    finished: AtomicU32,
    upgraded: AtomicBool,
    pub(crate) flushes: Flushes,
    /// Of whoever reads on and has something that waits for the answer.
    waits: Mutex<Option<Waker>>,
}

impl Progress {
    /// The head of the request that hyper has read. Nothing where hyper found one where none should be.
    pub(crate) fn take(&self) -> Option<Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// It was answered: the next head may come.
    pub(crate) fn finish(&self) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        // hyper does not read again before it is woken.
        if let Some(waits) = self.waits.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waits.wake();
        }
    }

    /// The connection becomes something else: all that comes is its own.
    pub(crate) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// See [`Self::upgrade`].
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }

    /// A head was read; its request is next.
    pub(crate) fn put(&self, head: Head) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
        self.heads.fetch_add(1, Ordering::AcqRel);
    }

    /// Wakes this task when it was answered.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }

    /// Every request that was read.
    pub(crate) fn is_answered(&self) -> bool {
        self.finished.load(Ordering::Acquire) >= self.heads.load(Ordering::Acquire)
    }
}
