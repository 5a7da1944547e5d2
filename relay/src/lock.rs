//! Locking, also after a panic elsewhere: what one connection breaks, others go on with.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the mutex.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
