//! The two HTTP calls.

use std::time::Duration;

use mykube_dial::{
    DialError, DialOptions, Dialer, RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX, Trust, connect_tcp_via_proxy,
    error::Unreachable, transport::NOTSENT_LOWAT,
};
use mykube_protocol::{Nameplate, http::PairAnswer};
use socket2::SockRef;

use crate::support::{Canned, SESSION, answer, closed_port, created, dialer, json, silent};

async fn create(answer: impl Into<Vec<u8>>) -> DialError {
    let server = Canned::plain(answer).await;
    dialer(server.http()).create_session().await.unwrap_err()
}

async fn pair(answer: impl Into<Vec<u8>>) -> Result<PairAnswer, DialError> {
    let server = Canned::plain(answer).await;
    dialer(server.http()).pair(&nameplate()).await
}

fn nameplate() -> Nameplate {
    "483".parse().unwrap()
}

#[tokio::test]
async fn a_session_is_created() {
    let server = Canned::plain(created()).await;
    let session = dialer(server.http() + "/kube/").create_session().await.unwrap();
    assert_eq!((session.session_id.to_string().as_str(), session.nameplate.as_str()), (SESSION, "483"));
    assert_eq!(session.ticket.expose(), "c2VjcmV0");
    let request = server.only_request();
    assert!(request.starts_with("POST /kube/api/sessions HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", server.at)), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"version\":2}"), "{request}");
}

