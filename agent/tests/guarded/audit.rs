//! The audit log: what is written, and what happens when it cannot be.

use std::{
    fs, io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use mykube_agent::guarded::{Audit, AuditSettings, ClientEvent, Gateway, Policy};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::setup::Setup;

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
    assert!(line["duration_ms"].take().is_u64());
    assert_eq!(line["audit_id"].take(), answer.header("audit-id").unwrap().as_str());
    assert_eq!(
        line,
        json!({
            "time": null, "event": "request", "client": "laptop", "audit_id": null, "method": "GET", "verb": "get",
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
    let mut client = setup.client();
    client.send("SSH-2.0-OpenSSH\r\n\r\n").await;
    assert_eq!(client.answer().await.message(), "mykube: this is not HTTP/1.1");
    let lines = setup.log.wait(3).await;
    assert_eq!((&lines[2]["event"], &lines[2]["client"]), (&"refused".into(), &"laptop".into()));
    assert_eq!(lines[2]["reason"], "a request: not HTTP/1.1");
}

#[tokio::test]
async fn clients_come_and_go_in_a_file_that_rotates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    fs::write(&path, "{\"event\":\"earlier\"}\n").unwrap();
    let audit = Audit::file(&path, AuditSettings::default()).unwrap();
    audit.client("ann", ClientEvent::Paired).await.unwrap();
    audit.client("ann\u{202e}\n", ClientEvent::Left("gone")).await.unwrap();
    audit.flush().await;
    let written = lines(&path);
    assert_eq!(
        written.iter().map(|line| line["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["earlier", "paired", "left"]
    );
    assert_eq!((&written[2]["client"], &written[2]["reason"]), (&"ann".into(), &"gone".into()));

    fs::rename(&path, dir.path().join("audit.log.1")).unwrap();
    audit.client("bob", ClientEvent::Refused("wrong code")).await.unwrap();
    audit.flush().await;
    assert_eq!(lines(&path).len(), 1);
    assert_eq!(lines(&dir.path().join("audit.log.1")).len(), 3);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
}

/// A disk that takes nothing until it is let.
#[derive(Clone)]
struct Stuck(Arc<(Mutex<bool>, Condvar)>, watch::Sender<bool>);

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
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_let_through() {
    let mut setup = Setup::plain().await;
    let disk = Stuck(Arc::default(), watch::Sender::new(false));
    let settings = AuditSettings { lines: 2, patience: Duration::ZERO };
    let audit = Audit::writer(disk.clone(), settings).unwrap();
    audit.client("x", ClientEvent::Paired).await.unwrap();
    disk.1.subscribe().wait_for(|begun| *begun).await.unwrap();
    let full = loop {
        if let Err(full) = audit.client("x", ClientEvent::Paired).await {
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
