//! Every kubectl operation twice, direct and through the tunnel, with equal results.

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

use crate::support::{Cluster, Namespace, Tunnel, Way};

/// What an operation gives, freed of all that differs from run to run.
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

/// What the operations work on: `bench` serves and logs, `cat` returns what it is told, `patient` is debugged.
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
      mkdir /www; echo hello >/www/index.html; httpd -p 8080 -h /www
      # Upstream's nc and Debian's spell "for ever" differently.
      serve() { nc -lk -p $1 -e $2 || nc -ll -p $1 -e $2; }
      serve 7000 cat &
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

/// One operation's two runs.
struct Row {
    at: usize,
    direct: (Result<String, String>, Duration),
    tunnel: (Result<String, String>, Duration),
}

#[test]
fn operations_are_the_same_direct_and_through_the_tunnel() {
    let namespace = Namespace::create(&Cluster::get(), "operations");
    let direct = namespace.direct();
    direct.kubectl_with(&["apply", "-f", "-"], PODS.replace("IMAGE", &namespace.cluster.image)).ok();
    let tunnel = Tunnel::open(&namespace.cluster.kubeconfig);
    let through = namespace.through(&tunnel.kubeconfig());
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/bench", "pod/cat", "pod/patient", "--timeout=60s"]).ok();

    let next = Mutex::new(0..OPERATIONS.len());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().unwrap().next() else { break };
                    let operation = OPERATIONS[at].1;
                    let row = Row { at, direct: attempt(operation, direct), tunnel: attempt(operation, &through) };
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by_key(|row| row.at);
    report(&rows);
    let failed: Vec<_> = rows.iter().filter_map(Row::failure).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), rows.len(), failed.join("\n"));
    assert!(tunnel.client.process.is_running() && tunnel.server.process.is_running());
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

    fn failure(&self) -> Option<String> {
        match (&self.direct.0, &self.tunnel.0) {
            (Ok(direct), Ok(tunnel)) if direct == tunnel => None,
            (Ok(direct), Ok(tunnel)) => {
                Some(format!("{} differs.\n--- direct\n{direct}\n--- tunnel\n{tunnel}", self.name()))
            }
            (Err(why), _) => Some(format!("{} fails even directly: {why}", self.name())),
            (_, Err(why)) => Some(format!("{} fails through the tunnel: {why}", self.name())),
        }
    }
}

/// Writes the table that a release shows.
fn report(rows: &[Row]) {
    let mut table = String::from("| operation | direct | tunnel |\n| --- | --- | --- |\n");
    for row in rows {
        let cell = |(result, took): &(Result<String, String>, Duration)| {
            let word = if result.is_ok() { "pass" } else { "FAIL" };
            format!("{word}, {:.1} s", took.as_secs_f64())
        };
        let same = if row.failure().is_none() || row.tunnel.0.is_err() { "" } else { " (differs)" };
        let _ = writeln!(table, "| {} | {} | {}{same} |", row.name(), cell(&row.direct), cell(&row.tunnel));
    }
    println!("{table}");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").join("e2e-operations.md");
    std::fs::write(path, table).unwrap();
}
