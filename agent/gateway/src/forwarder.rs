//! Sends requests to the API server with the agent's credentials, streaming both ways.
//!
//! A request is sent once. It is sent a second time in two cases, both without a body: when the API server refused the
//! credentials and others were to be had (a 401 is answered before anything is done), and when a plain read (get, list,
//! watch) found a connection that had just ended.

use std::{
    error::Error as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use mykube_agent_upstream::Upstream;
use tokio::sync::Semaphore;

use crate::{
    body::{Upload, Way},
    connection_slot::ConnectionSlot,
    connector::ConnectFailed,
    head::ANSWER_FIELDS_MAX,
    headers::head_len,
    identity::{AloneError, Identities, Identity, IdentityError},
    room::FREE,
    settings::Settings,
};

/// The operator is told of the same failure again after this long: requests fail by the hundred.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The most bytes a head may hold on a connection that is kept for other requests: more than those of hundreds of
/// groups.
const HELD_KEPT: usize = 256 * 1024;

/// Why there is no answer. `Display` is fit for the client's user; the operator's log has the names of files and hosts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    /// No credentials, or unusable ones.
    #[error("the cluster side has no usable credentials at the moment; the log of mykube server says why")]
    Credentials,
    /// No connection.
    #[error("{}", match .0 { ConnectFailed::Unreachable(why) | ConnectFailed::Tls(why) => why.told() })]
    Connect(#[from] ConnectFailed),
    /// The connection was lost before the answer.
    #[error("the API server closed the connection before it answered; whether it did what was asked is not known")]
    Broken,
    /// hyper cannot read the answer.
    #[error(
        "the answer has a head of more than 400 KiB or {ANSWER_FIELDS_MAX} fields, or is not HTTP/1.1; whether what was asked was \
         done is not known"
    )]
    Answer,
    /// The client's other heads leave no room for this answer's.
    #[error(
        "the answer has a long head, and is one of too many with one at once, of this client; whether what was asked was done is \
         not known"
    )]
    Crowded,
    /// All connections were in use for too long.
    #[error("too many requests at once on this agent; try again")]
    Busy,
    /// All connections are in use by requests that do not end by themselves.
    #[error(
        "all {0} requests that this agent forwards at once (--max-requests) are watches, followed logs, exec and the like, \
         which go on until somebody ends them"
    )]
    Full(usize),
    /// The target cannot be put behind the server's path.
    #[error("the request's path cannot be forwarded")]
    Target,
}

