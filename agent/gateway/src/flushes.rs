//! Tells when a connection has been flushed. A body that breaks off ends with an error, and hyper drops the bytes that
//! it has not written yet when it gets one. So the error waits until everything before it is written.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::time::{Sleep, sleep};

use crate::endings::OUTLIVES;

/// Counts a connection's flushes, and wakes the task that waits for the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flushes(Arc<Mutex<Count>>);

#[derive(Debug, Default)]
struct Count {
    flushes: u64,
    waits: Option<Waker>,
}

impl Flushes {
    fn with<T>(&self, work: impl FnOnce(&mut Count) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Flushes so far.
    fn count(&self) -> u64 {
        self.with(|count| count.flushes)
    }

    /// Ready once there were more than `before` flushes.
    fn poll_after(&self, before: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|count| {
            if count.flushes > before {
                return Poll::Ready(());
            }
            count.waits = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// Everything that was written is on its way.
    pub(crate) fn flushed(&self) {
        let waits = self.with(|count| {
            count.flushes += 1;
            count.waits.take()
        });
        if let Some(waker) = waits {
            waker.wake();
        }
    }
}

/// An error that waits until everything before it is written, but not for long: the peer may read nothing.
#[derive(Debug)]
pub(crate) struct Last<E> {
    error: Option<E>,
    flushes: Flushes,
    before: u64,
    patience: Pin<Box<Sleep>>,
}

impl<E> Last<E> {
    /// The error of a body whose connection is flushed after each part of it.
    pub(crate) fn new(error: E, flushes: Flushes) -> Self {
        Self { error: Some(error), before: flushes.count(), flushes, patience: Box::pin(sleep(OUTLIVES)) }
    }

    /// Returns the error once, and nothing after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<E>> {
        if self.flushes.poll_after(self.before, cx).is_pending() {
            ready!(self.patience.as_mut().poll(cx));
        }
        Poll::Ready(self.error.take())
    }
}
