//! Every kubectl operation, directly and through the tunnel, with equal results.

mod objects;
mod ports;
mod streams;

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::support::{Cluster, Namespace, Tunnel, Way, cluster::LINGERING_TAR};

/// An operation's result, without anything that differs from run to run.
type Operation = fn(&Way) -> String;

const OPERATIONS: &[(&str, Operation)] = &[
    ("cp in and out, 100 MB", streams::cp),
    ("get", objects::get),
    ("describe", objects::describe),
    ("explain", objects::explain),
    ("apply, client side", objects::apply),
    ("apply --server-side", objects::apply_server_side),
    ("diff", objects::diff),
    ("delete", objects::delete),
    ("get -w", objects::watch),
    ("get --raw", objects::raw),
    ("rollout status", objects::rollout_status),
    ("40 kubectl at once", objects::forty_at_once),
    ("logs -f", streams::logs_follow),
    ("exec: output", streams::exec_output),
    ("exec: exit code", streams::exec_exit_code),
    ("exec: 5 MB of stdin with EOF", streams::exec_stdin),
    ("exec over SPDY", streams::exec_spdy),
    ("exec over WebSocket", streams::exec_websocket),
    ("exec -it: terminal, resize", streams::exec_terminal),
    ("attach -i", streams::attach),
    ("run --rm -i", streams::run_interactive),
    ("debug", streams::debug),
    ("port-forward: HTTP", ports::http),
    ("port-forward: 2 MB echo", ports::echo),
    ("port-forward: 20 connections at once", ports::twenty_at_once),
    ("port-forward: half-close", ports::half_close),
    ("port-forward over SPDY", ports::spdy),
    ("proxy", ports::proxy),
];

/// The objects of the operations: `bench` serves and logs, `cat` echoes, `patient` is debugged.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: bench, labels: {app: bench}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    command:
    - sh
    - -c
    - |
      TAR
      mkdir /www; echo hello >/www/index.html; httpd -p 8080 -h /www
      # Upstream's nc and Debian's spell "for ever" differently.
      serve() { nc -lk -p $1 -e $2 || nc -ll -p $1 -e $2; }
      # Our own image has a better one on this port.
      (echod || serve 9000 cat) &
      i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: IMAGE, command: [cat], stdin: true}]
---
apiVersion: v1
kind: Pod
metadata: {name: patient}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: IMAGE, command: [sleep, "100000"]}]
"#;

/// One operation's runs: directly, through a tunnel with shared credentials, through a guarded one.
struct Row {
    at: usize,
    runs: [(Result<String, String>, Duration); 3],
}

const WAYS: [&str; 3] = ["direct", "tunnel", "guarded tunnel"];

#[test]
fn operations_are_the_same_direct_and_through_the_tunnel() {
    let namespace = Namespace::create(&Cluster::get(), "operations");
    let direct = namespace.direct();
    direct
        .kubectl_with(
            &["apply", "-f", "-"],
            PODS.replace("IMAGE", &namespace.cluster.image).replace("TAR", LINGERING_TAR),
        )
        .ok();
    let tunnels = [Tunnel::open, Tunnel::guarded].map(|open| open(&namespace.cluster.kubeconfig));
    let shared = namespace.through("shared", &tunnels[0].kubeconfig());
    let guarded = namespace.through("guarded", &tunnels[1].kubeconfig());
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/bench", "pod/cat", "pod/patient", "--timeout=60s"]).ok();

    let next = Mutex::new(0..OPERATIONS.len());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().unwrap().next() else { break };
                    let runs = [direct, &shared, &guarded].map(|way| attempt(OPERATIONS[at].1, way));
                    rows.lock().unwrap().push(Row { at, runs });
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|row| row.at);
    report(&rows);
    let failed: Vec<_> = rows.iter().flat_map(Row::failures).collect();
    assert!(failed.is_empty(), "{} operations, {} failures:\n{}", rows.len(), failed.len(), failed.join("\n"));
    for tunnel in &tunnels {
        assert!(tunnel.client.process.is_running() && tunnel.server.process.is_running());
    }
}

/// Longer than either end waits for a dead connection: one that is only full is not dead.
const LATE: &str = "sleep 20; wc -c";

#[test]
fn a_program_that_reads_late_gets_all_of_its_input() {
    const BYTES: usize = 48 << 20;
    let namespace = Namespace::create(&Cluster::get(), "late");
    let direct = namespace.direct();
    direct.kubectl(&["run", "late", "--image", &namespace.cluster.image, "--command", "--", "sleep", "100000"]).ok();
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/late", "--timeout=60s"]).ok();
    let tunnels = [Tunnel::open, Tunnel::guarded].map(|open| open(&namespace.cluster.kubeconfig));
    std::thread::scope(|scope| {
        for (tunnel, name) in tunnels.iter().zip(["shared", "guarded"]) {
            let way = namespace.through(name, &tunnel.kubeconfig());
            scope.spawn(move || {
                let done = way.kubectl_with(&["exec", "-i", "late", "--", "sh", "-c", LATE], vec![0; BYTES]);
                assert_eq!(done.ok().trim(), BYTES.to_string(), "{name}");
            });
        }
    });
}

fn attempt(operation: Operation, way: &Way) -> (Result<String, String>, Duration) {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| operation(way)));
    let result = result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("failed").to_owned()
    });
    (result, start.elapsed())
}

impl Row {
    fn name(&self) -> &'static str {
        OPERATIONS[self.at].0
    }

    fn failures(&self) -> Vec<String> {
        let name = self.name();
        let expected = &self.runs[0].0;
        let runs = self.runs.iter().zip(WAYS);
        let failure = |((result, _), way): (&(Result<String, String>, Duration), &str)| match result {
            Err(why) => Some(format!("{name} fails ({way}): {why}")),
            Ok(result) if expected.as_ref().is_ok_and(|expected| expected != result) => {
                Some(format!("{name} differs.\n--- direct\n{expected:?}\n--- {way}\n{result:?}"))
            }
            Ok(_) => None,
        };
        runs.filter_map(failure).collect()
    }
}

/// Writes the table for a release.
fn report(rows: &[Row]) {
    let mut table = format!("| operation | {} |\n| --- | --- | --- | --- |\n", WAYS.join(" | "));
    for row in rows {
        let cells = row.runs.iter().map(|(result, took)| {
            let word = match (result, &row.runs[0].0) {
                (Err(_), _) => "FAIL",
                (Ok(result), Ok(expected)) if result != expected => "DIFFERS",
                (Ok(_), _) => "pass",
            };
            format!("{word}, {:.1} s", took.as_secs_f64())
        });
        let _ = writeln!(table, "| {} | {} |", row.name(), cells.collect::<Vec<_>>().join(" | "));
    }
    println!("{table}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("e2e-operations.md");
    std::fs::write(path, table).unwrap();
}
