//! The requests of one client's connection: judged, forwarded, answered.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Collected, Limited};
use hyper::{
    body::{Body as _, Incoming},
    upgrade::OnUpgrade,
};

use crate::{
    audit::ClientEvent,
    body::{Answer, Upload},
    caller::Caller,
    exchange::Exchange,
    forwarder::{ForwardError, Outgoing},
    gateway::Gateway,
    head::{Head, Problem, Target},
    headers::{self, FIELDS_KEPT},
    inner::Wanted,
    policy::Asked,
    progress::Progress,
    record::{self, Plan, Recording},
    request_info::{PathError, RequestInfo, query_flag},
    room::Room,
    status,
    upgrade::Upgrading,
};

/// The methods of Kubernetes' API.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// How the API server answers an exec that asks for no upgrade, and that it would let through with one.
const NO_UPGRADE: &[u8] = b"Upgrade request required";
/// Longest answer of the API server that is searched for those words, in bytes.
const ASKED_MAX: usize = 64 * 1024;

/// One client's connection.
pub(crate) struct Connection<'a> {
    gateway: &'a Gateway,
    caller: &'a Caller,
    pub(crate) progress: Arc<Progress>,
    upgrading: Mutex<Option<Upgrading>>,
    /// Room for the head of a long answer, which is the connection's last: hyper holds the head until the connection
    /// ends, also after the exchange.
    last_head: Mutex<Option<Room>>,
}

/// A request that is not forwarded.
struct Refused {
    status: StatusCode,
    /// Told to the client's user, and written to the audit log.
    message: String,
}

impl Refused {
    fn bad(what: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: format!("mykube: the request {what}") }
    }

    fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, message: message.into() }
    }
}

/// A request that is forwarded.
struct Judged {
    outgoing: Outgoing,
    /// The client's side of an upgrade.
    client: Option<OnUpgrade>,
    plan: Plan,
}

impl<'a> Connection<'a> {
    pub(crate) fn new(gateway: &'a Gateway, caller: &'a Caller) -> Self {
        Self { gateway, caller, progress: Arc::default(), upgrading: Mutex::default(), last_head: Mutex::default() }
    }

