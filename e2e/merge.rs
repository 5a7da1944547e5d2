//! `--merge`: a context in the user's own kubeconfig while a session lasts.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Cluster, Mykube, Relay, Running, Sandbox,
    certs::Authority,
    cluster::{Way, kubeconfig},
    net::FakeUpstream,
};

const OWN: &str = "# mine\napiVersion: v1\nkind: Config\ncurrent-context: own\ncontexts:\n- name: own # odd\n  context: {cluster: c, user: u}\nclusters: []\nusers: []\n";

/// Relay and server, for a cluster that echoes: enough where no request is made.
pub(crate) fn ends() -> (Relay, Running, (FakeUpstream, Sandbox)) {
    let upstream = FakeUpstream::start();
    let sandbox = Sandbox::new();
    let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
    let cluster = json!({"server": format!("https://{}", upstream.address), "certificate-authority-data": ca});
    let path = sandbox.file("kubeconfig", kubeconfig("echo", &cluster, &json!({"token": "e2e"})).to_string());
    let relay = Relay::start();
    let server = Mykube::server(&relay.url, &path).start();
    (relay, server, (upstream, sandbox))
}

/// A client that merges, in a home with a kubeconfig.
fn client(command: Mykube) -> (Mykube, PathBuf) {
    let dir = command.sandbox().home().join(".kube");
    fs::create_dir(&dir).unwrap();
    let config = dir.join("config");
    fs::write(&config, OWN).unwrap();
    (command.arg("--merge"), config)
}

fn others(config: &std::path::Path) -> usize {
    fs::read_dir(config.parent().unwrap()).unwrap().count() - 1
}

#[test]
fn it_is_undone_by_signals() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (relay, server, _upstream) = ends();
        let (client, config) = client(Mykube::client(&relay.url));
        let client = client.start_with(&server.code());
        let merged = client.event("merged");
        assert_eq!((merged["context"].as_str(), merged["kubeconfig"].as_str()), (Some("mykube-echo"), config.to_str()));
        client.event("connected");
        assert!(fs::read_to_string(&config).unwrap().contains("mykube-echo"));
        assert_eq!(client.stop(signal).code, 0);
        assert_eq!(fs::read_to_string(&config).unwrap(), OWN);
        assert_eq!(others(&config), 0);
    }
}

#[test]
fn it_is_undone_when_the_session_or_the_command_ends() {
    let (relay, server, _upstream) = ends();
    let (client, config) = client(Mykube::client(&relay.url));
    let client = client.start_with(&server.code());
    client.event("connected");
    server.stop(Signal::TERM);
    assert_eq!(client.process.done().code, 5);
    assert_eq!(fs::read_to_string(&config).unwrap(), OWN);

    let (relay, server, _upstream) = ends();
    let (client, config) = self::client(Mykube::new("client").args(["--relay-url", &relay.url]));
    let client = client.args(["--", "grep", "-c", "mykube-echo"]).arg(&config).start_with(&server.code());
    let done = client.process.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_to_string(&config).unwrap(), OWN);
}

#[test]
fn the_next_client_undoes_what_a_killed_one_left() {
    let (relay, server, _upstream) = ends();
    let (client, config) = client(Mykube::client(&relay.url));
    let client = client.start_with(&server.code());
    client.event("connected");
    client.process.signal(Signal::KILL);
    client.process.done();
    assert!(fs::read_to_string(&config).unwrap().contains("mykube-echo"));
    // Nor is one that merges, or that fails early.
    let next = Mykube::client("http://127.0.0.1:9").env("HOME", client.sandbox.home());
    let done = next.fails_with("48320417", 4, &["connection refused"]);
    assert!(done.stderr.contains("had left merged: mykube-echo"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(&config).unwrap(), OWN);
}

#[test]
fn kubectl_uses_the_merged_context() {
    let cluster = Cluster::get();
    for server in [Mykube::server, Mykube::guarding] {
        let relay = Relay::start();
        let server = server(&relay.url, &cluster.kubeconfig).start();
        let (client, config) = client(Mykube::client(&relay.url));
        let client = client.start_with(&server.code());
        let context = client.event("merged")["context"].as_str().unwrap().to_owned();
        client.event("connected");
        let own = Way::new("merged", &config, None);
        assert_eq!(own.kubectl(&["config", "current-context"]).ok().trim(), "own");
        let nodes = ["get", "nodes", "-l", "kubernetes.io/os=linux", "-o", "name"];
        let merged = own.kubectl(&[&["--context", &context][..], &nodes].concat()).ok();
        assert!(merged.contains("node/"), "{merged}");
        // kubectl itself rewrites it, and our entries are still found.
        own.kubectl(&["config", "use-context", &context]).ok();
        let again = own.kubectl(&nodes).ok();
        assert_eq!(merged, again);
        let done = client.stop(Signal::TERM);
        assert_eq!(done.code, 0);
        assert!(done.stderr.contains("use-context"), "{}", done.stderr);
        assert_eq!(own.kubectl(&["config", "get-contexts", "-o", "name"]).ok().trim(), "own");
        let left = fs::read_to_string(&config).unwrap();
        assert!(!left.contains("mykube-") || left.contains("current-context: mykube-"), "{left}");
    }
}
