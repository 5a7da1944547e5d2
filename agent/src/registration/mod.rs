//! An agent that has a name at a relay holds a channel to it, by which the relay knows that it is there. What is done when is
//! decided in [`machine`]; this drives it over a real socket.

pub mod machine;

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use mykube_dial::{DialError, Dialer, RelaySocket, SocketLost, messages::send};
use mykube_protocol::{
    control::{FromAgent, Hello, NONCE_LEN},
    text::printable,
};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use tracing::debug;

pub use machine::Event;
use machine::{Command, Failure, Machine};

/// Holds the channel until the relay does not take the token any more. `hello` answers a challenge at a time in seconds since
/// 1970.
pub async fn hold(
    dialer: &Dialer,
    token: &str,
    hello: impl Fn(&[u8; NONCE_LEN], u64) -> Hello,
    mut tell: impl FnMut(Event),
) {
    let (mut machine, mut socket) = (Machine::new(), None);
    loop {
        while let Some(command) = machine.poll_command() {
            match command {
                Command::Dial => match dialer.control(token).await {
                    Ok(open) => {
                        socket = Some(open);
                        machine.handle_dialled(now());
                    }
                    Err(DialError::AgentTokenRefused) => {
                        machine.handle_dial_failed(now(), Failure::TokenRefused, &mut rand::rng());
                    }
                    Err(error) => {
                        debug!(%error, "the control channel does not open");
                        machine.handle_dial_failed(now(), Failure::Other(error.to_string()), &mut rand::rng());
                    }
                },
                Command::Hello(nonce) => {
                    let hello = FromAgent { hello: Some(hello(&nonce, seconds())), response: None };
                    let hello = serde_json::to_string(&hello).expect("texts and numbers are JSON");
                    if let Some(open) = &mut socket
                        && let Err(lost) = send(open, Message::text(hello)).await
                    {
                        closed(&mut machine, &lost);
                    }
                }
                // The relay answers a close frame with its own, and is not waited for.
                Command::HangUp => socket = None,
            }
        }
        while let Some(event) = machine.poll_event() {
            tell(event);
        }
        if machine.is_over() {
            return;
        }
        let due = machine.poll_timeout();
        tokio::select! {
            heard = next(&mut socket) => match heard {
                Ok(Some(text)) => machine.handle_text(now(), &text, &mut rand::rng()),
                Ok(None) => machine.handle_heard(now()),
                Err(lost) => {
                    socket = None;
                    closed(&mut machine, &lost);
                }
            },
            () = until(due) => machine.handle_timeout(now(), &mut rand::rng()),
        }
    }
}

/// The next text, or that something else came.
async fn next(socket: &mut Option<RelaySocket>) -> Result<Option<String>, SocketLost> {
    let Some(socket) = socket else { return std::future::pending().await };
    match socket.next().await {
        None => Err(SocketLost::Broken("closed".to_owned())),
        Some(Err(error)) => Err(SocketLost::from_error(&error)),
        Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
        Some(Ok(Message::Close(frame))) => {
            let (code, reason) = frame.map_or((1005, String::new()), |it| (it.code.into(), printable(&it.reason, 120)));
            Err(SocketLost::Closed { code, reason })
        }
        Some(Ok(_)) => Ok(None),
    }
}

fn closed(machine: &mut Machine, lost: &SocketLost) {
    match lost {
        SocketLost::Closed { code, reason } => {
            machine.handle_closed(now(), Some(*code), reason, &mut rand::rng());
        }
        SocketLost::Broken(_) => machine.handle_closed(now(), None, &lost.to_string(), &mut rand::rng()),
    }
}

async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => sleep_until(Instant::from_std(due)).await,
        None => std::future::pending().await,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
