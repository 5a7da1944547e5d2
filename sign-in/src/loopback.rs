//! A port of this machine on which one answer is awaited, which a browser brings (RFC 8252, section 7.3).
//!
//! Whatever else comes is told no, and changes nothing: a page of another origin, another program or user of this machine can
//! send anything here. What counts is a `GET` of the one path with the `state` of this sign-in.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mykube_protocol::text::printable;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::error::SignInError;

/// The path that counts.
const PATH: &str = "/callback";
/// How long one connection may take: a browser on this machine needs milliseconds.
const CONNECTION_LIMIT: Duration = Duration::from_secs(5);
/// Connections at once. With one more the oldest is dropped, so that those that say nothing keep no browser out.
const CONNECTIONS_MAX: usize = 64;
/// Longest request head; a code and a state have some hundred bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Longest code: a relay's have 43 characters.
const CODE_MAX: usize = 512;
/// Longest error that is shown.
const ERROR_MAX: usize = 200;
/// How long to wait after the system refused to accept a connection (out of descriptors, mostly).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The port. It is closed when this is dropped.
pub(crate) struct Loopback {
    listener: TcpListener,
    port: u16,
}

/// What the browser brought.
pub(crate) enum Answer {
    /// For `/auth/exchange`.
    Code(Zeroizing<String>),
    /// Why there is none, cleaned (RFC 6749, section 4.1.2.1).
    Error(String),
}

impl Loopback {
    /// Any free port of 127.0.0.1.
    pub(crate) async fn bind() -> Result<Self, SignInError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(SignInError::Listen)?;
        let port = listener.local_addr().map_err(SignInError::Listen)?.port();
        Ok(Self { listener, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The first answer that has this state, once its page has been sent; then nothing listens any more.
    pub(crate) async fn answer(self, state: &str) -> Answer {
        let awaited = Arc::new(Awaited {
            host: format!("127.0.0.1:{}", self.port),
            state: Zeroizing::new(state.to_owned()),
            is_answered: AtomicBool::new(false),
        });
        let mut connections = JoinSet::new();
        let mut running: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        sleep(ACCEPT_RETRY).await;
                        continue;
                    };
                    running.retain(|connection| !connection.is_finished());
                    if running.len() >= CONNECTIONS_MAX && let Some(oldest) = running.pop_front() {
                        oldest.abort();
                    }
                    running.push_back(connections.spawn(serve(stream, awaited.clone())));
                }
                Some(ended) = connections.join_next() => {
                    if let Ok(Some(answer)) = ended {
                        return answer;
                    }
                }
            }
        }
    }
}

/// What is waited for.
struct Awaited {
    /// The `Host` of a request that was meant for this port: another name that leads here is a stranger's.
    host: String,
    state: Zeroizing<String>,
    is_answered: AtomicBool,
}

/// One connection, with one request. An answer counts when its page has been written.
async fn serve(stream: TcpStream, awaited: Arc<Awaited>) -> Option<Answer> {
    let found = Mutex::new(None);
    let respond = |request: Request<Incoming>| {
        let judged = awaited.judge(&request);
        let response = match judged {
            Ok(answer) => {
                let response = page(StatusCode::OK, answer.text());
                *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
                response
            }
            Err((status, text)) => page(status, text),
        };
        async { Ok::<_, Infallible>(response) }
    };
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), service_fn(respond));
    let _ = timeout(CONNECTION_LIMIT, connection).await;
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

impl Awaited {
    /// What a request brings, or with which status and words it is told no.
    fn judge<T>(&self, request: &Request<T>) -> Result<Answer, (StatusCode, &'static str)> {
        let host = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
        if host != Some(self.host.as_bytes()) || request.uri().path() != PATH {
            return Err((StatusCode::NOT_FOUND, "There is nothing here."));
        }
        if request.method() != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "This takes GET only."));
        }
        let foreign =
            (StatusCode::BAD_REQUEST, "This is no answer to the sign-in that waits here. Nothing has changed.");
        let query = request.uri().query().unwrap_or_default();
        let [state, code, error, description] =
            ["state", "code", "error", "error_description"].map(|name| only(query, name));
        let is_ours =
            state.is_some_and(|state| verify_slices_are_equal(state.as_bytes(), self.state.as_bytes()).is_ok());
        if !is_ours {
            return Err(foreign);
        }
        let answer = match (code, error) {
            (Some(code), None) if code.len() <= CODE_MAX => Answer::Code(code),
            (None, Some(error)) => Answer::Error(printable(description.as_ref().unwrap_or(&error), ERROR_MAX)),
            _ => return Err(foreign),
        };
        if self.is_answered.swap(true, Ordering::Relaxed) {
            return Err((StatusCode::GONE, "This sign-in has been answered already."));
        }
        Ok(answer)
    }
}

impl Answer {
    fn text(&self) -> &'static str {
        match self {
            Self::Code(_) => "mykube has got the answer, and the terminal says how it went. You may close this tab.",
            Self::Error(_) => "You are not signed in, and the terminal says why. You may close this tab.",
        }
    }
}

/// The parameter's value, if it is there once and not empty (RFC 6749, section 3.1).
fn only(query: &str, name: &str) -> Option<Zeroizing<String>> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).map(|(_, value)| value);
    let value = Zeroizing::new(values.next()?.into_owned());
    (values.next().is_none() && !value.is_empty()).then_some(value)
}

/// A page that loads nothing, and that no other page can show or read. Nothing of a request is in it.
fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>mykube</title><main><h1>mykube</h1><p>{text}</p></main></html>\n"
    );
    let mut response = Response::new(Full::new(Bytes::from(html)));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 6] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::ALLOW, "GET"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

#[cfg(test)]
mod tests;
