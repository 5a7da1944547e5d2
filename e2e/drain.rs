//! kubectl drain through guarded mode, held up by a disruption budget.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Cluster, Namespace, Tunnel, Way};

#[test]
fn a_drain_waits_for_the_disruption_budget() {
    let namespace = Namespace::create(&Cluster::get(), "drain");
    let direct = namespace.direct();
    let node = Node::create(&namespace);
    for name in ["kept", "free"] {
        node.run(name);
    }
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    });
    direct.kubectl_with(&["apply", "-f", "-"], budget.to_string()).ok();
    direct.kubectl(&["wait", "--for=jsonpath={.status.currentHealthy}=1", "pdb/kept", "--timeout=60s"]).ok();

    let tunnel = Tunnel::guarded_with(&namespace.cluster.kubeconfig, &["--audit-log", "audit.jsonl"]);
    let guarded = namespace.through("guarded", &tunnel.kubeconfig());
    let drain = guarded.start(&["drain", &node.name, "--force", "--timeout=50s"]);
    drain.says("will retry after 5s): Cannot evict pod as it would violate the pod's disruption budget.");
    drain.prints("pod/free evicted");
    assert_eq!(node.unschedulable(), "true");
    assert!(drain.is_running());
    guarded.kubectl(&["get", "pod", "kept"]).ok();
    guarded.kubectl(&["patch", "pdb", "kept", "--type=merge", "--patch", r#"{"spec":{"minAvailable":0}}"#]).ok();
    let done = drain.done();
    assert_eq!(done.code, 0, "{}", done.stderr);
    for words in ["pod/kept evicted", &format!("node/{} drained", node.name)] {
        assert!(done.stdout.contains(words), "{}", done.stdout);
    }
    assert_eq!(guarded.kubectl(&["get", "pods", "-o", "name"]).ok(), "");
    guarded.kubectl(&["uncordon", &node.name]).ok();
    assert_eq!(node.unschedulable(), "");

    // In the API server's words: an eviction is refused as long as the budget allows none.
    drop(guarded);
    tunnel.client.stop(rustix::process::Signal::TERM);
    tunnel.server.process.done();
    let audit = std::fs::read_to_string(tunnel.server.sandbox.home().join("audit.jsonl")).unwrap();
    let lines = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let evictions = lines.filter(|line| line["subresource"] == "eviction" && line["name"] == "kept");
    let statuses: Vec<_> = evictions.map(|line| line["status"].as_u64().unwrap()).collect();
    let (last, before) = statuses.split_last().expect("an eviction");
    assert_eq!(*last, 201, "{statuses:?}");
    assert!(!before.is_empty() && before.iter().all(|status| *status == 429), "{statuses:?}");
}

/// A node without a machine, as the only real node is used by all tests. Deleted on drop.
struct Node<'a> {
    name: String,
    namespace: &'a Namespace,
}

impl<'a> Node<'a> {
    fn create(namespace: &'a Namespace) -> Self {
        let node = Self { name: namespace.name.clone(), namespace };
        // It has no room for pods, and gets only those that name it.
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name},
            "spec": {"taints": [{"key": "mykube.test/no-machine", "effect": "NoSchedule"}]},
        });
        node.direct().kubectl_with(&["create", "-f", "-"], object.to_string()).ok();
        node
    }

    /// A pod that the node would report to be ready.
    fn run(&self, name: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "nodeName": self.name, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": self.namespace.cluster.image}],
            },
        });
        self.direct().kubectl_with(&["create", "-f", "-"], pod.to_string()).ok();
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let patch = ["patch", "pod", name, "--subresource=status", "--type=merge", "--patch", &status.to_string()];
        self.direct().kubectl(&patch).ok();
    }

    fn unschedulable(&self) -> String {
        self.direct().kubectl(&["get", "node", &self.name, "-o", "jsonpath={.spec.unschedulable}"]).ok()
    }

    fn direct(&self) -> &Way {
        self.namespace.direct()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let mut command = self.direct().command(&["delete", "node", &self.name]);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
