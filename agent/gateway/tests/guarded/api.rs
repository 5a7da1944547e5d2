//! An API server for tests: TLS, HTTP/1.1, answers that tests can follow.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use crate::lines::Lines;

type BoxBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A certificate authority, and the certificates that it signs.
pub(crate) struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test ca");
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for a name, and its key.
    pub(crate) fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    /// Number of its connection, in order of arrival.
    pub connection: usize,
    pub certificate: Option<Vec<u8>>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub seen: Mutex<Vec<Seen>>,
    /// If set, any other `Authorization` is answered 401.
    pub accepted: Mutex<Option<HashSet<String>>>,
    /// Bodies written by tests, by target.
    streams: Mutex<HashMap<String, mpsc::Receiver<Result<Bytes, std::io::Error>>>>,
    /// Bytes of request bodies so far.
    pub received: watch::Sender<u64>,
    connections: Mutex<usize>,
    /// If set, each part of a request's body takes one permit before it is read.
    pub reads: Mutex<Option<Arc<Semaphore>>>,
    /// The next request's connection ends without an answer.
    pub hang_up: AtomicBool,
}

/// The server. When dropped, it ends with all its connections.
pub(crate) struct Api {
    pub state: Arc<State>,
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Api {
    pub(crate) async fn start(authority: &Authority) -> Self {
        Self::start_at(authority, "127.0.0.1:0".parse().unwrap(), Arc::default()).await
    }

    /// Stops the server, and waits until all its tasks are gone.
    pub(crate) async fn stop(mut self) -> (SocketAddr, Arc<State>) {
        self.task.abort();
        let _ = (&mut self.task).await;
        (self.address, self.state.clone())
    }

    pub(crate) async fn start_at(authority: &Authority, address: SocketAddr, state: Arc<State>) -> Self {
        let (cert, key) = authority.sign("127.0.0.1");
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        // The kernel holds little of the answers on this side.
        socket.set_send_buffer_size(64 * 1024).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(accept(listener, acceptor, state.clone()));
        Self { state, address, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request arrived")
    }

    /// Returns the sender of the body that answers `target`.
    pub(crate) fn stream(&self, target: &str) -> mpsc::Sender<Result<Bytes, std::io::Error>> {
        let (sender, receiver) = mpsc::channel(16);
        self.state.streams.lock().unwrap().insert(target.to_owned(), receiver);
        sender
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (tcp, _) = accepted.unwrap();
                let (acceptor, state) = (acceptor.clone(), state.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let certificate = tls.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec());
                    let connection = {
                        let mut connections = state.connections.lock().unwrap();
                        *connections += 1;
                        *connections
                    };
                    // Upgraded connections end with this task.
                    let upgraded = Mutex::new(None);
                    let lines = Lines::new(tls);
                    let target = lines.target.clone();
                    let service = service_fn(|request| {
                        let target = target.lock().unwrap().clone();
                        answer(request, target, state.clone(), connection, certificate.clone(), &upgraded)
                    });
                    let _ = http1::Builder::new()
                        .max_headers(10_000)
                        .max_buf_size(2 << 20)
                        .serve_connection(TokioIo::new(lines), service)
                        .with_upgrades()
                        .await;
                    let upgrade = upgraded.lock().unwrap().take();
                    if let Some(upgrade) = upgrade {
                        echo(upgrade).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    target: String,
    state: Arc<State>,
    connection: usize,
    certificate: Option<Vec<u8>>,
    upgraded: &Mutex<Option<hyper::upgrade::OnUpgrade>>,
) -> Result<Response<BoxBody>, std::io::Error> {
    let headers = request.headers().clone();
    let method = request.method().to_string();
    state.seen.lock().unwrap().push(Seen {
        method,
        target: target.clone(),
        headers: headers.clone(),
        connection,
        certificate,
    });
    if state.hang_up.swap(false, Ordering::Relaxed) {
        return Err(std::io::ErrorKind::ConnectionReset.into());
    }
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let accepted = state.accepted.lock().unwrap().clone();
    if accepted.is_some_and(|accepted| !authorization.is_some_and(|value| accepted.contains(&value))) {
        return Ok(text(StatusCode::UNAUTHORIZED, "who are you?"));
    }
    if target.contains("/unauthorized") {
        return Ok(text(StatusCode::UNAUTHORIZED, "behind the API server"));
    }
    if let Some(protocol) = headers.get(header::UPGRADE).cloned() {
        *upgraded.lock().unwrap() = Some(hyper::upgrade::on(&mut request));
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, protocol);
        if let Some(protocol) = headers.get("sec-websocket-protocol") {
            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        }
        return Ok(response);
    }
    let stream = state.streams.lock().unwrap().remove(&target);
    if let Some(mut stream) = stream {
        let frames =
            futures_stream(move |cx| stream.poll_recv(cx).map(|polled| polled.map(|item| item.map(Frame::data))));
        return Ok(Response::new(StreamBody::new(frames).boxed_unsync()));
    }
    let mut body = request.into_body();
    let mut length = 0;
    let reads = state.reads.lock().unwrap().clone();
    loop {
        if let Some(reads) = &reads {
            reads.acquire().await.unwrap().forget();
        }
        let Some(Ok(frame)) = body.frame().await else { break };
        let data = frame.into_data().unwrap_or_default().len() as u64;
        length += data;
        state.received.send_modify(|received| *received += data);
    }
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let number = |name| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).and_then(|(_, number)| number.parse::<usize>().ok())
    };
    let status = number("status").map_or(StatusCode::OK, |code| u16::try_from(code).unwrap().try_into().unwrap());
    let said = if status.is_redirection() { String::new() } else { format!("{target} {length}") };
    let mut response = text(status, &said);
    for n in 0..number("warnings").unwrap_or(0) {
        response.headers_mut().append("warning", format!("299 - \"{n}\"").try_into().unwrap());
    }
    if let Some(len) = number("long") {
        let name = if status.is_redirection() { "location" } else { "x-long" };
        response.headers_mut().insert(name, "x".repeat(len).try_into().unwrap());
    }
    response.headers_mut().insert("keep-alive", HeaderValue::from_static("timeout=5"));
    response.headers_mut().append("set-cookie", HeaderValue::from_static("front=agent; Path=/"));
    response.headers_mut().append("set-cookie", HeaderValue::from_static("session=1"));
    response
        .headers_mut()
        .insert("audit-id", headers.get("audit-id").cloned().unwrap_or(HeaderValue::from_static("none")));
    Ok(response)
}

/// Echoes; when the other end closes, says goodbye and closes too.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(n) => {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
            Err(_) => return,
        }
    }
    let _ = stream.write_all(b"goodbye").await;
    let _ = stream.shutdown().await;
}

fn text(status: StatusCode, text: &str) -> Response<BoxBody> {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn futures_stream<T>(
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Send,
) -> impl futures_util::Stream<Item = T> + Send {
    futures_util::stream::poll_fn(move |cx| poll(cx))
}
