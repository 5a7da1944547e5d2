//! The audit log: its lines, and what happens when they cannot be written.

use std::{
    fs, io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use mykube_agent_gateway::{Audit, AuditSettings, ClientEvent, Gateway, Policy};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, sync::watch};

use crate::setup::{Log, Setup};

fn lines(path: &std::path::Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_line_says_who_did_what() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    let target = "/apis/apps/v1/namespaces/a/deployments/d/scale";
    let answer = client.ask("GET", target, "User-Agent: kubectl/v1\u{1b}[31m\r\n".replace('\u{1b}', "").as_str()).await;
    let mut refused = setup.client_under(Policy { read_only: true, ..Policy::default() });
    refused.ask("DELETE", "/api/v1/nodes/n", "").await;
    refused.get("/healthz/%zz").await;
    let lines = setup.log.wait(3).await;
    let mut line = lines[0].clone();
    let time = line["time"].take();
    assert!(time.as_str().unwrap().ends_with('Z') && time.as_str().unwrap().starts_with("20"), "{time}");
    assert_eq!(time.as_str().unwrap().len(), "2026-01-31T12:00:00.123Z".len(), "{time}");
    assert!(line["duration_ms"].take().is_u64());
    assert_eq!(line["audit_id"].take(), answer.header("audit-id").unwrap().as_str());
    assert_eq!(
        line,
        json!({
            "time": null, "event": "request", "client": "laptop", "client_id": 7, "audit_id": null, "method": "GET", "verb": "get",
            "api_group": "apps", "api_version": "v1", "resource": "deployments", "subresource": "scale",
            "namespace": "a", "name": "d", "status": 200, "decision": "allowed", "bytes_in": 0,
            "bytes_out": answer.body.len(), "duration_ms": null, "end": "complete", "user_agent": "kubectl/v1[31m",
        })
    );
    assert_eq!((&lines[1]["status"], &lines[1]["decision"]), (&403.into(), &"refused".into()));
    assert_eq!(lines[1]["reason"], "mykube: read-only: delete of nodes is refused");
    assert_eq!((&lines[2]["status"], &lines[2]["path"]), (&400.into(), &"/healthz/%zz".into()));
    assert!(lines[2].get("verb").is_none(), "{}", lines[2]);
}

/// Characters that must not stand in a line: a terminal would obey them, or show something else.
fn moves_a_terminal(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}')
}

#[tokio::test]
async fn nothing_raw_and_nothing_cut_in_silence() {
    let mut setup = Setup::plain().await;
    let (evil, escaped) = ("\u{9b}31m\u{202e}", "31m%E2%80%AE");
    let long = "x".repeat(300);
    let groups: String = (0..40).map(|n| format!("Impersonate-Group: g{n}\r\n")).collect();
    let headers = format!(
        "User-Agent: a{evil}\r\nImpersonate-User: ann{evil}\r\nImpersonate-Extra-A: {evil}\r\n{groups}Cookie: {evil}\r\n"
    );
    let words: String = (0..40).map(|n| format!("&command=w{n}%C2%9B{escaped}")).collect();
    let deny_all = Policy { allow: Some(Vec::new()), ..Policy::default() };
    for policy in [Policy::default(), deny_all] {
        let mut client = setup.client_under(policy);
        for target in [
            format!("/api/v1/namespaces/n{escaped}/pods/{long}/exec/{long}?a=b{words}&command={long}"),
            format!("/apis/g{escaped}/v{escaped}/namespaces/n/r{escaped}/p{escaped}/s{escaped}/t{escaped}"),
            format!("/other/{escaped}{}", long.repeat(4)),
            format!("/broken/{escaped}%zz{}", long.repeat(4)),
        ] {
            client.ask("GET", &target, &headers).await;
        }
    }
    let lines = setup.log.wait(8).await;
    for line in &lines {
        let text = line.to_string();
        assert!(!text.contains(moves_a_terminal), "{text:?}");
        let has = |field: &str| line["shortened"].as_array().unwrap().contains(&field.into());
        for field in line.as_object().unwrap().keys() {
            let value = &line[field];
            let ends = |value: &Value| value.as_str().is_some_and(|text| text.ends_with('…'));
            let cut = ends(value) || value.as_array().is_some_and(|words| words.iter().any(ends));
            assert!(!cut || has(field), "{field} of {text}");
        }
        assert!(has("user_agent"), "{text}");
    }
    let exec = &lines[0];
    assert_eq!(exec["impersonated"], "ann31m");
    for field in ["namespace", "name", "subpath", "command", "impersonated", "impersonated_groups"] {
        let shortened = exec["shortened"].as_array().unwrap().contains(&field.into());
        assert_eq!(shortened, field != "subpath", "{field}: {exec}");
    }
    assert_eq!(exec["command"].as_array().unwrap().len(), 33);
    assert_eq!((&exec["command"][31], &exec["command"][32]), (&"w3131m".into(), &"…".into()));
    assert_eq!(exec["impersonated_groups"][32], "…");
    assert!(exec["name"].as_str().unwrap().ends_with("x…"), "{exec}");
    assert!(lines[2]["path"].as_str().unwrap().ends_with("x…"), "{}", lines[2]);
    // An unshortened value has no mark.
    setup.client().get("/api/v1/namespaces/a/pods").await;
    assert!(setup.log.wait(9).await[8].get("shortened").is_none());
}

