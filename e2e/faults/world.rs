//! A client, a server and kubectl on [`Wires`].

use std::{net::SocketAddr, path::PathBuf};

use mykube_lab::{ForwardOptions, Forwarder};
use serde_json::Value;

use super::wires::{Setup, Wires};
use crate::support::{Mykube, Namespace, Process, Running, Sandbox};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Guarded,
    Shared,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Guarded => "guarded",
            Self::Shared => "shared",
        }
    }
}

/// Removed with all that runs in it when dropped.
pub(super) struct World {
    pub(super) client: Running,
    pub(super) server: Running,
    namespace: String,
    sandbox: Sandbox,
    kubeconfig: PathBuf,
    environment: Vec<(String, String)>,
    _door: Forwarder,
    pub(super) wires: Wires,
}

impl World {
    /// Starts and pairs everything.
    pub(super) fn start(mode: Mode, setup: Setup, namespace: &Namespace) -> Self {
        let wires = Wires::new(setup);
        let api = api_server(&namespace.cluster.endpoint());
        // The API server's certificate names the address it has here: the kubeconfig stays as it is.
        let door = Forwarder::start(wires.server_net.listen(api).unwrap(), ForwardOptions::to(api)).unwrap();
        let kubeconfig = &namespace.cluster.kubeconfig;
        let server = wires.server(|url| match mode {
            Mode::Guarded => Mykube::guarding(url, kubeconfig),
            Mode::Shared => Mykube::server(url, kubeconfig),
        });
        let server = server.start();
        let client = wires.client().start_with(&server.code());
        let connected = client.event("connected");
        Self {
            namespace: namespace.name.clone(),
            kubeconfig: client.kubeconfig(),
            environment: environment(&connected),
            client,
            server,
            sandbox: Sandbox::new(),
            _door: door,
            wires,
        }
    }

    /// A kubectl where the client is, with what the client says it needs.
    pub(super) fn kubectl(&self, args: &[&str], environment: &[(&str, &str)]) -> Process {
        let [program, net] = self.wires.client_net.prefix();
        let mut command = self.sandbox.command(program);
        command.args([&net, "--", "kubectl", "--namespace", &self.namespace]).args(args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.envs(self.environment.iter().cloned()).envs(environment.iter().copied());
        Process::start(command)
    }

    /// Where kubectl keeps its files.
    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }
}

/// The API server's address on this machine.
fn api_server(endpoint: &Value) -> SocketAddr {
    let url = endpoint["server"].as_str().expect("a URL");
    let address = url.strip_prefix("https://").expect("https").trim_end_matches('/');
    address.parse().unwrap_or_else(|_| panic!("the fault tests need an API server at an address and port, not {url}"))
}

fn environment(connected: &Value) -> Vec<(String, String)> {
    let variables = connected["environment"].as_object().into_iter().flatten();
    variables.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect()
}
