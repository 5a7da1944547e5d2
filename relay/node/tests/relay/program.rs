//! `mykube-relay` as a process.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Output, Stdio},
};

use mykube_protocol::FromAgent;
use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    operations::{certificate, certificate_until, handshake},
    support::{TestRelay, bounded, until, write_file},
};

/// A relay in a process of its own, which ends with the test.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) url: String,
}

pub(crate) fn command(dir: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
    command.env_clear().args(["--listen", "127.0.0.1:0"]).args(args).arg("--data-dir").arg(dir.path().join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn start(dir: &tempfile::TempDir, args: &[&str]) -> Program {
    listening(command(dir, &[args, &["--output", "json"]].concat())).await
}

pub(crate) async fn listening(mut command: Command) -> Program {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    bounded(BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "listening");
    Program { child, url: event["url"].as_str().unwrap().to_owned() }
}

impl Program {
    fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn address(&self) -> std::net::SocketAddr {
        self.url.split_once("://").unwrap().1.parse().unwrap()
    }

    pub(crate) async fn terminate(self) -> Output {
        self.signal(Signal::TERM);
        bounded(self.child.wait_with_output()).await.unwrap()
    }
}

#[tokio::test]
async fn sigterm_drains_and_no_secret_is_in_any_log() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let program = start(&dir, &["-vvv", "--log-format", format, "--legacy"]).await;
        let addr = program.address();
        // The helpers for a relay in this process work for one in another too.
        let relay = TestRelay { addr, ..TestRelay::start().await };
        let (mut agent, mut client, created, claim) = relay.meet().await;
        agent.send(FromAgent::Paired(claim.attempt).to_string()).await;
        let tickets = [agent.ticket().await, client.ticket().await];
        client.binary(&b"\x05payload-canary"[..]).await;
        agent.bytes().await;
        let legacy = relay.post("/api/sessions", "{}").await.body;
        let legacy: serde_json::Value = serde_json::from_str(&legacy).unwrap();
        let code = legacy["code"].as_str().unwrap();
        relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
        relay.post("/api/pair", r#"{"code":"93820417"}"#).await;

        let (output, agent, client) = tokio::join!(program.terminate(), agent.closed(), client.closed());
        assert!(output.status.success(), "{output:?}");
        assert_eq!((agent.0, client.0), (1012, 1012));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(&created.session_id.to_string()), "the log is about something:\n{log}");
        let json = log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!(json, format == "json");
        if json {
            let closed = |role| {
                let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                let mut closed = lines.filter(|line| line["message"] == "socket closed" && line["role"] == role);
                closed.next().map(|line| line["bytes"].clone())
            };
            assert_eq!([closed("client"), closed("agent")], [Some(15.into()), Some(0.into())], "payload forwarded");
        }
        let secrets = [created.ticket.expose(), claim.ticket.expose(), code, "93820417", "payload-canary"];
        for secret in secrets.into_iter().chain(tickets.iter().map(String::as_str)) {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
    }
}

#[tokio::test]
async fn mistakes_at_the_start_have_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let run = async |args: &[&str]| bounded(command(&dir, args).output()).await.unwrap();
    let unknown = run(&["--no-such-flag"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    let missing = run(&["--tls-cert", "/nonexistent/cert", "--tls-key", "/nonexistent/key"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nonexistent/cert"));

    let homeless = Command::new(env!("CARGO_BIN_EXE_mykube-relay")).env_clear().kill_on_drop(true).output();
    let homeless = bounded(homeless).await.unwrap();
    assert_eq!(homeless.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&homeless.stderr).contains("--data-dir"));
}

#[tokio::test]
async fn a_killed_relay_takes_its_sessions_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = start(&dir, &[]).await;
    let addr = program.address();
    let mut relay = TestRelay { addr, ..TestRelay::start().await };
    let pair = relay.pair().await;
    let mut tickets = [("agent", pair.agent_ticket), ("client", pair.client_ticket)];
    for round in 0..4 {
        program.child.kill().await.unwrap();
        program = start(&dir, &[]).await;
        relay.addr = program.address();
        // Either end may come first, with the ticket that the earlier relay gave it.
        let open = async |(role, ticket): &(&str, String)| {
            relay.open(&format!("/ws/{role}/{}", pair.session), &crate::support::bearer(ticket)).await
        };
        let mut first = open(&tickets[0]).await;
        tickets[0].1 = first.ticket().await;
        let mut second = open(&tickets[1]).await;
        assert_eq!(first.text().await, "peer:here:session");
        assert_eq!(second.text().await, "peer:here:session");
        tickets[1].1 = second.ticket().await;
        let frame = [5, round].repeat(1000);
        first.binary(frame.clone()).await;
        assert_eq!(second.bytes().await, frame);
        second.binary(frame.clone()).await;
        assert_eq!(first.bytes().await, frame);
        tickets.reverse();
    }
    assert!(program.terminate().await.status.success());
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_stop_the_relay_and_no_agent_fills_it() {
    let dir = tempfile::tempdir().unwrap();
    let program = start(&dir, &["-v", "--log-format", "json", "--api-rate", "0"]).await;
    let relay = TestRelay { addr: program.address(), ..TestRelay::start().await };
    // Each request is a log line, into a pipe that holds 64 KiB and that the test does not read.
    let lines = 1000;
    for _ in 0..lines {
        let mut stream = TcpStream::connect(relay.addr).await.unwrap();
        stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
        let _ = bounded(stream.read_to_end(&mut Vec::new())).await;
    }
    let (mut agent, mut client, _, claim) = relay.meet().await;
    for _ in 0..lines {
        agent.send(FromAgent::Burned.to_string()).await;
        agent.send(FromAgent::Refused(claim.attempt).to_string()).await;
    }
    assert_eq!(client.closed().await.0, 4401);
    agent.close().await;
    until(|| async {
        relay.call("GET", "/healthz", "", "").await.status == 200 && relay.post("/api/pair", "{}").await.status == 400
    })
    .await;
    let output = program.terminate().await;
    let log = String::from_utf8(output.stderr).unwrap();
    let count = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert!(count("connection ended") >= lines, "and a reader that comes late has all of it");
    assert_eq!((count("burned"), count("refused")), (1, 0), "what changed nothing is not in it");
}

fn tls(dir: &tempfile::TempDir) -> (Vec<String>, impl Fn(&crate::operations::Certificate) + use<>) {
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let args = ["--tls-cert".to_owned(), path(&cert), "--tls-key".to_owned(), path(&key)].to_vec();
    let put = move |made: &crate::operations::Certificate| {
        write_file(&cert, &made.cert);
        write_file(&key, &made.key);
    };
    (args, put)
}

#[tokio::test]
async fn sighup_has_a_relay_read_its_certificate_again_and_nothing_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (args, put) = tls(&dir);
    let (first, second) = (certificate(), certificate());
    put(&first);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(["--tls-reload-interval", "10h"]).collect();
    let program = start(&dir, &args).await;
    let mut before = handshake(program.address(), &first.der).await.unwrap();
    put(&second);
    program.signal(Signal::HUP);
    until(|| async { handshake(program.address(), &second.der).await.is_ok() }).await;
    before.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = bounded(before.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "what was open goes on");
    assert!(program.terminate().await.status.success());
}

#[tokio::test]
async fn a_signal_that_was_ignored_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    // As `nohup` starts it, and `&` in a shell without job control.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_mykube-relay")]);
    command.args(["--listen", "127.0.0.1:0", "--output", "json", "--data-dir"]).arg(dir.path().join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = listening(command).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id().unwrap())).unwrap();
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    let bits = [Signal::HUP, Signal::INT, Signal::TERM].map(|signal| 1 << (signal.as_raw() - 1));
    assert_eq!(bits.map(|bit| mask("SigIgn:") & bit != 0), [true, true, false]);
    assert_eq!(bits.map(|bit| mask("SigCgt:") & bit != 0), [false, false, true]);
    assert!(program.terminate().await.status.success());
}

