//! Reads of what nobody wants: a connection that is closed with something unread is reset by the system, and what is on its way lost.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Forgotten at once.
const READ: usize = 8 * 1024;

/// Reads and forgets until the sender is done (`None`), or the other direction is `over`.
pub async fn drain_until<R: AsyncRead + Unpin, T>(reader: &mut R, over: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        over = over => Some(over),
        () = drain(reader) => None,
    }
}

/// Reads and forgets until the other end is done too.
pub async fn drain<R: AsyncRead + Unpin>(reader: &mut R) {
    let mut dropped = vec![0; READ];
    while reader.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
}
