//! Records, streams over a session, and the handshake. `cargo bench -p mykube-tunnel` takes their time;
//! `scripts/instructions` counts what the same operations execute (`list`, `count NAME TIMES`).

#![allow(missing_docs, clippy::unwrap_used, clippy::missing_panics_doc)]

use std::{hint::black_box, time::Duration};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use mykube_tunnel::{
    Config, Established, Session, Time,
    pairing::{AgentEvent, AgentPairing, ClientPairing, Transmit},
    protocol::{Attempt, FromRelay, Role, SessionId, channel::StreamId, relay_text::Peer},
    test_api::{self, Opener, Sealer},
};
use rand::{SeedableRng as _, rngs::StdRng};

/// Name, bytes of payload an operation (0: none), and what makes it.
const OPERATIONS: [(&str, u64, Make); 7] = [
    ("record_seal_open_64", 64, || record(64)),
    ("record_seal_open_16384", 16384, || record(16384)),
    ("session_1_stream_mib", 1 << 20, || streams(1)),
    ("session_200_streams_mib", 1 << 20, || streams(200)),
    ("record_of_900_credit_texts", 0, credit_texts),
    ("record_of_400_welcomes", 0, welcomes),
    ("handshake", 0, handshake),
];

type Operation = Box<dyn FnMut()>;
type Make = fn() -> Operation;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["count", name, times] => {
            let (_, _, make) = OPERATIONS.iter().find(|(known, ..)| known == name).unwrap();
            let mut operation = make();
            for _ in 0..times.parse::<u32>().unwrap() {
                operation();
            }
        }
        ["list"] => OPERATIONS.iter().for_each(|(name, ..)| println!("{name}")),
        _ => measure(),
    }
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, payload, make) in OPERATIONS {
        let mut group = criterion.benchmark_group("channel");
        if payload > 0 {
            group.throughput(Throughput::Bytes(payload));
        }
        let mut operation = make();
        group.bench_function(name, |bencher| bencher.iter(&mut operation));
        group.finish();
    }
    criterion.final_summary();
}

/// A record of `len` bytes of plaintext, sealed and opened.
fn record(len: usize) -> Operation {
    let (mut sealer, mut opener) = (Sealer::from_secret([1; 32]), Opener::from_secret([1; 32]));
    let mut frame = BytesMut::with_capacity(len + 64);
    Box::new(move || {
        if sealer.is_last() {
            sealer.rekey();
            opener.rekey();
        }
        frame.clear();
        frame.resize(1 + len, 0x42);
        frame[0] = 5;
        sealer.seal(&mut frame);
        black_box(opener.open(&mut frame).unwrap());
    })
}

/// A MiB through a session, over `count` streams in turn.
fn streams(count: usize) -> Operation {
    const CHUNK: usize = 16 * 1024;
    let mut ends = Ends::new(count);
    let chunk = Bytes::from(vec![0x42; CHUNK]);
    let mut next = 0;
    Box::new(move || {
        let mut left = 1 << 20;
        while left > 0 {
            let id = ends.ids[next % count];
            next += 1;
            let _ = ends.client.write(ends.now, id, chunk.clone());
            left -= CHUNK;
            ends.exchange();
        }
        ends.read_all();
    })
}

/// A record full of texts that concern all of 256 streams, as a hostile peer may say it.
fn credit_texts() -> Operation {
    let mut say = hostile(Role::Client, 2);
    say(&(0..256).map(|n| format!("new:{}", 2 * n + 1)).collect::<Vec<_>>());
    let credit = vec!["credit:0:1".to_owned(); 900];
    Box::new(move || say(&credit))
}

/// A record full of the shortest words on a cluster, as a hostile agent may say it.
fn welcomes() -> Operation {
    let mut say = hostile(Role::Agent, 5);
    let welcomes = vec!["\x01{\"mode\":\"guarded\",\"cluster\":\"c\"}".to_owned(); 400];
    Box::new(move || say(&welcomes))
}

