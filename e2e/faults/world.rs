//! A client, a server and kubectl on [`Wires`].

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use mykube_lab::{End, ForwardOptions, Forwarder};
use serde_json::Value;

use super::wires::{Middle, Setup, Wires};
use crate::support::{Mykube, Namespace, Process, Running, Sandbox};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Guarded,
    Shared,
    /// For comparison: a plain TCP tunnel.
    Bore,
    /// For comparison: kubectl and the API server with only the lines between them.
    Alone,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Guarded => "guarded",
            Self::Shared => "shared",
            Self::Bore => "bore",
            Self::Alone => "kubectl alone",
        }
    }
}

impl Mode {
    fn relay(self) -> Middle {
        match self {
            Self::Guarded | Self::Shared => Middle::Relay,
            Self::Bore => Middle::Bore,
            Self::Alone => Middle::Nothing,
        }
    }
}

/// Removed with all processes in it when dropped.
pub(super) struct World {
    /// kubectl's side of the tunnel; bore has none.
    pub(super) client: Option<Running>,
    /// The API server's side.
    pub(super) server: Option<Running>,
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
        let wires = Wires::new(Setup { relay: mode.relay(), ..setup });
        let endpoint = namespace.cluster.endpoint();
        let api = api_server(&endpoint);
        // The API server's certificate has its address in this network: the kubeconfig need not change.
        let inside = if mode == Mode::Alone { (Ipv4Addr::UNSPECIFIED, api.port()).into() } else { api };
        let door = Forwarder::start(wires.server_net.listen(inside).unwrap(), ForwardOptions::to(api)).unwrap();
        let sandbox = Sandbox::new();
        let kubeconfig = &namespace.cluster.kubeconfig;
        let elsewhere = |at: SocketAddr| {
            let path = sandbox.home().join("kubeconfig");
            let mut config: Value = serde_json::from_str(&namespace.direct().config()).unwrap();
            let cluster = &mut config["clusters"][0]["cluster"];
            cluster["tls-server-name"] = api.ip().to_string().into();
            cluster["server"] = format!("https://{at}").into();
            std::fs::write(&path, config.to_string()).unwrap();
            path
        };
        let (client, server, kubeconfig, environment) = match mode {
            Mode::Guarded | Mode::Shared => {
                let server = wires.server(|url| match mode {
                    Mode::Guarded => Mykube::guarding(url, kubeconfig),
                    _ => Mykube::server(url, kubeconfig),
                });
                let server = server.start();
                let client = wires.client().start_with(&server.code());
                let connected = client.event("connected");
                let kubeconfig = client.kubeconfig();
                (Some(client), Some(server), kubeconfig, environment(&connected))
            }
            Mode::Bore => (None, Some(wires.bore(api.port())), elsewhere(wires.bore_entry()), Vec::new()),
            Mode::Alone => {
                let at = (wires.server_line.address(End::B), api.port());
                (None, None, elsewhere(at.into()), Vec::new())
            }
        };
        Self { client, server, namespace: namespace.name.clone(), sandbox, kubeconfig, environment, _door: door, wires }
    }

    /// The processes of mykube.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&'static str, &Running)> {
        let ends = [("client", &self.client), ("server", &self.server)];
        ends.into_iter().filter_map(|(name, end)| Some((name, end.as_ref()?)))
    }

    /// A kubectl in the client's network, with the variables that the client says.
    pub(super) fn kubectl(&self, args: &[&str], environment: &[(&str, &str)]) -> Process {
        let [program, net] = self.wires.client_net.prefix();
        let mut command = self.sandbox.command(program);
        command.args([&net, "--", "kubectl", "--namespace", &self.namespace]).args(args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.envs(self.environment.iter().cloned()).envs(environment.iter().copied());
        Process::start(command)
    }

    /// kubectl's files.
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
