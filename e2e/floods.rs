//! More connections than there is room for, and readers that never read.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use serde_json::json;

use crate::support::{
    Cluster, LIMIT, Namespace, Process, Running, Sandbox, Tunnel, cluster::kubeconfig, net::FakeUpstream,
};

/// Streams at once, as `docs/protocol.md` has it.
const STREAMS: usize = 1024;
/// An end's memory in KiB: twice the session's whole window of 128 MiB, and the program itself.
const MEMORY_MAX: u64 = 300 * 1024;

fn tunnel(upstream: &FakeUpstream) -> Tunnel {
    let sandbox = Sandbox::new();
    let cluster = json!({"server": format!("https://{}", upstream.address), "insecure-skip-tls-verify": true});
    let path = sandbox.file("kubeconfig", kubeconfig("fake", &cluster, &json!({"token": "e2e"})).to_string());
    Tunnel::open(&path)
}

fn connect(tunnel: &Tunnel, first: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(tunnel.address()).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.write_all(first).unwrap();
    connection
}

fn memory(end: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", end.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a high-water mark");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Whether its first byte came back; otherwise it was cut.
fn has_answer(connection: &TcpStream) -> Option<bool> {
    connection.set_nonblocking(true).unwrap();
    let mut reader = connection;
    let answer = reader.read(&mut [0]);
    connection.set_nonblocking(false).unwrap();
    match answer {
        Ok(n) => {
            assert_eq!(n, 1, "a connection without a place looks complete");
            Some(true)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            Some(false)
        }
    }
}

#[test]
fn of_1100_connections_1024_work_and_the_rest_are_told_at_once() {
    let upstream = FakeUpstream::start();
    let tunnel = tunnel(&upstream);
    let until = Instant::now() + LIMIT;
    // How many were answered, and how many were cut.
    let settled = |mut waiting: Vec<TcpStream>| {
        let (mut working, mut cut) = (Vec::new(), 0);
        while !waiting.is_empty() {
            assert!(Instant::now() < until, "{} work, {cut} were cut, {} hang", working.len(), waiting.len());
            for connection in std::mem::take(&mut waiting) {
                match has_answer(&connection) {
                    Some(true) => working.push(connection),
                    Some(false) => cut += 1,
                    None => waiting.push(connection),
                }
            }
            std::thread::yield_now();
        }
        (working, cut)
    };
    let (mut working, cut) = settled((0..1100).map(|_| connect(&tunnel, b"x")).collect());
    assert_eq!((working.len(), cut), (STREAMS, 1100 - STREAMS));
    assert_eq!(upstream.most(), STREAMS);
    for connection in &mut working {
        connection.write_all(b"y").unwrap();
        let mut back = [0];
        connection.read_exact(&mut back).unwrap();
        assert_eq!(back, *b"y");
    }
    // Some close, and as many others connect, once there are streams again.
    working.truncate(STREAMS - 10);
    let mut more = 0;
    while more < 10 {
        more += settled(vec![connect(&tunnel, b"x")]).0.into_iter().map(|connection| working.push(connection)).count();
    }
    tunnel.client.process.says("all connections of this session are in use");
}

#[test]
fn a_reader_that_never_reads_stalls_no_other() {
    let upstream = FakeUpstream::start();
    let tunnel = tunnel(&upstream);
    let stalled: Vec<_> = (0..20).map(|_| connect(&tunnel, b"B")).collect();
    for connection in &stalled {
        (&*connection).read_exact(&mut [0]).unwrap();
    }
    let mut working = connect(&tunnel, b"x");
    working.read_exact(&mut [0]).unwrap();
    let block = crate::support::noise(256 * 1024);
    for _ in 0..100 {
        working.write_all(&block).unwrap();
        let mut back = vec![0; block.len()];
        working.read_exact(&mut back).unwrap();
        assert!(back == block);
    }
    for end in [&tunnel.client, &tunnel.server, &tunnel.relay.running] {
        let used = memory(end);
        assert!(used < MEMORY_MAX, "process {} has used {used} KiB", end.process.pid());
    }
}

#[test]
fn a_writer_whose_reader_never_reads_is_held_back() {
    let upstream = FakeUpstream::start();
    let tunnel = tunnel(&upstream);
    // The upstream never reads: it is busy sending bytes that nobody reads.
    let stalled = connect(&tunnel, b"B");
    stalled.set_nonblocking(true).unwrap();
    let block = vec![0; 64 * 1024];
    let mut working = connect(&tunnel, b"x");
    working.read_exact(&mut [0]).unwrap();
    let mut taken = 0;
    // Each round trip on the working connection gives the stalled one's bytes time to move as far as they can.
    for _ in 0..500 {
        while let Ok(n) = (&stalled).write(&block) {
            taken += n;
            assert!(taken < 256 << 20, "nothing holds the writer back");
        }
        working.write_all(b"y").unwrap();
        working.read_exact(&mut [0]).unwrap();
    }
    for end in [&tunnel.client, &tunnel.server, &tunnel.relay.running] {
        assert!(memory(end) < MEMORY_MAX);
    }
}

#[test]
fn kubectl_works_beside_one_that_nobody_reads() {
    let namespace = Namespace::create(&Cluster::get(), "stalled");
    let tunnel = Tunnel::open(&namespace.cluster.kubeconfig);
    let way = namespace.through("tunnel", &tunnel.kubeconfig());
    let image = &namespace.cluster.image;
    way.kubectl(&["run", "noisy", "--image", image, "--restart=Never", "--", "sleep", "1000"]).ok();
    way.kubectl(&["wait", "--for=condition=Ready", "pod/noisy", "--timeout=60s"]).ok();
    // A pipe that is never read: kubectl stops reading, then the client, and so on down to the pod.
    let exec = format!("kubectl -n {} exec noisy -- cat /dev/zero", namespace.name);
    let mut shell = way.sandbox().command("sh");
    shell.args(["-c", &format!("{exec} | {{ head -c 1 >/dev/null; echo begun; sleep 1000; }}")]);
    shell.env("KUBECONFIG", tunnel.kubeconfig());
    let stuck = Process::start(shell);
    stuck.prints("begun");
    for _ in 0..20 {
        assert_eq!(way.kubectl(&["get", "pod", "noisy", "-o", "name"]).ok(), "pod/noisy\n");
        assert_eq!(way.kubectl(&["exec", "noisy", "--", "echo", "hi"]).ok(), "hi\n");
    }
    for end in [&tunnel.client, &tunnel.server, &tunnel.relay.running] {
        assert!(memory(end) < MEMORY_MAX);
    }
    way.kubectl(&["delete", "pod", "noisy", "--force", "--grace-period=0"]).ok();
}