#[tokio::test]
async fn a_nameplate_is_claimed() {
    let body = format!(r#"{{"session_id":"{SESSION}","ticket":"c2VjcmV0","attempt":"{SESSION}"}}"#);
    let server = Canned::plain(json("200 OK", &body)).await;
    let paired = dialer(server.http()).pair(&nameplate()).await.unwrap();
    assert_eq!(paired.attempt.to_string(), SESSION);
    let request = server.only_request();
    assert!(request.starts_with("POST /api/pair HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"nameplate\":\"483\"}"), "{request}");
}

#[tokio::test]
async fn each_refusal_has_its_meaning_and_exit_code() {
    let error = r#"{"error":"no \u001b[31msession\u202e"}"#;
    for status in ["404 Not Found", "409 Conflict", "410 Gone"] {
        assert_eq!(pair(json(status, error)).await.unwrap_err(), DialError::CodeUnknown);
    }
    assert_eq!(DialError::CodeUnknown.exit_code(), 3);

    let limited = answer("429 Too Many", "Retry-After: 17\r\n", error);
    assert_eq!(pair(limited).await.unwrap_err(), DialError::RateLimited { retry_after: Some(17) });
    let limited = create(answer("429 Too Many", "", "")).await;
    assert_eq!(limited, DialError::RateLimited { retry_after: None });
    assert_eq!(limited.exit_code(), 1);

    for status in [502, 503, 504] {
        let gone = create(answer(&format!("{status} Bad"), "", "<html>")).await;
        let reason = Unreachable::Status { status, message: None };
        assert!(matches!(&gone, DialError::Unreachable { reason: r, .. } if *r == reason), "{gone}");
        assert_eq!(gone.exit_code(), 4);
    }
    let full = create(json("503 Full", r#"{"error":"this relay is full"}"#)).await;
    assert!(full.to_string().contains("(status 503: this relay is full). Try again"), "{full}");

    let cleaned = "no [31msession".to_owned();
    let old = create(answer("400 Bad", "Mykube-Refusal: version\r\n", error)).await;
    assert_eq!(old, DialError::VersionUnsupported { message: cleaned.clone() });
    let others = create(json("400 Bad", error)).await;
    assert_eq!(others, DialError::Refused { status: 400, message: cleaned.clone() });
    let old = create(json("200 OK", &format!(r#"{{"session_id":"{SESSION}","code":"48320417"}}"#))).await;
    assert!(matches!(old, DialError::VersionUnsupported { .. }), "{old}");
    assert!(!old.to_string().contains("48320417"));
    assert_eq!(create(json("507 Full", error)).await, DialError::Refused { status: 507, message: cleaned });
}

#[tokio::test]
async fn what_is_not_a_relay_is_called_so() {
    let html = "Content-Type: text/html\r\n";
    for other in [
        answer("200 OK", html, "<html>Sign in to Hotel WiFi</html>"),
        answer("201 Created", html, "<html>"),
        answer("404 Not Found", html, "<html>nginx</html>"),
        json("404 Not Found", r#"{"detail":"Not Found"}"#),
        json("201 Created", r#"{"session_id":"../../etc","nameplate":"483","ticket":"c2Vj","expires_at":""}"#),
        json("201 Created", "{"),
        answer("204 No Content", "", ""),
        answer("500 Internal", html, "<html>"),
        "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
    ] {
        let error = create(other.clone()).await;
        assert!(matches!(error, DialError::NotARelay { .. }), "{other}: {error}");
        assert_eq!(error.exit_code(), 4);
    }
    let error = pair(answer("404 Not Found", html, "<html>")).await.unwrap_err();
    assert!(error.to_string().contains("it answered 404 with text/html"), "{error}");
}

#[tokio::test]
async fn redirects_are_named_and_not_followed() {
    let elsewhere = Canned::plain(created()).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: http://{}/\r\n", elsewhere.at);
        let error = create(answer(status, &location, "")).await;
        assert!(matches!(error, DialError::Redirected { .. }), "{error}");
        assert!(error.to_string().contains(&format!("redirects to http://{}/", elsewhere.at)), "{error}");
    }
    assert!(elsewhere.seen.lock().unwrap().is_empty());

    let hostile = create(b"HTTP/1.1 302 Found\r\nLocation: https://\xe2\x80\xaeevil\x1b[2J\r\n\r\n".to_vec()).await;
    assert!(!hostile.to_string().contains(['\u{1b}', '\u{202e}']), "{hostile:?}");
}

#[tokio::test]
async fn answers_are_bounded() {
    let error = create(json("201 Created", &" ".repeat(RESPONSE_BODY_MAX + 1))).await;
    assert!(error.to_string().contains("longer than 64 KiB"), "{error}");
    let padded = json("201 Created", &format!("{}{}", created().split_once("\r\n\r\n").unwrap().1, " ".repeat(60_000)));
    let server = Canned::plain(padded).await;
    assert!(dialer(server.http()).create_session().await.is_ok());

    let padding = format!("X: {}\r\n", "x".repeat(4 * RESPONSE_HEAD_MAX));
    let error = create(created().replacen("Connection: close\r\n", &padding, 1)).await;
    assert!(error.to_string().contains("head of its answer is longer than 32 KiB"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (at, _holder) = closed_port().await;
    let refused = dialer(format!("http://{at}")).create_session().await.unwrap_err();
    assert_eq!(refused, DialError::Unreachable { address: at.to_string(), reason: Unreachable::Refused });
    assert_eq!(refused.exit_code(), 4);
    assert!(refused.to_string().starts_with(&format!("cannot reach {at}: connection refused")), "{refused}");

    // A label of 64 characters cannot be asked for (RFC 1035 section 2.3.4): no DNS server is needed to know.
    let nowhere = format!("{}.test", "x".repeat(64));
    let unknown = dialer(format!("https://{nowhere}")).create_session().await.unwrap_err();
    assert!(matches!(&unknown, DialError::Unreachable { reason: Unreachable::Dns(_), .. }), "{unknown}");
    assert!(unknown.to_string().contains(&format!("{nowhere}:443")), "{unknown}");

    for cut in ["", "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"] {
        let error = create(cut).await;
        assert!(matches!(error, DialError::Unreachable { reason: Unreachable::Closed(_), .. }), "{cut:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let limit = Duration::from_millis(20);
    let options = DialOptions { answer_timeout: limit, ..DialOptions::default() };
    let at = silent().await;
    let dialer = Dialer::new(format!("http://{at}").parse().unwrap(), options).unwrap();
    let late = DialError::Unreachable { address: at.to_string(), reason: Unreachable::Timeout(limit) };
    assert_eq!(dialer.create_session().await.unwrap_err(), late);
    assert!(late.to_string().contains("no answer within 0.02 s"), "{late}");

    // The head came, the body does not.
    let half = crate::support::listen(None, |mut stream| async move {
        crate::support::read_request(&mut stream).await?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n").await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Ok(())
    })
    .await;
    let options = DialOptions { answer_timeout: limit, ..DialOptions::default() };
    let error = Dialer::new(format!("http://{half}").parse().unwrap(), options).unwrap().create_session().await;
    assert!(matches!(error, Err(DialError::Unreachable { reason: Unreachable::Timeout(_), .. })), "{error:?}");
}

#[tokio::test]
async fn the_socket_is_tuned() {
    let server = Canned::plain("").await;
    let stream = dialer(server.http()).connect().await.unwrap();
    let socket = SockRef::from(stream.tcp());
    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
    #[cfg(target_os = "linux")]
    {
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"), "within this machine");
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(15)));
        // Later than any ping: a single lost probe would be the end.
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }
}

/// Behind `kubectl exec -i` a program in the pod may read nothing for hours, as may a stopped laptop.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_connection_elsewhere_outlives_a_peer_that_does_not_read() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (trust, port) = (Trust::new(None).unwrap(), listener.local_addr().unwrap().port());
    let stream = connect_tcp_via_proxy("127.0.0.1", port, None, &trust, Duration::from_secs(5)).await.unwrap();
    let socket = SockRef::from(stream.tcp());
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    assert!(socket.keepalive().unwrap());
}
