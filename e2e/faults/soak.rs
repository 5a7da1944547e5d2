//! Many sessions and a fault every few seconds: not a byte is wrong, and at the end nobody holds more than at the
//! start.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use mykube_lab::{
    End, ForwardOptions, Forwarder,
    census::{Census, Use, Watched},
};
use rustix::process::Signal;
use serde_json::json;

use super::wires::{Setup, Wires};
use crate::support::{LIMIT, Mykube, Running, Sandbox, certs::Authority, cluster::kubeconfig, net::FakeUpstream};

/// Between two numbers of a session.
const BEAT: Duration = Duration::from_millis(500);
/// Memory may be a quarter more, and this: allocators keep some of what they once needed.
const MORE_BYTES: u64 = 8 << 20;

/// What it is made of. Shared mode: connections are then TCP, and there may be something that echoes in place of an API
/// server.
pub(super) struct Soak {
    pub(super) sessions: usize,
    pub(super) length: Duration,
}

struct Session {
    client: Running,
    server: Running,
}

/// What each session's connection has carried.
struct Traffic {
    stop: AtomicBool,
    echoed: Vec<AtomicU64>,
}

impl Soak {
    /// Runs it. Returns a summary for people.
    pub(super) fn run(&self) -> String {
        let wires = Wires::new(Setup::default());
        let upstream = FakeUpstream::start();
        let listener = wires.server_net.listen(upstream.address).unwrap();
        let _door = Forwarder::start(listener, ForwardOptions::to(upstream.address)).unwrap();
        let files = Sandbox::new();
        let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
        let cluster = json!({"server": format!("https://{}", upstream.address), "certificate-authority-data": ca});
        let config = files.file("kubeconfig", kubeconfig("echo", &cluster, &json!({"token": "e2e"})).to_string());
        let start = || {
            let server = wires.server(|url| Mykube::server(url, &config)).start();
            let client = wires.client().start_with(&server.code());
            client.event("connected");
            Session { client, server }
        };
        // A few at once: all are on two cores.
        let sessions: Vec<Session> = (0..self.sessions.div_ceil(4))
            .flat_map(|batch| {
                let count = (self.sessions - batch * 4).min(4);
                thread::scope(|scope| {
                    let starting: Vec<_> = (0..count).map(|_| scope.spawn(start)).collect();
                    starting.into_iter().map(|it| it.join().unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();

        let traffic =
            Traffic { stop: AtomicBool::new(false), echoed: sessions.iter().map(|_| AtomicU64::new(0)).collect() };
        thread::scope(|scope| {
            let connections: Vec<_> = sessions
                .iter()
                .enumerate()
                .map(|(at, session)| {
                    let connection = wires.client_net.enter(|| TcpStream::connect(session.address())).unwrap().unwrap();
                    let traffic = &traffic;
                    scope.spawn(move || echo(&connection, traffic, at))
                })
                .collect();
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
            traffic.stop.store(true, Ordering::SeqCst);
            for (at, connection) in connections.into_iter().enumerate() {
                if let Err(error) = connection.join().unwrap() {
                    let said = sessions[at].client.process.stderr();
                    panic!("session {at}: {error}\n{}", &said[said.len().saturating_sub(3000)..]);
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

impl Session {
    fn address(&self) -> std::net::SocketAddr {
        self.client.event("connected")["listen"].as_str().unwrap().parse().unwrap()
    }
}

/// Sends numbers and gets each back, until told to stop.
fn echo(connection: &TcpStream, traffic: &Traffic, at: usize) -> io::Result<()> {
    connection.set_read_timeout(Some(LIMIT * 2))?;
    let mut number = 0_u64;
    while !traffic.stop.load(Ordering::SeqCst) {
        let block: Vec<u8> = (number..number + 64).flat_map(u64::to_be_bytes).collect();
        { connection }.write_all(&block)?;
        let mut back = vec![0; block.len()];
        { connection }.read_exact(&mut back)?;
        if back != block {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("other bytes came back at {number}")));
        }
        number += 64;
        traffic.echoed[at].fetch_add(1, Ordering::SeqCst);
        thread::sleep(BEAT);
    }
    Ok(())
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
fn strike(wires: &Wires, sessions: &[Session], number: usize) {
    let one = &sessions[number % sessions.len()];
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
        5 => stop(&one.client, while_),
        6 => stop(&one.server, while_),
        _ => {
            wires.client_line.blackhole(true);
            while_(12_000);
            wires.client_line.blackhole(false);
        }
    }
}

fn stop(end: &Running, while_: impl Fn(u64)) {
    end.process.signal(Signal::STOP);
    while_(3000);
    end.process.signal(Signal::CONT);
}

/// What relay, clients and servers hold.
struct Holdings([Use; 3]);

const HOLDERS: [&str; 3] = ["relay", "clients", "servers"];

impl Holdings {
    fn take(wires: &Wires, sessions: &[Session]) -> Self {
        let watched = |name: &str, pid| Watched { name: name.to_owned(), pid };
        let mut all = vec![watched("relay", wires.relay_id())];
        for session in sessions {
            all.push(watched("clients", session.client.process.id()));
            all.push(watched("servers", session.server.process.id()));
        }
        let census = Census::take(&all);
        Self(HOLDERS.map(|name| census.by_name[name]))
    }

    /// Looks until nothing is more than it was, or for the first time until two looks are alike.
    fn settled(wires: &Wires, sessions: &[Session], before: Option<&Self>) -> Self {
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

    fn counts(&self) -> [(u64, u64); 3] {
        self.0.map(|it| (it.descriptors, it.threads))
    }

    /// Of what there is more later.
    fn more(&self, later: &Self) -> Vec<String> {
        let mut more = Vec::new();
        for (name, (before, after)) in HOLDERS.iter().zip(self.0.iter().zip(&later.0)) {
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
        for (name, (before, after)) in HOLDERS.iter().zip(self.0.iter().zip(&later.0)) {
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
