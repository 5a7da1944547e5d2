//! The real relay, and a proxy before it that cuts, alters, and answers in its place.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use mykube_link::{
    Channel, ChannelStream, Reconnect, clock,
    pair::{self, AgentOutcome, AgentPairing, ClientPairing},
};
use mykube_protocol::{PairingCode, Role, SessionId, Ticket};
use mykube_relay::Config;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use crate::support::dialer;

/// Nothing here takes that long: a test that waits for it has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it hangs")
}

/// Once one way of a connection is over: the other has its time, or is cut too.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    Cut,
}

/// A relay for the two ends of one session.
#[derive(Clone)]
pub(crate) struct Relay(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    /// Where the real one listens.
    real: SocketAddr,
    serves: JoinHandle<()>,
    _data: tempfile::TempDir,
    /// The newest connection of each role.
    live: Mutex<HashMap<&'static str, AbortHandle>>,
    /// The ticket of every admission, in order, and those that the relay has said.
    pub(crate) shown: Mutex<Vec<String>>,
    pub(crate) told: Mutex<Vec<(&'static str, String)>>,
    /// Admits neither end.
    pub(crate) away: AtomicBool,
    /// Shows the relay tickets of another one.
    pub(crate) forgets: AtomicBool,
    /// Cuts the client as soon as it is paired, before it hears so.
    pub(crate) cuts_at_paired: AtomicBool,
    /// What stands in its place once it has paired: admissions answered like this, one after the other, before it admits
    /// again.
    pub(crate) instead: Mutex<VecDeque<String>>,
    /// How many connections are taken and never answered.
    pub(crate) mute: AtomicUsize,
    /// How many of them are held.
    pub(crate) held: watch::Sender<usize>,
    /// Flips a bit in the next record to the client.
    pub(crate) flips: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.serves.abort();
    }
}

impl Relay {
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::new(data.path());
        // Each test has a relay of its own.
        config.threads = NonZeroUsize::MIN;
        let real = mykube_relay::Relay::bind(config).await.unwrap();
        let relay = Self(Arc::new(Inner {
            real: real.local_addr(),
            serves: tokio::spawn(real.serve(std::future::pending())),
            _data: data,
            live: Mutex::default(),
            shown: Mutex::default(),
            told: Mutex::default(),
            away: AtomicBool::default(),
            forgets: AtomicBool::default(),
            cuts_at_paired: AtomicBool::default(),
            instead: Mutex::default(),
            mute: AtomicUsize::default(),
            held: watch::Sender::default(),
            flips: AtomicBool::default(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let admits = relay.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if !admits.0.away.load(Ordering::Relaxed) {
                    if admits.take_mute() {
                        tokio::spawn(admits.clone().hold(tcp));
                        continue;
                    }
                    let relay = admits.clone();
                    let (tell, told) = tokio::sync::oneshot::channel();
                    let task = tokio::spawn(async move {
                        let handle = told.await.unwrap();
                        // A connection that is over is nobody's fault here.
                        let _ = relay.serve(tcp, handle).await;
                    });
                    tell.send(task.abort_handle()).unwrap();
                }
            }
        });
        (relay, address)
    }

