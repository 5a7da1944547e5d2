//! Several clients of one server, each with its own session, and sessions that expire.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cluster, Mykube, Namespace, Relay, Running};

#[test]
fn several_clients_each_have_their_own_session() {
    let namespace = Namespace::create(&Cluster::get(), "several");
    let relay = Relay::start();
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig).args(["--max-clients=2"]).start();
    let first = Mykube::client(&relay.url).start_with(&server.code());
    let first_way = namespace.through("first", &first.kubeconfig());
    // The unused code of the second slot gives way.
    server.nth_event("code", 1);
    let invited = sessions(&server, &["new", "--name=bob", "--read-only"]).start();
    let code = invited.event("invited")["code"].as_str().unwrap().to_owned();
    assert_eq!(server.event("withdrawn")["client"], "client-2");
    let bob = Mykube::client(&relay.url).start_with(&code);
    let bob_way = namespace.through("bob", &bob.kubeconfig());

    let watch = first_way.start(&["get", "configmaps", "-w", "-o", "name"]);
    watch.prints("kube-root-ca.crt");
    let bobs = bob_way.start(&["get", "configmaps", "-w", "-o", "name"]);
    bobs.prints("kube-root-ca.crt");
    first_way.kubectl(&["create", "configmap", "of-the-first"]).ok();
    watch.prints("of-the-first");
    bobs.prints("of-the-first");
    let refused = bob_way.kubectl(&["create", "configmap", "of-bob"]);
    assert!(refused.code == 1 && refused.stderr.contains("mykube: read-only"), "{refused:?}");

    let listed = |name: &str| {
        let list = sessions(&server, &["list"]).start().process.done().ok();
        let lines = list.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found: Vec<_> = lines.filter(|line| line["event"] == "session").collect();
        found.sort_by_key(|line| line["id"].as_u64());
        let states: Vec<_> = found.iter().map(|line| line["state"].as_str().unwrap().to_owned()).collect();
        (states, found.into_iter().find(|line| line["name"] == name))
    };
    let (states, line) = listed("bob");
    assert_eq!(states, ["connected", "connected"]);
    let line = line.expect("bob is listed");
    assert_eq!(line["may"], "read-only");
    sessions(&server, &["new"]).fails(1, &["max-clients"]);
    sessions(&server, &["kill", "99"]).fails(1, &["no client 99"]);

    let id = line["id"].to_string();
    sessions(&server, &["kill", &id]).start().process.done().ok();
    assert_eq!(bob.process.done().code, 5);
    assert!(bob.event("closed")["reason"].as_str().unwrap().contains("operator"));
    assert_eq!(server.event("client_gone")["client"], "bob");
    bobs.signal(Signal::INT);
    // The other client is not affected, and the slot is free again.
    first_way.kubectl(&["create", "configmap", "after"]).ok();
    watch.prints("after");
    let third = Mykube::client(&relay.url).start_with(server.nth_event("code", 2)["code"].as_str().unwrap());
    namespace.through("third", &third.kubeconfig()).kubectl(&["create", "configmap", "of-the-third"]).ok();
    watch.prints("of-the-third");
    assert_eq!(listed("bob"), (vec!["connected".to_owned(), "connected".to_owned()], None));
    assert_eq!(server.stop(Signal::TERM).code, 0);
}

/// Runs `mykube sessions` beside this server.
fn sessions(server: &Running, args: &[&str]) -> Mykube {
    Mykube::new("sessions").args(args).env("XDG_RUNTIME_DIR", server.sandbox.ram())
}

#[test]
fn a_namespace_that_is_not_there_is_told() {
    let relay = Relay::start();
    let args = ["--namespace=no-such-namespace,default", "--max-clients=3"];
    let server = Mykube::guarding(&relay.url, &Cluster::get().kubeconfig).args(args).start();
    server.code();
    server.process.says("--namespace names what is not there: no-such-namespace.");
    let invited = sessions(&server, &["new", "--namespace=default"]).start();
    invited.event("invited");
    assert!(!invited.process.done().stderr.contains("not there"), "a namespace that exists is no reason for a word");
    let invited = sessions(&server, &["new", "--namespace=no-such-namespace"]).start();
    invited.event("invited");
    assert!(invited.process.done().stderr.contains("--namespace names what is not there: no-such-namespace."));
    assert_eq!(server.stop(Signal::TERM).code, 0);
}

#[test]
fn access_that_expires_ends_both() {
    let cluster = Cluster::get();
    let relay = Relay::start();
    let server = Mykube::guarding(&relay.url, &cluster.kubeconfig).args(["--max-clients=2", "--expires=15s"]).start();
    let until_the_end = |code: &str| {
        let command = "echo began; kubectl get --raw=/version; exec sleep 1000";
        let client =
            Mykube::new("client").args(["--relay-url", &relay.url, "--", "sh", "-c", command]).start_with(code);
        client.process.prints("gitVersion");
        client
    };
    let whole = until_the_end(&server.code());
    server.nth_event("code", 1);
    let invited = sessions(&server, &["new", "--name=brief", "--expires=5s"]).start();
    let brief = until_the_end(invited.event("invited")["code"].as_str().unwrap());
    brief.failed(5, &["this access has expired"]);
    assert!(whole.process.is_running() && server.process.is_running());
    whole.failed(5, &["pair again"]);
    let done = server.process.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(server.event("stopped")["reason"].as_str().unwrap().contains("expired"));
    assert_eq!([0, 1].map(|n| server.nth_event("client_gone", n)["client"].clone()), ["brief", "client-1"]);
    server.sandbox.assert_clean();
}
