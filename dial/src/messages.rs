//! Messages on the WebSocket to the relay: the relay's texts, the other end's frames, and how the socket is lost.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_protocol::{FromRelay, close, text::printable};
use tokio_tungstenite::tungstenite::{self, Message, error::ProtocolError};

use crate::{error::is_reset, socket::RelaySocket};

/// The socket to the relay is gone: how, and what the relay said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketLost {
    /// Closed with a code of [`mykube_protocol::close`].
    #[error("the relay closed the connection: {}", describe(*code, reason))]
    Closed {
        /// The code, 1005 without one.
        code: u16,
        /// The relay's reason, cleaned.
        reason: String,
    },
    /// It ended without a close frame.
    #[error("the connection to the relay was lost: {0}")]
    Broken(String),
}

impl SocketLost {
    /// The close code, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => Some(*code),
            Self::Broken(_) => None,
        }
    }

    /// From a failed read or write.
    #[must_use]
    pub fn from_error(error: &tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Broken("closed".into()),
            tungstenite::Error::Capacity(_) => Self::Broken("the relay sent a frame over the 64 KiB limit".into()),
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Broken("the connection was reset".into())
            }
            tungstenite::Error::Protocol(what) => Self::Broken(printable(&format!("not WebSocket: {what}"), 120)),
            tungstenite::Error::Io(error) if is_reset(error.kind()) => Self::Broken("the connection was reset".into()),
            other => Self::Broken(printable(&other.to_string(), 120)),
        }
    }
}

fn describe(code: u16, reason: &str) -> String {
    let known = match code {
        close::RESTART => "it restarts",
        close::REFUSED => "the other end refused this attempt",
        close::NO_SESSION => "it does not know this session, and its number is taken: a new code is needed",
        close::EXPIRED => "the code expired",
        close::REPLACED => "another connection of this end took over",
        close::UPGRADE => {
            "a client of the first mykube tried this code and may have disclosed it: mykube 2 clients only"
        }
        close::TOO_MANY => "too many connections",
        _ if reason.is_empty() => return format!("code {code}"),
        _ => return format!("{reason} (code {code})"),
    };
    known.to_owned()
}

/// A message that arrived.
pub enum Incoming {
    /// A text of the relay.
    Text(FromRelay),
    /// A frame of the other end.
    Frame(Bytes),
}

/// The next text or binary frame. Unknown texts are dropped: a newer relay may send more kinds of them.
///
/// # Errors
/// The socket is lost.
pub async fn next(socket: &mut RelaySocket) -> Result<Incoming, SocketLost> {
    loop {
        let message = match socket.next().await {
            None => return Err(SocketLost::Broken("closed".into())),
            Some(Err(error)) => return Err(SocketLost::from_error(&error)),
            Some(Ok(message)) => message,
        };
        if let Some(incoming) = sort(message)? {
            return Ok(incoming);
        }
    }
}

/// Sorts a message; `None` for one that is of no interest here.
///
/// # Errors
/// The message is a close frame.
pub fn sort(message: Message) -> Result<Option<Incoming>, SocketLost> {
    match message {
        Message::Binary(bytes) => Ok(Some(Incoming::Frame(bytes))),
        Message::Text(text) => Ok(text.as_str().parse().ok().map(Incoming::Text)),
        Message::Close(frame) => {
            let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), printable(&f.reason, 120)));
            Err(SocketLost::Closed { code, reason })
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

/// Sends one message.
///
/// # Errors
/// The socket is lost.
pub async fn send(socket: &mut RelaySocket, message: Message) -> Result<(), SocketLost> {
    socket.send(message).await.map_err(|error| SocketLost::from_error(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_no_breach_of_the_protocol() {
        let lost = |error| SocketLost::from_error(&tungstenite::Error::Protocol(error)).to_string();
        assert!(lost(ProtocolError::ResetWithoutClosingHandshake).ends_with(": the connection was reset"));
        assert!(lost(ProtocolError::NonZeroReservedBits).contains("not WebSocket: "));
    }

    #[test]
    fn a_reset_reads_the_same_however_it_is_noticed() {
        use std::io::{
            self,
            ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof},
        };
        let lost = |kind: io::ErrorKind| SocketLost::from_error(&tungstenite::Error::Io(kind.into())).to_string();
        for kind in [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof] {
            assert!(lost(kind).ends_with(": the connection was reset"), "{kind}");
        }
        assert!(lost(TimedOut).contains("timed out"));
    }
}
