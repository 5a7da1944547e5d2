//! Drives the pairing machines of `tunnel` over the relay's socket.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::BytesMut;
use mykube_dial::{
    DialError, Dialer, RelaySocket, SocketLost,
    messages::{Incoming, next, send},
};
use mykube_protocol::{FromRelay, Role, Ticket, http::PairAnswer};
pub use mykube_tunnel::{
    Established, HandshakeError,
    pairing::{AgentEvent, AgentPairing, ClientFailure, ClientPairing, Spent},
};
use mykube_tunnel::{
    endpoint::{DialFailure, Lost, Next, PairingReconnect},
    pairing::Transmit,
};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

use crate::{clock, reconnect::Reconnect};

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
/// before anything else is waited for: a caller that counts them loses none when this future is dropped.
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
) -> Result<(Box<Established>, RelaySocket, Reconnect), ClientPairError> {
    let PairAnswer { session_id: session, mut ticket, attempt } = claim;
    let mut socket = dialer.websocket(Role::Client, &session, &ticket).await?;
    let mut unsure = None;
    loop {
        let lost = match client_over(&mut socket, pairing, &mut ticket, shown).await {
            Ok(established) => {
                let reconnect = Reconnect { dialer: dialer.clone(), session, attempt, ticket, window, unsure };
                return Ok((established, socket, reconnect));
            }
            Err(ClientPairError::Lost(lost)) => lost,
            Err(error) => return Err(error),
        };
        let reconnect = PairingReconnect::new(clock::now(), &as_lost(&lost), pairing, &mut rand::rng());
        let Some((mut reconnect, mut delay)) = reconnect else { return Err(lost.into()) };
        debug!(%lost, "dialling the relay again, in the middle of pairing");
        drop(socket);
        socket = loop {
            tokio::time::sleep(delay).await;
            match dialer.websocket(Role::Client, &session, &ticket).await {
                Ok(socket) => break socket,
                Err(error) => {
                    debug!(%error, "not connected to the relay yet");
                    unsure = Some(clock::now());
                    let failure = as_failure(&error);
                    match reconnect.handle_dial_failed(clock::now(), &failure, pairing, &mut rand::rng()) {
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
