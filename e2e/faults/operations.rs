//! The operations that run through the tunnel while it is hurt. Each checks every byte, and ends only when it is told
//! to or its work is done.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    flow::{Flow, Lines},
    scene::{COUNT, patiently},
    world::World,
};
use crate::support::{Process, Sandbox, Way, noise};

/// Where one operation runs.
pub(super) struct Stage<'a> {
    pub(super) world: &'a World,
    /// Its pod.
    pub(super) pod: &'a str,
    pub(super) flow: &'a Flow,
    /// It should end by itself, with its work done.
    pub(super) finish: &'a AtomicBool,
    /// No operation goes on after this.
    pub(super) deadline: Instant,
    /// The file that `cp` copies in.
    pub(super) source: &'a Source,
    /// SHA-256 of the file that `cp` copies out, which is as long.
    pub(super) sum_there: &'a str,
    /// The direct way to the API server.
    pub(super) direct: &'a Way,
    /// Variables beside those that the client says.
    pub(super) environment: &'a [(&'a str, &'a str)],
}

/// How an operation ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// All expected data came.
    pub(super) complete: bool,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// kubectl's exit code; `None` if it was stopped because its work was done.
    pub(super) code: Option<i32>,
    /// Its last line on standard error, if it failed.
    pub(super) said: String,
}

pub(super) type Operation = fn(&Stage<'_>) -> Outcome;

pub(super) const OPERATIONS: &[(&str, Operation)] = &[
    ("exec", exec),
    ("exec over WebSocket", exec_websocket),
    ("exec -i", exec_interactive),
    ("logs -f", logs),
    ("cp in", cp_in),
    ("cp out", cp_out),
    ("port-forward", port_forward),
    ("get -w", watch),
];

const COUNTED: i32 = 7;
/// The ports of the pod's echo.
const ECHO: u16 = 9000;
/// Makes kubectl use WebSockets where the client would have it use SPDY.
pub(super) const WEBSOCKET: &[(&str, &str)] = &[("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true")];
/// Time between the numbers that an operation sends.
const BEAT: Duration = Duration::from_millis(50);
/// Time between two looks at a copy's size, and how many bytes are progress.
const LOOK: Duration = Duration::from_millis(20);
const STEP: u64 = 16 * 1024;

fn exec(stage: &Stage<'_>) -> Outcome {
    counted(stage, &["exec", stage.pod, "--", "sh", "-c", COUNT], &[])
}

fn exec_websocket(stage: &Stage<'_>) -> Outcome {
    counted(stage, &["exec", stage.pod, "--", "sh", "-c", COUNT], WEBSOCKET)
}

fn counted(stage: &Stage<'_>, args: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let process = stage.world.kubectl(args, &[stage.environment, environment].concat());
    let (lines, outcome) = stage.lines(&process);
    Outcome { complete: lines.end.is_some() && outcome.code == Some(COUNTED), ..outcome }
}

/// Reads the pod's own log, until the pod ends.
fn logs(stage: &Stage<'_>) -> Outcome {
    let process = stage.world.kubectl(&["logs", "-f", stage.pod], stage.environment);
    let (lines, outcome) = stage.lines(&process);
    Outcome { complete: lines.end.is_some() && outcome.code == Some(0), ..outcome }
}

fn exec_interactive(stage: &Stage<'_>) -> Outcome {
    let mut process = stage.world.kubectl(&["exec", "-i", stage.pod, "--", "cat"], stage.environment);
    let mut input = process.take_input();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stage.is_over() && process.is_running() {
                let end = stage.finish.load(Ordering::SeqCst);
                let written = input.write_all(format!("{}{number:08}\n", if end { "end " } else { "" }).as_bytes());
                if end || written.is_err() {
                    break;
                }
                number += 1;
                thread::sleep(BEAT);
            }
            drop(input);
        });
        let (lines, outcome) = stage.lines(&process);
        Outcome { complete: lines.end.is_some() && outcome.code == Some(0), ..outcome }
    })
}

fn watch(stage: &Stage<'_>) -> Outcome {
    let number = "jsonpath={.data.number}{\"\\n\"}";
    let process =
        stage.world.kubectl(&["get", "configmap", "-l", "counter=yes", "-w", "-o", number], stage.environment);
    let mut lines = Lines::default();
    let done = process.follow(stage.deadline, |state| {
        if lines.take(&state.stdout) {
            stage.flow.arrived();
        }
        stage.finish.load(Ordering::SeqCst)
    });
    let mut outcome = if done { Outcome { complete: true, ..Outcome::default() } } else { stage.end(&process) };
    (outcome.lost, outcome.doubled) = (lines.lost, lines.doubled);
    process.signal(Signal::INT);
    outcome
}

fn cp_in(stage: &Stage<'_>) -> Outcome {
    let to = format!("{}:/tmp/in", stage.pod);
    // How much has arrived in the pod, asked directly: much of what kubectl has sent is still under way.
    let look = "while [ ! -e /tmp/stop ]; do stat -c %s /tmp/in 2>/dev/null; sleep 0.1; done";
    let there = stage.direct.start(&["exec", stage.pod, "--", "sh", "-c", look]);
    let process = stage.world.kubectl(&["cp", stage.source.path.to_str().unwrap(), &to], stage.environment);
    let outcome = stage.copy(&process, || {
        let said = there.stdout();
        said.lines().last().and_then(|line| line.parse().ok()).unwrap_or(0)
    });
    if outcome.code != Some(0) {
        return outcome;
    }
    let there = patiently(stage.direct, &["exec", stage.pod, "--", "sha256sum", "/tmp/in"]);
    Outcome { complete: there.starts_with(&stage.source.sum), ..outcome }
}