impl ForwardError {
    /// What the operator may know.
    pub(crate) fn full(&self) -> String {
        match self {
            Self::Connect(failed) => failed.to_string(),
            other => other.to_string(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Credentials | Self::Connect(ConnectFailed::Unreachable(_)) | Self::Full(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect(ConnectFailed::Tls(_)) | Self::Broken | Self::Answer | Self::Crowded => {
                StatusCode::BAD_GATEWAY
            }
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Target => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request, ready to be forwarded.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Path and query, as the client wrote them.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) upgrade: Option<HeaderValue>,
    /// `None` without a body: such a request can be sent again.
    pub(crate) body: Option<Upload>,
    /// A plain read: harmless to send twice.
    pub(crate) reads: bool,
    /// It goes on until somebody ends it: a watch, for example.
    pub(crate) lasts: bool,
    /// A program behind the API server answers: a 401 of it is not about our credentials.
    pub(crate) proxied: bool,
    /// How many bytes its head holds, beyond those that every head may.
    pub(crate) held: usize,
}

/// Sends requests to one API server, for all clients.
pub struct Forwarder {
    identities: Identities,
    connections: Arc<Semaphore>,
    /// How many of the connections in use have requests that go on until somebody ends them.
    lasting: Arc<AtomicUsize>,
    authority: String,
    host: HeaderValue,
    prefix: String,
    pub(crate) settings: Settings,
    told: Mutex<Option<(Instant, ConnectFailed)>>,
}

impl Forwarder {
    /// Sets up the connector; nothing is read or dialled yet. Must be used within a tokio runtime.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, settings: Settings) -> Self {
        let authority = upstream.address();
        let host = match authority.strip_suffix(":443") {
            Some(host) => host,
            None => &authority,
        };
        Self {
            host: HeaderValue::from_str(host).expect("a checked host name is a header value"),
            prefix: upstream.path.clone().unwrap_or_default(),
            connections: Arc::new(Semaphore::new(settings.upstream_connections)),
            lasting: Arc::default(),
            identities: Identities::new(upstream, settings),
            authority,
            settings,
            told: Mutex::default(),
        }
    }

    /// Fetches the credentials. The server calls this before it shows a code, so that the operator is still there to
    /// read of a fault.
    ///
    /// # Errors
    /// They cannot be had or used.
    pub async fn check(&self) -> Result<(), IdentityError> {
        self.identities.current().await.map(drop)
    }

    /// Why the last request without a connection had none, for the operator.
    #[must_use]
    pub fn unconnected(&self) -> Option<String> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().map(|(_, failed)| failed.to_string())
    }

    /// Waits for a slot for a connection. Does not wait if requests that do not end by themselves have all of them.
    pub(crate) async fn connection(&self, lasts: bool) -> Result<ConnectionSlot, ForwardError> {
        let most = self.settings.upstream_connections;
        let full = self.lasting.load(Ordering::Relaxed) >= most;
        let patience = if full { Duration::ZERO } else { self.settings.queue_timeout };
        match tokio::time::timeout(patience, self.connections.clone().acquire_owned()).await {
            Ok(Ok(connection)) => {
                let lasting = lasts.then(|| self.lasting.clone());
                Ok(ConnectionSlot::new(connection, lasting))
            }
            _ if full => Err(ForwardError::Full(most)),
            _ => Err(ForwardError::Busy),
        }
    }

    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Response<Incoming>, ForwardError> {
        let Outgoing { method, target, headers, upgrade, body, reads, proxied, held, lasts: _ } = outgoing;
        let target = if self.prefix.is_empty() { target } else { format!("{}{target}", self.prefix) };
        // `Uri` takes fewer targets than the API server does: any other is sent as it is, on a connection of its own.
        // So is a long head, as hyper keeps the memory that it wrote one from for as long as the connection.
        let uri = Some(()).filter(|()| held <= HELD_KEPT).and_then(|()| self.uri(&target));
        let uri = uri.filter(|uri| uri.path_and_query().is_some_and(|written| *written == *target));
        let alone = uri.is_none().then_some(target);
        let replayable = body.is_none();
        let mut template = Request::new(());
        *template.method_mut() = method;
        *template.uri_mut() = uri.unwrap_or_default();
        *template.version_mut() = Version::HTTP_11;
        *template.headers_mut() = headers;
        template.headers_mut().insert(header::HOST, self.host.clone());
        if let Some(upgrade) = upgrade {
            template.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            template.headers_mut().insert(header::UPGRADE, upgrade);
        }

        let identity = self.identity().await?;
        let alone = alone.as_deref();
        let mut answer = once(&identity, &template, alone, body.unwrap_or_else(Upload::none)).await;
        if replayable && reads && matches!(answer, Attempt::Broken) {
            answer = once(&identity, &template, alone, Upload::none()).await;
        }
        if answer.status() == Some(StatusCode::UNAUTHORIZED) && !proxied {
            let identities = self.identities.clone();
            if !replayable {
                tokio::spawn(async move { identities.refused(identity).await });
            } else if let Some(newer) = identities.refused(identity).await {
                answer = once(&newer, &template, alone, Upload::none()).await;
            }
        }
        match answer {
            Attempt::Answer(answer) => Ok(answer),
            Attempt::Broken => Err(ForwardError::Broken),
            Attempt::Failed(error) => {
                if let ForwardError::Connect(failed) = &error {
                    self.tell(failed);
                }
                Err(error)
            }
        }
    }

    /// Tells the operator what the client is not told.
    fn tell(&self, failed: &ConnectFailed) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match &*told {
            Some((at, last)) if last == failed && at.elapsed() < TOLD_AGAIN => {}
            _ => {
                tracing::warn!("{failed}");
                *told = Some((Instant::now(), failed.clone()));
            }
        }
    }

    fn uri(&self, target: &str) -> Option<Uri> {
        let uri = Uri::builder().scheme("https").authority(self.authority.as_str());
        uri.path_and_query(target).build().ok()
    }

    async fn identity(&self) -> Result<Arc<Identity>, ForwardError> {
        // The reason was logged where it was found.
        self.identities.current().await.map_err(|_| ForwardError::Credentials)
    }
}

/// The result of one attempt.
enum Attempt {
    Answer(Response<Incoming>),
    Broken,
    Failed(ForwardError),
}

impl Attempt {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Answer(answer) => Some(answer.status()),
            _ => None,
        }
    }
}

async fn once(identity: &Identity, template: &Request<()>, alone: Option<&str>, body: Upload) -> Attempt {
    let (mut parts, ()) = template.clone().into_parts();
    if let Some(authorization) = &identity.authorization {
        parts.headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    let mut request = Request::from_parts(parts, body);
    let failed = |http: Option<&hyper::Error>| match http {
        Some(error) if error.is_parse() || error.is_parse_too_large() => Attempt::Failed(ForwardError::Answer),
        _ => Attempt::Broken,
    };
    match alone {
        None => {
            let way = capture_connection(&mut request);
            request.body_mut().by(Way::Pooled(way.clone()));
            match identity.client.request(request).await {
                Ok(answer) => {
                    // hyper keeps the memory that it read a head into as long as the connection.
                    if head_len(answer.headers()) > FREE
                        && let Some(connection) = &*way.connection_metadata()
                    {
                        connection.poison();
                    }
                    Attempt::Answer(answer)
                }
                Err(error) => {
                    tracing::debug!(error = ?error, "no answer from the API server");
                    match error.source().and_then(|source| source.downcast_ref::<ConnectFailed>()) {
                        Some(failed) => Attempt::Failed(failed.clone().into()),
                        None => failed(error.source().and_then(|source| source.downcast_ref())),
                    }
                }
            }
        }
        Some(target) => match identity.alone(request, target).await {
            Ok(answer) => Attempt::Answer(answer),
            Err(AloneError::Connect(failed)) => Attempt::Failed(failed.into()),
            Err(AloneError::Target) => Attempt::Failed(ForwardError::Target),
            Err(AloneError::Http(error)) => {
                tracing::debug!(error = ?error, "no answer from the API server");
                failed(Some(&error))
            }
        },
    }
}
