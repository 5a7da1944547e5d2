//! One stream of a client, served from its first byte to its last.

use std::sync::Arc;

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    caller::Caller,
    connection::Connection,
    endings::linger,
    gateway::Gateway,
    intake::{HeadLimits, Intake},
};

/// Bytes of one of hyper's buffers.
const BUFFER: usize = 64 * 1024;

impl Gateway {
    /// Serves HTTP/1.1 on a stream until it ends, or the caller's time does. Dropped, it ends the stream and what it
    /// carries.
    pub async fn serve<S>(&self, stream: S, caller: Arc<Caller>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        tokio::select! {
            () = self.serve_connection(stream, &caller) => {}
            () = caller.policy.expired() => tracing::debug!(client = %caller.name, "the access expired, its stream is ended"),
        }
    }

    async fn serve_connection<S>(&self, stream: S, caller: &Caller)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let settings = &self.forwarder.settings;
        let connection = Connection::new(self, caller);
        let limits = HeadLimits { max: settings.header_max, time: settings.header_timeout, room: caller.heads.clone() };
        let intake = Intake::new(stream, connection.progress.clone(), limits);
        let served = &connection;
        let mut http = http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            // Boxed, so that an idle connection holds no memory for a request, and the future is never moved.
            .serve_connection(TokioIo::new(intake), service_fn(move |request| Box::pin(served.handle(request))))
            .with_upgrades();
        let ended = (&mut http).await;
        if let Err(error) = &ended {
            tracing::debug!(client = %caller.name, ?error, "a client's connection ended early");
        }
        if let Some(upgrading) = connection.upgrading() {
            return upgrading.run().await;
        }
        // After a failure the connection ends at once: the client must not see a clean end.
        let answered = ended.map_or_else(|error| error.is_parse(), |()| true);
        if let Some(parts) = http.into_parts().filter(|_| answered) {
            // hyper has dropped its copy of the last head.
            drop(connection.last_head());
            linger(parts.io.into_inner()).await;
        }
    }
}