#[tokio::test]
async fn what_was_asked_of_a_proxy_and_as_whom() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    for (method, target, headers) in [
        ("GET", "/api/v1/nodes/n/proxy/run/kube-system/etcd/etcd?cmd=id&other=1", ""),
        ("GET", "/api/v1/namespaces/a/services/https:vault:8200/proxy/v1/secret/data?token=hunter2", ""),
        ("GET", "/api/v1/proxy/nodes/n/exec/a/p/c?command=sh&command=-c", ""),
        ("GET", "/api", "Impersonate_User: admin\r\n"),
        ("GET", "/api", "Impersonate-User: ann\r\nImpersonate_User: admin\r\nImpersonate-Group: system:masters\r\n"),
        ("GET", "/api", "Impersonate-User: ann\r\nImpersonate-User: admin\r\n"),
    ] {
        client.ask(method, target, headers).await;
    }
    let lines = setup.log.wait(6).await;
    assert_eq!((&lines[0]["subpath"], &lines[0]["command"]), (&"run/kube-system/etcd/etcd".into(), &json!(["id"])));
    assert_eq!((&lines[1]["subpath"], lines[1].get("command")), (&"v1/secret/data".into(), None));
    assert_eq!((&lines[2]["subpath"], &lines[2]["command"]), (&"exec/a/p/c".into(), &json!(["sh", "-c"])));
    assert!(!format!("{lines:?}").contains("hunter2"));
    assert_eq!((lines[3].get("impersonated"), &lines[3]["removed"]), (None, &json!(["impersonate_*"])));
    assert_eq!(
        (&lines[4]["impersonated"], &lines[4]["impersonated_groups"]),
        (&"ann".into(), &json!(["system:masters"]))
    );
    assert_eq!((&lines[5]["status"], lines[5].get("impersonated")), (&400.into(), None));
    assert!(setup.api.seen().iter().all(|seen| seen.headers.get("impersonate_user").is_none()));
}

#[tokio::test]
async fn what_is_no_request_is_written_too() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    client.send(format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(1_000_000))).await;
    assert_eq!(client.answer().await.status, 200, "1 MB is below the limit");
    client.send(format!("PUT /a?b HTTP/1.1\r\nX-Long: {}", "x".repeat(1_060_000))).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection").as_deref()), (431, Some("close")));
    assert_eq!(answer.message(), "mykube: the request has a head of more than 1024 KiB (--header-limit)");
    let line = setup.log.wait(2).await.remove(1);
    assert_eq!((&line["method"], &line["path"], &line["status"]), (&"PUT".into(), &"/a".into(), &431.into()));
    assert_eq!((&line["decision"], &line["reason"]), (&"refused".into(), &answer.message().into()));
    // The line leaves out what the client did not send.
    client = setup.client();
    client.send("X".repeat(1_060_000)).await;
    assert_eq!(client.answer().await.status, 431);
    let line = setup.log.wait(3).await.remove(2);
    assert_eq!((line.get("method"), line.get("path"), &line["status"]), (None, None, &431.into()));
    setup.log.clear();
    let mut client = setup.client();
    client.send("GET /api HTTP/1.1\r\nHost: x\r\n\r\nDELETE /api/v1/nodes/n?a=b HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((client.answer().await.status, client.answer().await.status), (200, 400));
    let line = setup.log.wait(2).await.remove(1);
    assert_eq!((&line["method"], &line["path"]), (&"DELETE".into(), &"/api/v1/nodes/n".into()));
    // It also leaves out bytes that may be a body.
    client = setup.client();
    client.send("GET /api HTTP/1.1\r\nHost: x\r\n\r\nhunter2 is the password").await;
    assert_eq!((client.answer().await.status, client.answer().await.status), (200, 400));
    let line = setup.log.wait(4).await.remove(3);
    assert_eq!((line.get("method"), line.get("path")), (None, None));
    setup.log.clear();
    let mut client = setup.client();
    client.send("SSH-2.0-OpenSSH\r\n\r\n").await;
    assert_eq!(client.answer().await.message(), "mykube: this is not HTTP/1.1");
    let lines = setup.log.wait(1).await;
    assert_eq!((&lines[0]["event"], &lines[0]["client"]), (&"refused".into(), &"laptop".into()));
    assert_eq!(lines[0]["reason"], "a request: not HTTP/1.1");
}

