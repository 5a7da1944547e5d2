//! Programs other than kubectl through guarded mode: Helm, k9s on a terminal, Kubernetes' Python client.

use std::{cell::RefCell, env, num::NonZeroU16, process::Command};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cluster, Namespace, Process, Sandbox, Tunnel};

/// Charts and programs of these tests.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/fixtures");

#[test]
fn helm_does_a_release_from_install_to_uninstall() {
    let namespace = Namespace::create(&Cluster::get(), "helm");
    let tunnel = Tunnel::guarded(&namespace.cluster.kubeconfig);
    let sandbox = Sandbox::new();
    let helm = |args: &[&str]| {
        let how = "run scripts/test, which compiles it, or install Helm 3";
        let mut command = program("helm", how, &sandbox, &tunnel);
        command.args(args).args(["--namespace", &namespace.name]);
        let mut process = Process::start(command);
        process.end_input();
        process.done().ok()
    };
    let word = || {
        let env = "jsonpath={.spec.template.spec.containers[0].env[0].value} {.status.readyReplicas}";
        namespace.direct().kubectl(&["get", "deployment", "web", "-o", env]).ok()
    };
    let revision = || {
        let list: Value = serde_json::from_str(&helm(&["list", "-o", "json"])).unwrap();
        assert_eq!((&list[0]["name"], &list[0]["status"]), (&"web".into(), &"deployed".into()), "{list}");
        list[0]["revision"].as_str().unwrap().to_owned()
    };
    let chart = format!("{FIXTURES}/chart");
    let image = format!("image={}", namespace.cluster.image);
    let release = ["web", &chart, "--set", &image, "--wait", "--timeout=50s"];

    helm(&[&["install"][..], &release].concat());
    assert_eq!((word(), revision()), ("one 1".into(), "1".into()));
    helm(&[&["upgrade"][..], &release, &["--set=word=two", "--set=replicas=2"]].concat());
    assert_eq!((word(), revision()), ("two 2".into(), "2".into()));
    assert!(helm(&["get", "values", "web"]).contains("word: two"));
    helm(&["rollback", "web", "1", "--wait", "--timeout=50s"]);
    assert_eq!((word(), revision()), ("one 1".into(), "3".into()));
    let history: Value = serde_json::from_str(&helm(&["history", "web", "-o", "json"])).unwrap();
    let statuses: Vec<_> = history.as_array().unwrap().iter().map(|revision| &revision["status"]).collect();
    assert_eq!(statuses, ["superseded", "superseded", "deployed"]);
    helm(&["uninstall", "web", "--wait", "--timeout=50s"]);
    assert_eq!(helm(&["list", "-o", "json"]).trim(), "[]");
    let left = namespace.direct().kubectl(&["get", "deployments,secrets", "-o", "name"]).ok();
    assert_eq!(left, "");
}

#[test]
fn the_python_client_works_as_direct() {
    let python = env::var_os("MYKUBE_E2E_PYTHON").expect("a Python with Kubernetes' client: run scripts/test");
    let cluster = Cluster::get();
    let tunnel = Tunnel::guarded(&cluster.kubeconfig);
    let runs = [("direct", cluster.kubeconfig.clone()), ("guarded", tunnel.kubeconfig())].map(|(name, kubeconfig)| {
        let namespace = Namespace::create(&cluster, "python");
        let way = namespace.through(name, &kubeconfig);
        let mut command = way.sandbox().command(&python);
        command.arg(format!("{FIXTURES}/python_client.py")).arg(kubeconfig);
        command.args([&namespace.name, &cluster.image]);
        let mut process = Process::start(command);
        process.end_input();
        (process, way, namespace)
    });
    let [direct, guarded] = runs.map(|(process, ..)| process.done().ok());
    assert_eq!(guarded, direct);
    for line in [
        "watch [('ADDED', 'watched-0'), ('ADDED', 'watched-1'), ('DELETED', 'watched-0'), ('DELETED', 'watched-1')]",
        "pods ['python']",
        "exec 'out\\n'",
        "exec v4.channel.k8s.io got older",
        "subprotocol v5.channel.k8s.io",
        "exec -i got end",
        "exec -i '' 'err\\n' 7",
        "terminal True 5",
        "port-forward b'HTTP/1.1 200 OK' b'hello\\n' None",
        "gone 404 Not Found",
    ] {
        assert!(guarded.lines().any(|said| said.starts_with(line)), "no {line:?} in\n{guarded}");
    }
}

