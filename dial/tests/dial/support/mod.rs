//! Small servers on loopback that a dialer meets: canned HTTP, proxies, and a CA to trust or not.

pub(crate) mod ca;
pub(crate) mod proxy;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex},
};

use mykube_dial::{DialOptions, Dialer, ProxyEnv};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Any byte stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub(crate) type Boxed = Box<dyn Stream>;

/// The requests a server got, head and body, one text each.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// A server that gives one answer to every request, and notes the requests.
pub(crate) struct Canned {
    pub(crate) at: SocketAddr,
    pub(crate) seen: Seen,
}

impl Canned {
    pub(crate) async fn plain(answer: impl Into<Vec<u8>>) -> Self {
        Self::start(answer.into(), None).await
    }

    pub(crate) async fn tls(answer: impl Into<Vec<u8>>, tls: TlsAcceptor) -> Self {
        Self::start(answer.into(), Some(tls)).await
    }

    async fn start(answer: Vec<u8>, tls: Option<TlsAcceptor>) -> Self {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let at = listen(tls, move |mut stream| {
            let (answer, log) = (answer.clone(), Arc::clone(&log));
            async move {
                let request = read_request(&mut stream).await?;
                log.lock().unwrap().push(request);
                stream.write_all(&answer).await?;
                stream.shutdown().await
            }
        })
        .await;
        Self { at, seen }
    }

    pub(crate) fn only_request(&self) -> String {
        let seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.at)
    }
}

/// Accepts for as long as the test runs; an error of one connection ends that one only.
pub(crate) async fn listen<F, W>(tls: Option<TlsAcceptor>, serve: F) -> SocketAddr
where
    F: Fn(Boxed) -> W + Send + Sync + 'static,
    W: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, serve) = (tls.clone(), Arc::clone(&serve));
            tokio::spawn(async move {
                let stream: Boxed = match tls {
                    None => Box::new(tcp),
                    Some(tls) => Box::new(tls.accept(tcp).await?),
                };
                serve(stream).await
            });
        }
    });
    at
}

/// Accepts, and never says a word.
pub(crate) async fn silent() -> SocketAddr {
    listen(None, |mut stream| async move {
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
        Ok(())
    })
    .await
}

/// A port on which nothing listens: it belongs to a connected socket that the caller holds on to.
pub(crate) async fn closed_port() -> (SocketAddr, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (stream.local_addr().unwrap(), stream)
}

/// Head and body of one request, as text.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut text = read_head(stream).await?;
    let length = text
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    text.push_str(std::str::from_utf8(&body).unwrap());
    Ok(text)
}

pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// An HTTP answer with a body, closed at its end.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

pub(crate) fn json(status: &str, body: &str) -> String {
    answer(status, "Content-Type: application/json\r\n", body)
}

pub(crate) const SESSION: &str = "000102030405060708090a0b0c0d0e0f";

pub(crate) fn created() -> String {
    json(
        "201 Created",
        &format!(
            r#"{{"session_id":"{SESSION}","nameplate":"483","ticket":"c2VjcmV0","expires_at":"2030-01-01T00:00:00Z"}}"#
        ),
    )
}

pub(crate) fn dialer(url: impl AsRef<str>) -> Dialer {
    dialer_with(url, None, &[])
}

/// An authority that signs nothing: on a machine that trusts none, a dialer cannot be made without one.
static STRANGER: LazyLock<ca::Ca> = LazyLock::new(ca::Ca::new);

/// A dialer that trusts `ca` beside the system's authorities.
pub(crate) fn dialer_with(url: impl AsRef<str>, ca: Option<&NamedTempFile>, vars: &[(&str, &str)]) -> Dialer {
    let options = DialOptions {
        ca_file: Some(ca.unwrap_or(&STRANGER.file).path().to_owned()),
        proxies: ProxyEnv::from_vars(vars.iter().copied()),
        ..DialOptions::default()
    };
    Dialer::new(url.as_ref().parse().unwrap(), options).unwrap()
}
