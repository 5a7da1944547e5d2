//! More than there is room for, and readers that never read.

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
const STREAMS: usize = 256;
/// An end's memory in KiB: the session's whole window of 128 MiB twice over, and the program itself.
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

/// Whether its first byte has come back.
fn has_answer(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    let mut reader = connection;
    let answer = reader.read(&mut [0]);
    connection.set_nonblocking(false).unwrap();
    match answer {
        Ok(n) => {
            assert_eq!(n, 1, "a connection that should wait was closed");
            true
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("a connection that should wait has failed: {error}"),
    }
}

#[test]
fn of_300_connections_256_work_and_the_rest_wait() {
    let upstream = FakeUpstream::start();
    let tunnel = tunnel(&upstream);
    let mut waiting: Vec<_> = (0..300).map(|_| connect(&tunnel, b"x")).collect();
    let mut working = Vec::new();
    let until = Instant::now() + LIMIT;
    // Waits until so many more have had their answer.
    let answered = |waiting: &mut Vec<TcpStream>, count: usize| {
        let mut answered = Vec::new();
        while answered.len() < count {
            assert!(Instant::now() < until, "{} of {count} answered", answered.len());
            let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(waiting).into_iter().partition(has_answer);
            answered.extend(ready);
            *waiting = rest;
            std::thread::yield_now();
        }
        answered
    };
    working.extend(answered(&mut waiting, STREAMS));
    assert_eq!((working.len(), waiting.len()), (STREAMS, 300 - STREAMS));
    // Some leave, as many come; none fails.
    working.drain(..waiting.len());
    let more = waiting.len();
    working.extend(answered(&mut waiting, more));
    assert_eq!(upstream.most(), STREAMS);
    for connection in &mut working {
        connection.write_all(b"y").unwrap();
        let mut back = [0];
        connection.read_exact(&mut back).unwrap();
        assert_eq!(back, *b"y");
    }
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
    // The upstream never reads: it is busy sending what nobody reads.
    let stalled = connect(&tunnel, b"B");
    stalled.set_nonblocking(true).unwrap();
    let block = vec![0; 64 * 1024];
    let mut working = connect(&tunnel, b"x");
    working.read_exact(&mut [0]).unwrap();
    let mut taken = 0;
    // Every round trip of the working connection gives the stalled one's bytes time to go where they can.
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
    // A pipe that is never read: kubectl stops reading, and so on down to the pod.
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