    /// What the connection becomes after an upgrade.
    pub(crate) fn upgrading(&self) -> Option<Upgrading> {
        self.upgrading.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Room for the last answer's head that hyper holds, if it is long.
    pub(crate) fn last_head(&self) -> Option<Room> {
        self.last_head.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Answers one request.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let (mut parts, body) = request.into_parts();
        let head = match self.progress.take() {
            Some(head) if !head.problem.as_ref().is_some_and(|problem| problem.foreign) => head,
            _ => return Ok(self.refuse_foreign().await),
        };
        // hyper read a head that was made for it; this is the one that the client sent.
        let Head { method, target, version, headers, problem, room, .. } = head;
        let progress = self.progress.clone();
        let mut exchange = Exchange::new(self.caller, method.as_ref(), target.path(), &headers, progress, room);
        // A head without a method has a problem, and is refused before it is judged.
        (parts.method, parts.version, parts.headers) = (method.unwrap_or_default(), version, headers);
        let info = RequestInfo::new(&parts.method, target.path(), target.query());
        exchange.discovery = info.as_ref().is_ok_and(RequestInfo::is_discovery);
        let audit_id = HeaderValue::from_str(&exchange.record.audit_id).expect("a UUID is a header value");
        let uploaded = exchange.uploaded.clone();
        if body.is_end_stream() {
            uploaded.whole.store(true, Ordering::Relaxed);
        }
        let mut response = match self.gateway.audit.reserve().await {
            Ok(slot) => {
                exchange.reserved(slot);
                self.answer(Request::from_parts(parts, body), target, problem, info, exchange).await
            }
            Err(full) => {
                tracing::error!(client = %self.caller.name, "{full}");
                local(StatusCode::SERVICE_UNAVAILABLE, &format!("mykube: {full}"), exchange)
            }
        };
        response.headers_mut().entry("audit-id").or_insert(audit_id);
        // Ends the connection: the rest of a body must not be taken for the next request, and hyper keeps the memory
        // that it wrote a long head from for as long as the connection.
        let last = !uploaded.whole.load(Ordering::Relaxed) || headers::is_long(response.headers());
        if last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        target: Target,
        problem: Option<Problem>,
        info: Result<RequestInfo, PathError>,
        mut exchange: Exchange,
    ) -> Response<Answer> {
        let (mut parts, body) = request.into_parts();
        let judged = match problem {
            None => self.judge(&mut parts, target, body, info, &mut exchange),
            Some(Problem { status, what, .. }) => {
                // It is in doubt where this request ends and the next begins: nothing more is read.
                exchange.uploaded.whole.store(false, Ordering::Relaxed);
                Err(Refused { status, ..Refused::bad(what) })
            }
        };
        // A forwarded request may wait for long, and needs no more of these.
        drop(parts);
        let Judged { outgoing, client, plan } = match judged {
            Ok(judged) => judged,
            Err(refused) => return self.refuse(refused, exchange),
        };
        let ask = matches!(plan, Plan::Ask);
        let recording = match self.record(plan, &exchange).await {
            Ok(recording) => recording,
            Err(error) => {
                tracing::error!(client = %self.caller.name, %error, "a recording cannot be written: its session is refused");
                exchange.failed(record::UNWRITABLE);
                return local(StatusCode::SERVICE_UNAVAILABLE, record::UNWRITABLE, exchange);
            }
        };
        match self.forward(outgoing, &mut exchange).await {
            Ok(response) if ask => self.answer_asked(response, exchange).await,
            Ok(response) => self.pass(response, client, recording, exchange),
            Err(_) if exchange.uploaded.broken.load(Ordering::Relaxed) => {
                exchange.uploaded.whole.store(false, Ordering::Relaxed);
                let message = "mykube: the request's body ended early, or its chunks or trailers cannot be read";
                exchange.failed(message);
                local(StatusCode::BAD_REQUEST, message, exchange)
            }
            Err(error) => {
                exchange.failed(&format!("mykube: {}", error.full()));
                local(error.status(), &format!("mykube: {error}"), exchange)
            }
        }
    }

    /// Answers bytes that are no request.
    async fn refuse_foreign(&self) -> Response<Answer> {
        let _ = self
            .gateway
            .audit
            .client(&self.caller.name, self.caller.id, ClientEvent::Refused("a request: not HTTP/1.1"))
            .await;
        // Not before the log line: after a last answer, the client's closing ends the connection.
        self.progress.finish();
        let mut response = status::failure(StatusCode::BAD_REQUEST, "mykube: this is not HTTP/1.1");
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response.map(Answer::words)
    }

    /// Decides on a request.
    fn judge(
        &self,
        parts: &mut request::Parts,
        target: Target,
        body: Incoming,
        info: Result<RequestInfo, PathError>,
        exchange: &mut Exchange,
    ) -> Result<Judged, Refused> {
        if !METHODS.contains(&parts.method) {
            let message = "mykube: the request's method is none that Kubernetes knows".into();
            return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, message });
        }
        let info = info.map_err(|error| Refused::bad(format!("path {error}")))?;
        exchange.describe(&info, target.query());
        let headers = headers::request(&parts.headers, parts.version, exchange.cookies).map_err(Refused::bad)?;
        headers.upgrade.iter().for_each(|protocol| exchange.upgrades(protocol));
        headers.impersonates.iter().for_each(|wanted| exchange.impersonates(wanted));
        self.report(&headers.removed);
        exchange.record.removed = headers.removed;
        let upgrade = headers.upgrade.is_some();
        if upgrade && !body.is_end_stream() {
            return Err(Refused::bad("has a body and asks for an upgrade"));
        }
        let policy = &self.caller.policy;
        let nobody = Wanted::default();
        let asked = Asked {
            info: &info,
            method: &parts.method,
            upgrade,
            applies: headers.applies,
            impersonates: headers.impersonates.as_ref().or(headers.disguised.then_some(&nobody)),
        };
        policy.decide(asked, SystemTime::now()).map_err(|refusal| Refused::forbidden(refusal.message))?;