    fn take_mute(&self) -> bool {
        self.0.mute.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    async fn hold(self, mut tcp: TcpStream) {
        self.0.held.send_modify(|held| *held += 1);
        let _ = tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await;
        self.0.held.send_modify(|held| *held -= 1);
    }

    /// Hands a connection on to the real relay.
    async fn serve(self, tcp: TcpStream, handle: AbortHandle) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let (read, mut to_end) = tcp.into_split();
        let mut from_end = BufReader::new(read);
        let mut request = head(&mut from_end).await?;
        let role = ["agent", "client"].into_iter().find(|role| request.starts_with(&format!("GET /ws/{role}/")));
        if role.is_some() {
            let instead = if self.has_paired() { self.0.instead.lock().unwrap().pop_front() } else { None };
            if let Some(instead) = instead {
                return to_end.write_all(instead.as_bytes()).await;
            }
            let ticket = request.split_once("Bearer ").unwrap().1.split("\r\n").next().unwrap().to_owned();
            if self.0.forgets.load(Ordering::Relaxed) {
                request = request.replace(&ticket, Ticket::from_bytes(b"of another relay").expose());
            } else {
                self.0.shown.lock().unwrap().push(ticket);
            }
        }
        let relay = TcpStream::connect(self.0.real).await?;
        relay.set_nodelay(true)?;
        let (read, mut to_relay) = relay.into_split();
        let mut from_relay = BufReader::new(read);
        to_relay.write_all(request.as_bytes()).await?;
        // What has ended one way is ended for its reader, and the other way goes on to its own end.
        let up = async {
            let _ = tokio::io::copy_buf(&mut from_end, &mut to_relay).await;
            let _ = to_relay.shutdown().await;
        };
        let down = async {
            let Ok(answer) = head(&mut from_relay).await else { return Then::GoOn };
            let role = role.filter(|_| answer.starts_with("HTTP/1.1 101"));
            if let Some(role) = role {
                // Before the end knows that it stands, so that whoever heard so can cut it.
                self.0.live.lock().unwrap().insert(role, handle);
            }
            let mut then = Then::GoOn;
            if to_end.write_all(answer.as_bytes()).await.is_ok() {
                match role {
                    Some(role) => then = self.frames(role, &mut from_relay, &mut to_end).await.unwrap_or(Then::GoOn),
                    None => drop(tokio::io::copy_buf(&mut from_relay, &mut to_end).await),
                }
            }
            if then == Then::GoOn {
                let _ = to_end.shutdown().await;
            }
            then
        };
        let (mut up, mut down) = (pin!(up), pin!(down));
        tokio::select! {
            () = &mut up => drop(timeout(BOUND, down).await),
            then = &mut down => if then == Then::GoOn { drop(timeout(BOUND, up).await) },
        }
        Ok(())
    }

    /// Hands on what the relay says, frame by frame.
    async fn frames(
        &self,
        role: &'static str,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut OwnedWriteHalf,
    ) -> io::Result<Then> {
        const TEXT: u8 = 0x81;
        const BINARY: u8 = 0x82;
        loop {
            let mut frame = vec![0; 2];
            from.read_exact(&mut frame).await?;
            let len = match frame[1] {
                126 => u64::from(from.read_u16().await?),
                127 => from.read_u64().await?,
                len => u64::from(len),
            };
            match frame[1] {
                126 => frame.extend(u16::try_from(len).unwrap().to_be_bytes()),
                127 => frame.extend(len.to_be_bytes()),
                _ => {}
            }
            let start = frame.len();
            frame.resize(start + usize::try_from(len).unwrap(), 0);
            from.read_exact(&mut frame[start..]).await?;
            if let (TEXT, Some(ticket)) = (frame[0], frame[start..].strip_prefix(b"ticket:")) {
                let ticket = String::from_utf8(ticket.to_vec()).unwrap();
                self.0.told.lock().unwrap().push((role, ticket));
                if role == "client" && self.0.cuts_at_paired.swap(false, Ordering::Relaxed) {
                    return Ok(Then::Cut);
                }
            }
            if frame[0] == BINARY && role == "client" && self.0.flips.swap(false, Ordering::Relaxed) {
                *frame.last_mut().unwrap() ^= 1;
            }
            to.write_all(&frame).await?;
        }
    }

    fn has_paired(&self) -> bool {
        !self.0.told.lock().unwrap().is_empty()
    }

    /// The connection of one end is gone, without a word.
    pub(crate) fn cut(&self, role: &str) {
        if let Some(task) = self.0.live.lock().unwrap().remove(role) {
            task.abort();
        }
    }

    /// Lets nobody in any more, and cuts both.
    pub(crate) fn leave(&self) {
        self.0.away.store(true, Ordering::Relaxed);
        self.cut("agent");
        self.cut("client");
    }

    /// Another holder of the client's ticket takes its place, and leaves.
    pub(crate) async fn supplant_client(&self, session: &SessionId) {
        let ticket = self.0.told.lock().unwrap().iter().rfind(|(role, _)| *role == "client").unwrap().1.clone();
        let dialer = dialer(format!("http://{}", self.0.real));
        let mut socket = dialer.websocket(Role::Client, session, &ticket.parse().unwrap()).await.unwrap();
        // A text comes with the place; until then it answers the relay's ping.
        while !socket.next().await.unwrap().unwrap().is_text() {}
    }
}

