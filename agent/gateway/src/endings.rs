//! Connections of which one side is done: how long the other is read, and what it has said still goes on.

use std::{io, time::Duration};

use mykube_dial::{drain, drain_until};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::Notify,
    time::timeout,
};

/// How long an answered connection that we end waits for the other end's word, so that the answer is read.
const LINGER: Duration = Duration::from_secs(5);
/// How long an upstream has to take what a client had said that is gone.
pub(crate) const OUTLIVES: Duration = Duration::from_secs(10);

/// Waits, a while, until the other end is done too.
pub(crate) async fn linger(mut stream: impl AsyncRead + Unpin) {
    let _ = timeout(LINGER, drain(&mut stream)).await;
}

/// The client takes no more. What it has said goes up all the same, for a while; whatever comes is forgotten, as an upstream that
/// waits for its own words to be read might not read.
pub(crate) async fn outlive(from_upstream: &mut (impl AsyncRead + Unpin), up_over: &Notify) {
    let _ = timeout(OUTLIVES, drain_until(from_upstream, up_over.notified())).await;
}

/// Not held back: who waits for it may be a person.
pub(crate) async fn pass_on(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
