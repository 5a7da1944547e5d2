//! The agent as a pod of the cluster: image, chart, plain manifests; paired with from outside.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{Cluster, Done, LIMIT, Mykube, Namespace, Process, Relay, Running, Sandbox, certs::Authority};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const IMAGE: &str = "mykube.local/mykube:e2e";
/// The value that the default rendering needs: there is no default relay.
const RELAY_VALUE: &str = "relayUrl=https://relay.example.com";

#[test]
fn the_chart_renders_what_the_api_server_takes() {
    let namespace = Namespace::create(&Cluster::get(), "chart");
    let chart = chart();
    helm(&["lint", "--strict", &chart, "--set", RELAY_VALUE]).ok();

    let rendered = helm(&["template", "mykube", &chart, "--namespace", "mykube", "--set", RELAY_VALUE]).ok();
    let plain = fs::read_to_string(Path::new(ROOT).join("deploy/manifests/mykube.yaml")).unwrap();
    let (head, rest) = plain.split_at(plain.find("---\n").expect("several objects"));
    assert_eq!(rest, rendered, "deploy/manifests/mykube.yaml says in its head how it is made");
    assert!(!rendered.contains("rbac.authorization.k8s.io"), "the default gives no rights at all");
    namespace.direct().kubectl_with(&["apply", "--dry-run=server", "-f", "-"], head).ok();
    // The objects are tried where a namespace is: a dry run makes none.
    let here = rest.replace("namespace: mykube", &format!("namespace: {}", namespace.name));
    namespace.direct().kubectl_with(&["apply", "--dry-run=server", "-f", "-"], here).ok();

    let sandbox = Sandbox::new();
    let everything = sandbox.file("values.yaml", everything(&namespace.name).to_string());
    let everything = everything.to_str().unwrap();
    helm(&["lint", "--strict", &chart, "-f", everything]).ok();
    let all = helm(&["template", "mykube", &chart, "--namespace", &namespace.name, "-f", everything]).ok();
    let made = namespace.direct().kubectl_with(&["apply", "--dry-run=server", "-f", "-"], all.as_str()).ok();
    for kind in
        ["serviceaccount", "clusterrole", "clusterrolebinding", "role", "configmap", "deployment", "networkpolicy"]
    {
        assert!(
            made.lines().any(|line| line.starts_with(&format!("{kind}.")) || line.starts_with(&format!("{kind}/"))),
            "no {kind}: {made}"
        );
    }

    for (set, words) in [
        ("relayUrl=", "relayUrl is needed"),
        ("relayUrl=http://relay.example.com", "must begin with https://"),
        ("impersonate.groups={system:masters}", "system:masters"),
        ("impersonate.serviceAccounts={alice}", "serviceAccounts"),
        ("policy.readonly=true", "readonly"),
        ("policy.asGroups={a\\,b}", "asGroups"),
        ("maxClients=0", "maxClients"),
    ] {
        let done = helm(&["template", "mykube", &chart, "--set", RELAY_VALUE, "--set", set]);
        assert!(done.code != 0 && done.stderr.contains(words), "{set}: {done:?}");
    }
}

/// Every value set.
fn everything(namespace: &str) -> Value {
    let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]});
    json!({
        "relayUrl": "https://relay.example.com:8443",
        "image": {"repository": "mykube", "tag": "1", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}],
        "announceEvent": true,
        "policy": {
            "readOnly": true, "as": "alice", "asGroups": ["devs", "b: c"], "namespaces": ["a", "b"],
            "expires": "2999-01-01T00:00:00Z", "allow": [rule], "deny": [rule],
        },
        "impersonate": {
            "users": ["alice", "bob@example.com"], "groups": ["devs"], "serviceAccounts": [format!("{namespace}/ci")],
        },
        "serviceAccount": {"create": true, "name": "agent", "annotations": {"a": "b"}},
        "caConfigMap": {"name": "ca", "key": "relay.crt"},
        "proxy": {"https": "http://proxy:3128", "http": "http://proxy:3128", "noProxy": "10.0.0.0/8"},
        "networkPolicy": {
            "relayCidrs": ["192.0.2.1/32"], "apiServerCidrs": ["192.0.2.2/32"],
            "extraEgress": [{"ports": [{"port": 3128}]}],
        },
        "extraArgs": ["-v"],
        "extraEnv": [{"name": "A", "value": "b"}],
        "podAnnotations": {"a": "b"}, "podLabels": {"a": "b"}, "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}], "priorityClassName": "system-cluster-critical",
        "affinity": {"nodeAffinity": {}},
    })
}

