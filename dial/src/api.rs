//! The relay's HTTP calls: the two that make a session, and any other one. Each goes over a connection of its own; redirects are refused, answers are bounded.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use mykube_protocol::{
    Nameplate, VERSION,
    http::{
        CreateSession, ErrorBody, LegacyCreated, PairAnswer, PairRequest, REFUSAL, SessionCreated, VERSION_REFUSED,
    },
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    call::{Answer, BodyError, RESPONSE_BODY_MAX, RESPONSE_HEAD_MAX, call},
    dialer::Dialer,
    error::{DialError, Unreachable, clean},
};

const USER_AGENT: &str = concat!("mykube/", env!("CARGO_PKG_VERSION"));

impl Dialer {
    /// `POST /api/sessions`: a new session, waiting under a nameplate.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn create_session(&self) -> Result<SessionCreated, DialError> {
        let answer = self.post("/api/sessions", &CreateSession { version: Some(VERSION) }).await?;
        if answer.status() == StatusCode::CREATED {
            return self.read(answer.body());
        }
        if serde_json::from_slice::<LegacyCreated>(answer.body()).is_ok() {
            return Err(DialError::VersionUnsupported { message: "it answered with the first protocol".into() });
        }
        Err(self.refusal(&answer))
    }

    /// `POST /api/pair`: claims a nameplate once.
    ///
    /// # Errors
    /// [`DialError::CodeUnknown`] where no session waits under it; see [`DialError`].
    pub async fn pair(&self, nameplate: &Nameplate) -> Result<PairAnswer, DialError> {
        let request = PairRequest { nameplate: Some(nameplate.as_str().to_owned()), code: None };
        let answer = self.post("/api/pair", &request).await?;
        match answer.status() {
            StatusCode::OK => self.read(answer.body()),
            StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE if message(answer.body()).is_some() => {
                Err(DialError::CodeUnknown)
            }
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Any call, with its whole answer, whatever that is. `bearer` is a whole `Authorization` value; `body` is JSON.
    ///
    /// # Errors
    /// There is no answer, or a redirect, or it is too long; see [`DialError`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        bearer: Option<HeaderValue>,
        body: Option<Bytes>,
    ) -> Result<Response<Bytes>, DialError> {
        let json = body.is_some().then_some(HeaderValue::from_static("application/json"));
        let mut request = self.request(method, path, body.unwrap_or_default());
        let headers = request.headers_mut();
        headers.extend(json.map(|json| (header::CONTENT_TYPE, json)));
        headers.extend(bearer.map(|mut bearer| {
            bearer.set_sensitive(true);
            (header::AUTHORIZATION, bearer)
        }));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        self.bounded(async { self.whole(self.send(request).await?).await }).await
    }

    async fn post<T: serde::Serialize>(&self, path: &str, body: &T) -> Result<Response<Bytes>, DialError> {
        let body = serde_json::to_vec(body).expect("these bodies are plain structs of strings and numbers");
        self.call(Method::POST, path, None, Some(body.into())).await
    }

    /// A request to the relay, with the headers that every request has.
    pub(crate) fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let url = self.url();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.path(path).parse().expect("a parsed URL's path is a request target");
        let host = HeaderValue::from_str(&url.authority()).expect("a parsed URL's authority is a header value");
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request
    }

    /// Sends a request over a fresh connection. A redirect is an error.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, DialError> {
        let stream = self.connect().await?;
        let answer = self.bounded(async {
            call(stream, request).await.map_err(|e| {
                if e.is_parse_too_large() {
                    let limit = RESPONSE_HEAD_MAX / 1024;
                    self.not_a_relay(format!("the head of its answer is longer than {limit} KiB"))
                } else if e.is_parse() {
                    self.not_a_relay("it does not answer with HTTP".into())
                } else {
                    self.unreachable(Unreachable::Closed("without an answer"))
                }
            })
        });
        let answer = answer.await?;
        if answer.response.status().is_redirection() {
            let to = answer.header(header::LOCATION).unwrap_or_else(|| "nowhere".into());
            return Err(DialError::Redirected { url: self.url().to_string(), to });
        }
        Ok(answer)
    }

    /// The whole body of an answer.
    pub(crate) async fn whole(&self, answer: Answer) -> Result<Response<Bytes>, DialError> {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = answer.response.status();
        head.headers = answer.response.headers().clone();
        let body = answer.body().await.map_err(|e| match e {
            BodyError::TooLong => {
                self.not_a_relay(format!("its answer is longer than {} KiB", RESPONSE_BODY_MAX / 1024))
            }
            BodyError::Broken => self.unreachable(Unreachable::Closed("in the middle of its answer")),
        })?;
        Ok(Response::from_parts(head, body))
    }

    /// Bounds a wait for the relay by the answer timeout.
    pub(crate) async fn bounded<T>(&self, work: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
        let limit = self.answer_timeout();
        timeout(limit, work).await.unwrap_or_else(|_| Err(self.unreachable(Unreachable::Timeout(limit))))
    }

    /// The error that an answer other than the expected one stands for.
    #[must_use]
    pub fn refusal(&self, answer: &Response<Bytes>) -> DialError {
        let status = answer.status();
        match (status, message(answer.body())) {
            (StatusCode::TOO_MANY_REQUESTS, _) => DialError::RateLimited { retry_after: retry_after(answer) },
            (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT, message) => {
                self.unreachable(Unreachable::Status { status: status.as_u16(), message })
            }
            (StatusCode::BAD_REQUEST, Some(message)) if is_refusal(answer, VERSION_REFUSED) => {
                DialError::VersionUnsupported { message }
            }
            (_, Some(message)) => DialError::Refused { status: status.as_u16(), message },
            (_, None) => {
                let kind = answer.headers().get(header::CONTENT_TYPE);
                let kind = kind.map(|kind| format!(" with {}", clean(&String::from_utf8_lossy(kind.as_bytes()))));
                self.not_a_relay(format!("it answered {}{}", status.as_u16(), kind.unwrap_or_default()))
            }
        }
    }

    pub(crate) fn not_a_relay(&self, reason: String) -> DialError {
        DialError::NotARelay { url: self.url().to_string(), reason }
    }

    pub(crate) fn unreachable(&self, reason: Unreachable) -> DialError {
        DialError::unreachable(self.url().address(), reason)
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, DialError> {
        // serde's message can quote the body, and the body may hold a ticket.
        serde_json::from_slice(body).map_err(|_| self.not_a_relay("its answer is not the JSON a relay sends".into()))
    }
}

/// Whether the relay marked the refusal as its own; a proxy that answers in its place does not.
pub(crate) fn is_refusal(answer: &Response<Bytes>, what: &str) -> bool {
    answer.headers().get(REFUSAL).is_some_and(|value| value == what)
}

/// The message of a relay's own error body.
pub(crate) fn message(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<ErrorBody>(body).ok().map(|body| clean(&body.error))
}

fn retry_after(answer: &Response<Bytes>) -> Option<u64> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}
