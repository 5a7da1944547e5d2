//! The real cluster, and the ways to reach it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use super::{Done, Process, Sandbox};

/// The cluster that `scripts/test` started or was told of.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) image: String,
}

impl Cluster {
    #[track_caller]
    pub(crate) fn get() -> Self {
        let named = ["MYKUBE_E2E_KUBECONFIG", "KUBECONFIG"].into_iter().find_map(std::env::var_os);
        let kubeconfig = named.map(PathBuf::from).filter(|path| path.is_file());
        let image = std::env::var("MYKUBE_CLUSTER_IMAGE").ok();
        let (Some(kubeconfig), Some(image)) = (kubeconfig, image) else {
            panic!("there is no Kubernetes cluster in the environment: run scripts/test");
        };
        Self { kubeconfig, image }
    }

    /// Address and CA of the API server: the `cluster` of a kubeconfig.
    pub(crate) fn endpoint(&self) -> Value {
        let sandbox = Sandbox::new();
        let way = Way::new("direct", &self.kubeconfig, None);
        let text = way.kubectl_in(&sandbox, &["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok();
        let config: Value = serde_json::from_str(&text).unwrap();
        config["clusters"][0]["cluster"].clone()
    }
}

/// A kubeconfig with one cluster and one user.
pub(crate) fn kubeconfig(name: &str, cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": "e2e", "user": user}],
        "contexts": [{"name": "e2e", "context": {"cluster": name, "user": "e2e"}}],
    })
}

/// One kubeconfig, and the namespace to use it in.
pub(crate) struct Way {
    /// `direct`, or the tunnel's name.
    pub(crate) name: &'static str,
    kubeconfig: PathBuf,
    namespace: Option<String>,
    sandbox: Sandbox,
}

impl Way {
    pub(crate) fn new(name: &'static str, kubeconfig: &Path, namespace: Option<&str>) -> Self {
        Self {
            name,
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.map(str::to_owned),
            sandbox: Sandbox::new(),
        }
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Its kubeconfig as JSON, with everything it refers to.
    pub(crate) fn config(&self) -> String {
        self.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok()
    }

    /// A kubectl with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_in(&self.sandbox, args)
    }

    fn command_in(&self, sandbox: &Sandbox, args: &[&str]) -> Command {
        let mut command = sandbox.command("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig);
        if let Some(namespace) = &self.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.args(args);
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Process {
        Process::start(self.command(args))
    }

    /// Runs kubectl with an empty input.
    #[track_caller]
    pub(crate) fn kubectl(&self, args: &[&str]) -> Done {
        self.kubectl_with(args, Vec::new())
    }

    /// Runs kubectl with this input.
    #[track_caller]
    pub(crate) fn kubectl_with(&self, args: &[&str], input: impl Into<Vec<u8>>) -> Done {
        self.kubectl_env(args, &[], input)
    }

    #[track_caller]
    pub(crate) fn kubectl_env(&self, args: &[&str], env: &[(&str, &str)], input: impl Into<Vec<u8>>) -> Done {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        let mut process = Process::start(command);
        process.feed(input.into());
        process.done()
    }

    fn kubectl_in(&self, sandbox: &Sandbox, args: &[&str]) -> Done {
        let mut process = Process::start(self.command_in(sandbox, args));
        process.end_input();
        process.done()
    }
}

/// For pods that files are copied from, as a shell's command: a `tar` that stays for a while after its last byte. When
/// tar ends, the API server closes although not everything was sent, without mykube too, and `kubectl cp` loses the
/// end.
pub(crate) const LINGERING_TAR: &str = "t=$(which tar); rm -f $t; echo '#!/bin/sh' >$t; \
     echo 'busybox tar $*; code=$?; case $1 in c*) sleep 3;; esac; exit $code' >>$t; chmod +x $t";

/// A namespace of one test's own, deleted on drop.
pub(crate) struct Namespace {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
    direct: Way,
}

impl Namespace {
    #[track_caller]
    pub(crate) fn create(cluster: &Cluster, test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("e2e-{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let direct = Way::new("direct", &cluster.kubeconfig, Some(&name));
        direct.kubectl(&["create", "namespace", &name]).ok();
        let namespace = Self { cluster: cluster.clone(), name, direct };
        namespace.direct.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]).ok();
        namespace
    }

    /// Reaches the cluster without mykube.
    pub(crate) fn direct(&self) -> &Way {
        &self.direct
    }

    /// Reaches it through a client's kubeconfig.
    pub(crate) fn through(&self, name: &'static str, kubeconfig: &Path) -> Way {
        Way::new(name, kubeconfig, Some(&self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut command = self.direct.command(&["delete", "namespace", &self.name, "--wait=false"]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let _ = command.status();
    }
}
