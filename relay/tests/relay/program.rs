//! `mykube-relay` as a process.

use std::process::{Output, Stdio};

use mykube_protocol::FromAgent;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::support::{TestRelay, bounded};

/// A relay of its own process, which ends with the test.
struct Program {
    child: Child,
    url: String,
}

fn command(dir: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
    command.env_clear().args(["--listen", "127.0.0.1:0"]).args(args).arg("--data-dir").arg(dir.path().join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn start(dir: &tempfile::TempDir, args: &[&str]) -> Program {
    let mut child = command(dir, &[args, &["--output", "json"]].concat()).spawn().unwrap();
    let mut line = String::new();
    bounded(BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line)).await.unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "listening");
    Program { child, url: event["url"].as_str().unwrap().to_owned() }
}

impl Program {
    async fn terminate(self) -> Output {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        bounded(self.child.wait_with_output()).await.unwrap()
    }
}

#[tokio::test]
async fn sigterm_drains_and_no_secret_is_in_any_log() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let program = start(&dir, &["-vvv", "--log-format", format, "--plain-form"]).await;
        let addr = program.url.strip_prefix("http://").unwrap().parse().unwrap();
        // The helpers of a relay in this process work for one that is not.
        let relay = TestRelay { addr, ..TestRelay::start().await };
        let (mut agent, mut client, created, claim) = relay.meet().await;
        agent.send(FromAgent::Paired(claim.attempt).to_string()).await;
        let tickets = [agent.ticket().await, client.ticket().await];
        client.binary(&b"\x05payload-canary"[..]).await;
        agent.bytes().await;
        let plain = relay.post("/api/sessions", "{}").await.body;
        let plain: serde_json::Value = serde_json::from_str(&plain).unwrap();
        let code = plain["code"].as_str().unwrap();
        relay.post("/api/pair", &format!(r#"{{"code":"{code}"}}"#)).await;
        relay.post("/api/pair", r#"{"code":"93820417"}"#).await;

        let (output, agent, client) = tokio::join!(program.terminate(), agent.closed(), client.closed());
        assert!(output.status.success(), "{output:?}");
        assert_eq!((agent.0, client.0), (1012, 1012));
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(&created.session_id.to_string()), "the log is about something:\n{log}");
        let json = log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!(json, format == "json");
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
    let addr = program.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut relay = TestRelay { addr, ..TestRelay::start().await };
    let pair = relay.pair().await;
    let mut tickets = [("agent", pair.agent_ticket), ("client", pair.client_ticket)];
    for round in 0..4 {
        program.child.kill().await.unwrap();
        program = start(&dir, &[]).await;
        relay.addr = program.url.strip_prefix("http://").unwrap().parse().unwrap();
        // Either may come first, with the ticket that the relay before gave it.
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