/// `talker` prints a line, and stays.
const TALKER: &str = "{apiVersion: v1, kind: Pod, metadata: {name: talker}, spec: {terminationGracePeriodSeconds: 1,
    containers: [{name: main, image: IMAGE, command: [sh, -c, 'echo a line of the talker; exec sleep 100000']}]}}";

#[test]
#[ignore = "k9s takes five minutes to compile: just k9s"]
fn k9s_shows_pods_logs_and_a_shell() {
    let namespace = Namespace::create(&Cluster::get(), "k9s");
    let tunnel = Tunnel::guarded_with(&namespace.cluster.kubeconfig, &["--audit-log", "audit.jsonl"]);
    let way = namespace.through("guarded", &tunnel.kubeconfig());
    way.kubectl_with(&["apply", "-f", "-"], TALKER.replace("IMAGE", &namespace.cluster.image)).ok();
    way.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]).ok();

    let mut command = program("k9s", "run `just k9s`, which compiles it", way.sandbox(), &tunnel);
    command.args(["--splashless", "--logoless", "--namespace", &namespace.name, "--command", "pods"]);
    let config = way.sandbox().home().join("k9s");
    std::fs::create_dir(&config).unwrap();
    // Otherwise it asks GitHub for a newer release.
    std::fs::write(config.join("config.yaml"), "k9s: {skipLatestRevCheck: true}").unwrap();
    command.env("K9S_CONFIG_DIR", config).env("TERM", "xterm-256color");
    let mut k9s = Screen::start(&command);
    k9s.shows(&["talker", "Running", "1/1"]);
    k9s.types("l");
    k9s.shows(&["a line of the talker"]);
    k9s.types("\x1b");
    k9s.shows(&["talker", "Running"]);
    k9s.types("s");
    k9s.shows(&["/ #"]);
    // Typed text is echoed, so the shell computes the word that the test waits for.
    k9s.types("echo from the sh''ell: $HOSTNAME\r");
    k9s.shows(&["from the shell: talker"]);
    k9s.types("exit\r");
    k9s.shows(&["talker", "Running", "1/1"]);
    k9s.types(":quit\r");
    assert_eq!(k9s.process.done().code, 0);

    assert_eq!(tunnel.client.stop(Signal::TERM).code, 0);
    tunnel.server.process.done();
    let audit = std::fs::read_to_string(tunnel.server.sandbox.home().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for resource in ["pods/log", "pods/exec"] {
        let (resource, sub) = resource.split_once('/').unwrap();
        let of_it = |line: &&Value| line["resource"] == resource && line["subresource"] == sub;
        assert!(lines.iter().any(|line| of_it(&line) && line["decision"] == "allowed"), "{sub}: {audit}");
    }
}

/// A program that draws on a whole terminal.
struct Screen {
    process: Process,
    /// The screen's text, and how much of the output it is made of.
    drawn: RefCell<(vt100::Parser, usize)>,
}

impl Screen {
    fn start(command: &Command) -> Self {
        let [rows, columns] = [40, 160].map(|size| NonZeroU16::new(size).expect("not zero"));
        let process = Process::on_terminal(command, rows.get(), columns.get());
        Self { process, drawn: RefCell::new((vt100::Parser::new(rows, columns, 0), 0)) }
    }

    fn types(&mut self, keys: &str) {
        self.process.write(keys);
    }

    /// Waits until all of these texts are on the screen at once.
    #[track_caller]
    fn shows(&self, words: &[&str]) {
        self.process.wait(&format!("{words:?}"), |state| {
            let (parser, seen) = &mut *self.drawn.borrow_mut();
            parser.process(&state.stdout[*seen..]);
            *seen = state.stdout.len();
            let screen = parser.screen().contents();
            words.iter().all(|word| screen.contains(word)).then_some(())
        });
    }
}

/// A program of the `PATH`, with the client's kubeconfig.
fn program(name: &str, how: &str, sandbox: &Sandbox, tunnel: &Tunnel) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(name).is_file());
    assert!(found, "{name} is not on PATH: {how}");
    let mut command = sandbox.command(name);
    command.env("KUBECONFIG", tunnel.kubeconfig());
    command
}