#[test]
fn the_agent_serves_from_a_pod() {
    let agent = Agent::install();
    let work = Workload::start(&agent.namespace.cluster);

    // The first code comes from the pod's log, the next one only from its Event.
    let logs = agent.namespace.direct().start(&["logs", "--follow", "deploy/mykube"]);
    let first = logs.wait("code", |state| {
        let text = String::from_utf8_lossy(&state.stdout);
        text.lines().find_map(|line| line.strip_prefix("Code: ").map(str::to_owned))
    });
    let alice = agent.client(&first);
    let events = agent.namespace.direct().start(&[
        "get",
        "events",
        "--watch",
        "--field-selector=reason=PairingCode",
        "--output=jsonpath={.involvedObject.kind}/{.involvedObject.name} {.message}{\"\\n\"}",
    ]);
    let told = |wanted: fn(&str, &str) -> bool| {
        events.wait("Event with a code", |state| {
            let text = String::from_utf8_lossy(&state.stdout);
            let line =
                text.lines().find(|line| line.split_once("Code: ").is_some_and(|(_, rest)| wanted(&rest[..9], &first)));
            line.map(str::to_owned)
        })
    };
    let of_first = told(|code, first| code == first);
    assert!(of_first.starts_with(&format!("Pod/{} ", agent.pod())), "{of_first}");
    assert!(of_first.contains(&format!("mykube client --relay-url {}", agent.url)), "{of_first}");
    let second = told(|code, first| code != first);
    let second = agent.client(&second.split_once("Code: ").unwrap().1[..9]);

    rights(&agent, &work, &alice);
    operations(&work, &alice);
    let way = work.namespace.through("second", &second.kubeconfig());
    assert_eq!(way.kubectl(&["--as=alice", "get", "pod", "talker", "-o", "name"]).ok(), "pod/talker\n");
    logs.prints("\"subresource\":\"exec\"");
    hardened(&agent);
    sessions(&agent);
    memory(&agent, &work, &alice);

    // No probe has failed meanwhile, and the request is in the audit log.
    let status = agent.namespace.direct().kubectl(&["get", "pod", &agent.pod(), "-o", "json"]).ok();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["status"]["containerStatuses"][0]["restartCount"], 0);
    agent.namespace.direct().kubectl(&["delete", "pod", &agent.pod(), "--wait=false"]).ok();
    for client in [&alice, &second] {
        client.event("closed");
    }
}

/// The ServiceAccount has no rights of its own, and may impersonate only the named users.
fn rights(agent: &Agent, work: &Workload, client: &Running) {
    let way = work.namespace.through("pod", &client.kubeconfig());
    let who = |args: &[&str]| way.kubectl(&[&["auth", "whoami", "-o", "json"], args].concat());
    let user = |done: Done| {
        let review: Value = serde_json::from_str(&done.ok()).unwrap();
        let user = &review["status"]["userInfo"];
        let groups = user["groups"].as_array().unwrap();
        (user["username"].as_str().unwrap().to_owned(), groups.contains(&"devs".into()))
    };
    let account = format!("system:serviceaccount:{}:mykube", agent.namespace.name);
    assert_eq!(user(who(&[])), (account.clone(), false));
    assert_eq!(user(who(&["--as=alice", "--as-group=devs"])), ("alice".to_owned(), true));
    for other in [&["--as=bob"][..], &["--as=alice", "--as-group=system:masters"], &["--as=system:admin"]] {
        // Raw: kubectl's own discovery does not show the reason.
        let done = way.kubectl(&[&["get", "--raw=/version"], other].concat());
        assert!(done.code == 1 && done.stderr.contains("cannot impersonate resource"), "{other:?}: {done:?}");
    }
    for args in [&["get", "pods"][..], &["get", "nodes"], &["get", "events", "-n", &agent.namespace.name]] {
        let done = way.kubectl(args);
        assert!(
            done.code == 1 && done.stderr.contains(&format!("User \"{account}\" cannot list")),
            "{args:?}: {done:?}"
        );
    }
}

fn operations(work: &Workload, client: &Running) {
    let way = work.namespace.through("pod", &client.kubeconfig());
    assert_eq!(way.kubectl(&["--as=alice", "get", "pod", "talker", "-o", "name"]).ok(), "pod/talker\n");
    let said =
        way.kubectl_with(&["--as=alice", "exec", "-i", "talker", "--", "sh", "-c", "cat; exit 7"], "over and back");
    assert_eq!((said.code, &*said.stdout), (7, "over and back"), "{said:?}");
    let logs = way.start(&["--as=alice", "logs", "--follow", "talker"]);
    logs.prints("line 3\n");
    // RBAC would allow her; the chart's rules do not.
    let yes = work.namespace.direct().kubectl(&["--as=alice", "auth", "can-i", "list", "secrets"]);
    let refused = way.kubectl(&["--as=alice", "get", "secrets"]);
    assert!(yes.code == 0 && refused.code == 1 && refused.stderr.contains("mykube"), "{yes:?} {refused:?}");
}

