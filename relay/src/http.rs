//! The HTTP interface: sessions, pairing, health, and the way to a WebSocket.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use mykube_protocol::{
    Role, SessionId, Ticket, VERSION,
    http::{
        CreateSession, ErrorBody, LegacyCreated, LegacyPaired, PairAnswer, PairRequest, REFUSAL, SessionCreated,
        TICKET_REFUSED, VERSION_REFUSED,
    },
    ticket::SUBPROTOCOL_PREFIX,
};
use mykube_relay_core::{
    owner::Owner,
    quota::retry_after,
    registry::{CreateError, LegacyError},
};
use serde::{Serialize, de::DeserializeOwned};
use sha1::{Digest as _, Sha1};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{runtime::Handle, time::timeout};
use tracing::{debug, info};

use crate::{
    connections::{Connection, TooMany},
    fallback::{Accepted, Arrival, Fallback},
    hub::{Admission, Hub, now},
    lock::lock,
    metrics::PairResult,
    socket::Socket,
    stall::Stalling,
    stream::Stream,
    ws,
};

pub(crate) type Reply = Response<Full<Bytes>>;

/// RFC 6455 section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocol to offer beside a ticket's, so that the answer need not repeat the ticket.
const SUBPROTOCOL: &str = "mykube.2";

/// Answers one request on the main listener.
pub(crate) async fn handle(hub: Arc<Hub>, connection: Arc<Connection>, request: Request<Incoming>) -> Reply {
    // With the PROXY protocol the header named the client, and only the client itself can have written X-Forwarded-For.
    let forwarded = (!hub.config.proxy_protocol).then(|| request.headers().get_all("x-forwarded-for"));
    let peer = connection.peer;
    let address = hub.proxies.client(peer, forwarded.iter().flatten().map(HeaderValue::as_bytes));
    let answer = match Connection::named(&hub.slots, &hub.proxies, connection, address) {
        Ok(connection) => answer(&hub, peer, connection, request).await,
        Err(TooMany(limit)) => {
            debug!(%address, limit, "request refused");
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address");
            Err(failure.retry_after(1))
        }
    };
    answer.unwrap_or_else(Failure::into_reply)
}

