//! Kubeconfigs that cannot be used, and hostile ones.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    Cluster, Mykube, Namespace, Relay, Tunnel, Way, certs::Authority, cluster::kubeconfig, net::closed_port,
};

fn cluster_entry() -> Value {
    let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
    json!({"server": format!("https://{}", closed_port()), "certificate-authority-data": ca})
}

/// A server with this kubeconfig fails before it asks a relay for anything.
#[track_caller]
fn refused(content: &str, words: &[&str]) {
    // Nothing listens there: reaching the relay would fail with exit code 4.
    let server = Mykube::new("server").args(["--relay-url", &format!("http://{}", closed_port())]);
    let path = server.sandbox().file("kubeconfig", content);
    server.arg("--kubeconfig").arg(path).fails(1, words);
}

#[test]
fn one_that_cannot_be_used_says_what_to_do() {
    let server = Mykube::server("http://127.0.0.1:9", Path::new("/nonexistent/kubeconfig"));
    server.fails(1, &["no kubeconfig at /nonexistent/kubeconfig", "--kubeconfig"]);
    let nothing = Mykube::new("server").args(["--relay-url", "http://127.0.0.1:9"]);
    nothing.fails(1, &["no kubeconfig was found", "--kubeconfig"]);

    refused("", &["is empty", "--kubeconfig"]);
    refused("{not: [yaml", &["not a valid kubeconfig"]);
    let whole = kubeconfig("c", &cluster_entry(), &json!({"token": "e2e"}));
    let with = |pointer: &str, value: Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).expect("it is there") = value;
        changed.to_string()
    };
    refused(&with("/current-context", json!("")), &["no current-context", "--context", "\"e2e\""]);
    refused(&with("/current-context", json!("other")), &["no context \"other\"", "--context"]);
    refused(&with("/contexts/0/context/cluster", json!("gone")), &["cluster \"gone\"", "not there"]);
    refused(&with("/clusters/0/cluster/server", json!("http://127.0.0.1:8080")), &["unencrypted", "https"]);
    refused(
        &with("/clusters/0/cluster/certificate-authority-data", json!("%%%")),
        &["`certificate-authority-data`", "base64"],
    );
    refused(
        &with("/users/0/user", json!({"client-certificate-data": "%%%", "client-key-data": "%%%"})),
        &["`client-", "base64"],
    );
    refused(
        &with("/users/0/user", json!({"token": "e2e", "as": "ann"})),
        &["user \"e2e\"", "impersonates", "leave out --share-credentials"],
    );
    let plugin = |command: &str| {
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command,
            "interactiveMode": "Never", "installHint": "get it from \u{1b}[31mthe shop"}})
    };
    refused(
        &with("/users/0/user", plugin("no-such-plugin-e2e")),
        &["exec plugin \"no-such-plugin-e2e\"", "was not found", "install it", "the shop"],
    );
    refused(&with("/users/0/user", plugin("false")), &["exec plugin \"false\"", "failed"]);
}

#[test]
fn an_api_server_that_is_away_is_told_to_kubectls_user() {
    let relay = Relay::start();
    let server = Mykube::new("server").args(["--relay-url", &relay.url]);
    let entry = cluster_entry();
    let path = server.sandbox().file("kubeconfig", kubeconfig("away", &entry, &json!({"token": "e2e"})).to_string());
    let server = server.arg("--kubeconfig").arg(path).start();
    let client = Mykube::client(&relay.url).start_with(&server.code());
    let way = Way::new("tunnel", &client.kubeconfig(), None);
    let done = way.kubectl(&["get", "namespaces"]);
    assert_ne!(done.code, 0);
    let address = entry["server"].as_str().unwrap().strip_prefix("https://").unwrap();
    client.process.says("cannot reach the API server: connection refused");
    server.process.says(&format!("cannot reach the API server {address}: connection refused"));
}

