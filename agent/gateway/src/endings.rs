//! Connections of which one side is done: how long the other side is still read, and what it sent is still passed on.

use std::{io, time::Duration};

use mykube_dial::{drain, drain_until};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
    time::timeout,
};

/// How long an answered connection that we end waits for the other end to close, so that the answer is read.
const LINGER: Duration = Duration::from_secs(5);
/// How long an upstream has to take what a client had sent that has gone.
pub(crate) const OUTLIVES: Duration = Duration::from_secs(10);

/// Waits, for a while, until the other end has closed too.
pub(crate) async fn linger(mut stream: impl AsyncRead + Unpin) {
    let _ = timeout(LINGER, drain(&mut stream)).await;
}

/// The client reads no more. What it sent still goes up for a while. Bytes from the upstream are thrown away meanwhile,
/// as it might not read until its own are taken.
pub(crate) async fn outlive(from_upstream: &mut (impl AsyncRead + Unpin), up_over: &Notify) {
    let _ = timeout(OUTLIVES, drain_until(from_upstream, up_over.notified())).await;
}

/// Flushes after each write: a person may be waiting for these bytes.
pub(crate) async fn pass_on(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