/// `peer`: who is at the other end of the connection, which may be a proxy's.
async fn answer(
    hub: &Arc<Hub>,
    peer: IpAddr,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Reply, Failure> {
    let path = request.uri().path();
    match path {
        "/healthz" | "/readyz" | "/api/health" => health(hub, &request),
        "/api/sessions" => create(hub, connection.peer, admit(hub, connection.peer, request)?).await,
        "/api/pair" => {
            let admitted = admit(hub, connection.peer, request).inspect_err(|failure| {
                if failure.status == StatusCode::TOO_MANY_REQUESTS {
                    hub.metrics.pair_attempt(PairResult::RateLimited);
                }
            });
            pair(hub, connection.peer, admitted?).await
        }
        path => match socket_path(path) {
            Some((role, session)) => upgrade(hub, connection, role, session, request),
            None => match &hub.fallback {
                Some(_) if hub.is_draining() => Err(Failure::draining()),
                Some(fallback) => {
                    let arrival =
                        Arrival { address: connection.peer, transport: hub.transport(peer, request.headers()) };
                    if fallback.has_socket(path) {
                        accept(hub, &**fallback, connection, request, arrival).await
                    } else {
                        Ok(fallback.answer(request, arrival).await)
                    }
                }
                None => Err(Failure::new(StatusCode::NOT_FOUND, "not found")),
            },
        },
    }
}

/// Liveness, readiness and the health call.
pub(crate) fn health<B>(hub: &Hub, request: &Request<B>) -> Result<Reply, Failure> {
    allow_methods(request, &[Method::GET, Method::HEAD])?;
    if request.uri().path() == "/readyz" && hub.is_draining() {
        return Err(Failure::draining());
    }
    if request.uri().path() == "/readyz" && hub.fallback.as_ref().is_some_and(|fallback| !fallback.is_ready()) {
        return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the database of accounts gives no answer"));
    }
    json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// RFC 9110 section 15.5.6.
pub(crate) fn allow_methods<B>(request: &Request<B>, allowed: &[Method]) -> Result<(), Failure> {
    if allowed.contains(request.method()) {
        return Ok(());
    }
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
    Err(failure.with(header::ALLOW, &allowed))
}

/// Browsers name the origin of the page that sends a request. Pages of other origins may not make requests with their visitor's
/// address.
fn check_origin(hub: &Hub, headers: &HeaderMap) -> Result<(), Failure> {
    let allowed = |origin: &HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        hub.config.allow_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    };
    if headers.get_all(header::ORIGIN).iter().all(allowed) {
        return Ok(());
    }
    Err(Failure::new(StatusCode::FORBIDDEN, "this origin is not allowed (--allow-origin on the relay)"))
}

/// The body's type must be JSON, which no page of another origin can send without a preflight, or not given, as by legacy
/// clients.
fn check_json(headers: &HeaderMap) -> Result<(), Failure> {
    let is_json = |value: &HeaderValue| {
        let kind = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim();
        kind.is_empty() || kind.eq_ignore_ascii_case("application/json")
    };
    if headers.get_all(header::CONTENT_TYPE).iter().all(is_json) {
        return Ok(());
    }
    Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body with Content-Type: application/json"))
}

async fn create(hub: &Hub, address: IpAddr, request: Request<Incoming>) -> Result<Reply, Failure> {
    let body: CreateSession = read(hub, request).await?;
    match body.version {
        Some(VERSION) => {}
        None if hub.config.legacy => {
            let (session_id, code) = hub.with_registry(|r, now| r.handle_legacy_create(now, &mut rand::rng()))?;
            info!(session = %session_id, %address, "plain-form session created");
            return json(StatusCode::OK, &LegacyCreated { session_id, code });
        }
        None => return Err(Failure::only_version_2()),
        Some(version) => {
            let error = format!("this relay speaks version {VERSION}, not version {version}: use a matching mykube");
            return Err(Failure::version(error));
        }
    }
    let owner = Owner::Address(address.into());
    let created = hub.create(owner).await?;
    let session_id = created.claims.session;
    info!(session = %session_id, %address, "session created");
    let expires_at = i64::try_from(created.expires_at).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let expires_at = expires_at.and_then(|at| at.format(&Rfc3339).ok()).ok_or_else(Failure::internal)?;
    let ticket = hub.key.sign(&created.claims);
    json(StatusCode::CREATED, &SessionCreated { session_id, nameplate: created.nameplate, ticket, expires_at })
}

async fn pair(hub: &Hub, address: IpAddr, request: Request<Incoming>) -> Result<Reply, Failure> {
    let body: PairRequest = read(hub, request).await?;
    match (body.nameplate, body.code) {
        (Some(nameplate), None) => {
            let (attempt, claims) = hub.claim(&nameplate).await.map_err(|error| {
                hub.metrics.pair_attempt(PairResult::NotFound);
                Failure::new(StatusCode::NOT_FOUND, error.to_string())
            })?;
            hub.metrics.pair_attempt(PairResult::Claimed);
            info!(session = %claims.session, %address, "session claimed");
            let ticket = hub.key.sign(&claims);
            json(StatusCode::OK, &PairAnswer { session_id: claims.session, ticket, attempt })
        }
        (None, Some(code)) => {
            let paired = hub.with_registry(|registry, now| {
                let paired = if hub.config.legacy {
                    registry.handle_legacy_pair(now, &code)
                } else {
                    Err(LegacyError::NotFound)
                };
                if paired == Err(LegacyError::NotFound) {
                    registry.handle_unknown_legacy_code(now, &code);
                }
                paired
            });
            let session_id = paired.inspect_err(|_| hub.metrics.pair_attempt(PairResult::NotFound))?;
            hub.metrics.pair_attempt(PairResult::Claimed);
            info!(session = %session_id, %address, "plain-form session paired");
            json(StatusCode::OK, &LegacyPaired { session_id })
        }
        (None, None) if !hub.config.legacy => Err(Failure::only_version_2()),
        _ => Err(Failure::new(StatusCode::BAD_REQUEST, "the body must have a nameplate")),
    }
}

fn upgrade(
    hub: &Arc<Hub>,
    connection: Arc<Connection>,
    role: Role,
    session: SessionId,
    mut request: Request<Incoming>,
) -> Result<Reply, Failure> {
    if hub.is_draining() {
        return Err(Failure::draining());
    }
    let accept = accept_key(&request)?;
    let headers = request.headers();
    check_origin(hub, headers)?;
    let (ticket, protocol) = ticket(headers);
    let legacy = hub.config.legacy && (ticket.is_none() || hub.with_registry(|r, _| r.is_legacy(session)));
    let admission = if legacy {
        Admission::Legacy(session, role)
    } else {
        let ticket = ticket.ok_or_else(|| Failure::ticket("a ticket is needed"))?;
        let admitted = hub.key.admit(&ticket, now().unix, session, role);
        Admission::Ticket(admitted.map_err(|error| Failure::ticket(error.to_string()))?)
    };
    let address = connection.peer;
    debug!(%session, %role, %address, "upgrade");
    let upgraded = hyper::upgrade::on(&mut request);
    let shared = hub.clone();
    hub.tasks.spawn(async move {
        let (tasks, worker) = (shared.tasks.clone(), shared.workers.of(&session).clone());
        let (stream, early) = match switched(upgraded, &worker, shared.config.header_timeout).await {
            Ok(switched) => switched,
            Err(error) => return debug!(%session, %role, %error, "connection lost"),
        };
        // A task of its own, because an idle socket costs what its task holds.
        let served = ws::serve(shared, stream, &early, admission, Owner::Address(address.into()), connection);
        tasks.spawn_on(served, &worker);
    });
    switching(accept, protocol)
}

/// A WebSocket that somebody else serves, if it is one and they take it.
async fn accept(
    hub: &Arc<Hub>,
    fallback: &dyn Fallback,
    connection: Arc<Connection>,
    mut request: Request<Incoming>,
    arrival: Arrival,
) -> Result<Reply, Failure> {
    let key = accept_key(&request)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let (head, _) = request.into_parts();
    let Accepted { runtime, serve } = match fallback.accept(Request::from_parts(head, ()), arrival).await {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refusal),
    };
    let timeout = hub.config.header_timeout;
    hub.tasks.spawn(async move {
        match switched(upgraded, &runtime, timeout).await {
            Ok((stream, early)) => drop(runtime.spawn(serve(Socket::new(stream, early, connection)))),
            Err(error) => debug!(address = %arrival.address, %error, "connection lost"),
        }
    });
    switching(key, None)
}

