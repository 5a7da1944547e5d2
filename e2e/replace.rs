//! A client that is away for too long: another with a new code replaces it, unless it comes back first.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional},
    sync::watch,
};

use crate::support::{
    Cluster, LIMIT, Mykube, Namespace, Relay, Running, Sandbox, certs::Authority, cluster::kubeconfig, net::serve,
};

/// A relay, and a server before an echo that tells when a used connection has ended.
struct World {
    relay: Relay,
    server: Running,
    ended: mpsc::Receiver<()>,
    _sandbox: Sandbox,
}

impl World {
    fn start() -> Self {
        let (tell, ended) = mpsc::channel();
        let upstream = serve(move |mut connection| {
            let tell = tell.clone();
            async move {
                let first = connection.read_u8().await?;
                connection.write_all(&[first]).await?;
                let (mut read, mut write) = connection.split();
                let result = copy(&mut read, &mut write).await;
                let _ = tell.send(());
                result.map(drop)
            }
        });
        let sandbox = Sandbox::new();
        let ca = data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes());
        let cluster = json!({"server": format!("https://{upstream}"), "certificate-authority-data": ca});
        let path = sandbox.file("kubeconfig", kubeconfig("echo", &cluster, &json!({"token": "e2e"})).to_string());
        let relay = Relay::start();
        let server = Mykube::server(&relay.url, &path).args(["--replace-after", "1s"]).start();
        Self { relay, server, ended, _sandbox: sandbox }
    }

    /// The code that is shown because client-1 is away.
    fn second_code(&self) -> String {
        assert_eq!(self.server.event("lost")["client"], "client-1");
        let code = self.server.nth_event("code", 1);
        assert_eq!((&code["client"], &code["replaces"]), (&json!("client-2"), &json!("client-1")));
        self.server.process.says("client-1 has been away for ");
        self.server.process.says("with this code another can take its place");
        code["code"].as_str().unwrap().to_owned()
    }
}

/// A proxy to the relay that can be closed.
struct Door {
    url: String,
    open: watch::Sender<bool>,
}

impl Door {
    fn to(relay: SocketAddr) -> Self {
        let (open, state) = watch::channel(true);
        let address = serve(move |mut connection| {
            let mut state = state.clone();
            async move {
                if !*state.borrow() {
                    return Ok(());
                }
                let mut onward = tokio::net::TcpStream::connect(relay).await?;
                tokio::select! {
                    done = copy_bidirectional(&mut connection, &mut onward) => done.map(drop),
                    _ = state.wait_for(|open| !open) => Ok(()),
                }
            }
        });
        Self { url: format!("http://{address}"), open }
    }
}

fn connection(client: &Running) -> TcpStream {
    let address: SocketAddr = client.event("connected")["listen"].as_str().unwrap().parse().unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut connection);
    connection
}

fn echoes(connection: &mut TcpStream) {
    connection.write_all(b"x").unwrap();
    connection.read_exact(&mut [0]).unwrap();
}

/// The position of an event among those of the server.
fn place(server: &Running, event: &str, client: &str) -> usize {
    let out = server.process.stdout();
    let events = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut events = events.enumerate().filter(|(_, told)| told["event"] == event && told["client"] == client);
    events.next().unwrap_or_else(|| panic!("no {event} of {client} in {out}")).0
}

#[test]
fn another_client_takes_the_place_of_one_that_died() {
    let world = World::start();
    let first = Mykube::client(&world.relay.url).start_with(&world.server.code());
    let _open = connection(&first);
    first.process.signal(Signal::KILL);
    first.process.done();
    let code = world.second_code();
    // A client with a wrong code replaces nobody.
    let (nameplate, secret) = code.split_at(code.len() - 5);
    let wrong = format!("{nameplate}{:05}", (secret.parse::<u32>().unwrap() + 1) % 100_000);
    Mykube::client(&world.relay.url).fails_with(&wrong, 3, &["ask for a new code"]);
    world.server.process.says("2 more and it is burned");
    assert!(!world.server.process.stdout().contains("client_gone"));
    assert!(world.ended.try_recv().is_err());

    let second = Mykube::client(&world.relay.url).start_with(&code);
    let mut open = connection(&second);
    let gone = world.server.event("client_gone");
    assert_eq!((&gone["client"], &gone["reason"]), (&json!("client-1"), &json!("replaced by client-2")));
    assert!(place(&world.server, "paired", "client-2") < place(&world.server, "client_gone", "client-1"));
    world.ended.recv_timeout(LIMIT).expect("what it had open at the API server is cut");
    echoes(&mut open);
    assert!(world.ended.try_recv().is_err(), "nothing of the second is");
    assert_eq!(second.stop(Signal::TERM).code, 0);
    assert_eq!(world.server.process.done().code, 0);
    assert_eq!(world.server.nth_event("client_gone", 1)["client"], "client-2");
}

