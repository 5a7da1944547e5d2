//! An end that is the test: it has paired with a real `mykube server`, or `mykube client`, holds the keys, and says what it likes.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::atomic::AtomicBool};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use mykube_dial::{DialOptions, Dialer, RelaySocket};
use mykube_lab::census::{Census, Use, Watched};
use mykube_link::{
    clock,
    pair::{self, AgentOutcome, AgentPairing, ClientPairing, Established},
    tunnel::test_api::{self, Opener, Sealer},
};
use mykube_protocol::{
    PairingCode, Role,
    channel::{STREAM_NARROW, STREAMS_ASK},
    frame,
    frame::kind,
    limits::{CODE_TTL, NARROW_WINDOW, STREAM_WINDOW},
};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{LIMIT, Mykube, Relay, Running, Sandbox, cluster::kubeconfig};

/// A message as kind and body.
pub(crate) type Raw = (u8, Vec<u8>);

pub(crate) fn text(text: &str) -> Raw {
    (kind::CONTROL, text.into())
}

pub(crate) fn upkeep(text: &str) -> Raw {
    (kind::UPKEEP, text.into())
}

pub(crate) fn data(id: u32, payload: &[u8]) -> Raw {
    (kind::DATA, [&id.to_be_bytes()[..], payload].concat())
}

/// A whole word on a cluster.
pub(crate) fn welcome(json: &str) -> Raw {
    (kind::WELCOME, [&[1], json.as_bytes()].concat())
}

/// The messages of one record.
pub(crate) fn plaintext(messages: &[Raw]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    for (kind, body) in messages {
        plaintext.push(*kind);
        plaintext.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        plaintext.extend_from_slice(body);
    }
    plaintext
}

pub(crate) struct Hostile {
    socket: RelaySocket,
    sealer: Sealer,
    opener: Opener,
    /// Numbered messages that came, and whether they are acknowledged.
    heard: u64,
    pub(crate) acknowledges: bool,
    /// Whether the server's pings are answered, or how long the path is stays its guess.
    pub(crate) answers: bool,
    pings: u64,
    next_id: u32,
    /// Streams that the other end has opened, and how many of this end's it has ended.
    pub(crate) opened: Vec<u32>,
    pub(crate) ended: usize,
    /// What may be sent on each stream.
    pub(crate) credit: HashMap<u32, u64>,
    /// Payload that came, and the last of it.
    pub(crate) received: u64,
    pub(crate) last: Vec<u8>,
    /// The other end.
    against: Running,
    _relay: Relay,
    _sandbox: Sandbox,
}

impl Hostile {
    /// Pairs with a server in shared mode, whose API server is `upstream`: streams are raw TCP to it.
    pub(crate) async fn against(upstream: SocketAddr) -> Self {
        Self::against_mode(upstream, Mykube::server).await
    }

    /// Pairs with a server in guarded mode: streams are HTTP to that server, which speaks to `upstream` over TLS.
    pub(crate) async fn against_guarded(upstream: SocketAddr) -> Self {
        Self::against_mode(upstream, Mykube::guarding).await
    }

    /// Pairs with a server of this mode.
    pub(crate) async fn against_mode(upstream: SocketAddr, mode: fn(&str, &Path) -> Mykube) -> Self {
        let sandbox = Sandbox::new();
        let cluster = json!({"server": format!("https://{upstream}"), "insecure-skip-tls-verify": true});
        let path = sandbox.file("kubeconfig", kubeconfig("fake", &cluster, &json!({"token": "e2e"})).to_string());
        let relay = Relay::start();
        let server = mode(&relay.url, &path).start();
        let code: PairingCode = server.code().parse().unwrap();
        let dialer = Dialer::new(relay.url.parse().unwrap(), DialOptions::default()).unwrap();
        let claim = dialer.pair(&code.nameplate).await.unwrap();
        let mut pairing = ClientPairing::new(clock::now(), claim.session_id, code, false);
        let (established, socket, _) =
            pair::client(&dialer, claim, &mut pairing, LIMIT, &AtomicBool::new(false)).await.unwrap();
        Self::of(*established, socket, server, relay, sandbox)
    }

    /// Pairs with a client in shared mode: streams are raw TCP from its port.
    pub(crate) async fn against_client() -> Self {
        let relay = Relay::start();
        let dialer = Dialer::new(relay.url.parse().unwrap(), DialOptions::default()).unwrap();
        let created = dialer.create_session().await.unwrap();
        let mut socket = dialer.websocket(Role::Agent, &created.session_id, &created.ticket).await.unwrap();
        let code = format!("{}-20417", created.nameplate);
        let mut pairing = AgentPairing::new(clock::now(), created.session_id, code.parse().unwrap(), false, CODE_TTL);
        let client = Mykube::client(&relay.url).start_with(&code);
        let AgentOutcome::Paired(established) = pair::agent(&mut socket, &mut pairing, &mut |_| {}).await.unwrap()
        else {
            panic!("the code is spent");
        };
        let mut peer = Self::of(*established, socket, client, relay, Sandbox::new());
        let json =
            r#"{"mode":"shared","cluster":"hostile","insecure_skip_tls_verify":true,"credentials":{"token":"t"}}"#;
        peer.say(&[welcome(json)]).await;
        peer.settled().await;
        peer
    }

