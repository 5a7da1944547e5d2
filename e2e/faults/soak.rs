//! Many sessions and a fault every few seconds: not a byte is wrong, and at the end nobody holds more than at the
//! start.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mykube_lab::{
    End,
    census::{Census, Use, Watched},
    stand_in::Api,
};
use rustix::process::Signal;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

use super::{
    wires::{Setup, Wires},
    world::Mode,
};
use crate::support::{
    LIMIT, Mykube, Running, Sandbox, Way,
    certs::Authority,
    cluster::kubeconfig,
    net::FakeUpstream,
    raw::{self, Port},
};

/// Between two numbers of a session.
const BEAT: Duration = Duration::from_millis(500);
/// Memory may be a quarter more, and this: allocators keep some of what they once needed.
const MORE_BYTES: u64 = 8 << 20;

/// Where the API server is, on the loopback of the servers' network.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);
/// The last byte of the query is the first that comes back.
const EXEC: &str = "POST /api/v1/namespaces/default/pods/soak/exec?command=e HTTP/1.1\r\nHost: soak\r\n\
     Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";

/// What it is made of. Sessions are guarded and shared in turn; each has one stream for all of its time, as
/// `kubectl exec` has, to what echoes in a pod's place.
pub(super) struct Soak {
    pub(super) sessions: usize,
    pub(super) length: Duration,
}

