//! The WebSocket to the relay.
//!
//! The opening handshake goes through the same HTTP code as the other calls, not through tungstenite's: so a
//! refusal is read whole, and no request with a ticket in it passes through tungstenite's trace log.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use mykube_protocol::{Role, SessionId, Ticket, control, http::TICKET_REFUSED, limits::FRAME_MAX};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role as End, WebSocketConfig},
    },
};
use tracing::debug;
use zeroize::Zeroizing;

use crate::{
    api::{is_refusal, message},
    dialer::Dialer,
    error::{DialError, Unreachable},
    transport::Transport,
};

/// The socket between one end and the relay.
pub type RelaySocket = WebSocketStream<Transport>;

/// Most bytes of one read from the network: eight full records.
pub const READ_BUFFER: usize = 128 * 1024;
/// Frames collect up to this size, in bytes; then they are written even without a flush.
pub const WRITE_BUFFER: usize = 128 * 1024;
/// Bytes of frames that may wait while the network takes none; beyond it sending waits.
pub const WRITE_BUFFER_MAX: usize = WRITE_BUFFER + 2 * FRAME_MAX;

/// The limits of a socket: a frame and a message have at most 64 KiB, and no buffer grows without bound.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX))
}

impl Dialer {
    /// `GET /ws/{role}/{session_id}`, the ticket in the `Authorization` header.
    ///
    /// # Errors
    /// [`DialError::TicketRefused`], [`DialError::SessionUnknown`]; see [`DialError`].
    pub async fn websocket(&self, role: Role, session: &SessionId, ticket: &Ticket) -> Result<RelaySocket, DialError> {
        let path = format!("/ws/{role}/{session}");
        match self.open(&path, bearer(ticket.expose()).expect("base64url is a header value")).await? {
            Ok(socket) => {
                debug!(%role, %session, "socket open");
                Ok(socket)
            }
            Err(answer) => Err(self.refused_socket(&answer)),
        }
    }

    /// `GET /ws/control`, the token of an agent in the `Authorization` header.
    ///
    /// # Errors
    /// [`DialError::AgentTokenRefused`], [`DialError::NoAgents`]; see [`DialError`].
    pub async fn control(&self, token: &str) -> Result<RelaySocket, DialError> {
        let bearer = bearer(token).ok_or(DialError::AgentTokenRefused)?;
        match self.open(control::PATH, bearer).await? {
            Ok(socket) => Ok(socket),
            Err(answer) => Err(match (answer.status(), message(answer.body())) {
                (StatusCode::UNAUTHORIZED, _) if is_refusal(&answer, control::TOKEN_REFUSED) => {
                    DialError::AgentTokenRefused
                }
                (StatusCode::NOT_FOUND, Some(_)) => DialError::NoAgents { url: self.url().to_string() },
                (StatusCode::UPGRADE_REQUIRED, Some(_)) => no_websockets(),
                _ => self.refusal(&answer),
            }),
        }
    }

    /// A WebSocket, or the answer that it was refused with.
    async fn open(
        &self,
        path: &str,
        authorization: HeaderValue,
    ) -> Result<Result<RelaySocket, Response<Bytes>>, DialError> {
        let key = generate_key();
        let mut request = self.request(Method::GET, path, Bytes::new());
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64 is a header value"));
        headers.insert(header::AUTHORIZATION, authorization);

        let answer = self.send(request).await?;
        if answer.response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Err(self.bounded(self.whole(answer)).await?));
        }
        check(answer.response.headers(), &key).map_err(|reason| self.not_a_relay(reason.into()))?;
        let (stream, early) = self
            .bounded(async {
                answer
                    .upgraded()
                    .await
                    .map_err(|_| self.unreachable(Unreachable::Closed("during the WebSocket handshake")))
            })
            .await?;
        let socket =
            WebSocketStream::from_partially_read(stream, early.to_vec(), End::Client, Some(websocket_config())).await;
        Ok(Ok(socket))
    }

    fn refused_socket(&self, answer: &Response<Bytes>) -> DialError {
        match (answer.status(), message(answer.body())) {
            (StatusCode::UNAUTHORIZED, _) if is_refusal(answer, TICKET_REFUSED) => DialError::TicketRefused,
            (StatusCode::NOT_FOUND | StatusCode::GONE, Some(_)) => DialError::SessionUnknown,
            (StatusCode::BAD_REQUEST, Some(message)) => DialError::Refused { status: 400, message },
            (StatusCode::UPGRADE_REQUIRED, Some(_)) => no_websockets(),
            _ => self.refusal(answer),
        }
    }
}

fn no_websockets() -> DialError {
    let message = "a proxy or load balancer on the way does not pass WebSockets on".into();
    DialError::Refused { status: 426, message }
}

/// None where no header can hold it.
fn bearer(secret: &str) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {secret}"));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The client's checks of RFC 6455 section 4.1; neither extensions nor subprotocols were asked for.
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err("it switched to another protocol than WebSocket");
    }
    if headers.get(header::SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != &derive_accept_key(key.as_bytes())) {
        return Err("its WebSocket handshake does not answer ours");
    }
    if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err("it chose a WebSocket extension that was not offered");
    }
    Ok(())
}