fn cp_out(stage: &Stage<'_>) -> Outcome {
    let to = stage.world.sandbox().home().join("out");
    let from = format!("{}:/tmp/source", stage.pod);
    let process = stage.world.kubectl(&["cp", &from, to.to_str().unwrap()], stage.environment);
    let mut told = false;
    let outcome = stage.copy(&process, || {
        let len = fs::metadata(&to).map_or(0, |meta| meta.len());
        if len == stage.source.bytes as u64 && !told {
            told = true;
            stage.direct.kubectl(&["exec", stage.pod, "--", "touch", "/tmp/copied"]).ok();
        }
        len
    });
    let complete = outcome.code == Some(0) && sum(&to) == stage.sum_there;
    let _ = fs::remove_file(&to);
    Outcome { complete, ..outcome }
}

/// `sha256sum` of a file of any size.
fn sum(path: &Path) -> String {
    use sha2::{Digest as _, Sha256};
    let Ok(mut file) = fs::File::open(path) else { return "no file".into() };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(n @ 1..) = file.read(&mut buffer) {
        hash.update(&buffer[..n]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn port_forward(stage: &Stage<'_>) -> Outcome {
    let port = format!(":{ECHO}");
    let process = stage.world.kubectl(&["port-forward", "--address", "127.0.0.1", stage.pod, &port], stage.environment);
    let local = process.wait("its port", |state| {
        let text = String::from_utf8_lossy(&state.stdout).into_owned();
        let (_, rest) = text.split_once("Forwarding from 127.0.0.1:")?;
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u16>().ok()
    });
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, local));
    let connection = stage.world.wires.client_net.enter(connect).unwrap().unwrap();
    // Outages last longer than other commands may take.
    connection.set_write_timeout(Some(stage.deadline - Instant::now())).unwrap();
    connection.set_read_timeout(Some(LOOK)).unwrap();
    // Unknown until the writer has ended.
    let sent_all = AtomicU64::new(u64::MAX);
    let mut words = Words::default();
    let all = thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut number = 0_u64;
            // A kilobyte each time.
            while !stage.finish.load(Ordering::SeqCst) && !stage.is_over() && process.is_running() {
                let block: Vec<u8> = (number..number + 128).flat_map(u64::to_be_bytes).collect();
                if (&connection).write_all(&block).is_err() {
                    break;
                }
                number += 128;
                thread::sleep(BEAT);
            }
            sent_all.store(number, Ordering::SeqCst);
        });
        let mut buffer = vec![0; 64 * 1024];
        while !stage.is_over() && words.next < sent_all.load(Ordering::SeqCst) {
            match (&connection).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    stage.flow.arrived();
                    words.take(&buffer[..n]);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        sent.join().expect("the writer does not panic");
        sent_all.load(Ordering::SeqCst)
    });
    let checked = Outcome { lost: words.lost, doubled: words.doubled, ..Outcome::default() };
    if words.next == all && process.is_running() {
        process.signal(Signal::INT);
        return Outcome { complete: true, ..checked };
    }
    let end = stage.end(&process);
    Outcome { code: end.code, said: end.said, ..checked }
}

/// Reads ascending numbers of eight bytes, in any pieces.
#[derive(Default)]
struct Words {
    kept: Vec<u8>,
    next: u64,
    lost: u64,
    doubled: u64,
}

impl Words {
    fn take(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let (words, rest) = self.kept.as_chunks::<8>();
        for word in words {
            let number = u64::from_be_bytes(*word);
            self.lost += number.saturating_sub(self.next) * 8;
            self.doubled += self.next.saturating_sub(number) * 8;
            self.next = number + 1;
        }
        self.kept = rest.to_vec();
    }
}

impl Stage<'_> {
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Counts lines until the process ends.
    fn lines(&self, process: &Process) -> (Lines, Outcome) {
        let mut lines = Lines::default();
        process.follow(self.deadline, |state| {
            if lines.take(&state.stdout) {
                self.flow.arrived();
            }
            false
        });
        let outcome = Outcome { lost: lines.lost, doubled: lines.doubled, ..self.end(process) };
        (lines, outcome)
    }

    /// Watches a copy's size until it ends.
    fn copy(&self, process: &Process, mut bytes: impl FnMut() -> u64) -> Outcome {
        let mut before = 0;
        while process.is_running() && !self.is_over() {
            let now = bytes();
            if now >= before + STEP {
                before = now;
                self.flow.arrived();
            }
            thread::sleep(LOOK);
        }
        self.end(process)
    }

    /// How the process ended, or that it still runs.
    fn end(&self, process: &Process) -> Outcome {
        let left = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        if !process.follow(Instant::now() + left, |_| false) && process.is_running() {
            let said = format!("hangs: {}", process.stderr().lines().last().unwrap_or_default());
            return Outcome { said, ..Outcome::default() };
        }
        let done = process.done();
        let said = done.stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        Outcome { code: Some(done.code), said, ..Outcome::default() }
    }
}

/// A file to copy in. All worlds share it.
pub(super) struct Source {
    path: PathBuf,
    pub(super) bytes: usize,
    /// Its SHA-256.
    sum: String,
}

impl Source {
    pub(super) fn make(sandbox: &Sandbox, bytes: usize) -> Self {
        let block = noise(bytes.min(16 << 20));
        let path = sandbox.file(&format!("source-{bytes}"), b"");
        let mut file = fs::File::create(&path).unwrap();
        // Each repetition differs from the others, so that a lost or moved piece is noticed.
        for number in 0..bytes / block.len() {
            let mut block = block.clone();
            block[..8].copy_from_slice(&(number as u64).to_be_bytes());
            file.write_all(&block).unwrap();
        }
        file.write_all(&block[..bytes % block.len()]).unwrap();
        let sum = sum(&path);
        Self { path, bytes, sum }
    }
}
