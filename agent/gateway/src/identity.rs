//! The identity with which the API server is asked: a header, a client certificate, and the pool of connections made
//! with it.
//!
//! Files are read again every [`crate::Settings::reread`] and after a 401; a plugin runs when its credential is due or
//! was refused. While new credentials are being fetched, requests go on with the last ones until those expire.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use mykube_agent_upstream::{
    KubeconfigError, Upstream,
    expiry::{Expiry, REFRESH_MIN},
};
use mykube_protocol::channel::Credentials;
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use crate::{
    body::{Upload, Way},
    connector::{ConnectFailed, Connector, TlsInputs},
    head::ANSWER_FIELDS_MAX,
    retarget::Retarget,
    settings::Settings,
};

/// Idle connections kept to the API server: a `kubectl` opens one or two at a time.
const IDLE_MAX: usize = 32;
/// After a failure to get credentials, the next attempt comes after this long, whatever the number of requests.
const FAILED_KEPT: Duration = Duration::from_secs(2);

/// A client that sends the agent's requests.
pub(crate) type ApiClient = Client<Connector, Upload>;

/// Why there are no credentials. For the operator: it names files and plugins of the cluster side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The kubeconfig, a file that it names, or its plugin.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// Certificates that the TLS library refuses.
    #[error("{0}")]
    Tls(String),
}

/// The credentials, and the client that sends requests with them.
pub(crate) struct Identity {
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) client: ApiClient,
    /// Makes connections like those of `client`.
    connector: Connector,
    credentials: Credentials,
    ca: Option<String>,
}

/// Why a request on a connection of its own has no answer.
pub(crate) enum AloneError {
    Connect(ConnectFailed),
    Http(hyper::Error),
    /// The target has a character that would end its line.
    Target,
}

impl Identity {
    /// Sends a request to `target`, which the pool's client cannot write, on a connection of its own.
    pub(crate) async fn alone(
        &self,
        mut request: Request<Upload>,
        target: &str,
    ) -> Result<Response<Incoming>, AloneError> {
        let io = self.connector.clone().connect().await.map_err(AloneError::Connect)?;
        request.body_mut().by(Way::Own(io.flushes().clone()));
        let io = Retarget::new(io, request.method(), target).ok_or(AloneError::Target)?;
        let (mut sender, connection) =
            http1::Builder::new().max_headers(ANSWER_FIELDS_MAX).handshake(io).await.map_err(AloneError::Http)?;
        // Ends with the answer's last byte, or when the answer's body is dropped.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(AloneError::Http)
    }
}

/// The identity, kept up to date.
#[derive(Clone)]
pub(crate) struct Identities(Arc<Shared>);

struct Shared {
    upstream: Arc<Upstream>,
    settings: Settings,
    last: RwLock<Option<Last>>,
    fetching: Mutex<Fetching>,
}

#[derive(Clone)]
struct Last {
    identity: Arc<Identity>,
    expiry: Option<Expiry>,
    looked: Instant,
}

#[derive(Default)]
struct Fetching {
    failed: Option<(Instant, IdentityError)>,
    forced: Option<Instant>,
}

impl Identities {
    pub(crate) fn new(upstream: Arc<Upstream>, settings: Settings) -> Self {
        Self(Arc::new(Shared { upstream, settings, last: RwLock::default(), fetching: Mutex::default() }))
    }

    /// The current identity.
    pub(crate) async fn current(&self) -> Result<Arc<Identity>, IdentityError> {
        let last = self.0.last();
        if let Some(last) = last {
            let fresh = self.0.is_fresh(&last);
            let usable = !last.expiry.is_some_and(|expiry| expiry.is_over());
            if fresh || (usable && self.0.fetching.try_lock().is_err()) {
                return Ok(last.identity);
            }
        }
        let shared = self.0.clone();
        run(async move {
            let mut fetching = shared.fetching.lock().await;
            match shared.last() {
                Some(last) if shared.is_fresh(&last) => Ok(last.identity),
                _ => shared.fetch(&mut fetching).await,
            }
        })
        .await
    }

