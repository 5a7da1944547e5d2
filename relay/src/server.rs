//! Listeners and connections: accept, PROXY header, TLS, HTTP/1.1, and the drain at the end.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::{
    Config,
    address::{AddressKey, reachable},
    config::DRAIN_MAX,
    http::{self as api, Failure, Reply},
    hub::{Hub, lock},
    proxy,
    stream::{Stream, tune},
    ticket::{KeyError, TicketKey},
    tls::{Tls, TlsError},
    ws::batch_max,
};

/// A request's line and headers together, and what a connection may hold of them.
const HEADERS_MAX: usize = 16 * 1024;

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which setting says so.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The ticket key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The threads that carry.
    #[error("cannot start threads: {0}; ask for fewer with --threads")]
    Threads(io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// A relay that listens; [`Relay::serve`] runs it.
pub struct Relay {
    hub: Arc<Hub>,
    /// Ends the threads, however the relay ends.
    stop: DropGuard,
    listener: TcpListener,
    metrics: Option<TcpListener>,
    tls: Option<Tls>,
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
}

/// One connection, counted until its last user lets go of it.
pub(crate) struct Connection {
    /// The other side, or whom a PROXY header named.
    pub(crate) peer: IpAddr,
    _place: Place,
}

impl Relay {
    /// Binds the listeners, and reads (or makes) the ticket key and the certificate.
    ///
    /// # Errors
    /// Any of these cannot be had.
    pub async fn bind(config: Config) -> Result<Self, RelayError> {
        let key = TicketKey::load_or_create(&config.data_dir)?;
        let tls = config.tls.clone().map(Tls::load).transpose()?;
        let bind = async |address, flag| {
            let listen = |source| RelayError::Listen { address, flag, source };
            let listener = TcpListener::bind(address).await.map_err(listen)?;
            let local = listener.local_addr().map_err(listen)?;
            Ok::<_, RelayError>((listener, local))
        };
        let (listener, local_addr) = bind(config.listen, "--listen").await?;
        let (metrics, metrics_addr) = match config.metrics_listen {
            Some(address) => bind(address, "--metrics-listen").await.map(|(l, a)| (Some(l), Some(a)))?,
            None => (None, None),
        };
        let token = CancellationToken::new();
        let stop = token.clone().drop_guard();
        let hub = Hub::new(config, key, token).map_err(RelayError::Threads)?;
        Ok(Self { hub: Arc::new(hub), stop, listener, metrics, tls, local_addr, metrics_addr })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// What `--relay-url` takes: `http(s)://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", reachable(self.local_addr))
    }

    /// Serves until `shutdown` resolves, then drains: at most 5 seconds more.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { hub, stop: _stop, listener, metrics, tls, .. } = self;
        let tls = tls.map(Arc::new);
        let served = async {
            tokio::join!(
                accept_all(&hub, &listener, tls.as_ref()),
                accept_metrics(&hub, metrics.as_ref()),
                hub.keep_time(),
                async {
                    match &tls {
                        Some(tls) => tls.keep_fresh().await,
                        None => std::future::pending().await,
                    }
                }
            );
        };
        let drained = async {
            shutdown.await;
            info!("draining");
            hub.drain();
            hub.tasks.close();
            let _ = tokio::time::timeout(DRAIN_MAX, hub.tasks.wait()).await;
        };
        tokio::select! {
            () = served => {}
            () = drained => {}
        }
        info!("stopped");
    }
}