/// The connection behind the handshake, on the event loop that is to serve it, and what came right behind.
async fn switched(upgraded: OnUpgrade, worker: &Handle, limit: Duration) -> io::Result<(Stream, Bytes)> {
    let upgraded = upgraded.await.map_err(io::Error::other)?;
    let Ok(parts) = upgraded.downcast::<TokioIo<Stalling<Stream>>>() else {
        return Err(io::Error::other("not a connection of this listener"));
    };
    let mut stream = parts.io.into_inner().into_inner();
    // A client that has not yet read the answer is waited for as long as for a request.
    timeout(limit, stream.move_to(worker)).await.unwrap_or_else(|late| Err(late.into()))?;
    // The buffer, even when it is empty, keeps hyper's whole read buffer alive.
    Ok((stream, Bytes::copy_from_slice(&parts.read_buf)))
}

/// RFC 6455 section 4.2.2.
fn switching(accept: String, protocol: Option<HeaderValue>) -> Result<Reply, Failure> {
    let mut reply = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header("sec-websocket-accept", accept);
    if let Some(protocol) = protocol {
        reply = reply.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    reply.body(Full::default()).map_err(|_| Failure::internal())
}

/// RFC 6455 section 4.2: the answer to the key, if this is an opening handshake.
fn accept_key<B>(request: &Request<B>) -> Result<String, Failure> {
    allow_methods(request, &[Method::GET])?;
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let is_upgrade = request.version() == http::Version::HTTP_11
        && has(header::UPGRADE, "websocket")
        && has(header::CONNECTION, "upgrade");
    if !is_upgrade {
        return Err(Failure::upgrade("this is a WebSocket address"));
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Failure::upgrade("WebSocket version 13 is needed"));
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if BASE64.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "the WebSocket key is not 16 bytes"));
    }
    Ok(BASE64.encode(&Sha1::new().chain_update(key).chain_update(WEBSOCKET_GUID).finalize()))
}

/// The ticket, and the subprotocol that the answer has to name if the client offered any.
fn ticket(headers: &HeaderMap) -> (Option<Ticket>, Option<HeaderValue>) {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().parse().ok())?
    });
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let with_ticket = offered.iter().find(|protocol| protocol.starts_with(SUBPROTOCOL_PREFIX));
    let offered_ticket = with_ticket.and_then(|protocol| protocol[SUBPROTOCOL_PREFIX.len()..].parse().ok());
    let answer = offered.iter().find(|protocol| **protocol == SUBPROTOCOL).or(with_ticket);
    let answer = answer.and_then(|protocol| {
        let mut value = HeaderValue::from_str(protocol).ok()?;
        value.set_sensitive(true);
        Some(value)
    });
    (bearer.or(offered_ticket), answer)
}