/// Properties of the process, not only of its manifest.
fn hardened(agent: &Agent) {
    let status = agent.probe(&["cat", "/proc/1/status"]);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Name"), "mykube");
    assert_eq!(field("Uid"), "65532 65532 65532 65532");
    assert_eq!(field("Gid"), "65532 65532 65532 65532");
    assert_eq!([field("CapPrm"), field("CapEff"), field("CapBnd")], ["0000000000000000"; 3].map(str::to_owned));
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "a filter");
    // A server that would write its log into the root directory.
    let done = agent.exec(&["mykube", "server", "--relay-url=https://127.0.0.1:1", "--audit-log=/audit.jsonl"]);
    assert!(done.code != 0 && done.stderr.contains("Read-only file system"), "{done:?}");
}

/// The operator's commands inside the pod, and a probe that can fail.
fn sessions(agent: &Agent) {
    let list = agent.exec(&["mykube", "sessions", "list", "--server=1"]).ok();
    assert_eq!(list.matches("connected").count(), 2, "{list}");
    let done = agent.exec(&["mykube", "sessions", "list", "--server=2"]);
    assert!(done.code != 0 && done.stderr.contains("no such server"), "{done:?}");
}

/// Memory of the pod with two clients: idle, and with 50 watches open.
fn memory(agent: &Agent, work: &Workload, client: &Running) {
    const WATCHES: usize = 50;
    let measure = |what: &str| {
        let status = agent.probe(&["grep", "-E", "^(VmRSS|RssAnon|Threads)", "/proc/1/status"]);
        println!("memory of the agent's pod, {what}: {}", status.split_whitespace().collect::<Vec<_>>().join(" "));
    };
    measure("idle");
    let way = work.namespace.through("pod", &client.kubeconfig());
    let proxy = way.start(&["--as=alice", "proxy", "--port=0"]);
    let port: u16 = proxy.wait("port", |state| {
        let text = String::from_utf8_lossy(&state.stdout);
        text.lines().find_map(|line| line.rsplit_once(':')?.1.trim().parse().ok())
    });
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let mut watch = TcpStream::connect(("127.0.0.1", port)).unwrap();
        watch.set_read_timeout(Some(LIMIT)).unwrap();
        let path = format!("/api/v1/namespaces/{}/pods?watch=1&resourceVersion=0", work.namespace.name);
        write!(watch, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        watches.push(watch);
    }
    for watch in &mut watches {
        let mut seen = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while !crate::support::contains(&seen, b"\"ADDED\"") {
            let n = watch.read(&mut buffer).unwrap();
            assert!(n > 0, "a watch ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
        }
    }
    measure(&format!("with {WATCHES} watches"));
}

/// A pod that writes a line, in a namespace where alice may edit.
struct Workload {
    namespace: Namespace,
}

impl Workload {
    fn start(cluster: &Cluster) -> Self {
        let namespace = Namespace::create(cluster, "work");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": cluster.image,
                "command": ["sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done"],
            }]},
        });
        let direct = namespace.direct();
        direct.kubectl_with(&["apply", "-f", "-"], pod.to_string()).ok();
        direct.kubectl(&["create", "rolebinding", "alice", "--clusterrole=edit", "--user=alice"]).ok();
        direct.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]).ok();
        Self { namespace }
    }
}

/// The chart, installed; a relay on this machine, and a way to it for pods. Uninstalled on drop.
struct Agent {
    namespace: Namespace,
    /// The relay's address for pods.
    url: String,
    relay: Relay,
    sandbox: Sandbox,
    ca: PathBuf,
    _door: Process,
}

impl Agent {
    fn install() -> Self {
        let cluster = Cluster::get();
        let address = std::env::var("MYKUBE_CLUSTER_NODE_ADDRESS").unwrap_or_else(|_| {
            panic!("this test needs the cluster that scripts/cluster runs: its pods reach this machine by a door")
        });
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mykube-image.tar");
        let binary = env!("CARGO_BIN_EXE_mykube");
        script("image", &["--binary", binary, "--name", IMAGE, "--load", archive.to_str().unwrap()]).done().ok();

        let sandbox = Sandbox::new();
        let authority = Authority::new("in cluster");
        let signed = authority.sign(&["127.0.0.1", &address]);
        let ca = sandbox.file("ca.crt", authority.pem());
        let (certificate, key) =
            (sandbox.file("relay.crt", &signed.certificate), sandbox.file("relay.key", &signed.key));
        let relay = Relay::with(&[
            "--api-rate",
            "0",
            "--tls-cert",
            certificate.to_str().unwrap(),
            "--tls-key",
            key.to_str().unwrap(),
        ]);
        let port = relay.url.rsplit_once(':').unwrap().1.to_owned();
        let door = script("cluster", &["door", &port]);
        door.prints("pods reach");

        let namespace = Namespace::create(&cluster, "agent");
        let direct = namespace.direct();
        // The strictest of the Pod Security Standards: a pod that does not meet it is refused.
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        direct.kubectl(&["label", "namespace", &namespace.name, restricted]).ok();
        let from = format!("--from-file=ca.crt={}", ca.display());
        direct.kubectl(&["create", "configmap", "relay-ca", &from]).ok();
        let url = format!("https://{address}:{port}");
        let agent = Self { namespace, url, relay, sandbox, ca, _door: door };
        agent.helm_install();
        agent
    }