    /// The API server refused this identity: fetches credentials anew, and returns the identity if it is another one.
    pub(crate) async fn refused(&self, refused: Arc<Identity>) -> Option<Arc<Identity>> {
        if !self.0.upstream.credentials.changes() {
            return None;
        }
        let shared = self.0.clone();
        let fetched = run(async move {
            let mut fetching = shared.fetching.lock().await;
            if let Some(last) = shared.last().filter(|last| !Arc::ptr_eq(&last.identity, &refused)) {
                return Ok(Some(last.identity));
            }
            // Not for every 401: a service behind the API server may answer 401 to everything, and a plugin may ask a
            // person.
            if fetching.forced.is_some_and(|forced| forced.elapsed() < REFRESH_MIN) {
                return Ok(None);
            }
            fetching.forced = Some(Instant::now());
            tracing::info!("the API server refused the credentials; fetching new ones");
            shared.upstream.credentials.forget().await;
            let identity = shared.fetch(&mut fetching).await?;
            Ok(Some(identity).filter(|identity| identity.credentials != refused.credentials))
        })
        .await;
        fetched.ok().flatten()
    }
}

impl Shared {
    fn last(&self) -> Option<Last> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_fresh(&self, last: &Last) -> bool {
        let looked = !self.upstream.credentials.reads_files() || last.looked.elapsed() < self.settings.reread;
        looked && !last.expiry.is_some_and(|expiry| expiry.is_due())
    }

    /// Fetches credentials. If that fails, the last ones are used until they expire.
    async fn fetch(&self, fetching: &mut Fetching) -> Result<Arc<Identity>, IdentityError> {
        let last = self.last();
        let failed = fetching.failed.take().filter(|(at, _)| at.elapsed() < FAILED_KEPT);
        let fetched = match &failed {
            Some((_, error)) => Err(error.clone()),
            None => self.load(last.as_ref().map(|last| &last.identity)).await,
        };
        let error = match fetched {
            Ok((identity, expiry)) => {
                let last = Last { identity: identity.clone(), expiry, looked: Instant::now() };
                *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(last);
                return Ok(identity);
            }
            Err(error) => error,
        };
        if failed.is_none() {
            tracing::warn!(%error, "no new credentials for the API server");
        }
        fetching.failed = Some(failed.unwrap_or_else(|| (Instant::now(), error.clone())));
        match last {
            Some(last) if !last.expiry.is_some_and(|expiry| expiry.is_over()) => Ok(last.identity),
            _ => Err(error),
        }
    }

    async fn load(&self, last: Option<&Arc<Identity>>) -> Result<(Arc<Identity>, Option<Expiry>), IdentityError> {
        let (credentials, expiry) = self.upstream.credentials.current().await?;
        let ca = self.upstream.ca().await?;
        let same_tls = last.filter(|last| {
            last.ca == ca
                && last.credentials.certificate == credentials.certificate
                && last.credentials.key == credentials.key
        });
        if let Some(last) = same_tls.filter(|last| last.credentials == credentials) {
            return Ok((last.clone(), expiry));
        }
        let (client, connector) = match same_tls {
            Some(last) => (last.client.clone(), last.connector.clone()),
            None => self.client(ca.as_deref(), &credentials)?,
        };
        let authorization = authorization(&credentials);
        Ok((Arc::new(Identity { authorization, client, connector, credentials, ca }), expiry))
    }

    /// Makes a client with a pool of its own: connections made with another certificate have another identity.
    fn client(&self, ca: Option<&str>, credentials: &Credentials) -> Result<(ApiClient, Connector), IdentityError> {
        let certificate = credentials.certificate.as_deref().zip(credentials.key.as_deref());
        let inputs = TlsInputs { ca, certificate };
        let connector = Connector::new(self.upstream.clone(), &inputs, self.settings.handshake_timeout)
            .map_err(IdentityError::Tls)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.settings.pool_idle)
            .pool_max_idle_per_host(IDLE_MAX)
            .retry_canceled_requests(false)
            .set_host(false)
            .http1_max_headers(ANSWER_FIELDS_MAX)
            .build(connector.clone());
        Ok((client, connector))
    }
}

/// Runs `work` to its end even if its future is dropped: a client that goes away must not stop a plugin halfway.
async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T, IdentityError>> + Send + 'static,
) -> Result<T, IdentityError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(IdentityError::Tls(format!("fetching credentials was stopped: {error}"))),
    }
}

fn authorization(credentials: &Credentials) -> Option<HeaderValue> {
    let text = match (&credentials.token, &credentials.username) {
        (Some(token), _) => Zeroizing::new(format!("Bearer {token}")),
        (None, Some(username)) => {
            let password = credentials.password.as_deref().unwrap_or_default();
            let pair = Zeroizing::new(format!("{username}:{password}"));
            Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
        }
        (None, None) => return None,
    };
    // A token was checked when it was read, and base64 is always a header value.
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
