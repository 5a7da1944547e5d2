//! Every kind of credential, used directly and through the tunnel; those that expire are renewed during a session.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Cluster, Mykube, Namespace, Relay, Running, Way, certs::Authority, cluster::kubeconfig, net::closed_port, not_run,
};

/// Two service accounts with a token each, and a way to make kubeconfigs for them.
struct Accounts {
    namespace: Namespace,
    endpoint: Value,
}

impl Accounts {
    fn create(test: &str) -> Self {
        let namespace = Namespace::create(&Cluster::get(), test);
        for name in ["first", "second"] {
            namespace.direct().kubectl(&["create", "serviceaccount", name]).ok();
        }
        let endpoint = namespace.cluster.endpoint();
        Self { namespace, endpoint }
    }

    fn token(&self, account: &str) -> String {
        self.namespace.direct().kubectl(&["create", "token", account]).ok().trim().to_owned()
    }

    fn full_name(&self, account: &str) -> String {
        format!("system:serviceaccount:{}:{account}", self.namespace.name)
    }

    /// A server with this user's kubeconfig in its own sandbox, and a connected client.
    fn connect(&self, server: Mykube, relay: &Relay, user: &Value) -> (Running, Running, Way) {
        let config = kubeconfig("e2e", &self.endpoint, user).to_string();
        let path = server.sandbox().file("kubeconfig", config);
        let direct = Way::new("direct", &path, None);
        let expected = whoami(&direct);
        let server = server.args(["--relay-url", &relay.url, "--kubeconfig"]).arg(&path).start();
        let client = Mykube::client(&relay.url).start_with(&server.code());
        let through = Way::new("tunnel", &client.kubeconfig(), None);
        assert_eq!(whoami(&through), expected);
        (server, client, through)
    }
}

#[track_caller]
fn whoami(way: &Way) -> String {
    way.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok()
}

/// The token that the client's kubectl would send now.
fn waits_for_token(client: &Running, token: &str) {
    let file = client.kubeconfig().with_file_name("token");
    let until = std::time::Instant::now() + crate::support::LIMIT;
    while fs::read_to_string(&file).unwrap() != token {
        assert!(client.process.is_running() && std::time::Instant::now() < until, "the old token stays");
        // There is no event for it: only the file shows it.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_token() {
    let accounts = Accounts::create("token");
    let relay = Relay::start();
    let user = json!({"token": accounts.token("first")});
    let (_server, _client, through) = accounts.connect(Mykube::new("server"), &relay, &user);
    assert_eq!(whoami(&through), accounts.full_name("first"));
    // It has the same rights as directly.
    let denied = through.kubectl(&["get", "secrets", "-A"]);
    assert!(denied.code == 1 && denied.stderr.contains("Forbidden"), "{}", denied.stderr);
}

#[test]
fn a_token_file_that_rotates() {
    let accounts = Accounts::create("rotates");
    let relay = Relay::start();
    let server = Mykube::new("server");
    let (first, second) = (accounts.token("first"), accounts.token("second"));
    let file = server.sandbox().file("token", &first);
    let (_server, client, through) = accounts.connect(server, &relay, &json!({"tokenFile": file}));
    assert_eq!(whoami(&through), accounts.full_name("first"));
    let kubeconfig = fs::read_to_string(client.kubeconfig()).unwrap();
    assert!(!kubeconfig.contains(&first), "a token that expires is in a file of its own");
    // Replaced at once, as kubelet does it.
    let next = file.with_extension("next");
    fs::write(&next, &second).unwrap();
    fs::rename(&next, &file).unwrap();
    waits_for_token(&client, &second);
    assert_eq!(whoami(&through), accounts.full_name("second"));
    assert_eq!(fs::read_to_string(client.kubeconfig()).unwrap(), kubeconfig);
    for path in crate::support::files(client.sandbox.ram()) {
        assert!(!fs::read_to_string(&path).unwrap().contains(&first), "the old token is still in {}", path.display());
    }
}

/// Prints the second token once the first was used; a credential that expires in 70 s is renewed after ten.
const PLUGIN: &str = r#"#!/bin/sh
if [ -e "$HOME/asked" ]; then token=$(cat "$HOME/second"); else token=$(cat "$HOME/first"); fi
[ -n "$KUBERNETES_EXEC_INFO" ] || exit 9
echo asked >>"$HOME/asked"
ends=$(date -u -d '+70 seconds' +%Y-%m-%dT%H:%M:%SZ)
cat <<JSON
{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
 "status": {"token": "$token", "expirationTimestamp": "$ends"}}
JSON
"#;

#[test]
fn an_exec_plugin_whose_credential_expires() {
    use std::os::unix::fs::PermissionsExt as _;
    let accounts = Accounts::create("plugin");
    let relay = Relay::start();
    let server = Mykube::new("server");
    let sandbox = server.sandbox();
    let plugin = sandbox.file("plugin.sh", PLUGIN);
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o700)).unwrap();
    sandbox.file("first", accounts.token("first"));
    let second = accounts.token("second");
    sandbox.file("second", &second);
    let home = sandbox.home().to_owned();
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin.sh",
        "interactiveMode": "Never", "provideClusterInfo": true}});
    let config = kubeconfig("e2e", &accounts.endpoint, &user).to_string();
    let path = sandbox.file("kubeconfig", config);
    let server = server.args(["--relay-url", &relay.url, "--kubeconfig"]).arg(&path).start();
    let client = Mykube::client(&relay.url).start_with(&server.code());
    let through = Way::new("tunnel", &client.kubeconfig(), None);
    assert_eq!(whoami(&through), accounts.full_name("first"));
    assert_eq!(fs::read_to_string(home.join("asked")).unwrap().lines().count(), 1, "one credential, one run");
    let kubeconfig = fs::read_to_string(client.kubeconfig()).unwrap();
    assert!(!kubeconfig.contains("plugin"), "a program to run reached the laptop:\n{kubeconfig}");
    waits_for_token(&client, &second);
    assert_eq!(whoami(&through), accounts.full_name("second"));
}