#[tokio::test]
async fn the_proxy_hands_on_what_the_relay_says_to_an_end_that_says_no_more() {
    within(async {
        let (relay, address) = Relay::start().await;
        let created = dialer(format!("http://{address}")).create_session().await.unwrap();
        let mut tcp = BufReader::new(TcpStream::connect(address).await.unwrap());
        let request = format!(
            "GET /ws/agent/{} HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {}\r\n\r\n",
            created.session_id,
            created.ticket.expose()
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        assert!(head(&mut tcp).await.unwrap().starts_with("HTTP/1.1 101"));
        assert!(relay.0.live.lock().unwrap().contains_key("agent"), "it can be cut");
        // A close frame with 1000, masked with zeros, and an end of the stream behind it.
        tcp.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut said = Vec::new();
        tcp.read_to_end(&mut said).await.unwrap();
        assert!(said.starts_with(&[0x88, 2, 3, 0xe8]), "{said:?}");
    })
    .await;
}

/// A request or an answer up to its body.
async fn head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

pub(crate) struct Ends {
    pub(crate) relay: Relay,
    pub(crate) session: SessionId,
    pub(crate) agent: Channel,
    pub(crate) client: Channel,
}

pub(crate) async fn paired(window: Duration) -> Ends {
    paired_over(Relay::start().await, window).await
}

pub(crate) async fn paired_over((relay, address): (Relay, SocketAddr), window: Duration) -> Ends {
    let dialer = dialer(format!("http://{address}"));
    let created = dialer.create_session().await.unwrap();
    let (session, ticket) = (created.session_id, created.ticket);
    let code: PairingCode = format!("{} 20417", created.nameplate).parse().unwrap();
    let mut agent_pairing = AgentPairing::new(clock::now(), session, code.clone(), false, BOUND);
    let mut client_pairing = ClientPairing::new(clock::now(), session, code, false);
    let mut agent = dialer.websocket(Role::Agent, &session, &ticket).await.unwrap();
    let claim = dialer.pair(&created.nameplate).await.unwrap();
    let attempt = claim.attempt;
    let mut ignore = |_| {};
    let at_agent = async {
        let outcome = pair::agent(&mut agent, &mut agent_pairing, &mut ignore).await;
        let Ok(AgentOutcome::Paired(established)) = outcome else { panic!("{outcome:?}") };
        let words = established.words.clone();
        let reconnect = Reconnect { dialer: dialer.clone(), session, attempt, ticket, window, unsure: None };
        (Channel::start(*established, agent, reconnect), words)
    };
    let at_client = async {
        let shown = AtomicBool::new(false);
        let paired = pair::client(&dialer, claim, &mut client_pairing, window, &shown).await;
        let (established, socket, reconnect) = paired.unwrap();
        let words = established.words.clone();
        (Channel::start(*established, socket, reconnect), words)
    };
    let ((agent, at_agent), (client, at_client)) = tokio::join!(at_agent, at_client);
    assert_eq!(at_agent, at_client);
    Ends { relay, session, agent, client }
}

pub(crate) async fn streams(ends: &Ends) -> (ChannelStream, ChannelStream) {
    let opened = ends.client.open().await.unwrap();
    let (accepted, target) = ends.agent.accept().await.unwrap();
    assert_eq!(target, None);
    (accepted, opened)
}

pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..).flat_map(|i: u32| i.wrapping_mul(2_654_435_761).to_le_bytes()).map(|byte| byte ^ seed).take(len).collect()
}

pub(crate) async fn send_all(stream: &ChannelStream, bytes: Vec<u8>) {
    for chunk in Bytes::from(bytes).chunks(50_000) {
        stream.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    stream.finish();
}

/// All of a stream; `at` is called with what has come so far.
pub(crate) async fn receive_all(stream: &ChannelStream, mut at: impl FnMut(usize)) -> Vec<u8> {
    let (mut received, mut chunks) = (Vec::new(), Vec::new());
    while stream.read(100_000, &mut chunks).await.unwrap() {
        for chunk in chunks.drain(..) {
            received.extend_from_slice(&chunk);
        }
        at(received.len());
    }
    received
}
