//! Sessions at a relay with nothing in them: the two WebSockets of an agent and a client that have met, without a
//! handshake. The relay cannot tell them from others.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};

use crate::LabError;

/// The address of a relay, and how to reach it.
#[derive(Clone)]
pub struct RelayAt {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

/// Opens sessions one after another, its requests on one kept-alive connection.
pub struct Opener {
    relay: RelayAt,
    requests: Option<SendRequest<Full<Bytes>>>,
}

/// A session that is paired.
pub struct OpenSession {
    agent: Socket,
    client: Socket,
}

impl RelayAt {
    /// Uses TLS if `ca` is given, which must have signed for the relay's IP address.
    pub fn new(address: SocketAddr, ca: Option<&Path>) -> Result<Self, LabError> {
        let tls = ca.map(connector).transpose()?;
        Ok(Self { address, tls })
    }

    async fn connect(&self) -> io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            Some(tls) => Box::new(tls.connect(ServerName::from(self.address.ip()), stream).await?),
            None => Box::new(stream),
        })
    }

    async fn socket(&self, role: &str, session: &str, ticket: &str) -> io::Result<Socket> {
        let url = format!("ws://{}/ws/{role}/{session}", self.address);
        let mut request = url.into_client_request().map_err(io::Error::other)?;
        let bearer = format!("Bearer {ticket}").parse().map_err(|_| io::Error::other("no ticket for a header"))?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let small = WebSocketConfig::default().read_buffer_size(512).write_buffer_size(0);
        let stream = self.connect().await?;
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(small)).await;
        opened.map(|(socket, _)| Socket(socket)).map_err(io::Error::other)
    }
}

impl Opener {
    /// Connects on the first request.
    #[must_use]
    pub fn new(relay: RelayAt) -> Self {
        Self { relay, requests: None }
    }

    /// Makes a new session, which is paired when this returns.
    pub async fn open(&mut self) -> io::Result<OpenSession> {
        let created: Created = self.ask("/api/sessions", r#"{"version":2}"#.to_owned()).await?;
        let mut agent = self.relay.socket("agent", &created.session_id, &created.ticket).await?;
        let asked = serde_json::json!({"nameplate": created.nameplate}).to_string();
        let claimed: Claimed = self.ask("/api/pair", asked).await?;
        let mut client = self.relay.socket("client", &claimed.session_id, &claimed.ticket).await?;
        agent.wait_for(&format!("peer:here:{}", claimed.attempt)).await?;
        agent.0.send(Message::text(format!("paired:{}", claimed.attempt))).await.map_err(io::Error::other)?;
        agent.wait_for("ticket:").await?;
        client.wait_for("ticket:").await?;
        Ok(OpenSession { agent, client })
    }

    async fn ask<T: for<'a> Deserialize<'a>>(&mut self, path: &str, body: String) -> io::Result<T> {
        let sender = match self.requests.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = TokioIo::new(self.relay.connect().await?);
                let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                sender
            }
        };
        let sender = self.requests.insert(sender);
        let request = Request::builder().method(Method::POST).uri(path).header(HOST, self.relay.address.to_string());
        let request = request.body(Full::from(body)).map_err(io::Error::other)?;
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let said = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
            return Err(io::Error::other(format!("{path} answered {status}: {}", String::from_utf8_lossy(&said))));
        }
        serde_json::from_slice(&said).map_err(io::Error::other)
    }
}

impl OpenSession {
    /// Answers the relay's pings until the connections end.
    pub async fn hold(self) {
        let Self { mut agent, mut client } = self;
        tokio::join!(agent.drain(), client.drain());
    }

    /// Passes frames of this many bytes from the client to the agent for this long, each a binary message. Bytes that arrived,
    /// and the time until the last of them did.
    pub async fn flow(self, frame: usize, time: Duration) -> io::Result<(u64, Duration)> {
        let Self { agent, client } = self;
        let (mut sink, mut answers) = client.0.split();
        let pings = tokio::spawn(async move { while let Some(Ok(_)) = answers.next().await {} });
        let start = Instant::now();
        let sent = async move {
            let frame = Bytes::from(vec![5; frame]);
            while start.elapsed() < time {
                sink.feed(Message::Binary(frame.clone())).await.map_err(io::Error::other)?;
                sink.flush().await.map_err(io::Error::other)?;
            }
            sink.close().await.map_err(io::Error::other)
        };
        let received = async move {
            let (mut agent, mut bytes, mut last) = (agent, 0, start);
            while let Some(Ok(message)) = agent.0.next().await {
                match message {
                    Message::Binary(frame) => (bytes, last) = (bytes + frame.len() as u64, Instant::now()),
                    Message::Close(_) => break,
                    // The peer has left.
                    Message::Text(text) if text.starts_with("peer:gone") || text.starts_with("peer:left") => break,
                    _ => {}
                }
            }
            io::Result::Ok((bytes, last - start))
        };
        let (sent, received) = tokio::join!(tokio::spawn(sent), tokio::spawn(received));
        sent.map_err(io::Error::other)??;
        pings.abort();
        received.map_err(io::Error::other)?
    }

    /// Ends the session as the ends do, and waits until the relay has closed both connections.
    pub async fn close(self) -> io::Result<()> {
        let Self { mut agent, mut client } = self;
        client.0.close(None).await.map_err(io::Error::other)?;
        client.drain().await;
        // The relay closes the agent's socket too, as its peer has left; closing that may then fail.
        let _ = agent.0.close(None).await;
        agent.drain().await;
        Ok(())
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

struct Socket(WebSocketStream<Box<dyn Wire>>);

impl Socket {
    /// Reads until a text that begins with `begin`.
    async fn wait_for(&mut self, begin: &str) -> io::Result<()> {
        while let Some(message) = self.0.next().await {
            match message.map_err(io::Error::other)? {
                Message::Text(text) if text.starts_with(begin) => return Ok(()),
                Message::Close(close) => return Err(io::Error::other(format!("closed before {begin}: {close:?}"))),
                _ => {}
            }
        }
        Err(io::Error::other(format!("the connection ended before {begin}")))
    }

    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.0.next().await {}
    }
}

#[derive(Deserialize)]
struct Created {
    session_id: String,
    nameplate: String,
    ticket: String,
}

#[derive(Deserialize)]
struct Claimed {
    session_id: String,
    ticket: String,
    attempt: String,
}

fn connector(ca: &Path) -> Result<TlsConnector, LabError> {
    let words = |what: String| LabError::Words(format!("{}: {what}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| words(error.to_string()))? {
        let certificate = certificate.map_err(|error| words(error.to_string()))?;
        roots.add(certificate).map_err(|error| words(error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| words(error.to_string()))?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}