async fn accept_all(hub: &Arc<Hub>, listener: &TcpListener, tls: Option<&Arc<Tls>>) {
    let places = Arc::new(Places::default());
    loop {
        let (stream, peer) = accept(listener).await;
        let place = match places.take(hub, peer.ip()) {
            Ok(place) => place,
            Err(limit) => {
                debug!(%peer, limit, "connection refused");
                continue;
            }
        };
        let (hub, tls) = (hub.clone(), tls.cloned());
        let carrier = hub.carriers.next().clone();
        carrier.spawn(async move {
            let stop = hub.stop.clone();
            let stream = match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => stream,
                Err(error) => return debug!(%peer, %error, "connection lost"),
            };
            tokio::select! {
                () = connection(hub, stream, peer, place, tls) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(hub: Arc<Hub>, stream: TcpStream, peer: SocketAddr, place: Place, tls: Option<Arc<Tls>>) {
    let timeout = hub.config.handshake_timeout;
    let (stream, client) = match tokio::time::timeout(timeout, open(&hub, stream, peer.ip(), tls)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return debug!(%peer, %error, "connection failed"),
        Err(_) => return debug!(%peer, "connection timed out before its first request"),
    };
    let connection = Arc::new(Connection { peer: client, _place: place });
    let header_timeout = hub.config.header_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        let (hub, connection) = (hub.clone(), connection.clone());
        async move { Ok::<_, Infallible>(api::handle(hub, connection, request).await) }
    });
    serve_http(stream, header_timeout, service).await;
}

/// PROXY header and TLS, as the configuration wants them.
async fn open(hub: &Hub, mut stream: TcpStream, peer: IpAddr, tls: Option<Arc<Tls>>) -> io::Result<(Stream, IpAddr)> {
    tune(&stream)?;
    let mut client = peer.to_canonical();
    if hub.config.proxy_protocol {
        if !hub.proxies.contains(peer) {
            let error = "not a trusted proxy, and this relay takes connections from proxies only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        client = proxy::read(&mut stream).await?.unwrap_or(client);
    }
    let stream = match tls {
        Some(tls) => {
            let batch = batch_max(hub.config.frame_max, hub.config.buffer);
            Stream::Tls(Box::new(tls.accept(stream, batch).await?))
        }
        None => Stream::Plain(stream),
    };
    Ok((stream, client))
}

async fn serve_http<S>(stream: Stream, header_timeout: std::time::Duration, service: S)
where
    S: hyper::service::HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible> + Send,
    S::Future: Send,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        debug!(%error, "connection ended");
    }
}

async fn accept_metrics(hub: &Arc<Hub>, listener: Option<&TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        let (stream, _) = accept(listener).await;
        let hub = hub.clone();
        tokio::spawn(async move {
            let (stop, header_timeout) = (hub.stop.clone(), hub.config.header_timeout);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = metrics(&hub, &request).unwrap_or_else(Failure::into_reply);
                async { Ok::<_, Infallible>(answer) }
            });
            tokio::select! {
                () = serve_http(Stream::Plain(stream), header_timeout, service) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn metrics(hub: &Hub, request: &Request<Incoming>) -> Result<Reply, Failure> {
    match request.uri().path() {
        "/metrics" => {
            let text = hub.metrics.render(hub.with_registry(|registry, _| registry.counts()));
            let mut reply = Response::new(Full::from(text));
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            reply.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(reply)
        }
        "/healthz" | "/readyz" => api::health(hub, request),
        _ => Err(Failure::new(StatusCode::NOT_FOUND, "not found")),
    }
}

/// Accepts a connection; running out of files is waited out.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections: trying again in a moment");
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Connections at once, in all and by address.
#[derive(Default)]
struct Places(Mutex<(usize, HashMap<AddressKey, usize>)>);

/// One of them, until it is dropped.
struct Place {
    places: Arc<Places>,
    address: Option<AddressKey>,
}

impl Places {
    fn take(self: &Arc<Self>, hub: &Hub, peer: IpAddr) -> Result<Place, &'static str> {
        // Everybody behind a trusted proxy has its address.
        let address = (!hub.proxies.contains(peer)).then(|| AddressKey::from(peer));
        let (all, by_address) = &mut *lock(&self.0);
        if *all >= hub.config.connections {
            return Err("--max-connections");
        }
        if let Some(address) = address {
            let count = by_address.entry(address).or_default();
            if *count >= hub.config.connections_per_address {
                return Err("--connections-per-address");
            }
            *count += 1;
        }
        *all += 1;
        Ok(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (all, by_address) = &mut *lock(&self.places.0);
        *all -= 1;
        if let Some(address) = self.address
            && let Some(count) = by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}
