//! Buffers that belong to worker threads and not to sockets, so that an idle socket has none.

use std::cell::RefCell;

/// Buffers a thread keeps; it frees further ones.
const KEPT: usize = 8;

/// Forwarding buffers are larger than this.
const LARGE: usize = 16 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of at least `size` bytes, whose content is arbitrary.
pub(crate) fn take(size: usize) -> Vec<u8> {
    let free = FREE.with_borrow_mut(Vec::pop);
    free.filter(|buffer| buffer.len() >= size).unwrap_or_else(|| vec![0; size])
}

/// Gives a buffer to the current thread.
pub(crate) fn give(buffer: Vec<u8>) {
    FREE.with_borrow_mut(|free| {
        if free.len() < KEPT {
            free.push(buffer);
        }
    });
}

/// Gives a buffer to the current thread if it is a forwarding buffer; a short one held a frame of the relay's own.
pub(crate) fn give_if_large(buffer: Vec<u8>) {
    if buffer.len() >= LARGE {
        give(buffer);
    }
}