struct SoakSession {
    mode: Mode,
    client: Running,
    server: Running,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// What each session's connection has carried.
struct Traffic {
    stop: AtomicBool,
    echoed: Vec<AtomicU64>,
}

impl Soak {
    /// Runs it. Returns a summary for people.
    pub(super) fn run(&self) -> String {
        let wires = Wires::new(Setup::default());
        let upstream = Upstream::start(&wires);
        // A few at once: all are on two cores.
        let (sessions, streams): (Vec<_>, Vec<_>) = (0..self.sessions.div_ceil(4))
            .flat_map(|batch| {
                let batch = batch * 4..self.sessions.min(batch * 4 + 4);
                thread::scope(|scope| {
                    let start = |at| SoakSession::start([Mode::Guarded, Mode::Shared][at % 2], &wires, &upstream);
                    let starting: Vec<_> = batch.map(|at| scope.spawn(move || start(at))).collect();
                    starting.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
                })
            })
            .unzip();

        let traffic =
            Traffic { stop: AtomicBool::new(false), echoed: sessions.iter().map(|_| AtomicU64::new(0)).collect() };
        thread::scope(|scope| {
            let connections: Vec<_> = streams
                .into_iter()
                .enumerate()
                .map(|(at, stream)| {
                    let traffic = &traffic;
                    scope.spawn(move || echo(stream, traffic, at))
                })
                .collect();
            // Also where something panics: the scope waits for them.
            let stopping = Stopping(&traffic);
            // The first outage is no leak: what is made for it is made once.
            traffic.moves();
            strike(&wires, &sessions, 0);
            traffic.moves();
            let start = Holdings::settled(&wires, &sessions, None);
            let until = Instant::now() + self.length;
            let mut struck = 1;
            while Instant::now() < until {
                strike(&wires, &sessions, struck);
                struck += 1;
                thread::sleep(Duration::from_secs(2));
            }
            traffic.moves();
            let end = Holdings::settled(&wires, &sessions, Some(&start));
            drop(stopping);
            for (at, connection) in connections.into_iter().enumerate() {
                if let Err(error) = connection.join().unwrap() {
                    let said = sessions[at].client.process.stderr();
                    let mode = sessions[at].mode.name();
                    panic!("session {at}, {mode}: {error}\n{}", &said[said.len().saturating_sub(3000)..]);
                }
            }
            let echoed: u64 = traffic.echoed.iter().map(|it| it.load(Ordering::SeqCst)).sum();
            let count = self.sessions;
            let text =
                format!("{count} sessions, {struck} faults, {echoed} echoes, none wrong\n\n{}", start.beside(&end));
            start.assert_no_more(&end);
            text
        })
    }
}

/// Stands where the API server and a pod do.
struct Upstream {
    kubeconfig: PathBuf,
    ca: String,
    _echo: FakeUpstream,
    _files: Sandbox,
}

impl Upstream {
    fn start(wires: &Wires) -> Self {
        let echo = FakeUpstream::start();
        let authority = Authority::new("e2e");
        let signed = authority.sign(&[&API.ip().to_string()]);
        let files = Sandbox::new();
        let [certificate, key] = [("cert.pem", signed.certificate), ("key.pem", signed.key)]
            .map(|(name, content)| files.file(name, content));
        Api::start(wires.server_net.listen(API).unwrap(), echo.address, &certificate, &key).unwrap();
        let ca = authority.pem();
        let data = data_encoding::BASE64.encode(ca.as_bytes());
        let cluster = json!({"server": format!("https://{API}"), "certificate-authority-data": data});
        let config = kubeconfig("echo", &cluster, &json!({"token": "e2e"}));
        Self { kubeconfig: files.file("kubeconfig", config.to_string()), ca, _echo: echo, _files: files }
    }
}

impl SoakSession {
    fn start(mode: Mode, wires: &Wires, upstream: &Upstream) -> (Self, Stream) {
        let kubeconfig = &upstream.kubeconfig;
        let server = wires.server(|url| match mode {
            Mode::Guarded => Mykube::guarding(url, kubeconfig),
            _ => Mykube::server(url, kubeconfig),
        });
        let server = server.start();
        let client = wires.client().start_with(&server.code());
        let address = client.event("connected")["listen"].as_str().unwrap().parse().unwrap();
        // The TLS is the client's in guarded mode, and else the API server's.
        let tls = match mode {
            Mode::Guarded => guarded(&client.kubeconfig()),
            _ => raw::config(&upstream.ca, None),
        };
        let stream = wires.client_net.enter(|| exec(address, tls)).unwrap();
        (Self { mode, client, server }, stream)
    }
}

/// As a client's kubeconfig says.
fn guarded(kubeconfig: &Path) -> Arc<ClientConfig> {
    let port = Port::of(&Way::new("guarded", kubeconfig, None));
    raw::config(&port.ca, Some(&port.client))
}

/// Opens a stream as `kubectl exec` does.
fn exec(address: SocketAddr, tls: Arc<ClientConfig>) -> Stream {
    let mut stream = raw::tls(address, tls);
    stream.write_all(EXEC.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"e");
    stream
}

/// Sends numbers and gets each back, until told to stop.
fn echo(mut stream: Stream, traffic: &Traffic, at: usize) -> io::Result<()> {
    stream.sock.set_read_timeout(Some(LIMIT * 2))?;
    let mut number = 0_u64;
    while !traffic.stop.load(Ordering::SeqCst) {
        let block: Vec<u8> = (number..number + 64).flat_map(u64::to_be_bytes).collect();
        stream.write_all(&block)?;
        let mut back = vec![0; block.len()];
        stream.read_exact(&mut back)?;
        if back != block {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("other bytes came back at {number}")));
        }
        number += 64;
        traffic.echoed[at].fetch_add(1, Ordering::SeqCst);
        thread::sleep(BEAT);
    }
    Ok(())
}

/// Ends all traffic when dropped.
struct Stopping<'a>(&'a Traffic);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

