//! Readers that are late or never read, and people who type early: neither holds anything else up, and no question gets
//! an answer that was typed before it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);

/// A command with an environment of its own.
fn mykube(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
    command.args(args).env_clear().env("HOME", home).env("XDG_RUNTIME_DIR", home).env("TERM", "dumb");
    command.env("MYKUBE_KUBECONFIG_DIR", home).env("PATH", std::env::var_os("PATH").unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Killed when it is dropped.
struct Running(Child);

impl Running {
    fn stop(&self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
    }

    /// Its exit code.
    fn code(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(start.elapsed() < DEADLINE, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first event of this name.
fn event(lines: &mut impl Iterator<Item = std::io::Result<String>>, name: &str) -> Value {
    let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    events.find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn relay(home: &Path) -> (Running, String) {
    let args = ["relay", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir", home.to_str().unwrap()];
    let mut relay = mykube(home, &args).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(relay.stdout.take().unwrap()).lines();
    let url = event(&mut lines, "listening")["url"].as_str().unwrap().to_owned();
    (Running(relay), url)
}

/// A kubeconfig of a cluster that cannot be reached.
fn kubeconfig(home: &Path) -> String {
    let path = home.join("kubeconfig");
    fs::write(
        &path,
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
         clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}",
    )
    .unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs `mykube sessions`, once there is a server to ask.
fn sessions(home: &Path, server: u32, args: &[&str]) -> Output {
    let start = Instant::now();
    while !home.join(format!("mykube/server-{server}.sock")).exists() {
        assert!(start.elapsed() < DEADLINE, "no server");
        std::thread::yield_now();
    }
    mykube(home, &[&["sessions", "--output", "json"], args].concat()).output().unwrap()
}

fn client(home: &Path, url: &str, code: &str) -> (Running, ChildStdin, BufReader<ChildStdout>) {
    let args = ["client", "--relay-url", url, "--no-shell", "--output", "json"];
    let mut client = mykube(home, &args).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    writeln!(input, "{code}").unwrap();
    let out = BufReader::new(client.stdout.take().unwrap());
    (Running(client), input, out)
}

#[test]
fn events_that_nobody_reads_hold_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (_relay, url) = relay(home);
    let (unread, mut full) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&full).unwrap();
    fcntl_setfl(&full, flags | OFlags::NONBLOCK).unwrap();
    while full.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&full, flags).unwrap();

    let kubeconfig = kubeconfig(home);
    let mut server = mykube(home, &["server", "--relay-url", &url, "--kubeconfig", &kubeconfig, "--output", "json"]);
    server.args(["--share-credentials", "--max-clients", "2"]).stdout(full);
    let mut server = Running(server.spawn().unwrap());
    let mut said = server.0.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut all = Vec::new();
        said.read_to_end(&mut all).unwrap();
        text(&all)
    });
    let invited = sessions(home, server.0.id(), &["new", "--name", "alice"]);
    assert!(invited.status.success(), "{}", text(&invited.stderr));
    let invited: Value = serde_json::from_slice(&invited.stdout).unwrap();
    let (mut client, _input, out) = client(home, &url, invited["code"].as_str().unwrap());
    event(&mut out.lines(), "connected");
    let listed = text(&sessions(home, server.0.id(), &["list"]).stdout);
    assert!(listed.lines().any(|line| line.contains(r#""name":"alice","state":"connected""#)), "{listed}");

    server.stop();
    assert_eq!(server.code(), 0);
    let said = said.join().unwrap();
    assert!(said.contains("the last of what was printed on standard output was not read, and is lost"), "{said}");
    assert_eq!(client.code(), 5, "it has heard the server's goodbye");
    drop(unread);
}

/// A program on a terminal of its own.
struct OnTerminal {
    running: Running,
    terminal: File,
    /// The output so far, until the terminal is closed.
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl OnTerminal {
    /// Starts it where `typed` was typed beforehand.
    fn start(command: &Command, typed: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(path).unwrap();
        let mut terminal = File::from(master);
        terminal.write_all(typed.as_bytes()).unwrap();
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args()).env_clear();
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let running = Running(session.spawn().unwrap());
        let (show, shown) = channel();
        let mut reading = terminal.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = reading.read(&mut buffer) {
                if n == 0 || show.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { running, terminal, shown, seen: String::new() }
    }

    /// Reads until `text` comes; returns the output before it. The next call searches behind it.
    fn expect(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(wanted) {
                let passed: String = self.seen.drain(..at + wanted.len()).collect();
                return passed[..at].to_owned();
            }
            match self.shown.recv_timeout(DEADLINE) {
                Ok(bytes) => self.seen.push_str(&text(&bytes)),
                Err(why) => panic!("no {wanted:?} in {:?}: {why}", self.seen),
            }
        }
    }

    fn write(&mut self, typed: &str) {
        self.terminal.write_all(typed.as_bytes()).unwrap();
    }
}

const CODE: &str = "Code shown by `mykube server`: ";
const ANOTHER: &str = "Make a new code? [yes/no] ";

#[test]
fn what_was_typed_before_a_question_is_not_its_answer() {
    let home = tempfile::tempdir().unwrap();
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let command = mykube(home.path(), &["client", "--relay-url", &nobody, "--no-shell"]);
    let mut client = OnTerminal::start(&command, "48320417\n");
    client.expect(CODE);
    client.write("1\n");
    client.expect("1 were typed");
    client.expect(CODE);
    client.write("48320417\n");
    client.expect("cannot reach");
    assert_eq!(client.running.code(), 4);
}

#[test]
fn what_was_typed_for_a_question_that_is_withdrawn_answers_no_other() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (_relay, url) = relay(home);
    let kubeconfig = kubeconfig(home);
    let args = ["server", "--relay-url", &url, "--kubeconfig", &kubeconfig, "--share-credentials", "--stay"];
    let mut server = OnTerminal::start(&mykube(home, &args), "");
    server.expect("Code: ");
    let code: String = server.expect("\r\n").chars().filter(char::is_ascii_digit).collect();
    let (begin, last) = code.split_at(code.len() - 1);
    let wrong = format!("{begin}{}", (last.parse::<u8>().unwrap() + 1) % 10);
    for _ in 0..3 {
        let (mut guessing, _input, _out) = client(home, &url, &wrong);
        assert_eq!(guessing.code(), 3);
    }
    server.expect(ANOTHER);
    server.write("ye");
    let dir = fs::read_dir(home.join("mykube")).unwrap();
    let socket = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next().unwrap();
    let id = socket.trim_start_matches("server-").trim_end_matches(".sock").parse().unwrap();
    assert!(sessions(home, id, &["kill", "1"]).status.success());
    server.expect("(no answer is needed any more)");
    server.expect(ANOTHER);
    server.write("s\n");
    server.expect("Please answer yes or no.");
    server.expect(ANOTHER);
    server.write("no\n");
    assert_eq!(server.running.code(), 3);
}
