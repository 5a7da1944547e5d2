//! When a connection has been flushed: a body that breaks off is followed by a failure, and hyper drops what it has not written
//! yet when it hears of one. So the failure waits until everything before it is written.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::time::{Sleep, sleep};

use crate::endings::OUTLIVES;

/// How often a connection has been flushed, for whoever waits for the next time.
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

    /// So far.
    fn count(&self) -> u64 {
        self.with(|count| count.flushes)
    }

    /// Ready once it was flushed again.
    fn poll_after(&self, before: u64, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|count| {
            if count.flushes > before {
                return Poll::Ready(());
            }
            count.waits = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    /// By now everything is written.
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

/// A failure that waits until what came before it is written, but for no longer than a while: who takes nothing is not waited for.
#[derive(Debug)]
pub(crate) struct Last<E> {
    error: Option<E>,
    flushes: Flushes,
    before: u64,
    patience: Pin<Box<Sleep>>,
}

impl<E> Last<E> {
    /// The body's failure, on a connection that is flushed after each part of it.
    pub(crate) fn new(error: E, flushes: Flushes) -> Self {
        Self { error: Some(error), before: flushes.count(), flushes, patience: Box::pin(sleep(OUTLIVES)) }
    }

    /// Gives it once; nothing after that.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<E>> {
        if self.flushes.poll_after(self.before, cx).is_pending() {
            ready!(self.patience.as_mut().poll(cx));
        }
        Poll::Ready(self.error.take())
    }
}
