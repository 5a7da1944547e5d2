//! Client, relay and server in networks of their own, joined by lines that can be cut: `client - relay - server`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use mykube_lab::{Cut, End, ForwardOptions, Forwarder, Lab, Link, Namespace as Net, Shape};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{LIMIT, Mykube, Namespace, Process, Running, Sandbox, certs::Authority};

/// Where the relay listens.
const PORT: u16 = 8443;
/// Where the proxies listen, each on the loopback of its own network.
const PROXY: &str = "127.0.0.1:3128";

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

/// How a world is made.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) mode: Mode,
    /// Bits a second of both lines.
    pub(super) rate: Option<u64>,
    /// `--resume-window` of both ends.
    pub(super) window: Option<Duration>,
    /// Both ends reach the relay by proxies that cut what is idle, and what is old.
    pub(super) cuts: Option<(Duration, Duration)>,
}

/// Removed with all that runs in it when dropped.
pub(super) struct World {
    pub(super) mode: Mode,
    pub(super) namespace: String,
    pub(super) client: Running,
    pub(super) server: Running,
    relay: Mutex<Running>,
    relay_files: Sandbox,
    sandbox: Sandbox,
    kubeconfig: PathBuf,
    environment: Vec<(String, String)>,
    pub(super) proxies: Vec<Forwarder>,
    _door: Forwarder,
    /// The client's is [`End::A`], the relay's [`End::B`].
    pub(super) client_line: Link,
    /// The relay's is [`End::A`], the server's [`End::B`].
    pub(super) server_line: Link,
    pub(super) client_net: Net,
    relay_net: Net,
    _server_net: Net,
}

impl World {
    /// Starts and pairs everything.
    pub(super) fn start(setup: &Setup, namespace: &Namespace) -> Self {
        let lab = Lab::new().unwrap();
        let [client_net, relay_net, server_net] = ["client", "relay", "server"].map(|it| lab.namespace(it).unwrap());
        let shape = Shape { rate: setup.rate, ..Shape::default() };
        let client_line = lab.link(&client_net, &relay_net, shape).unwrap();
        let server_line = lab.link(&relay_net, &server_net, shape).unwrap();
        let at = [client_line.address(End::B), server_line.address(End::A)].map(|it| it.to_string());

        let authority = Authority::new("the relay's own CA");
        let signed = authority.sign(&[&at[0], &at[1]]);
        let relay_files = Sandbox::new();
        relay_files.file("cert.pem", signed.certificate);
        relay_files.file("key.pem", signed.key);
        let ca = relay_files.file("ca.pem", authority.pem());
        let relay = relay(&relay_net, &relay_files);

        let api = api_server(&namespace.cluster.endpoint());
        // The API server's certificate names the address it has here: the kubeconfig stays as it is.
        let door = Forwarder::start(server_net.listen(api).unwrap(), ForwardOptions::to(api)).unwrap();
        let proxies = setup.cuts.map(|cuts| [&client_net, &server_net].map(|net| proxy(net, cuts)));
        let [client_url, server_url] = at.map(|at| format!("https://{at}:{PORT}"));
        let ready = |end: Mykube, net: &Net| {
            let mut end = end.arg("--ca-file").arg(&ca);
            if let Some(window) = setup.window {
                end = end.arg("--resume-window").arg(format!("{}s", window.as_secs()));
            }
            if proxies.is_some() {
                end = end.env("HTTPS_PROXY", format!("http://{PROXY}"));
            }
            inside(end, net)
        };
        let server = match setup.mode {
            Mode::Guarded => Mykube::guarding(&server_url, &namespace.cluster.kubeconfig),
            Mode::Shared => Mykube::server(&server_url, &namespace.cluster.kubeconfig),
        };
        let server = ready(server, &server_net).start();
        let client = ready(Mykube::client(&client_url), &client_net).start_with(&server.code());
        let connected = client.event("connected");
        Self {
            mode: setup.mode,
            namespace: namespace.name.clone(),
            kubeconfig: client.kubeconfig(),
            environment: environment(&connected),
            client,
            server,
            relay: Mutex::new(relay),
            relay_files,
            sandbox: Sandbox::new(),
            proxies: proxies.into_iter().flatten().collect(),
            _door: door,
            client_line,
            server_line,
            client_net,
            relay_net,
            _server_net: server_net,
        }
    }

    /// A kubectl where the client is, with what the client says it needs.
    pub(super) fn kubectl(&self, args: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = self.sandbox.command("nsenter");
        let [_, net] = self.client_net.prefix();
        command.args([&net, "--", "kubectl", "--namespace", &self.namespace]).args(args);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.envs(self.environment.iter().cloned()).envs(environment.iter().copied());
        Process::start(command)
    }

    /// Where kubectl keeps its files.
    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Sends the relay a signal and waits for its end.
    pub(super) fn end_relay(&self, signal: Signal) {
        let relay = self.relay.lock().unwrap();
        relay.process.signal(signal);
        relay.process.done();
    }

    /// Starts the relay again where it was. Returns when it listens.
    pub(super) fn restart_relay(&self) -> Instant {
        *self.relay.lock().unwrap() = relay(&self.relay_net, &self.relay_files);
        Instant::now()
    }

    /// The relay's process.
    pub(super) fn relay_id(&self) -> u32 {
        self.relay.lock().unwrap().process.id()
    }

    /// What the relay has said since it was started last.
    pub(super) fn relay_said(&self) -> String {
        self.relay.lock().unwrap().process.stderr()
    }
}

/// Runs it in this network. Its process number stays its own.
fn inside(end: Mykube, net: &Net) -> Mykube {
    let [program, option] = net.prefix();
    end.behind(&program, &[&option, "--"])
}

fn relay(net: &Net, files: &Sandbox) -> Running {
    let path = |name: &str| files.home().join(name);
    let relay = Mykube::new("relay").args(["--listen", &format!("0.0.0.0:{PORT}"), "--api-rate", "0"]);
    let relay = relay.arg("--data-dir").arg(path("data"));
    let relay = relay.arg("--tls-cert").arg(path("cert.pem")).arg("--tls-key").arg(path("key.pem"));
    let running = inside(relay, net).start();
    running.event("listening");
    running
}

fn proxy(net: &Net, (idle, life): (Duration, Duration)) -> Forwarder {
    let mut options = ForwardOptions::connect().from_namespace(net);
    options.idle = Some(idle);
    options.life = Some(life);
    options.cut = Cut::Reset;
    Forwarder::start(net.listen(PROXY.parse().unwrap()).unwrap(), options).unwrap()
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

/// Runs a kubectl that goes past everything under test, to its good end.
pub(super) fn directly(namespace: &Namespace, args: &[&str]) -> String {
    let process = namespace.direct().start(args);
    process.follow(Instant::now() + LIMIT, |_| false);
    process.done().ok()
}