fn socket_path(path: &str) -> Option<(Role, SessionId)> {
    let (role, session) = path.strip_prefix("/ws/")?.split_once('/')?;
    let role = [Role::Agent, Role::Client].into_iter().find(|known| known.as_str() == role)?;
    Some((role, session.parse().ok()?))
}

/// Counts a request to the API, after refusing those that a page of another origin made a browser send.
fn admit(hub: &Hub, address: IpAddr, request: Request<Incoming>) -> Result<Request<Incoming>, Failure> {
    allow_methods(&request, &[Method::POST])?;
    check_origin(hub, request.headers())?;
    check_json(request.headers())?;
    if hub.is_draining() {
        return Err(Failure::draining());
    }
    match lock(&hub.quota).handle_request(now().mono, address.into()) {
        Ok(()) => Ok(request),
        Err(wait) => {
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            Err(failure.retry_after(retry_after(wait)))
        }
    }
}

/// Reads a JSON body within the limits of size and time. An empty body is an empty object: legacy ends send none.
async fn read<T: DeserializeOwned + Default>(hub: &Hub, request: Request<Incoming>) -> Result<T, Failure> {
    let body = Limited::new(request.into_body(), hub.config.request_body_max).collect();
    let body = tokio::time::timeout(hub.config.header_timeout, body)
        .await
        .map_err(|_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            None => Failure::new(StatusCode::BAD_REQUEST, "the body cannot be read"),
        })?;
    let body = body.to_bytes();
    if body.is_empty() {
        return Ok(T::default());
    }
    // serde's message may quote the body, and the body may hold a code.
    serde_json::from_slice(&body)
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "the body is not the JSON object this call takes"))
}

pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Result<Reply, Failure> {
    let body = serde_json::to_vec(body).map_err(|_| Failure::internal())?;
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Full::from(body))
        .map_err(|_| Failure::internal())
}

/// An answer that is an error: `{"error": "..."}`.
pub(crate) struct Failure {
    status: StatusCode,
    error: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), headers: Vec::new() }
    }

    /// With a header; a value that is not valid is left out.
    fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.with(header::RETRY_AFTER, &seconds.to_string())
    }

    /// A ticket is refused, marked as the relay's own answer and not a proxy's: see [`REFUSAL`].
    fn ticket(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error).with(HeaderName::from_static(REFUSAL), TICKET_REFUSED)
    }

    /// RFC 9110 section 15.5.22 and RFC 6455 section 4.4.
    fn upgrade(error: &str) -> Self {
        let failure = Self::new(StatusCode::UPGRADE_REQUIRED, error);
        let failure = failure.with(header::CONNECTION, "Upgrade").with(header::UPGRADE, "websocket");
        failure.with(header::SEC_WEBSOCKET_VERSION, "13")
    }

    fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the relay could not make its answer")
    }

    fn version(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error).with(HeaderName::from_static(REFUSAL), VERSION_REFUSED)
    }

    fn only_version_2() -> Self {
        Self::version("this relay speaks version 2 only: use a mykube of version 2, or start the relay with --legacy")
    }

    fn draining() -> Self {
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, "this relay is going away: try again in a moment");
        failure.retry_after(1)
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut reply = json(self.status, &ErrorBody { error: self.error }).unwrap_or_else(|_| Response::default());
        *reply.status_mut() = self.status;
        reply.headers_mut().extend(self.headers);
        reply
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let status = match error {
            CreateError::Address | CreateError::Organisation => StatusCode::TOO_MANY_REQUESTS,
            CreateError::Full => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string()).retry_after(error.retry_after().as_secs())
    }
}

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Self {
        let status = match error {
            LegacyError::Invalid => StatusCode::BAD_REQUEST,
            LegacyError::NotFound => StatusCode::NOT_FOUND,
            LegacyError::AlreadyPaired => StatusCode::CONFLICT,
            LegacyError::Expired => StatusCode::GONE,
            LegacyError::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
        };
        Self::new(status, error.to_string())
    }
}
