//! Listeners and connections: accept, PROXY header, TLS, HTTP/1.1, and the drain at the end.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mykube_relay_core::frames::batch_max;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use crate::{
    config::{Config, DRAIN_MAX},
    connections::{Connection, ConnectionSlot, Share, TooMany},
    fallback::Fallback,
    http::{self as api, Failure, Reply},
    hub::Hub,
    key_file::{self, KeyError},
    listen, proxy_header,
    stall::Stalling,
    stream::{Stream, tune},
    tls::{Tls, TlsError},
};

/// Bytes of a request's line and headers together, which is also what a connection may hold of them.
const HEADERS_MAX: usize = 16 * 1024;
/// Connections at once on the metrics' address; further ones wait to be accepted. They take no slot of the others, and cannot
/// take all descriptors.
const METRICS_CONNECTIONS: usize = 64;

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
    /// The worker threads.
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
    tls: Option<Arc<Tls>>,
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
}

impl Relay {
    /// Binds the listeners, and reads (or makes) the ticket key and the certificate.
    ///
    /// # Errors
    /// Any of these cannot be had.
    pub async fn bind(config: Config) -> Result<Self, RelayError> {
        Self::bind_with(config, async || Ok(None)).await
    }

    /// The same, with somebody who answers what the relay itself does not. Who that is is made last: what it changes on disk
    /// is not changed for a relay that cannot listen.
    ///
    /// # Errors
    /// See [`Relay::bind`]; or there is nobody to answer.
    pub async fn bind_with<E: From<RelayError>>(
        config: Config,
        fallback: impl AsyncFnOnce() -> Result<Option<Arc<dyn Fallback>>, E>,
    ) -> Result<Self, E> {
        let key = key_file::load_or_create(&config.data_dir).map_err(RelayError::from)?;
        let tls = config.tls.clone().map(Tls::load).transpose().map_err(RelayError::from)?.map(Arc::new);
        let bind = async |address: SocketAddr, flag| {
            let listen = |source| RelayError::Listen { address, flag, source };
            let listener = match TcpListener::bind(address).await {
                // Every address of a machine that has no IPv6.
                Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)
                }
                bound => bound,
            };
            let listener = listener.map_err(listen)?;
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
        let hub = Hub::new(config, fallback().await?, key, token).map_err(RelayError::Threads)?;
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
        self.announced().0
    }

    /// The same, and a hint for its operator, if there is one.
    pub(crate) fn announced(&self) -> (String, Option<String>) {
        let certificate = self.tls.as_ref().map(|tls| tls.certificate());
        let host = certificate.as_ref().map(|certificate| certificate.as_ref().and_then(|it| it.host.as_deref()));
        listen::announced(self.local_addr, host)
    }

    /// A function that makes the running relay read its TLS files again.
    pub(crate) fn reloads(&self) -> impl Fn() + use<> {
        let tls = self.tls.clone();
        move || match &tls {
            Some(tls) => tls.look_now(),
            None => {
                info!("nothing to read again: there are no TLS files, and settings need a restart, which loses nothing")
            }
        }
    }

    /// Serves until `shutdown` resolves, then drains: at most 5 seconds more.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { hub, stop: _stop, listener, metrics, tls, .. } = self;
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
    loop {
        let (stream, peer) = accept(listener).await;
        let slot = match hub.slots.take().and_then(|slot| Ok((slot, hub.slots.charge(&hub.proxies, peer.ip())?))) {
            Ok(slot) => slot,
            Err(TooMany(limit)) => {
                debug!(%peer, limit, "connection refused");
                continue;
            }
        };
        let (hub, tls) = (hub.clone(), tls.cloned());
        let worker = hub.workers.next().clone();
        worker.spawn(async move {
            let stop = hub.stop.clone();
            let stream = match stream.into_std().and_then(TcpStream::from_std) {
                Ok(stream) => stream,
                Err(error) => return debug!(%peer, %error, "connection lost"),
            };
            tokio::select! {
                () = connection(hub, stream, peer, slot, tls) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(
    hub: Arc<Hub>,
    stream: TcpStream,
    peer: SocketAddr,
    (slot, mut charged): (ConnectionSlot, Option<Share>),
    tls: Option<Arc<Tls>>,
) {
    let timeout = hub.config.handshake_timeout;
    let opened = open(&hub, stream, peer.ip(), &mut charged, tls);
    let (stream, client) = match tokio::time::timeout(timeout, opened).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return debug!(%peer, %error, "connection failed"),
        Err(_) => return debug!(%peer, "connection timed out before its first request"),
    };
    let connection = Connection::new(client, slot, charged);
    let header_timeout = hub.config.header_timeout;
    let service = service_fn(move |request: Request<Incoming>| {
        let (hub, connection) = (hub.clone(), connection.clone());
        async move { Ok::<_, Infallible>(api::handle(hub, connection, request).await) }
    });
    serve_http(stream, header_timeout, service).await;
}

/// PROXY header and TLS, as configured. The client that the header names is charged before TLS costs anything, and is charged
/// even if its address is in a trusted network.
async fn open(
    hub: &Hub,
    mut stream: TcpStream,
    peer: IpAddr,
    charged: &mut Option<Share>,
    tls: Option<Arc<Tls>>,
) -> io::Result<(Stream, IpAddr)> {
    tune(&stream)?;
    let mut client = peer.to_canonical();
    if hub.config.proxy_protocol {
        if !hub.proxies.contains(peer) {
            let error = "not a trusted proxy, and this relay takes connections from proxies only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        if let Some(named) = proxy_header::read(&mut stream).await? {
            let share = hub.slots.share(named.into());
            let share = share.map_err(|TooMany(limit)| io::Error::other(format!("too many for {limit}")))?;
            (client, *charged) = (named, Some(share));
        }
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

async fn serve_http<S>(stream: Stream, header_timeout: Duration, service: S)
where
    S: hyper::service::HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible> + Send,
    S::Future: Send,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(Stalling::new(stream, header_timeout)), service)
        .with_upgrades();
    if let Err(error) = served.await {
        debug!(%error, "connection ended");
    }
}

async fn accept_metrics(hub: &Arc<Hub>, listener: Option<&TcpListener>) {
    let Some(listener) = listener else { return std::future::pending().await };
    let slots = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        let slot = slots.clone().acquire_owned().await;
        let (stream, _) = accept(listener).await;
        let hub = hub.clone();
        tokio::spawn(async move {
            let _slot = slot;
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
            api::allow_methods(request, &[Method::GET, Method::HEAD])?;
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

/// Accepts a connection; where the process has no descriptors left, tries again until it has.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections: trying again in a moment");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