#[test]
fn a_hostile_name_is_only_a_name() {
    let namespace = Namespace::create(&Cluster::get(), "hostile");
    let admin = admin(&namespace.cluster);
    for name in [
        "../../../../tmp/e2e",
        "a\"b'c",
        "a\nusers: []\nb",
        "$(touch PWNED)`touch PWNED`",
        "\u{1b}[31mred\u{1b}]0;title\u{7}\u{202e}txt",
        "..",
        "-rf",
    ] {
        let mut hostile = admin.clone();
        for place in ["/clusters/0/name", "/contexts/0/context/cluster", "/contexts/0/name", "/current-context"] {
            *hostile.pointer_mut(place).unwrap() = json!(name);
        }
        let relay = Relay::start();
        let server = Mykube::new("server").args(["--relay-url", &relay.url]);
        let path = server.sandbox().file("kubeconfig", hostile.to_string());
        let server = server.arg("--kubeconfig").arg(path).start();
        let script =
            "printf '%s' \"$MYKUBE_CLUSTER\"; kubectl get namespace default -o name; kubectl config current-context";
        let client = Mykube::new("client").args(["--relay-url", &relay.url, "--", "sh", "-c", script]);
        let client = client.start_with(&server.code());
        let connected = client.event("connected");
        let shown = connected["cluster"].as_str().unwrap();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(!shown.is_empty() && shown.chars().all(plain) && !shown.contains(".."), "{name:?} became {shown:?}");
        let kubeconfig = Path::new(connected["kubeconfig"].as_str().unwrap());
        assert!(kubeconfig.starts_with(client.sandbox.ram()), "{}", kubeconfig.display());
        let done = client.failed(0, &[]);
        assert!(done.stdout.contains(&format!("{shown}namespace/default\n{shown}\n")), "{}", done.stdout);
        let served = server.process.done();
        assert_eq!(served.code, 0);
        for text in [&done.stderr, &served.stderr] {
            assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
        }
        for sandbox in [&client.sandbox, &server.sandbox] {
            assert!(!sandbox.home().join("PWNED").exists());
        }
    }
}

/// The cluster's own kubeconfig as one document.
fn admin(cluster: &Cluster) -> Value {
    let way = Way::new("direct", &cluster.kubeconfig, None);
    let text = way.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn several_files_are_one_kubeconfig() {
    let namespace = Namespace::create(&Cluster::get(), "several");
    let whole = admin(&namespace.cluster);
    let part = |keys: &[&str]| {
        let mut part = json!({"apiVersion": "v1", "kind": "Config"});
        for key in keys {
            part[key] = whole[key].clone();
        }
        part.to_string()
    };
    let relay = Relay::start();
    let server = Mykube::new("server").args(["--relay-url", &relay.url]);
    let first = server.sandbox().file("first", part(&["clusters", "current-context"]));
    let second = server.sandbox().file("second", part(&["users", "contexts"]));
    let absent = server.sandbox().home().join("absent");
    let list = std::env::join_paths([first, absent, second]).unwrap();
    let server = server.env("KUBECONFIG", list).start();
    let client = Mykube::client(&relay.url).start_with(&server.code());
    let way = namespace.through("tunnel", &client.kubeconfig());
    assert_eq!(way.kubectl(&["get", "serviceaccount", "default", "-o", "name"]).ok(), "serviceaccount/default\n");
}

#[test]
fn a_tunnel_gives_what_the_kubeconfig_gives() {
    let namespace = Namespace::create(&Cluster::get(), "whoami");
    let tunnel = Tunnel::open(&namespace.cluster.kubeconfig);
    let through = namespace.through("tunnel", &tunnel.kubeconfig());
    let who = ["auth", "whoami", "-o", "json"];
    let name = |way: &Way| {
        let who: Value = serde_json::from_str(&way.kubectl(&who).ok()).unwrap();
        who["status"]["userInfo"]["username"].clone()
    };
    assert_eq!(name(namespace.direct()), name(&through));
}
