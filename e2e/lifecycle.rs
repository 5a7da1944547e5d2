//! How a session ends: by either end's goodbye, by signals, by a relay that dies.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Cluster, LIMIT, Mykube, Namespace, Relay, Running, Tunnel, certs::Authority, cluster::kubeconfig, net::FakeUpstream,
};

/// A tunnel to an echo: enough where no request is made.
fn tunnel() -> (Tunnel, FakeUpstream) {
    tunnel_for("4h")
}

/// The same, whose session waits this long for a lost connection.
fn tunnel_for(window: &str) -> (Tunnel, FakeUpstream) {
    let upstream = FakeUpstream::start();
    let sandbox = crate::support::Sandbox::new();
    let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
    let cluster = json!({"server": format!("https://{}", upstream.address), "certificate-authority-data": ca});
    let path = sandbox.file("kubeconfig", kubeconfig("echo", &cluster, &json!({"token": "e2e"})).to_string());
    (Tunnel::open_for(&path, window), upstream)
}

/// A connection through the tunnel that has carried a byte.
fn used(tunnel: &Tunnel) -> TcpStream {
    let mut connection = TcpStream::connect(tunnel.address()).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
    connection
}

/// The connection must not look complete.
fn is_cut(mut connection: TcpStream) {
    let end = connection.read(&mut [0]);
    assert!(end.is_err(), "a clean end that nobody sent: {end:?}");
}

#[track_caller]
fn reason(of: &Running, event: &str) -> String {
    of.event(event)["reason"].as_str().expect("a reason").to_owned()
}

#[test]
fn a_client_that_leaves_ends_the_server() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (tunnel, _upstream) = tunnel();
        assert!(tunnel.kubeconfig().starts_with(tunnel.client.sandbox.ram()));
        let done = tunnel.client.stop(signal);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(reason(&tunnel.client, "closed").contains("stopped by SIG"));
        tunnel.server.event("paired");
        tunnel.server.event("client_gone");
        assert_eq!(tunnel.server.process.done().code, 0);
        assert!(reason(&tunnel.server, "stopped").contains("the client has left"));
        tunnel.server.sandbox.assert_clean();
        if signal != Signal::HUP {
            assert_eq!(tunnel.relay.running.stop(signal).code, 0);
        }
    }
}

#[test]
fn a_server_that_is_stopped_says_so() {
    for signal in [Signal::TERM, Signal::INT] {
        let (tunnel, _upstream) = tunnel();
        let open = used(&tunnel);
        assert_eq!(tunnel.server.stop(signal).code, 0);
        tunnel.client.failed(5, &["the server was stopped", "pair again"]);
        assert!(reason(&tunnel.client, "closed").contains("the server was stopped"));
        assert_eq!(tunnel.server.event("client_gone")["client"], "client-1");
        is_cut(open);
    }
}

#[test]
fn a_server_that_waits_can_be_stopped() {
    let relay = Relay::start();
    let sandbox = crate::support::Sandbox::new();
    let cluster = json!({"server": "https://127.0.0.1:9", "insecure-skip-tls-verify": true});
    let path = sandbox.file("kubeconfig", kubeconfig("c", &cluster, &json!({"token": "e2e"})).to_string());
    let server = Mykube::server(&relay.url, &path).start();
    server.code();
    assert_eq!(server.stop(Signal::TERM).code, 0);
    assert!(reason(&server, "stopped").contains("signal"));
}

#[test]
fn a_client_that_waits_for_a_code_can_be_stopped() {
    let client = Mykube::client("http://127.0.0.1:9").start();
    // Its directory exists, so it is asking for a code.
    while fs::read_dir(client.sandbox.ram()).unwrap().next().is_none() {
        assert!(client.process.is_running());
        std::thread::yield_now();
    }
    let done = client.stop(Signal::TERM);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("stopped by SIGTERM"), "{}", done.stderr);
}

#[test]
fn a_relay_that_never_comes_back_ends_both_after_the_window() {
    let (tunnel, _upstream) = tunnel_for("1s");
    let open = used(&tunnel);
    tunnel.relay.running.process.signal(Signal::KILL);
    let why = "the connection to the relay was lost: the connection was reset, and it did not come back within 1 s";
    tunnel.client.failed(5, &["the session is lost", why, "pair again with a new code"]);
    tunnel.server.failed(5, &["the session is lost", why, "new code"]);
    for end in [&tunnel.client, &tunnel.server] {
        assert!(reason(end, "lost").contains("the connection to the relay was lost"));
    }
    assert!(reason(&tunnel.client, "closed").contains("the session is lost"));
    tunnel.server.event("client_gone");
    is_cut(open);
}

#[test]
fn a_client_that_is_killed_leaves_a_directory_that_the_next_one_removes() {
    let (tunnel, _upstream) = tunnel_for("1s");
    let left = tunnel.kubeconfig();
    tunnel.client.process.signal(Signal::KILL);
    tunnel.client.process.done();
    assert!(left.exists());
    tunnel.server.failed(5, &["the session is lost", "the other end lost its connection to the relay"]);
    // The next client of the same person.
    let next = Mykube::client("http://127.0.0.1:9").env("XDG_RUNTIME_DIR", tunnel.client.sandbox.ram());
    next.fails_with("483 20417", 4, &["cannot reach"]);
    assert!(!left.exists(), "{} is still there", left.display());
}

