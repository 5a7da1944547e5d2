//! Pairing codes: wrong ones, burned ones, expired ones, those of another server.

use crate::support::{Cluster, Mykube, Namespace, Relay, Running, certs::Authority, cluster::kubeconfig};
use serde_json::json;

/// A server that waits with a code; its cluster's address need not answer.
fn waiting(relay: &str, args: &[&str]) -> Running {
    let server = Mykube::new("server").args(["--relay-url", relay]).args(args);
    let path = a_kubeconfig(&server);
    server.arg("--kubeconfig").arg(path).start()
}

fn a_kubeconfig(of: &Mykube) -> std::path::PathBuf {
    let cluster = json!({
        "server": format!("https://{}", crate::support::net::closed_port()),
        "certificate-authority-data": data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes()),
    });
    of.sandbox().file("kubeconfig", kubeconfig("nowhere", &cluster, &json!({"token": "e2e"})).to_string())
}

/// The same nameplate with another secret.
fn mistyped(code: &str, by: usize) -> String {
    let (nameplate, secret) = code.split_at(code.len() - 5);
    let secret: usize = secret.parse().unwrap();
    format!("{nameplate}{:05}", (secret + by) % 100_000)
}

#[test]
fn three_wrong_codes_burn_it() {
    let relay = Relay::start();
    let server = waiting(&relay.url, &[]);
    let code = server.code();
    for by in 1..=3 {
        Mykube::client(&relay.url).fails_with(&mistyped(&code, by), 3, &["code", "ask for a new code"]);
    }
    server.process.says("2 more and it is burned");
    server.process.says("1 more and it is burned");
    server.process.says("burned");
    server.process.says("the next code comes in 60 s");
    // Even the right code is of no use any more.
    Mykube::client(&relay.url).fails_with(&code, 3, &["no session waits under this code", "ask for a new code"]);
    assert_eq!(server.stop(rustix::process::Signal::TERM).code, 0);
}

#[test]
fn a_wrong_code_does_not_spend_the_right_one() {
    let namespace = Namespace::create(&Cluster::get(), "mistyped");
    let relay = Relay::start();
    let server = Mykube::server(&relay.url, &namespace.cluster.kubeconfig).start();
    let code = server.code();
    Mykube::client(&relay.url).fails_with(&mistyped(&code, 1), 3, &["ask for a new code"]);
    // Typed as people read it aloud.
    let spaced = format!("{} {}-{}", &code[..3], &code[3..5], &code[5..]);
    let client = Mykube::client(&relay.url).start_with(&spaced);
    let way = namespace.through("tunnel", &client.kubeconfig());
    assert_eq!(way.kubectl(&["get", "serviceaccount", "default", "-o", "name"]).ok(), "serviceaccount/default\n");
    // A code serves one pairing.
    Mykube::client(&relay.url).fails_with(&code, 3, &["no session waits under this code"]);
}

#[test]
fn an_expired_code_is_replaced_and_refused() {
    let relay = Relay::start();
    let server = waiting(&relay.url, &["--code-ttl", "10s"]);
    let first = server.nth_event("code", 0);
    assert_eq!(first["expires_in"], 10);
    let second = server.nth_event("code", 1);
    assert_ne!(first["code"], second["code"]);
    server.process.says("expired");
    let first = first["code"].as_str().unwrap();
    Mykube::client(&relay.url).fails_with(first, 3, &["no session waits under this code", "ask for a new code"]);
}

#[test]
fn a_code_is_of_use_at_its_own_relay_only() {
    let (one, other) = (Relay::start(), Relay::start());
    let server = waiting(&one.url, &[]);
    Mykube::client(&other.url).fails_with(&server.code(), 3, &["no session waits under this code"]);
}

#[test]
fn what_is_no_code_is_a_usage_error() {
    let nowhere = "http://127.0.0.1:9";
    for (text, word) in
        [("", "no code"), ("48 20417", "8 digits"), ("abc", "digits only"), ("483204171234", "8 digits")]
    {
        let done = Mykube::client(nowhere).fails_with(text, 2, &[word]);
        assert!(text.len() < 4 || !done.stderr.contains(text), "the message repeats what may be a secret");
    }
}

#[test]
fn a_code_among_the_arguments_works_and_warns() {
    let relay = Relay::start();
    let server = waiting(&relay.url, &[]);
    let client = Mykube::client(&relay.url).arg(server.code()).start();
    client.process.says("other users of this machine can see a code given as an argument");
    client.event("connected");
}

#[test]
fn too_many_requests_are_told_as_such() {
    let relay = Relay::with(&["--api-rate", "2"]);
    for _ in 0..2 {
        Mykube::client(&relay.url).fails_with("48320417", 3, &["no session waits"]);
    }
    Mykube::client(&relay.url).fails_with("48320417", 1, &["too many requests", "try again"]);
}