    fn helm_install(&self) {
        let (repository, tag) = IMAGE.rsplit_once(':').unwrap();
        let values = json!({
            "relayUrl": self.url,
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "maxClients": 3, "codeTtl": "10m", "announceEvent": true,
            "impersonate": {"users": ["alice"], "groups": ["devs"]},
            "caConfigMap": {"name": "relay-ca"},
            "policy": {"deny": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]},
        });
        let values = self.sandbox.file("values.yaml", values.to_string());
        let direct = self.namespace.direct();
        let namespace = self.namespace.name.as_str();
        let args = ["mykube", &chart(), "--namespace", namespace, "-f", values.to_str().unwrap()];
        let rendered = helm(&[&["template"][..], &args[..]].concat()).ok();
        direct.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], rendered).ok();
        self.helm(&[&["install"][..], &args[..]].concat()).ok();
        let rollout = direct.kubectl(&["rollout", "status", "deploy/mykube", "--timeout=50s"]);
        if rollout.code != 0 {
            let pods = direct.kubectl(&["describe", "pods"]);
            let logs = direct.kubectl(&["logs", "deploy/mykube", "--tail=50"]);
            panic!(
                "the agent does not become ready: {}\n{}\n{}{}",
                rollout.stderr, pods.stdout, logs.stdout, logs.stderr
            );
        }
        let probe = ["--target=mykube", "--profile=restricted", "--container=probe", "--", "sleep", "3600"];
        let image = format!("--image={}", self.namespace.cluster.image);
        direct.kubectl(&[&["debug", &self.pod(), &image][..], &probe].concat()).ok();
        let running = "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.running}";
        direct.kubectl(&["wait", running, &format!("pod/{}", self.pod()), "--timeout=50s"]).ok();
    }

    fn helm(&self, args: &[&str]) -> Done {
        let mut command = helm_command(&self.sandbox, args);
        command.env("KUBECONFIG", &self.namespace.cluster.kubeconfig);
        run(command)
    }

    fn pod(&self) -> String {
        let selector = "--selector=app.kubernetes.io/name=mykube";
        let name = ["get", "pods", selector, "-o", "jsonpath={.items[0].metadata.name}"];
        self.namespace.direct().kubectl(&name).ok()
    }

    /// A command in the agent's own container.
    fn exec(&self, command: &[&str]) -> Done {
        self.namespace.direct().kubectl(&[&["exec", "deploy/mykube", "-c", "mykube", "--"][..], command].concat())
    }

    /// A command beside the agent, which it sees as process 1.
    fn probe(&self, command: &[&str]) -> String {
        self.namespace.direct().kubectl(&[&["exec", "deploy/mykube", "-c", "probe", "--"][..], command].concat()).ok()
    }

    /// A client on this machine, paired.
    fn client(&self, code: &str) -> Running {
        let client = Mykube::client(&self.relay.url).arg("--ca-file").arg(&self.ca).start_with(code);
        client.event("connected");
        client
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut command = helm_command(&self.sandbox, &["uninstall", "mykube", "--namespace", &self.namespace.name]);
        command.env("KUBECONFIG", &self.namespace.cluster.kubeconfig);
        let _ = command.stdout(std::process::Stdio::null()).status();
    }
}

fn chart() -> String {
    Path::new(ROOT).join("deploy/helm/mykube").to_str().unwrap().to_owned()
}

#[track_caller]
fn helm(args: &[&str]) -> Done {
    run(helm_command(&Sandbox::new(), args))
}

fn helm_command(sandbox: &Sandbox, args: &[&str]) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join("helm").is_file());
    assert!(
        found,
        "helm is not on PATH: run scripts/test, which compiles it (as scripts/helm does), or install Helm 3"
    );
    let mut command = sandbox.command("helm");
    command.args(args);
    command
}

#[track_caller]
fn run(command: Command) -> Done {
    let mut process = Process::start(command);
    process.end_input();
    process.done()
}

/// One of the project's scripts, with this test's own environment.
fn script(name: &str, args: &[&str]) -> Process {
    let mut command = Command::new(Path::new(ROOT).join("scripts").join(name));
    command.args(args);
    Process::start(command)
}