#[test]
fn a_client_certificate() {
    let cluster = Cluster::get();
    let direct = Way::new("direct", &cluster.kubeconfig, None);
    let text = direct.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok();
    let config: Value = serde_json::from_str(&text).unwrap();
    let user = &config["users"][0]["user"];
    let decoded = |key: &str| data_encoding::BASE64.decode(user[key].as_str()?.as_bytes()).ok();
    let (Some(certificate), Some(key)) = (decoded("client-certificate-data"), decoded("client-key-data")) else {
        // The cluster's administrator may have another kind of credential.
        not_run(&format!("a client certificate: NOT RUN, {} has none", cluster.kubeconfig.display()));
        return;
    };
    // By path, relative to the kubeconfig.
    let relay = Relay::start();
    let server = Mykube::new("server");
    server.sandbox().file("client.crt", certificate);
    server.sandbox().file("client.key", key);
    let user = json!({"client-certificate": "client.crt", "client-key": "client.key"});
    let accounts = Accounts { namespace: Namespace::create(&cluster, "certificate"), endpoint: cluster.endpoint() };
    let (_server, _client, through) = accounts.connect(server, &relay, &user);
    assert_eq!(whoami(&through), whoami(&direct));
}

/// A plugin's prompt is for a person: whatever its `interactiveMode`, the terminal shows it while the plugin waits.
#[test]
fn a_plugin_is_seen_while_it_runs() {
    let relay = Relay::start();
    for mode in ["Never", "IfAvailable", "Always"] {
        let server = Mykube::text("server").args(["--relay-url", &relay.url, "--color", "never", "--kubeconfig"]);
        let go = server.sandbox().home().join("go");
        assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
        let answer = json!({"apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "t"}});
        let script = format!("echo 'log in at https://login.test' >&2; read go < '{}'; echo '{answer}'", go.display());
        let exec = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": mode, "command": "sh", "args": ["-c", script],
        });
        // Nothing listens there: the server shows a code even if it does not reach its API server.
        let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
        let endpoint = json!({"server": format!("https://{}", closed_port()), "certificate-authority-data": ca});
        let path =
            server.sandbox().file("kubeconfig", kubeconfig("e2e", &endpoint, &json!({"exec": exec})).to_string());
        let server = server.arg(path).start_on_terminal();
        server.process.prints("log in at https://login.test");
        assert!(!server.process.stdout().contains("Code: "), "the plugin still waits");
        fs::write(go, "go\n").unwrap();
        server.process.prints("Code: ");
    }
}
