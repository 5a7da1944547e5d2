//! Much data over a slow line, and other commands beside it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use mykube_lab::{ForwardOptions, Forwarder};
use sha2::{Digest as _, Sha256};

use crate::support::{Cluster, Mykube, Namespace, Process, Relay, Running, Way, cluster::LINGERING_TAR, noise};

const MIB: u64 = 1024 * 1024;
const BLOCK: usize = 1024 * 1024;

/// The most memory each of the three processes may ever have held, 1 GiB or not.
const MEMORY: u64 = 64 * MIB;

/// Bytes a second each way: 200 Mbit/s.
const RATE: u64 = 25_000_000;

#[test]
fn others_are_answered_while_128_mib_are_copied_over_a_slow_line() {
    copied(128 * MIB);
}

#[test]
#[ignore = "takes two minutes, and 3 GiB of disk: just cp-1g"]
fn others_are_answered_while_1_gib_is_copied_over_a_slow_line() {
    copied(1024 * MIB);
}

/// kubectl cp of `len` bytes to a pod and back through guarded mode, on a slow line between client and relay.
fn copied(len: u64) {
    let namespace = Namespace::create(&Cluster::get(), "copy");
    let relay = Relay::start();
    let mut options = ForwardOptions::to(relay.address());
    options.rate = Some(RATE);
    let line = Forwarder::start(TcpListener::bind("127.0.0.1:0").unwrap(), options).unwrap();
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig).start();
    let slow = relay.url.replace(&relay.address().to_string(), &line.address().to_string());
    let client = Mykube::client(&slow).start_with(&server.code());
    let way = namespace.through("guarded", &client.kubeconfig());
    let image = format!("--image={}", namespace.cluster.image);
    let command = format!("{LINGERING_TAR}; sleep 100000");
    way.kubectl(&["run", "box", &image, "--", "sh", "-c", &command]).ok();
    way.kubectl(&["wait", "--for=condition=Ready", "pod/box", "--timeout=60s"]).ok();

    let (source, back) = (way.sandbox().home().join("source"), way.sandbox().home().join("back"));
    let expected = write_noise(&source, len).unwrap();
    let there = beside(&way, way.start(&["cp", source.to_str().unwrap(), "box:/tmp/copied"]));
    let carried_there = line.counts().bytes;
    let sum = way.start(&["exec", "box", "--", "sha256sum", "/tmp/copied"]).done_within(LONG).ok();
    assert!(sum.starts_with(&expected), "{sum}, not {expected}");
    let and_back = beside(&way, way.start(&["cp", "box:/tmp/copied", back.to_str().unwrap()]));
    assert_eq!(hash(File::open(&back).unwrap()).unwrap(), expected);

    let carried = [carried_there, line.counts().bytes - carried_there];
    assert!(carried.iter().all(|carried| *carried > len), "all of it went over the slow line: {carried:?}");
    for (name, end) in [("client", &client), ("server", &server), ("relay", &relay.running)] {
        let most = most_memory(end);
        println!("{name}: {} MiB at most", most / MIB);
        assert!(most < MEMORY, "{name} has held {} MiB", most / MIB);
    }
    for (direction, Copied { took, answered, slowest }) in [("there", there), ("back", and_back)] {
        println!("{direction}: {took:.1?}, {answered} kubectl get beside it, the slowest in {slowest:.1?}");
    }
}

const LONG: Duration = Duration::from_secs(300);

struct Copied {
    took: Duration,
    /// How many `kubectl get`, one after the other, were answered meanwhile.
    answered: usize,
    slowest: Duration,
}

fn beside(way: &Way, cp: Process) -> Copied {
    let start = Instant::now();
    let mut copied = Copied { took: Duration::ZERO, answered: 0, slowest: Duration::ZERO };
    loop {
        let asked = Instant::now();
        assert_eq!(way.kubectl(&["get", "pod", "box", "-o", "name"]).ok(), "pod/box\n");
        if !cp.is_running() {
            break;
        }
        copied.answered += 1;
        copied.slowest = copied.slowest.max(asked.elapsed());
        assert!(start.elapsed() < LONG, "the copy does not end");
    }
    cp.done().ok();
    copied.took = start.elapsed();
    // At most two of these run only because of the copy: one that learns of its end while it runs, one that was running
    // at its end.
    assert!(copied.answered > 2, "{} answers while it ran for {:?}", copied.answered, copied.took);
    copied
}

fn write_noise(path: &Path, len: u64) -> io::Result<String> {
    let block = noise(BLOCK);
    let mut file = File::create(path)?;
    for number in 0..len / BLOCK as u64 {
        // So that exchanged blocks are noticed.
        file.write_all(&number.to_le_bytes())?;
        file.write_all(&block[8..])?;
    }
    file.sync_all()?;
    hash(File::open(path)?)
}

fn hash(mut file: File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&block[..n]),
        }
    }
}

/// In bytes.
fn most_memory(end: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", end.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a high-water mark");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