/// Says messages of a kind to a session whose peer is this role's.
fn hostile(role: Role, kind: u8) -> impl FnMut(&[String]) {
    let now = Time::from_micros(1_000_000);
    let mut session = Session::new(now, test_api::established(role.peer(), [1; 32], [2; 32]), Config::default());
    let mut sealer = Sealer::from_secret(if role == Role::Client { [1; 32] } else { [2; 32] });
    move |texts: &[String]| {
        let mut frame = BytesMut::from(&[5][..]);
        for text in texts {
            frame.extend_from_slice(&[kind, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
            frame.extend_from_slice(text.as_bytes());
        }
        sealer.seal(&mut frame);
        session.handle_frame(now, frame).unwrap();
        while session.poll_event().is_some() {}
    }
}

/// From a code to keys at both ends.
fn handshake() -> Operation {
    let mut rng = StdRng::seed_from_u64(1);
    Box::new(move || drop(black_box(established(&mut rng))))
}

/// Two sessions whose frames arrive at once.
struct Ends {
    client: Session,
    agent: Session,
    ids: Vec<StreamId>,
    now: Time,
    unread: usize,
}

impl Ends {
    fn new(count: usize) -> Self {
        let now = Time::from_micros(1_000_000);
        let (agent, client) = established(&mut StdRng::seed_from_u64(1));
        let mut ends = Self {
            client: Session::new(now, client, Config::default()),
            agent: Session::new(now, agent, Config::default()),
            ids: Vec::new(),
            now,
            unread: 0,
        };
        for _ in 0..count {
            ends.ids.push(ends.client.open(now, None).unwrap());
            ends.exchange();
        }
        ends
    }

    /// Until neither end has anything to say.
    fn exchange(&mut self) {
        loop {
            self.now = self.now + Duration::from_micros(10);
            let mut moved = false;
            while let Some(frame) = self.client.poll_transmit(self.now).unwrap() {
                self.agent.handle_frame(self.now, frame).unwrap();
                moved = true;
            }
            while let Some(frame) = self.agent.poll_transmit(self.now).unwrap() {
                self.client.handle_frame(self.now, frame).unwrap();
                moved = true;
            }
            while self.agent.poll_event().is_some() || self.client.poll_event().is_some() {}
            if !moved {
                break;
            }
            self.unread += 1;
            if self.unread == 8 {
                self.read_all();
            }
        }
    }

    fn read_all(&mut self) {
        self.unread = 0;
        let mut chunks = Vec::new();
        for id in &self.ids {
            self.agent.read(self.now, *id, u64::MAX, &mut chunks);
        }
        black_box(chunks);
    }
}

/// The agent's and the client's end of a pairing.
fn established(rng: &mut StdRng) -> (Established, Established) {
    let (now, id) = (Time::default(), SessionId::from_bytes([7; 16]));
    let code = || "483 20417".parse().unwrap();
    let mut agent = AgentPairing::new(now, id, code(), false, Duration::from_secs(120));
    let mut client = ClientPairing::new(now, id, code(), false);
    agent.handle_relay(now, &FromRelay::PeerHere(Peer::Attempt(Attempt::from_bytes([1; 16]))), rng);
    let hello = peer_frame(&mut agent);
    assert!(client.handle_frame(now, hello, rng).unwrap().is_none());
    while let Some(frame) = client.poll_transmit() {
        agent.handle_frame(now, BytesMut::from(frame));
    }
    let at_agent = loop {
        match agent.poll_event().unwrap() {
            AgentEvent::Paired(established) => break *established,
            _ => continue,
        }
    };
    let answer = peer_frame(&mut agent);
    let at_client = *client.handle_frame(now, answer, rng).unwrap().unwrap();
    assert_eq!((at_agent.role, at_client.role), (Role::Agent, Role::Client));
    (at_agent, at_client)
}

/// The next frame for the client; what is for the relay is passed over.
fn peer_frame(agent: &mut AgentPairing) -> BytesMut {
    loop {
        if let Transmit::Peer(frame) = agent.poll_transmit().unwrap() {
            return BytesMut::from(frame);
        }
    }
}