        let mut forwarded = headers.forwarded;
        policy.impersonate(&mut forwarded);
        forwarded.insert("audit-id", HeaderValue::from_str(&exchange.record.audit_id).expect("a UUID"));
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch")
            && matches!(parts.method, Method::GET | Method::HEAD);
        let plan = self.gateway.recorder.as_ref().map_or(Plan::Pass, |recorder| {
            recorder.plan(&info, &parts.method, target.query(), headers.upgrade.as_ref(), &mut forwarded)
        });
        let upgrade = match plan {
            Plan::Refuse(message) => return Err(Refused::forbidden(message)),
            Plan::Ask => None,
            Plan::Pass | Plan::Record(_) => headers.upgrade,
        };
        let follows = info.subresource == "log" && query_flag(target.query(), "follow");
        let client = upgrade.as_ref().and_then(|_| parts.extensions.remove::<OnUpgrade>());
        let outgoing = Outgoing {
            method: parts.method.clone(),
            target: target.into_string(),
            headers: forwarded,
            reads: reads && upgrade.is_none() && !info.is_proxy() && !info.is_connect(),
            lasts: upgrade.is_some() || info.verb == "watch" || follows,
            upgrade,
            body: (!body.is_end_stream()).then(|| Upload::of(body, exchange.uploaded.clone())),
            proxied: info.is_proxy(),
            held: exchange.held(),
        };
        Ok(Judged { outgoing, client, plan })
    }

    /// Makes the recording that was planned, or sees that one could be made.
    async fn record(&self, plan: Plan, exchange: &Exchange) -> std::io::Result<Option<Recording>> {
        let Some(recorder) = &self.gateway.recorder else { return Ok(None) };
        match plan {
            Plan::Record(planned) => {
                recorder.record(*planned, &self.caller.name, &exchange.record.audit_id).await.map(Some)
            }
            Plan::Ask => recorder.check().await.map(|()| None),
            Plan::Pass | Plan::Refuse(_) => Ok(None),
        }
    }

    /// Answers an exec that cannot be recorded with what the API server has against it, or else with that.
    async fn answer_asked(&self, response: Response<Incoming>, mut exchange: Exchange) -> Response<Answer> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ASKED_MAX).collect().await.map(Collected::to_bytes).unwrap_or_default();
        let refused = parts.status.is_client_error() || parts.status.is_server_error();
        if !refused || body.is_empty() || body.windows(NO_UPGRADE.len()).any(|words| words == NO_UPGRADE) {
            return self.refuse(Refused::forbidden(record::WEBSOCKET_ONLY), exchange);
        }
        let mut response = Response::from_parts(parts, body);
        own_map(response.headers_mut());
        headers::clean_response(response.headers_mut(), exchange.cookies);
        self.outlives(response.headers(), &mut exchange);
        passed(response, exchange)
    }

    fn refuse(&self, Refused { status, message }: Refused, mut exchange: Exchange) -> Response<Answer> {
        tracing::debug!(client = %self.caller.name, message, "refused");
        exchange.refused(&message);
        local(status, &message, exchange)
    }

    async fn forward(&self, outgoing: Outgoing, exchange: &mut Exchange) -> Result<Response<Incoming>, ForwardError> {
        let forwarder = &self.gateway.forwarder;
        exchange.connected(forwarder.connection(outgoing.lasts).await?);
        let answer = forwarder.send(outgoing).await?;
        if exchange.takes(answer.headers()) { Ok(answer) } else { Err(ForwardError::Crowded) }
    }

    /// Passes the API server's answer on to the client.
    fn pass(
        &self,
        mut response: Response<Incoming>,
        client: Option<OnUpgrade>,
        mut recording: Option<Recording>,
        mut exchange: Exchange,
    ) -> Response<Answer> {
        let status = response.status();
        let protocol = response.headers().get(header::UPGRADE).cloned();
        own_map(response.headers_mut());
        headers::clean_response(response.headers_mut(), exchange.cookies);
        if status != StatusCode::SWITCHING_PROTOCOLS {
            exchange.answered(status);
            self.outlives(response.headers(), &mut exchange);
            return response.map(|body| Answer::upstream(body, self.progress.flushes.clone(), exchange));
        }
        let (Some(client), Some(protocol)) = (client, protocol) else {
            let message = "mykube: the API server changed the protocol unasked";
            exchange.failed(message);
            return local(StatusCode::BAD_GATEWAY, message, exchange);
        };
        if let Some(recording) = &mut recording {
            if !record::can_read(response.headers()) {
                let message = "mykube: the API server answered with WebSocket channels that cannot be recorded";
                exchange.failed(message);
                return local(StatusCode::BAD_GATEWAY, message, exchange);
            }
            recording.begins();
            exchange.record.recording = Some(recording.name.clone());
        }
        exchange.answered(status);
        self.progress.upgrade();
        let upstream = hyper::upgrade::on(&mut response);
        *self.upgrading.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Upgrading { client, upstream, exchange, recording });
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
        response.map(|_| Answer::none())
    }

    /// Keeps the room of a long answer's head for as long as hyper holds it. All later answers of a connection are
    /// short.
    fn outlives(&self, answer: &HeaderMap, exchange: &mut Exchange) {
        if headers::is_long(answer) {
            *self.last_head.lock().unwrap_or_else(PoisonError::into_inner) = Some(exchange.answer_room());
        }
    }

    /// Logs that headers were removed: as a warning once, later at debug level.
    fn report(&self, removed: &[&'static str]) {
        if removed.is_empty() {
            return;
        }
        let names = removed.join(", ");
        if self.gateway.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(client = %self.caller.name, names, "headers that say who somebody is were removed");
        } else {
            tracing::warn!(
                client = %self.caller.name,
                names,
                "headers that say who somebody is were removed (a --token, say): requests are made with the credentials \
                 of this side"
            );
        }
    }
}

/// hyper reads an answer's fields into the map that the request's were in, and keeps it for the next answers that it
/// writes to this connection: a client's idle connection would hold as much as its longest head.
fn own_map(headers: &mut HeaderMap) {
    if headers.capacity() > FIELDS_KEPT {
        let mut own = HeaderMap::with_capacity(headers.keys_len());
        for (name, value) in &*headers {
            own.append(name, value.clone());
        }
        *headers = own;
    }
}

/// An answer of our own.
fn local(status: StatusCode, message: &str, exchange: Exchange) -> Response<Answer> {
    let answer =
        if exchange.discovery { status::discovery_failure(status, message) } else { status::failure(status, message) };
    passed(answer, exchange)
}

/// An answer whose body is whole.
fn passed(answer: Response<Bytes>, mut exchange: Exchange) -> Response<Answer> {
    exchange.answered(answer.status());
    answer.map(|text| Answer::text(text, exchange))
}
