//! Requests a second through guarded mode against direct: `GET /version` over connections that many requests use.
//!
//!     cargo nextest run --release -p mykube --test e2e --run-ignored only requests:: --no-capture

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

use rustls::{ClientConnection, StreamOwned};

use crate::support::{
    Cluster, Tunnel, Way,
    raw::{Port, config, tls},
};

/// Rounds of each way, one after the other in turn; the median counts.
const ROUNDS: usize = 9;
/// Requests of a round, over all its connections.
const REQUESTS: usize = 1600;

#[test]
#[ignore = "a measurement: takes a minute, and a machine with nothing else to do"]
fn measure_requests() {
    let cluster = Cluster::get();
    let tunnel = Tunnel::guarded_with(&cluster.kubeconfig, &[]);
    let ways = [("direct", &cluster.kubeconfig), ("guarded", &tunnel.kubeconfig())]
        .map(|(name, kubeconfig)| Port::of(&Way::new(name, kubeconfig, None)));
    for connections in [1, 16] {
        let mut open =
            ways.each_ref().map(|port| (0..connections).map(|_| PersistentConnection::open(port)).collect::<Vec<_>>());
        let mut rates = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=ROUNDS {
            for (connections, rates) in open.iter_mut().zip(&mut rates) {
                let rate = rate(connections);
                if round > 0 {
                    rates.push(rate);
                }
            }
        }
        let [direct, guarded] = rates.map(median);
        println!(
            "{connections} connection(s): direct {direct:.0}/s, guarded {guarded:.0}/s, ratio {:.2}",
            guarded / direct
        );
    }
}

/// Requests a second, all connections together.
fn rate(connections: &mut [PersistentConnection]) -> f64 {
    let each = REQUESTS / connections.len();
    let start = Arc::new(Barrier::new(connections.len() + 1));
    let seconds = thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                let start = start.clone();
                scope.spawn(move || {
                    start.wait();
                    (0..each).for_each(|_| connection.get());
                })
            })
            .collect();
        start.wait();
        let begun = Instant::now();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        begun.elapsed().as_secs_f64()
    });
    (each * connections.len()) as f64 / seconds
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A connection that many requests use, one after the other.
struct PersistentConnection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl PersistentConnection {
    fn open(port: &Port) -> Self {
        let tls = tls(port.address, config(&port.ca, Some(&port.client)));
        tls.sock.set_nodelay(true).unwrap();
        Self(BufReader::new(tls))
    }

    fn get(&mut self) {
        self.0.get_mut().write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut length = None;
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
        }
        let mut body = vec![0; length.expect("a length")];
        self.0.read_exact(&mut body).unwrap();
    }
}
