//! What may carry a channel: something that dials, and connections with frames in, frames out, and an end.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use mykube_dial::{
    DialError, RelaySocket, SocketLost,
    messages::{Incoming, sort},
};
use mykube_protocol::{FromAgent, Role, Ticket};
use mykube_tunnel::endpoint::DialFailure;
use tokio_tungstenite::tungstenite::Message;
use tracing::info;

use crate::{pair::as_failure, reconnect::Reconnect};

/// Reaches the relay for one end of one session.
pub(crate) trait Path: Send + Sync + 'static {
    /// What a dial leads to.
    type Connection: Connection;

    /// Dials once. Given up by being dropped.
    fn dial(&self, ticket: Ticket) -> impl Future<Output = Result<Self::Connection, DialFailure>> + Send;
}

/// One connection to the relay.
pub(crate) trait Connection: Send + 'static {
    type Receiver: Receiver;
    type Sender: Sender;

    /// Its two ends on the network, where it has any.
    fn ends(&self) -> Option<(SocketAddr, SocketAddr)>;

    fn split(self) -> (Self::Receiver, Self::Sender);
}

/// The incoming half of a connection.
pub(crate) trait Receiver: Send + 'static {
    /// The next frame or text; `None` where the relay sent something else, which shows that it still answers.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, SocketLost>>;
}

/// The outgoing half of a connection.
pub(crate) trait Sender: Send + 'static {
    /// Sends texts, then frames, then a ping for the relay, all in one go. Resolves once the connection takes more.
    fn send(
        &mut self,
        texts: &mut Vec<FromAgent>,
        frames: &mut Vec<Bytes>,
        ping: bool,
    ) -> impl Future<Output = Result<(), SocketLost>> + Send;

    /// Ends the connection in an orderly way.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// The relay's WebSocket.
pub(crate) struct ToRelay {
    pub(crate) reconnect: Reconnect,
    pub(crate) role: Role,
}

impl Path for ToRelay {
    type Connection = RelaySocket;

    async fn dial(&self, ticket: Ticket) -> Result<RelaySocket, DialFailure> {
        self.reconnect.dialer.websocket(self.role, &self.reconnect.session, &ticket).await.map_err(|error| {
            if !matches!(error, DialError::TicketRefused) {
                info!(%error, "not connected to the relay yet");
            }
            as_failure(&error)
        })
    }
}

impl Connection for RelaySocket {
    type Receiver = SplitStream<RelaySocket>;
    type Sender = SplitSink<RelaySocket, Message>;

    fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        let tcp = self.get_ref().tcp();
        tcp.local_addr().ok().zip(tcp.peer_addr().ok())
    }

    fn split(self) -> (Self::Receiver, Self::Sender) {
        let (sink, stream) = futures_util::StreamExt::split(self);
        (stream, sink)
    }
}

impl Receiver for SplitStream<RelaySocket> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Incoming>, SocketLost>> {
        self.poll_next_unpin(cx).map(|message| match message {
            None => Err(SocketLost::Broken("closed".into())),
            Some(Err(error)) => Err(SocketLost::from_error(&error)),
            Some(Ok(message)) => sort(message),
        })
    }
}

impl Sender for SplitSink<RelaySocket, Message> {
    async fn send(
        &mut self,
        texts: &mut Vec<FromAgent>,
        frames: &mut Vec<Bytes>,
        ping: bool,
    ) -> Result<(), SocketLost> {
        let sent = async {
            for text in texts.drain(..) {
                self.feed(Message::text(text.to_string())).await?;
            }
            for frame in frames.drain(..) {
                self.feed(Message::Binary(frame)).await?;
            }
            if ping {
                self.feed(Message::Ping(Bytes::new())).await?;
            }
            self.flush().await
        };
        sent.await.map_err(|error| SocketLost::from_error(&error))
    }

    async fn close(&mut self) {
        // Gone already is closed as well.
        let _ = futures_util::SinkExt::close(self).await;
    }
}