#[test]
fn a_client_that_comes_back_keeps_its_place() {
    let world = World::start();
    let door = Door::to(world.relay.address());
    let client = Mykube::client(&door.url).start_with(&world.server.code());
    let mut open = connection(&client);
    let shut = Instant::now();
    door.open.send_replace(false);
    for end in [&world.server, &client] {
        end.event("lost");
    }
    let lost = Instant::now();
    let code = world.second_code();
    let least = lost.elapsed();
    let listed = Mykube::new("sessions").env("XDG_RUNTIME_DIR", world.server.sandbox.ram()).start();
    for (n, state) in ["lost", "waiting"].into_iter().enumerate() {
        let line = listed.nth_event("session", n);
        assert_eq!((&line["server"], &line["id"]), (&json!(world.server.process.id()), &json!(n + 1)));
        assert_eq!((&line["name"], &line["state"]), (&json!(format!("client-{}", n + 1)), &json!(state)));
        let least = if state == "lost" { least.as_secs() } else { 0 };
        assert!((least..=shut.elapsed().as_secs()).contains(&line["seconds"].as_u64().unwrap()), "{line}");
    }
    // Both ends' clocks count in microseconds.
    let least = least.saturating_sub(Duration::from_micros(2));
    door.open.send_replace(true);
    for (end, name) in [(&world.server, json!("client-1")), (&client, Value::Null)] {
        let back = end.event("back");
        assert_eq!(back["client"], name);
        let after = back["after"].as_f64().unwrap();
        assert!((least.as_secs_f64()..=shut.elapsed().as_secs_f64()).contains(&after), "{back}");
    }
    assert_eq!(world.server.event("withdrawn")["client"], "client-2");
    world.server.process.says("The code for client-2 is withdrawn.");
    Mykube::client(&world.relay.url).fails_with(&code, 3, &["code"]);
    echoes(&mut open);
    // The next absence has a code of its own.
    door.open.send_replace(false);
    let next = world.server.nth_event("code", 2);
    assert_eq!((&next["client"], &next["replaces"]), (&json!("client-3"), &json!("client-1")));
    door.open.send_replace(true);
    assert_eq!(world.server.nth_event("withdrawn", 1)["client"], "client-3");
    echoes(&mut open);
    assert_eq!(client.stop(Signal::TERM).code, 0);
    assert_eq!(world.server.process.done().code, 0);
}

#[test]
fn a_client_that_was_replaced_is_told_when_it_comes_back() {
    let world = World::start();
    let door = Door::to(world.relay.address());
    let first = Mykube::client(&door.url).start_with(&world.server.code());
    let _open = connection(&first);
    door.open.send_replace(false);
    let its_door = Door::to(world.relay.address());
    let second = Mykube::client(&its_door.url).start_with(&world.second_code());
    let mut open = connection(&second);
    world.server.event("client_gone");
    // Two absences of a second each: longer than a farewell to a present client waits.
    for n in 0..2 {
        its_door.open.send_replace(false);
        assert_eq!(world.server.nth_event("code", 2 + n)["replaces"], "client-2");
        its_door.open.send_replace(true);
        world.server.nth_event("withdrawn", n);
    }
    assert!(first.process.is_running(), "it cannot know yet");
    door.open.send_replace(true);
    first.failed(5, &["this client was away, and another has taken its place", "pair again"]);
    echoes(&mut open);
    assert_eq!(world.server.stop(Signal::TERM).code, 0);
    second.failed(5, &["the server was stopped"]);
}

#[test]
fn what_the_replaced_client_had_running_is_cut_and_written_down() {
    let namespace = Namespace::create(&Cluster::get(), "replaced");
    let relay = Relay::start();
    let logs = Sandbox::new();
    let log = logs.home().join("audit");
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig).args(["--replace-after", "1s"]);
    let server = server.arg("--audit-log").arg(&log).start();
    let first = Mykube::client(&relay.url).start_with(&server.code());
    let watch = namespace.through("first", &first.kubeconfig()).start(&["get", "configmaps", "-w", "-o", "name"]);
    watch.prints("kube-root-ca.crt");
    // `get -w` lists first; this line comes by the watch.
    namespace.direct().kubectl(&["create", "configmap", "watched"]).ok();
    watch.prints("configmap/watched");
    first.process.signal(Signal::KILL);
    let second = Mykube::client(&relay.url).start_with(server.nth_event("code", 1)["code"].as_str().unwrap());
    assert_eq!(server.event("client_gone")["client"], "client-1");
    let way = namespace.through("second", &second.kubeconfig());
    way.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    assert_eq!(second.stop(Signal::TERM).code, 0);
    assert_eq!(server.process.done().code, 0);

    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_the_first = |key: &str, value: &str| {
        let found = lines.iter().position(|line| line["client"] == "client-1" && line[key] == value);
        found.unwrap_or_else(|| panic!("no {value} in {text}"))
    };
    let (watched, left) = (of_the_first("verb", "watch"), of_the_first("event", "left"));
    assert_eq!(lines[watched]["end"], "aborted", "{text}");
    assert!(watched < left, "{text}");
    assert!(lines[left]["reason"].as_str().unwrap().contains("another has taken its place"), "{text}");
}