#[tokio::test]
async fn a_relay_says_what_its_operator_has_to_know_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (args, put) = tls(&dir);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for (days, said) in [(-1, "has expired on"), (1, "expires on"), (3000, "")] {
        put(&certificate_until(days));
        let log = String::from_utf8(start(&dir, &args).await.terminate().await.stderr).unwrap();
        let about = |line: &&str| line.contains("the TLS certificate in") && line.contains("expire");
        assert_eq!(log.lines().filter(about).count(), usize::from(!said.is_empty()), "{log}");
        assert!(log.contains(said), "{log}");
    }
    let data = dir.path().join("data");
    for (mode, said) in [(0o700, 0), (0o1777, 0), (0o777, 1)] {
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
        let log = String::from_utf8(start(&dir, &[]).await.terminate().await.stderr).unwrap();
        assert_eq!(log.matches("other users may write to the relay's data directory").count(), said, "{log}");
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65_534), None).unwrap();
        let log = String::from_utf8(start(&dir, &[]).await.terminate().await.stderr).unwrap();
        assert_eq!(log.matches("is another user's (uid 65534)").count(), 1, "{log}");
    }
    let listens = async |args: &[&str], address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
        command.env_clear().args(["--output", "json", "--listen", address]).args(args);
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        listening(command).await.url
    };
    assert!(listens(&args, "0.0.0.0:0").await.starts_with("https://relay.test:"), "its certificate says whose it is");
    for every in [":0", "0", "[::]:0", "0.0.0.0:0", "localhost:0"] {
        let url = listens(&[], every).await;
        assert!(url.starts_with("http://127.0.0.1:") || url.starts_with("http://[::1]:"), "{every}: {url}");
    }
}
