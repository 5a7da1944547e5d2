//! The WebSocket to the relay.

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use mykube_dial::{DialError, RelaySocket, error::Unreachable};
use mykube_protocol::{Role, SessionId, Ticket, limits::FRAME_MAX};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::support::{
    Canned, Seen, answer,
    ca::Ca,
    dialer, dialer_with, json, listen,
    proxy::{self, Rules},
};

fn ticket() -> Ticket {
    Ticket::from_bytes(b"a ticket that nobody may see")
}

fn session() -> SessionId {
    crate::support::SESSION.parse().unwrap()
}

fn moves_between_threads<T: Send + Unpin>(socket: T) -> T {
    socket
}

async fn open(dialer: &mykube_dial::Dialer) -> Result<RelaySocket, DialError> {
    dialer.websocket(Role::Agent, &session(), &ticket()).await
}

/// A relay that sends a frame at once, then sends back each frame; it notes path and headers.
async fn relay(tls: Option<TlsAcceptor>, greeting: Message) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let at = listen(tls, move |stream| {
        let (log, greeting) = (Arc::clone(&log), greeting.clone());
        async move {
            #[allow(clippy::result_large_err)]
            let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
                let authorization = request.headers()["authorization"].to_str().unwrap();
                let protocol = request.headers().contains_key("sec-websocket-protocol");
                log.lock().unwrap().push(format!("{} {authorization} {protocol}", request.uri()));
                Ok(response)
            };
            let mut socket = accept_hdr_async(stream, note).await.map_err(std::io::Error::other)?;
            socket.send(greeting).await.map_err(std::io::Error::other)?;
            while let Some(Ok(message)) = socket.next().await {
                socket.send(message).await.map_err(std::io::Error::other)?;
            }
            Ok(())
        }
    })
    .await;
    (at, seen)
}

#[tokio::test]
async fn frames_pass_both_ways_and_the_ticket_is_a_header() {
    let (at, seen) = relay(None, Message::text("peer:here:session")).await;
    let mut socket = moves_between_threads(open(&dialer(format!("http://{at}/kube"))).await.unwrap());
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("peer:here:session"));
    let largest = Message::binary(vec![5; FRAME_MAX]);
    socket.send(largest.clone()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), largest);
    let path = format!("/kube/ws/agent/{} Bearer {} false", session(), ticket().expose());
    assert_eq!(*seen.lock().unwrap(), [path]);
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_socket() {
    let (at, _) = relay(None, Message::binary(vec![5; FRAME_MAX + 1])).await;
    let mut socket = open(&dialer(format!("http://{at}"))).await.unwrap();
    assert!(matches!(socket.next().await, Some(Err(Error::Capacity(_)))));
}

#[tokio::test]
async fn it_works_through_tls_and_a_proxy() {
    let ca = Ca::new();
    let (at, seen) = relay(Some(ca.server("relay.test")), Message::text("hello")).await;
    let proxy = proxy::connect(at, Rules::default()).await;
    let setting = format!("http://{}", proxy.at);
    let mut socket =
        open(&dialer_with("https://relay.test", Some(&ca.file), &[("HTTPS_PROXY", &setting)])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert!(!proxy.seen.lock().unwrap()[0].contains(ticket().expose()), "the proxy sees no ticket");
}

#[tokio::test]
async fn each_refusal_has_its_meaning() {
    let error = r#"{"error":"no"}"#;
    let refused = |answer: String| async move {
        let server = Canned::plain(answer).await;
        let error = open(&dialer(server.http())).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(ticket().expose()));
        error
    };
    assert_eq!(refused(answer("401 No", "Mykube-Refusal: ticket\r\n", error)).await, DialError::TicketRefused);
    // An authenticating proxy's 401, however much like the relay's it looks.
    assert_eq!(refused(json("401 No", error)).await, DialError::Refused { status: 401, message: "no".into() });
    // A proxy's 403: the relay answers that for an `Origin` only, which no end sends.
    assert_eq!(refused(json("403 No", error)).await, DialError::Refused { status: 403, message: "no".into() });
    assert_eq!(refused(json("404 No", error)).await, DialError::SessionUnknown);
    assert_eq!(refused(json("400 No", error)).await, DialError::Refused { status: 400, message: "no".into() });
    assert_eq!(refused(json("429 No", error)).await, DialError::RateLimited { retry_after: None });
    let stripped = refused(json("426 Upgrade Required", error)).await;
    assert!(stripped.to_string().contains("does not pass WebSockets on"), "{stripped}");
    let gone = refused(answer("503 No", "", "")).await;
    assert!(matches!(gone, DialError::Unreachable { reason: Unreachable::Status { status: 503, .. }, .. }), "{gone}");
    for other in [
        answer("200 OK", "", "<html>"),
        answer("404 No", "", "<html>"),
        answer("403 No", "", "<html>"),
        answer("401 No", "", "<html>"),
    ] {
        let error = refused(other).await;
        assert!(matches!(error, DialError::NotARelay { .. }), "{error}");
    }
    let moved = refused(answer("302 Found", "Location: https://elsewhere.test/\r\n", "")).await;
    assert!(moved.to_string().contains("https://elsewhere.test/"), "{moved}");
}

#[tokio::test]
async fn a_handshake_that_does_not_answer_ours_is_refused() {
    let switch = |headers: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{headers}\r\n");
    for headers in [
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "Upgrade: spdy/3.1\r\nConnection: Upgrade\r\n",
    ] {
        let server = Canned::plain(switch(headers)).await;
        let error = open(&dialer(server.http())).await.unwrap_err();
        assert!(matches!(error, DialError::NotARelay { .. }), "{headers}: {error}");
    }
}

/// tungstenite traces whole frames, and the relay's text frames carry tickets: such a line must not exist.
#[test]
fn no_logger_is_given_traces_of_frames() {
    assert!(log::STATIC_MAX_LEVEL < log::LevelFilter::Trace);
}
