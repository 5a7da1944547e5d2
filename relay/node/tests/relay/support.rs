//! A relay in this process, and small clients for it.

use std::{net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use mykube_protocol::{
    FromAgent, FromRelay,
    http::{PairAnswer, SessionCreated},
};
use mykube_relay::{Config, Fallback, Relay, RelayError};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message,
        client::IntoClientRequest as _,
        handshake::client::Request,
        protocol::{Role, WebSocketConfig},
    },
};

/// Bounds every wait for an event that must come; no test concludes anything from how long it takes.
const BOUND: Duration = Duration::from_secs(30);

/// A running relay. Dropped, it stops.
pub(crate) struct TestRelay {
    pub(crate) addr: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) url: String,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<()>,
    pub(crate) dir: tempfile::TempDir,
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), adjust).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::with_fallback(dir, adjust, None).await
    }

    pub(crate) async fn with_fallback(
        dir: tempfile::TempDir,
        adjust: impl FnOnce(&mut Config),
        fallback: Option<Arc<dyn Fallback>>,
    ) -> Self {
        let mut config = Config::new(dir.path().join("data"));
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
        config.api_requests_per_minute = 0;
        adjust(&mut config);
        let relay = Relay::bind_with(config, async || Ok::<_, RelayError>(fallback)).await.unwrap();
        let (addr, metrics, url) = (relay.local_addr(), relay.metrics_addr().unwrap(), relay.url());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            relay
                .serve(async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self { addr, metrics, url, stop: Some(stop), served, dir }
    }

    /// Stops the relay, and keeps its directory.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        bounded(&mut self.served).await.unwrap();
        self.dir
    }

    pub(crate) async fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        call(TcpStream::connect(self.addr).await.unwrap(), method, path, headers, body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, "", body).await
    }

    pub(crate) async fn create(&self) -> SessionCreated {
        let answer = self.post("/api/sessions", r#"{"version":2}"#).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    pub(crate) async fn claim(&self, nameplate: &str) -> PairAnswer {
        let answer = self.post("/api/pair", &format!(r#"{{"nameplate":"{nameplate}"}}"#)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    pub(crate) async fn agent(&self, created: &SessionCreated) -> Socket {
        self.open(&format!("/ws/agent/{}", created.session_id), &bearer(created.ticket.expose())).await
    }

    pub(crate) async fn client(&self, claim: &PairAnswer) -> Socket {
        self.open(&format!("/ws/client/{}", claim.session_id), &bearer(claim.ticket.expose())).await
    }

    pub(crate) async fn open(&self, path: &str, headers: &[(&'static str, String)]) -> Socket {
        self.try_open(path, headers).await.unwrap()
    }

    pub(crate) async fn try_open(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Socket, Error> {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        Socket::over(stream, request(self.addr, path, headers)).await
    }

    /// An agent and a client that have met, before the pairing is confirmed.
    pub(crate) async fn meet(&self) -> (Socket, Socket, SessionCreated, PairAnswer) {
        let created = self.create().await;
        let mut agent = self.agent(&created).await;
        let claim = self.claim(created.nameplate.as_str()).await;
        let mut client = self.client(&claim).await;
        let here = format!("peer:here:{}", claim.attempt);
        assert_eq!(agent.text().await, here);
        assert_eq!(client.text().await, here);
        (agent, client, created, claim)
    }

    /// The same, confirmed: with the tickets of both.
    pub(crate) async fn pair(&self) -> Pair {
        let (mut agent, mut client, created, claim) = self.meet().await;
        agent.send(FromAgent::Paired(claim.attempt).to_string()).await;
        let agent_ticket = agent.ticket().await;
        let client_ticket = client.ticket().await;
        Pair { agent, client, session: created.session_id.to_string(), agent_ticket, client_ticket }
    }

    /// A value of the metrics, by its name with labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.scrape().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// How many pair requests and attempts had this result.
    pub(crate) async fn pair_attempts(&self, result: &str) -> f64 {
        self.metric(&format!("mykube_relay_pair_attempts_total{{result=\"{result}\"}}")).await
    }

    pub(crate) async fn scrape(&self) -> String {
        let stream = TcpStream::connect(self.metrics).await.unwrap();
        call(stream, "GET", "/metrics", "", "").await.body
    }
}

pub(crate) struct Pair {
    pub(crate) agent: Socket,
    pub(crate) client: Socket,
    pub(crate) session: String,
    pub(crate) agent_ticket: String,
    pub(crate) client_ticket: String,
}

pub(crate) fn bearer(ticket: &str) -> [(&'static str, String); 1] {
    [("authorization", format!("Bearer {ticket}"))]
}

pub(crate) fn request(addr: SocketAddr, path: &str, headers: &[(&'static str, String)]) -> Request {
    let mut request = format!("ws://{addr}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("the relay did not do in time what it must")
}

/// Asks again until the condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(mut is_so: impl FnMut() -> F) {
    bounded(async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn error(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["error"].as_str().unwrap_or_else(|| panic!("no error in {body}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request on a connection of its own.
pub(crate) async fn call<S>(mut stream: S, method: &str, path: &str, headers: &str, body: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let len = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    );
    bounded(async {
        // A relay that refuses a body may close before it has read it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    })
    .await
}

trait Messages: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send {}
impl<T: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Send> Messages for T {}

/// A WebSocket of a test.
pub(crate) struct Socket(Pin<Box<dyn Messages>>);

impl Socket {
    pub(crate) async fn over<S>(stream: S, request: Request) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (socket, _) = bounded(tokio_tungstenite::client_async(request, stream)).await?;
        Ok(Self(Box::pin(socket)))
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        bounded(self.0.send(message.into())).await.unwrap();
    }

    pub(crate) async fn binary(&mut self, bytes: impl Into<Bytes>) {
        self.send(Message::Binary(bytes.into())).await;
    }

    /// Sends for as long as the relay takes frames; the caller counts them.
    pub(crate) async fn feed(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.0.send(Message::Binary(bytes)).await
    }

    /// The next message. The relay's pings are not returned: the library answers them while it waits for the next.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            match bounded(self.0.next()).await.expect("the socket ended").unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("a text was expected: {other:?}"),
        }
    }

    pub(crate) async fn bytes(&mut self) -> Bytes {
        match self.next().await {
            Message::Binary(bytes) => bytes,
            other => panic!("a binary frame was expected: {other:?}"),
        }
    }

    pub(crate) async fn ticket(&mut self) -> String {
        match self.text().await.parse().unwrap() {
            FromRelay::Ticket(ticket) => ticket.expose().to_owned(),
            other => panic!("a ticket was expected: {other:?}"),
        }
    }

    /// The close code; messages before it are dropped.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Message::Close(Some(close)) => {
                    // The library answers the close while it waits for more.
                    while bounded(self.0.next()).await.is_some_and(|more| more.is_ok()) {}
                    return (close.code.into(), close.reason.to_string());
                }
                Message::Close(None) => panic!("a close without a code"),
                _ => {}
            }
        }
    }

    pub(crate) async fn close(&mut self) {
        self.0.close().await.unwrap();
    }
}

/// A frame as a client sends it, masked with zeros.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).ok().filter(|len| *len < 126).expect("short frames only");
    [&[0x80 | opcode, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

/// A WebSocket without a client library: bytes are sent as they are written.
pub(crate) async fn raw(relay: &TestRelay, path: &str, ticket: &str) -> TcpStream {
    raw_early(relay, path, ticket, &[]).await
}

/// The same, with bytes right behind the request.
pub(crate) async fn raw_early(relay: &TestRelay, path: &str, ticket: &str, early: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(relay.addr).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {ticket}\r\n\r\n"
    );
    stream.write_all(&[request.as_bytes(), early].concat()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(bounded(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 section 1.3: {head}");
    stream
}

/// The same, read by the library: for tests that send frames that the library would not.
pub(crate) async fn reading(stream: TcpStream) -> Socket {
    Socket(Box::pin(WebSocketStream::from_raw_socket(stream, Role::Client, Some(WebSocketConfig::default())).await))
}

pub(crate) fn write_file(path: &Path, text: &str) {
    // As certificate renewers replace it: the file is whole at any moment.
    let draft = path.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, path).unwrap();
}