impl Traffic {
    /// Waits until every session has carried something from now on.
    fn moves(&self) {
        let before: Vec<_> = self.echoed.iter().map(|it| it.load(Ordering::SeqCst)).collect();
        let until = Instant::now() + LIMIT;
        // The second echo from now on was sent after now.
        while self.echoed.iter().zip(&before).any(|(now, before)| now.load(Ordering::SeqCst) < before + 2) {
            assert!(Instant::now() < until, "a session carries nothing any more");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One fault, another one each time.
fn strike(wires: &Wires, sessions: &[SoakSession], number: usize) {
    // One in each mode.
    let some = [number, number + 1].map(|at| &sessions[at % sessions.len()]);
    let while_ = |length: u64| thread::sleep(Duration::from_millis(length));
    match number % 8 {
        0 => {
            wires.end_relay(Signal::KILL);
            while_(500);
            wires.restart_relay();
        }
        1 => {
            wires.client_line.down(End::A).unwrap();
            while_(1000);
            wires.client_line.up(End::A).unwrap();
        }
        2 => drop(wires.server_line.readdress(End::B).unwrap()),
        3 => {
            wires.server_line.blackhole(true);
            while_(4000);
            wires.server_line.blackhole(false);
        }
        4 => {
            wires.end_relay(Signal::TERM);
            wires.restart_relay();
        }
        5 => stop(some.map(|it| &it.client), while_),
        6 => stop(some.map(|it| &it.server), while_),
        _ => {
            wires.client_line.blackhole(true);
            while_(12_000);
            wires.client_line.blackhole(false);
        }
    }
}

fn stop(ends: [&Running; 2], while_: impl Fn(u64)) {
    ends.iter().for_each(|end| end.process.signal(Signal::STOP));
    while_(3000);
    ends.iter().for_each(|end| end.process.signal(Signal::CONT));
}

/// What relay, clients and servers hold, by mode.
struct Holdings(BTreeMap<String, Use>);

impl Holdings {
    fn take(wires: &Wires, sessions: &[SoakSession]) -> Self {
        let mut all = vec![Watched { name: "relay".into(), pid: wires.relay_id() }];
        for SoakSession { mode, client, server } in sessions {
            for (kind, end) in [("clients", client), ("servers", server)] {
                all.push(Watched { name: format!("{} {kind}", mode.name()), pid: end.process.id() });
            }
        }
        Self(Census::take(&all).by_name)
    }

    /// Looks until nothing is more than it was, or for the first time until two looks are alike.
    fn settled(wires: &Wires, sessions: &[SoakSession], before: Option<&Self>) -> Self {
        let until = Instant::now() + LIMIT;
        let mut last = Self::take(wires, sessions);
        loop {
            thread::sleep(Duration::from_secs(2));
            let now = Self::take(wires, sessions);
            let enough = match before {
                Some(before) => before.more(&now).is_empty(),
                None => now.counts() == last.counts(),
            };
            if enough || Instant::now() > until {
                return now;
            }
            last = now;
        }
    }

    fn counts(&self) -> Vec<(u64, u64)> {
        self.0.values().map(|it| (it.descriptors, it.threads)).collect()
    }

    /// Each holder's, and the same later.
    fn with<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = (&'a String, &'a Use, &'a Use)> {
        self.0.iter().map(|(name, before)| (name, before, &later.0[name]))
    }

    /// Of what there is more later.
    fn more(&self, later: &Self) -> Vec<String> {
        let mut more = Vec::new();
        for (name, before, after) in self.with(later) {
            let most = before.rss_bytes / 4 * 5 + MORE_BYTES;
            let kinds = [
                ("descriptors", before.descriptors, after.descriptors),
                ("threads", before.threads, after.threads),
                ("bytes of memory", most, after.rss_bytes),
            ];
            for (kind, before, after) in kinds {
                if after > before {
                    more.push(format!("{name}: {after} {kind}, {before} would do"));
                }
            }
        }
        more
    }

    fn assert_no_more(&self, later: &Self) {
        let more = self.more(later);
        assert!(more.is_empty(), "more is held than at the start:\n{}", more.join("\n"));
    }

    fn beside(&self, later: &Self) -> String {
        let mut text = "| | memory MiB | descriptors | threads |\n| --- | --- | --- | --- |\n".to_owned();
        for (name, before, after) in self.with(later) {
            let mib = |bytes: u64| bytes >> 20;
            text += &format!(
                "| {name} | {} -> {} | {} -> {} | {} -> {} |\n",
                mib(before.rss_bytes),
                mib(after.rss_bytes),
                before.descriptors,
                after.descriptors,
                before.threads,
                after.threads,
            );
        }
        text
    }
}
