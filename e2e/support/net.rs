//! Odd parts of a network: proxies, servers that are no relay, API servers that are fakes.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ClientConfig, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The runtime of all helpers.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

/// Accepts connections on any loopback port until the test ends.
pub(crate) fn serve<F, Fut>(handle: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(handle(connection));
        }
    });
    address
}

/// A port where nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Answers every request with these bytes, as they are.
pub(crate) fn answers(with: &'static str) -> SocketAddr {
    serve(move |mut connection| async move {
        read_head(&mut connection).await?;
        connection.write_all(with.as_bytes()).await?;
        connection.shutdown().await?;
        // Reads the rest of the request, so that the answer is not lost in a reset.
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.map(drop)
    })
}

/// Everything up to the empty line.
async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Ends TLS with a certificate of its own, and opens TLS anew on the other side.
pub(crate) struct Intercept {
    pub(crate) as_server: Arc<ServerConfig>,
    pub(crate) as_client: Arc<ClientConfig>,
}

/// An HTTP proxy for CONNECT.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

struct Rules {
    /// The `Proxy-Authorization` that it asks for.
    authorization: String,
    /// The addresses of names.
    routes: HashMap<String, SocketAddr>,
    intercept: Option<Intercept>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// `user:password` in base64, `host:port` and the address of that.
    pub(crate) fn start(credentials: &str, route: (&str, SocketAddr), intercept: Option<Intercept>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let rules = Arc::new(Rules {
            authorization: format!("Basic {credentials}"),
            routes: HashMap::from([(route.0.to_owned(), route.1)]),
            intercept,
            seen: Arc::clone(&seen),
        });
        let address = serve(move |connection| proxied(connection, Arc::clone(&rules)));
        Self { address, seen }
    }

    /// The connections that were let through, one line each: the first line sent in it, where that is readable.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn proxied(mut connection: TcpStream, rules: Arc<Rules>) -> io::Result<()> {
    let head = read_head(&mut connection).await?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
    });
    if authorization != Some(&rules.authorization) {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"e2e\"\r\n\
            Content-Length: 0\r\n\r\n";
        return connection.write_all(answer.as_bytes()).await;
    }
    let Some(address) = rules.routes.get(target) else {
        return connection.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    };
    let onward = TcpStream::connect(address).await?;
    connection.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    match &rules.intercept {
        None => {
            rules.seen.lock().unwrap().push(target.to_owned());
            join(connection, onward).await
        }
        Some(intercept) => {
            let inner = TlsAcceptor::from(Arc::clone(&intercept.as_server)).accept(connection).await?;
            let host = target.split(':').next().unwrap_or_default().to_owned();
            let name = host.try_into().map_err(io::Error::other)?;
            let outer = TlsConnector::from(Arc::clone(&intercept.as_client)).connect(name, onward).await?;
            let mut inner = inner;
            let mut outer = outer;
            let request = read_head(&mut inner).await?;
            let line = request.lines().next().unwrap_or_default();
            let path: Vec<_> = line.split('/').take(3).collect();
            rules.seen.lock().unwrap().push(path.join("/"));
            outer.write_all(request.as_bytes()).await?;
            outer.flush().await?;
            join(inner, outer).await
        }
    }
}

async fn join(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> io::Result<()> {
    copy_bidirectional(&mut a, &mut b).await.map(drop)
}

/// Plays an API server: echoes, or, after a first byte `B`, sends without end.
pub(crate) struct FakeUpstream {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    most: AtomicUsize,
}

impl FakeUpstream {
    pub(crate) fn start() -> Self {
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let address = serve(move |connection| {
            let counts = Arc::clone(&shared);
            async move {
                let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most.fetch_max(open, Ordering::SeqCst);
                let result = echo_or_blast(connection).await;
                counts.open.fetch_sub(1, Ordering::SeqCst);
                result
            }
        });
        Self { address, counts }
    }

    /// The most connections that it had at once.
    pub(crate) fn most(&self) -> usize {
        self.counts.most.load(Ordering::SeqCst)
    }
}

async fn echo_or_blast(mut connection: TcpStream) -> io::Result<()> {
    let first = connection.read_u8().await?;
    if first == b'B' {
        let block = vec![0; 64 * 1024];
        loop {
            connection.write_all(&block).await?;
        }
    }
    connection.write_all(&[first]).await?;
    let (mut read, mut write) = connection.into_split();
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}