#[test]
fn without_a_window_a_relay_that_drains_ends_both_and_itself() {
    let (tunnel, _upstream) = tunnel_for("0s");
    assert_eq!(tunnel.relay.running.stop(Signal::TERM).code, 0);
    tunnel.client.failed(5, &["the session is lost"]);
    tunnel.server.failed(5, &["the session is lost"]);
}

#[test]
fn a_command_has_its_own_exit_code_and_input() {
    let namespace = Namespace::create(&Cluster::get(), "command");
    let (relay, code, server) = offered(&namespace.cluster.kubeconfig);
    let script = "kubectl get namespace default -o name; test -f \"$KUBECONFIG\" && echo there; cat; exit 42";
    let client = Mykube::new("client").args(["--relay-url", &relay.url, "--", "sh", "-c", script]);
    let mut client = client.start_with(&code);
    client.process.prints("there\n");
    client.process.write("typed later\n");
    client.process.prints("typed later\n");
    client.process.end_input();
    let done = client.failed(42, &[]);
    assert!(done.stdout.contains("namespace/default\n"), "{}", done.stdout);
    assert_eq!(server.process.done().code, 0);
}

#[test]
fn a_command_ends_with_its_session() {
    let cluster = Cluster::get();
    let command = ["--", "sh", "-c", "echo begun; exec sleep 1000"];
    // By a signal to the client ...
    let (relay, code, server) = offered(&cluster.kubeconfig);
    let client = Mykube::new("client").args(["--relay-url", &relay.url]).args(command).start_with(&code);
    client.process.prints("begun");
    let done = client.stop(Signal::TERM);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert_eq!(server.process.done().code, 0);
    // ... and by the relay's death.
    let relay = Relay::start();
    let server = Mykube::server(&relay.url, &cluster.kubeconfig).env("MYKUBE_RESUME_WINDOW", "1s").start();
    let client = Mykube::new("client").args(["--relay-url", &relay.url, "--resume-window", "1s"]).args(command);
    let client = client.start_with(&server.code());
    client.process.prints("begun");
    relay.running.process.signal(Signal::KILL);
    client.failed(5, &["the session is lost"]);
    server.failed(5, &["the session is lost"]);
}

/// kubectl over SPDY takes a cut `exec` for a finished one: programs that wait for it must be gone before the cut.
#[test]
fn what_was_cut_with_its_session_does_not_look_complete_to_a_script() {
    let namespace = Namespace::create(&Cluster::get(), "cut");
    let direct = namespace.direct();
    let image = ["--image", &namespace.cluster.image, "--image-pull-policy=Never"];
    direct.kubectl(&[&["run", "sleeper", "--restart=Never"], &image[..], &["--", "sleep", "100000"]].concat()).ok();
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]).ok();
    let relay = Relay::start();
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig).env("MYKUBE_RESUME_WINDOW", "1s").start();
    let exec = "exec sleeper -- sh -c 'echo running; sleep 1000'; echo looks complete: $?";
    // It ignores being asked to end, so that it sees the session's last moments.
    let script = format!("trap '' TERM; kubectl -n {} {exec}", namespace.name);
    let client =
        Mykube::new("client").args(["--relay-url", &relay.url, "--resume-window", "1s", "--", "sh", "-c", &script]);
    let client = client.start_with(&server.code());
    client.process.prints("running");
    relay.running.process.signal(Signal::KILL);
    let done = client.failed(5, &["the session is lost"]);
    assert!(!done.stdout.contains("looks complete: 0"), "{}", done.stdout);
}

#[test]
fn a_command_that_is_not_there_costs_no_code() {
    let cluster = Cluster::get();
    let (relay, code, server) = offered(&cluster.kubeconfig);
    let client = Mykube::new("client").args(["--relay-url", &relay.url, "--", "kubectl", "get", "pods"]);
    let client = client.env("PATH", "/nonexistent").start_with(&code);
    client.failed(127, &["cannot run kubectl"]);
    let again = Mykube::client(&relay.url).start_with(&code);
    again.event("connected");
    assert_eq!(again.stop(Signal::TERM).code, 0);
    assert_eq!(server.process.done().code, 0);
}

fn offered(kubeconfig: &Path) -> (Relay, String, Running) {
    let relay = Relay::start();
    let server = Mykube::server(&relay.url, kubeconfig).start();
    (relay, server.code(), server)
}

#[test]
fn an_end_of_one_direction_is_not_the_end_of_the_other() {
    let (tunnel, _upstream) = tunnel();
    let connection = used(&tunnel);
    let bytes = crate::support::noise(2_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&connection).write_all(&bytes).unwrap();
            connection.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        // Ends when the other side has seen this side's end, and not before all bytes are back.
        (&connection).read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{} bytes came back", back.len());
    });
}