    fn of(established: Established, socket: RelaySocket, against: Running, relay: Relay, sandbox: Sandbox) -> Self {
        let next_id = if established.role == Role::Client { 1 } else { 2 };
        let (sealer, opener) = test_api::keys(established);
        Self {
            socket,
            sealer,
            opener,
            heard: 0,
            acknowledges: true,
            answers: true,
            pings: 0,
            next_id,
            opened: Vec::new(),
            ended: 0,
            credit: HashMap::new(),
            received: 0,
            last: Vec::new(),
            against,
            _relay: relay,
            _sandbox: sandbox,
        }
    }

    /// What the other end uses.
    pub(crate) fn other_uses(&self) -> Use {
        Census::take(std::slice::from_ref(&self.watched())).by_name["other"]
    }

    /// The client's port.
    pub(crate) fn port(&self) -> SocketAddr {
        self.against.event("connected")["listen"].as_str().expect("an address").parse().expect("host and port")
    }

    /// From here on its peak of memory counts anew.
    pub(crate) fn forget_peak(&self) {
        Census::forget_peak(&self.watched());
    }

    fn watched(&self) -> Watched {
        Watched { name: "other".into(), pid: self.against.process.id() }
    }

    /// Opens so many streams.
    pub(crate) async fn open(&mut self, count: usize) -> Vec<u32> {
        self.open_with(count, "", STREAM_WINDOW).await
    }

    /// So many with narrow windows.
    pub(crate) async fn open_narrow(&mut self, count: usize) -> Vec<u32> {
        let asks = self.ids(1)[0];
        self.say(&[text(&format!("new:{asks}:{STREAMS_ASK}")), text(&format!("done:{asks}"))]).await;
        self.open_with(count, &format!(":{STREAM_NARROW}"), NARROW_WINDOW).await
    }

    async fn open_with(&mut self, count: usize, target: &str, window: u64) -> Vec<u32> {
        let ids = self.ids(count);
        for id in &ids {
            self.credit.insert(*id, window);
            self.say(&[text(&format!("new:{id}{target}"))]).await;
        }
        self.settled().await;
        ids
    }

    fn ids(&mut self, count: usize) -> Vec<u32> {
        let ids: Vec<u32> = (0..count).map(|n| self.next_id + 2 * u32::try_from(n).unwrap()).collect();
        self.next_id += 2 * u32::try_from(count).unwrap();
        ids
    }

    /// One record.
    pub(crate) async fn say(&mut self, messages: &[Raw]) {
        self.say_plaintext(&plaintext(messages)).await;
    }

    /// One record with this plaintext.
    pub(crate) async fn say_plaintext(&mut self, plaintext: &[u8]) {
        let mut record = BytesMut::with_capacity(plaintext.len() + 32);
        record.extend_from_slice(&[frame::RECORD]);
        record.extend_from_slice(plaintext);
        self.sealer.seal(&mut record);
        self.throw(record.freeze()).await;
    }

    /// A frame as it is.
    pub(crate) async fn throw(&mut self, frame: Bytes) {
        self.socket.feed(Message::Binary(frame)).await.expect("the server is still there");
    }

    /// Until everything that was said has been handled: a ping that goes after it is answered.
    pub(crate) async fn settled(&mut self) {
        self.pings += 1;
        let ping = self.pings;
        self.say(&[upkeep(&format!("ping:{ping}"))]).await;
        self.socket.flush().await.unwrap();
        while self.hear().await != Some(ping) {}
        if self.acknowledges {
            let ack = format!("ack:{}", self.heard);
            self.say(&[upkeep(&ack)]).await;
            self.socket.flush().await.unwrap();
        }
    }

    /// Hears one frame. Gives the ping it answers, if it does.
    async fn hear(&mut self) -> Option<u64> {
        let message = tokio::time::timeout(LIMIT, self.socket.next()).await.expect("the server says nothing");
        let Message::Binary(frame) = message.expect("the relay has closed").unwrap() else { return None };
        let plaintext = self.opener.open_apart(&frame).expect("a record of the server");
        let (mut rest, mut answered, mut asked) = (&plaintext[..], None, None);
        while let Some((kind, tail)) = rest.split_first().filter(|(kind, _)| **kind != kind::PADDING) {
            let (len, tail) = tail.split_first_chunk::<4>().unwrap();
            let (body, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
            rest = tail;
            self.heard += u64::from(*kind != kind::UPKEEP);
            if *kind == kind::DATA {
                self.received += body.len() as u64 - 4;
                self.last = body[4..].to_vec();
                continue;
            }
            let said = std::str::from_utf8(body).unwrap_or_default();
            let mut words = said.split(':');
            match (words.next(), words.next().and_then(|n| n.parse::<u64>().ok()), words.next()) {
                (Some("new"), Some(id), _) => {
                    let id = u32::try_from(id).unwrap();
                    self.credit.insert(id, STREAM_WINDOW);
                    self.opened.push(id);
                }
                (Some("done"), Some(_), _) => self.ended += 1,
                (Some("pong"), Some(n), None) => answered = Some(n),
                (Some("ping"), Some(n), None) => asked = Some(n),
                (Some("credit"), Some(id), Some(n)) => {
                    *self.credit.entry(u32::try_from(id).unwrap()).or_default() += n.parse::<u64>().unwrap();
                }
                _ => {}
            }
        }
        if let Some(n) = asked.filter(|_| self.answers) {
            self.say(&[upkeep(&format!("pong:{n}"))]).await;
        }
        answered
    }
}
