//! Requests and answers: objects read, changed and watched.

use rustix::process::Signal;
use serde_json::Value;
use sha2::Digest as _;

use crate::support::{Process, Way};

const SERVER_VERSION: &str = "/version";

pub(super) fn get(way: &Way) -> String {
    // Without the readiness probe's bookkeeping, a running pod does not change.
    way.kubectl(&["get", "pod", "bench", "-o", "json"]).ok()
}

pub(super) fn describe(way: &Way) -> String {
    way.kubectl(&["describe", "pod", "bench", "--show-events=false"]).ok()
}

pub(super) fn explain(way: &Way) -> String {
    way.kubectl(&["explain", "pod.spec.containers.livenessProbe", "--recursive"]).ok()
}

fn config_map(name: &str, value: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}, data: {{key: {value}}}}}")
}

/// An object without the fields that the server makes anew for each.
fn stored(way: &Way, name: &str) -> String {
    let text = way.kubectl(&["get", "configmap", name, "-o", "json", "--show-managed-fields"]).ok();
    let mut object: Value = serde_json::from_str(&text).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp"] {
        assert!(metadata.remove(field).is_some());
    }
    for manager in metadata["managedFields"].as_array_mut().unwrap() {
        manager.as_object_mut().unwrap().remove("time");
    }
    object.to_string()
}

pub(super) fn apply(way: &Way) -> String {
    apply_twice(way, "applied", &["apply", "-f", "-"])
}

pub(super) fn apply_server_side(way: &Way) -> String {
    apply_twice(way, "applied-there", &["apply", "--server-side", "-f", "-"])
}

fn apply_twice(way: &Way, name: &str, command: &[&str]) -> String {
    let said = ["one", "two", "two"].map(|value| way.kubectl_with(command, config_map(name, value)).ok());
    let object = stored(way, name);
    way.kubectl(&["delete", "configmap", name]).ok();
    said.concat() + &object
}

pub(super) fn diff(way: &Way) -> String {
    way.kubectl_with(&["apply", "-f", "-"], config_map("diffed", "one")).ok();
    let same = way.kubectl_with(&["diff", "-f", "-"], config_map("diffed", "one"));
    assert_eq!((same.code, same.stdout.as_str()), (0, ""));
    let other = way.kubectl_with(&["diff", "-f", "-"], config_map("diffed", "two"));
    assert_eq!(other.code, 1, "{}", other.stderr);
    way.kubectl(&["delete", "configmap", "diffed"]).ok();
    // Without names of temporary files, times and the object's own id.
    let changed = other.stdout.lines().filter(|line| line.starts_with(['+', '-']) && line.contains("key"));
    changed.collect::<Vec<_>>().join("\n")
}

pub(super) fn delete(way: &Way) -> String {
    way.kubectl(&["create", "configmap", "deleted", "--from-literal=a=b"]).ok();
    let said = way.kubectl(&["delete", "configmap", "deleted"]).ok();
    let gone = way.kubectl(&["get", "configmap", "deleted"]);
    assert_eq!(gone.code, 1);
    said + &gone.stderr
}

pub(super) fn watch(way: &Way) -> String {
    let create = |name: &str| {
        way.kubectl(&["create", "configmap", name]).ok();
        way.kubectl(&["label", "configmap", name, "watched=yes"]).ok();
    };
    create("watched-0");
    let watch = way.start(&["get", "configmap", "-w", "-l", "watched=yes", "--output-watch-events"]);
    watch.prints("watched-0");
    create("watched-1");
    watch.prints("watched-1");
    way.kubectl(&["delete", "configmap", "watched-0", "watched-1"]).ok();
    watch.wait("two deletions", |state| {
        let said = String::from_utf8_lossy(&state.stdout);
        (said.ends_with('\n') && said.matches("DELETED").count() == 2).then_some(())
    });
    watch.signal(Signal::INT);
    // Event and name; the columns after them are ages.
    let said = watch.done().stdout;
    let events = said.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
    events.collect::<Vec<_>>().join("\n")
}

pub(super) fn raw(way: &Way) -> String {
    let version = way.kubectl(&["get", "--raw", SERVER_VERSION]).ok();
    // A document of more than a megabyte that does not change while a cluster runs; the index, with its hashes, does.
    let document = way.kubectl(&["get", "--raw", "/openapi/v3/api/v1"]).ok();
    format!("{version} {} bytes, SHA-256 {:x?}", document.len(), sha2::Sha256::digest(document.as_bytes()))
}

pub(super) fn rollout_status(way: &Way) -> String {
    let image = way.kubectl(&["get", "pod", "bench", "-o", "jsonpath={.spec.containers[0].image}"]).ok();
    let create = ["create", "deployment", "rolled", "--replicas=2", "--image", &image, "--", "sleep", "1000"];
    way.kubectl(&create).ok();
    let said = way.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"]).ok();
    way.kubectl(&["delete", "deployment", "rolled", "--cascade=foreground", "--wait=false"]).ok();
    way.kubectl(&["delete", "pod", "-l", "app=rolled", "--grace-period=0", "--force"]).ok();
    way.kubectl(&["wait", "--for=delete", "deployment/rolled", "--timeout=60s"]).ok();
    // How often it had to wait differs from run to run.
    said.lines().last().unwrap_or_default().to_owned()
}

pub(super) fn forty_at_once(way: &Way) -> String {
    let all: Vec<Process> = (0..40).map(|_| way.start(&["get", "pod", "bench", "-o", "name"])).collect();
    all.iter().map(|one| one.done().ok()).collect()
}
