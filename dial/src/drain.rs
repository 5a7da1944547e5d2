//! Reading data only to drop it: the system resets a connection that is closed with unread data, and what was written but has
//! not arrived is lost.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Read and dropped at a time, in bytes.
const READ: usize = 8 * 1024;

/// Reads and drops until the sender has closed its direction (`None`), or until `over` resolves.
pub async fn drain_until<R: AsyncRead + Unpin, T>(reader: &mut R, over: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        over = over => Some(over),
        () = drain(reader) => None,
    }
}

/// Reads and drops until the sender has closed its direction.
pub async fn drain<R: AsyncRead + Unpin>(reader: &mut R) {
    let mut dropped = vec![0; READ];
    while reader.read(&mut dropped).await.is_ok_and(|read| read > 0) {}
}