#[tokio::test]
async fn clients_come_and_go_in_a_file_that_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    fs::write(&path, "{\"event\":\"earlier\"}\n").unwrap();
    let audit = Audit::file(&path, AuditSettings::default()).unwrap();
    audit.client("ann", Some(3), ClientEvent::Paired).await.unwrap();
    audit.client("ann\u{202e}\n", Some(3), ClientEvent::Left("gone")).await.unwrap();
    audit.flush().await;
    let written = lines(&path);
    assert_eq!(
        written.iter().map(|line| line["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["earlier", "paired", "left"]
    );
    assert_eq!((&written[2]["client"], &written[2]["reason"]), (&"ann".into(), &"gone".into()));
    assert_eq!((&written[1]["client_id"], &written[2]["shortened"]), (&3.into(), &json!(["client"])));

    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    audit.client("bob", Some(3), ClientEvent::Refused("wrong code")).await.unwrap();
    audit.flush().await;
    assert_eq!(lines(&path).len(), 1);
    assert_eq!(lines(&dir.path().join("audit.log.1")).len(), 3);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
}

/// A disk that writes nothing until the test lets it.
#[derive(Clone)]
struct Stuck(Arc<(Mutex<bool>, Condvar)>, watch::Sender<bool>, Log);

impl Stuck {
    fn let_go(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl io::Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.send_replace(true);
        let free = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(free, |free| !*free).unwrap());
        self.2.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_let_through() {
    let mut setup = Setup::plain().await;
    let disk = Stuck(Arc::default(), watch::Sender::new(false), Log::new());
    let settings = AuditSettings { lines: 2, patience: Duration::ZERO };
    let audit = Audit::writer(disk.clone(), settings).unwrap();
    audit.client("x", Some(3), ClientEvent::Paired).await.unwrap();
    disk.1.subscribe().wait_for(|begun| *begun).await.unwrap();
    let full = loop {
        if let Err(full) = audit.client("x", Some(3), ClientEvent::Paired).await {
            break full;
        }
    };
    setup.gateway = Gateway::new(setup.forwarder.clone(), audit.clone());
    let mut client = setup.client();
    let answer = client.get("/api/v1/nodes").await;
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains(&full.to_string()), "{}", answer.message());
    assert!(setup.api.seen().is_empty());
    disk.let_go();
    audit.flush().await;
    assert_eq!(client.get("/api/v1/nodes").await.status, 200);
}

#[tokio::test]
async fn what_is_no_request_is_answered_when_it_is_written() {
    let mut setup = Setup::plain().await;
    let disk = Stuck(Arc::default(), watch::Sender::new(false), Log::new());
    let settings = AuditSettings { lines: 1, patience: Duration::from_secs(600) };
    let audit = Audit::writer(disk.clone(), settings).unwrap();
    // One line is being written and another one waits: there is no room for a third.
    audit.client("x", Some(3), ClientEvent::Paired).await.unwrap();
    disk.1.subscribe().wait_for(|begun| *begun).await.unwrap();
    audit.client("x", Some(3), ClientEvent::Paired).await.unwrap();
    setup.gateway = Gateway::new(setup.forwarder.clone(), audit.clone());
    let mut client = setup.client();
    client.send("SSH-2.0-OpenSSH\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert!(client.answer_within_turns().await.is_none(), "nothing passes unwritten");
    disk.let_go();
    assert_eq!(client.answer().await.message(), "mykube: this is not HTTP/1.1");
    audit.flush().await;
    assert_eq!(disk.2.lines()[2]["reason"], "a request: not HTTP/1.1");
}
