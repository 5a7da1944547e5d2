//! The objects that operations use: a pod that counts, echoes and keeps files, and a config map whose number grows.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{LIMIT, Namespace, Process, Way};

/// Over a slow line `kubectl cp` loses the end of a file that it copies out, without any fault and without mykube: the
/// API server closes when tar ends, not when everything was sent. So tar here ends only when it is told that all has
/// arrived.
const PATIENT_TAR: &str = "t=$(which tar); rm -f $t; printf '#!/bin/sh\\nbusybox tar \"$@\"; code=$?\\n\
     case $1 in c*) while [ ! -e /tmp/copied ] && [ ! -e /tmp/stop ]; do sleep 0.2; done ;; esac; exit $code\\n' >$t; \
     chmod +x $t";

/// The counter in a pod: numbered lines until the file exists, then `end` and an exit code of its own.
pub(super) const COUNT: &str = "i=0; while [ ! -e /tmp/stop ]; do printf '%08d\\n' $i; i=$((i+1)); sleep 0.2; done; \
     printf 'end %08d\\n' $i; exit 7";

/// What the operations of one fault work on.
pub(super) struct Pod<'a> {
    namespace: &'a Namespace,
    pub(super) name: String,
    bytes: usize,
}

impl<'a> Pod<'a> {
    pub(super) fn start(namespace: &'a Namespace, number: usize, bytes: usize) -> Self {
        let name = format!("faults-{number}");
        let script = format!("{PATIENT_TAR}; echod >/dev/null 2>&1 & {}", COUNT.replace("exit 7", "sleep 2"));
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": namespace.cluster.image,
                    "command": ["sh", "-c", script],
                }],
            },
        });
        namespace.direct().kubectl_with(&["create", "-f", "-"], pod.to_string()).ok();
        Self { namespace, name, bytes }
    }

    /// Makes the file that is copied out, and returns its checksum.
    pub(super) fn ready(&self) -> String {
        let pod = format!("pod/{}", self.name);
        self.namespace.direct().kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=60s"]).ok();
        let make = format!("head -c {} /dev/urandom >/tmp/source && sha256sum /tmp/source", self.bytes);
        let said = patiently(self.namespace.direct(), &["exec", &self.name, "--", "sh", "-c", &make]);
        said.split_whitespace().next().expect("a sum").to_owned()
    }

    /// Ends the pod's counter, and then the pod.
    pub(super) fn stop(&self) {
        self.namespace.direct().kubectl(&["exec", &self.name, "--", "touch", "/tmp/stop"]).ok();
    }
}

/// Runs a kubectl that may have a gigabyte to transfer, and checks that it succeeds.
pub(super) fn patiently(way: &Way, args: &[&str]) -> String {
    way.start(args).done_within(LIMIT * 10).ok()
}

/// Time between numbers of the counter.
const TICK: Duration = Duration::from_millis(300);

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let delete = ["delete", "pod", &self.name, "--wait=false", "--grace-period=0", "--force"];
        self.namespace.direct().start(&delete).follow(Instant::now() + LIMIT, |_| false);
    }
}

/// A config map with a number that grows.
pub(super) struct Counter {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Counter {
    pub(super) fn start(namespace: &Namespace) -> Self {
        namespace.direct().kubectl(&["create", "configmap", "counter", "--from-literal=number=00000000"]).ok();
        namespace.direct().kubectl(&["label", "configmap", "counter", "counter=yes"]).ok();
        let proxy = namespace.direct().start(&["proxy", "--port=0"]);
        let address = proxy.wait("its address", |state| {
            let text = String::from_utf8_lossy(&state.stdout).into_owned();
            let (_, rest) = text.split_once("Starting to serve on ")?;
            Some(rest.split_once('\n')?.0.trim().to_owned())
        });
        let path = format!("/api/v1/namespaces/{}/configmaps/counter", namespace.name);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let _proxy: Process = proxy;
            let mut number = 1_u64;
            while !stopped.load(Ordering::SeqCst) {
                let body = format!("{{\"data\":{{\"number\":\"{number:08}\"}}}}");
                if patch(&address, &path, &body).is_ok() {
                    number += 1;
                }
                thread::sleep(TICK);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn patch(address: &str, path: &str, body: &str) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(LIMIT))?;
    let len = body.len();
    write!(
        connection,
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/merge-patch+json\r\n\
         Content-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(std::io::Error::other(answer)),
    }
}
