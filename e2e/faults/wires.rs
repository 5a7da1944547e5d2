//! The networks `client - relay - server`, the lines between them, which can be cut, and the relay.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use mykube_lab::{Cut, End, ForwardOptions, Forwarder, Lab, Link, Namespace as Net, Shape};
use rustix::process::Signal;

use crate::support::{Mykube, Process, Running, Sandbox, certs::Authority};

/// The relay's address.
const PORT: u16 = 8443;
/// The proxies' addresses, each on the loopback of its own network.
const PROXY: &str = "127.0.0.1:3128";

/// The address at which bore's server accepts clients.
const BORE: u16 = 20_000;

/// The program in the middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Middle {
    #[default]
    Relay,
    Bore,
    Nothing,
}

/// The settings of the networks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Setup {
    pub(super) relay: Middle,
    /// Bits a second of both lines.
    pub(super) rate: Option<u64>,
    /// `--resume-window` of both ends.
    pub(super) window: Option<Duration>,
    /// Both ends reach the relay through proxies that cut idle and old connections.
    pub(super) cuts: Option<(Duration, Duration)>,
}

/// Removed with all processes in it when dropped.
pub(super) struct Wires {
    setup: Setup,
    relay: Mutex<Option<Running>>,
    /// The relay's data and certificate.
    files: Sandbox,
    ca: PathBuf,
    urls: [String; 2],
    pub(super) proxies: Vec<Forwarder>,
    /// The client's end is [`End::A`], the relay's [`End::B`].
    pub(super) client_line: Link,
    /// The relay's end is [`End::A`], the server's [`End::B`].
    pub(super) server_line: Link,
    pub(super) client_net: Net,
    pub(super) relay_net: Net,
    pub(super) server_net: Net,
}

impl Wires {
    pub(super) fn new(setup: Setup) -> Self {
        let lab = Lab::new().unwrap();
        let [client_net, relay_net, server_net] = ["client", "relay", "server"].map(|it| lab.namespace(it).unwrap());
        let shape = Shape { rate: setup.rate, ..Shape::default() };
        let client_line = lab.link(&client_net, &relay_net, shape).unwrap();
        let server_line = lab.link(&relay_net, &server_net, shape).unwrap();
        let at = [client_line.address(End::B), server_line.address(End::A)].map(|it| it.to_string());
        let authority = Authority::new("the relay's own CA");
        let signed = authority.sign(&[&at[0], &at[1]]);
        let files = Sandbox::new();
        files.file("cert.pem", signed.certificate);
        files.file("key.pem", signed.key);
        let ca = files.file("ca.pem", authority.pem());
        let relay = Mutex::new(middle(setup.relay, &relay_net, &files));
        let urls = at.map(|at| format!("https://{at}:{PORT}"));
        let proxies = setup.cuts.map(|cuts| [&client_net, &server_net].map(|net| proxy(net, cuts)));
        let proxies = proxies.into_iter().flatten().collect();
        Self { setup, relay, files, ca, urls, proxies, client_line, server_line, client_net, relay_net, server_net }
    }

    /// A client in the clients' network, not started yet.
    pub(super) fn client(&self) -> Mykube {
        self.end(Mykube::client(&self.urls[0]), &self.client_net)
    }

    /// A server in the servers' network, with the relay's address there, not started yet.
    pub(super) fn server(&self, server: impl FnOnce(&str) -> Mykube) -> Mykube {
        self.end(server(&self.urls[1]), &self.server_net)
    }

    fn end(&self, end: Mykube, net: &Net) -> Mykube {
        let mut end = end.arg("--ca-file").arg(&self.ca);
        if let Some(window) = self.setup.window {
            end = end.arg("--resume-window").arg(format!("{}s", window.as_secs()));
        }
        if self.setup.cuts.is_some() {
            end = end.env("HTTPS_PROXY", format!("http://{PROXY}"));
        }
        inside(end, net)
    }

    /// Sends the program in the middle a signal, and waits for its end.
    pub(super) fn end_relay(&self, signal: Signal) {
        if let Some(relay) = &*self.relay.lock().unwrap() {
            relay.process.signal(signal);
            relay.process.done();
        }
    }

    /// Starts it again at the same address. Returns when it listens.
    pub(super) fn restart_relay(&self) -> Instant {
        *self.relay.lock().unwrap() = middle(self.setup.relay, &self.relay_net, &self.files);
        Instant::now()
    }

    /// The relay's process.
    pub(super) fn relay_id(&self) -> u32 {
        self.relay.lock().unwrap().as_ref().expect("there is one").process.id()
    }

    /// The address to which bore's clients connect.
    pub(super) fn bore_entry(&self) -> SocketAddr {
        (self.client_line.address(End::B), BORE).into()
    }

    /// bore before the API server's port, started again whenever it ends, as its users have to do.
    pub(super) fn bore(&self, port: u16) -> Running {
        let sandbox = Sandbox::new();
        let to = self.server_line.address(End::A);
        let script = format!("while :; do bore local {port} --to {to} --port {BORE}; sleep 0.5; done");
        let [program, net] = self.server_net.prefix();
        let mut command = sandbox.command(program);
        command.args([&net, "--", "sh", "-c", &script]);
        let running = Running { process: Process::start(command), sandbox };
        running.process.prints("listening at");
        running
    }
}

/// Runs the command in this network. The process number stays.
fn inside(end: Mykube, net: &Net) -> Mykube {
    let [program, option] = net.prefix();
    end.behind(&program, &[&option, "--"])
}

fn middle(middle: Middle, net: &Net, files: &Sandbox) -> Option<Running> {
    match middle {
        Middle::Relay => Some(relay(net, files)),
        Middle::Bore => {
            let sandbox = Sandbox::new();
            let [program, option] = net.prefix();
            let mut command = sandbox.command(program);
            command.args([&option, "--", "bore", "server"]);
            let running = Running { process: Process::start(command), sandbox };
            running.process.prints("server listening");
            Some(running)
        }
        Middle::Nothing => None,
    }
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
