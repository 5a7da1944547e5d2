//! Buffers that belong to worker threads, not to sockets: an idle socket has none.

use std::cell::RefCell;

/// Buffers a thread keeps; more are given back to the system.
const KEPT: usize = 8;

/// Forwarding buffers are larger than this.
const LARGE: usize = 16 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of at least `size` bytes, with anything in it.
pub(crate) fn take(size: usize) -> Vec<u8> {
    let free = FREE.with_borrow_mut(Vec::pop);
    free.filter(|buffer| buffer.len() >= size).unwrap_or_else(|| vec![0; size])
}

/// Gives it back to whatever thread this is.
pub(crate) fn give(buffer: Vec<u8>) {
    FREE.with_borrow_mut(|free| {
        if free.len() < KEPT {
            free.push(buffer);
        }
    });
}

/// Gives back a forwarding buffer; short ones were a frame of the relay's own.
pub(crate) fn give_if_large(buffer: Vec<u8>) {
    if buffer.len() >= LARGE {
        give(buffer);
    }
}
