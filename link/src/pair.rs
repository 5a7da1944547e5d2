//! Drives the pairing machines of `tunnel` over the relay's socket.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use mykube_protocol::{FromRelay, Role, Ticket, close, http::PairAnswer, text::printable};
pub use mykube_tunnel::{
    Established, HandshakeError,
    pairing::{AgentEvent, AgentPairing, ClientFailure, ClientPairing, Spent},
};
use mykube_tunnel::{
    endpoint::{DialFailure, Lost, Next, PairingRedial},
    pairing::Transmit,
};
use tokio_tungstenite::tungstenite::{self, Message, error::ProtocolError};
use tracing::debug;

use crate::{
    clock,
    dial::Dialer,
    error::{DialError, is_reset},
    rejoin::Rejoin,
    socket::RelaySocket,
};

/// The relay's socket is gone, and what the relay said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketLost {
    /// Closed with a code of [`mykube_protocol::close`].
    #[error("the relay closed the connection: {}", describe(*code, reason))]
    Closed {
        /// The code, 1005 without one.
        code: u16,
        /// The relay's words, cleaned.
        reason: String,
    },
    /// Anything else.
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

    pub(crate) fn from_error(error: &tungstenite::Error) -> Self {
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

/// What arrived.
pub(crate) enum Incoming {
    Text(FromRelay),
    Frame(Bytes),
}

/// The next text or binary frame. Unknown texts are dropped: the relay is not believed, and newer ones may say more.
pub(crate) async fn next(socket: &mut RelaySocket) -> Result<Incoming, SocketLost> {
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

pub(crate) fn sort(message: Message) -> Result<Option<Incoming>, SocketLost> {
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

pub(crate) async fn send(socket: &mut RelaySocket, message: Message) -> Result<(), SocketLost> {
    socket.send(message).await.map_err(|error| SocketLost::from_error(&error))
}

/// A lost socket, as an endpoint hears of it.
pub(crate) fn as_lost(lost: &SocketLost) -> Lost {
    match lost {
        SocketLost::Closed { code, reason } => Lost::closed(*code, reason, lost.to_string()),
        SocketLost::Broken(why) => Lost::broken(why),
    }
}

/// A failed dial, as an endpoint hears of it.
pub(crate) fn as_failure(error: &DialError) -> DialFailure {
    match error {
        DialError::TicketRefused => DialFailure::TicketRefused(error.to_string()),
        error if error.is_answer() => DialFailure::Answered(error.to_string()),
        _ => DialFailure::Unreachable,
    }
}

/// How the agent's waiting for a client ended.
#[derive(Debug)]
pub enum AgentOutcome {
    /// The channel stands.
    Paired(Box<Established>),
    /// The code is spent.
    Spent(Spent),
}

/// Waits for a client that knows the secret. `notice` hears of attempts, refusals and the code's end at the moment they happen,
/// before anything else is waited for: whoever counts them loses none when this is dropped.
///
/// # Errors
/// The socket is lost; the machine may go on over another one.
pub async fn agent(
    socket: &mut RelaySocket,
    pairing: &mut AgentPairing,
    notice: &mut impl FnMut(AgentEvent),
) -> Result<AgentOutcome, SocketLost> {
    loop {
        let mut outcome = None;
        while let Some(event) = pairing.poll_event() {
            match event {
                AgentEvent::Paired(established) => outcome = Some(AgentOutcome::Paired(established)),
                AgentEvent::Spent(spent) => {
                    outcome = Some(AgentOutcome::Spent(spent));
                    notice(event);
                }
                event => notice(event),
            }
        }
        let said = say(socket, pairing).await;
        // A connection that is lost at that moment undoes nothing: a channel finds another one.
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
        said?;
        tokio::select! {
            incoming = next(socket) => match incoming? {
                Incoming::Text(text) => pairing.handle_relay(clock::now(), &text, &mut rand::rng()),
                Incoming::Frame(frame) => pairing.handle_frame(clock::now(), BytesMut::from(frame)),
            },
            () = clock::sleep_until(pairing.poll_timeout()) => pairing.handle_timeout(clock::now()),
        }
    }
}

async fn say(socket: &mut RelaySocket, pairing: &mut AgentPairing) -> Result<(), SocketLost> {
    while let Some(out) = pairing.poll_transmit() {
        let message = match out {
            Transmit::Relay(text) => Message::text(text.to_string()),
            Transmit::Peer(frame) => Message::Binary(frame),
        };
        send(socket, message).await?;
    }
    Ok(())
}

/// Why a client's pairing failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientPairError {
    /// The handshake, or the agent's silence.
    #[error(transparent)]
    Failure(#[from] ClientFailure),
    /// The socket.
    #[error(transparent)]
    Lost(#[from] SocketLost),
    /// The relay.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Pairs once with one typed code, over as many connections as it takes within the pair ticket's time. `shown` becomes true
/// before [the tag is shown](ClientPairing::has_shown_tag): the other end may hold a session from then on.
///
/// # Errors
/// See [`ClientPairError`]; whether the code was spent is in `shown`.
pub async fn client(
    dialer: &Dialer,
    claim: PairAnswer,
    pairing: &mut ClientPairing,
    window: Duration,
    shown: &AtomicBool,
) -> Result<(Box<Established>, RelaySocket, Rejoin), ClientPairError> {
    let PairAnswer { session_id: session, mut ticket, attempt } = claim;
    let mut socket = dialer.websocket(Role::Client, &session, &ticket).await?;
    loop {
        let lost = match client_over(&mut socket, pairing, &mut ticket, shown).await {
            Ok(established) => {
                let rejoin = Rejoin { dialer: dialer.clone(), session, attempt, ticket, window };
                return Ok((established, socket, rejoin));
            }
            Err(ClientPairError::Lost(lost)) => lost,
            Err(error) => return Err(error),
        };
        let redial = PairingRedial::new(clock::now(), &as_lost(&lost), pairing, &mut rand::rng());
        let Some((mut redial, mut delay)) = redial else { return Err(lost.into()) };
        debug!(%lost, "dialling the relay again, in the middle of pairing");
        drop(socket);
        socket = loop {
            tokio::time::sleep(delay).await;
            match dialer.websocket(Role::Client, &session, &ticket).await {
                Ok(socket) => break socket,
                Err(error) => {
                    debug!(%error, "not connected to the relay yet");
                    let failure = as_failure(&error);
                    match redial.handle_dial_failed(clock::now(), &failure, pairing, &mut rand::rng()) {
                        Next::Dial(after) => delay = after,
                        Next::Failed => return Err(error.into()),
                        Next::Late(late) => return Err(late.into()),
                    }
                }
            }
        };
    }
}

/// One connection's part of [`client`].
///
/// # Errors
/// See [`ClientPairError`].
pub async fn client_over(
    socket: &mut RelaySocket,
    pairing: &mut ClientPairing,
    ticket: &mut Ticket,
    shown: &AtomicBool,
) -> Result<Box<Established>, ClientPairError> {
    loop {
        shown.store(pairing.has_shown_tag(), Ordering::Relaxed);
        while let Some(frame) = pairing.poll_transmit() {
            send(socket, Message::Binary(frame)).await?;
        }
        tokio::select! {
            incoming = next(socket) => match incoming? {
                Incoming::Frame(frame) => {
                    if let Some(established) = pairing.handle_frame(clock::now(), frame.into(), &mut rand::rng())? {
                        return Ok(established);
                    }
                }
                Incoming::Text(FromRelay::Ticket(newer)) => *ticket = newer,
                Incoming::Text(FromRelay::PeerHere(_)) => pairing.handle_peer_here(&mut rand::rng()),
                Incoming::Text(_) => {}
            },
            () = clock::sleep_until(pairing.poll_timeout()) => pairing.handle_timeout(clock::now())?,
        }
    }
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
