//! `mykube relay status`, `mykube relay disconnect` and `mykube logout`: what of this machine is at a relay.

use serde_json::{Value, json};

use super::support::{DevRelay, Laptop};
use crate::support::{Mykube, Relay, Running, certs::Authority, cluster::kubeconfig};

/// A server and its client; the cluster need not answer.
struct Pair {
    server: Running,
    client: Running,
}

impl Pair {
    fn start(laptop: &Laptop, relay: &str) -> Self {
        let server = laptop.own(Mykube::new("server")).args(["--relay-url", relay]);
        let cluster = json!({
            "server": format!("https://{}", crate::support::net::closed_port()),
            "certificate-authority-data": data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes()),
        });
        let config = kubeconfig("nowhere", &cluster, &json!({"token": "e2e"})).to_string();
        let config = server.sandbox().file("kubeconfig", config);
        let server = server.arg("--kubeconfig").arg(config).start();
        let client = laptop.own(Mykube::client(relay)).start_with(&server.code());
        client.event("connected");
        Self { server, client }
    }

    fn is_running(&self) -> [bool; 2] {
        [&self.server, &self.client].map(|end| end.process.is_running())
    }
}

fn events(done: &str) -> Vec<Value> {
    done.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn status(laptop: &Laptop, relay: &str) -> Vec<Value> {
    events(&laptop.mykube("relay").args(["status", "--relay-url", relay]).start().process.done().ok())
}

fn pids(events: &[Value], name: &str) -> Vec<u64> {
    events.iter().filter(|event| event["event"] == name).map(|event| event["pid"].as_u64().unwrap()).collect()
}

#[test]
fn what_of_this_machine_is_at_a_relay_is_told_and_ended() {
    let (relay, other, laptop) = (DevRelay::start(), Relay::start(), Laptop::new());
    let nobody = status(&laptop, &relay.url);
    assert_eq!(nobody.len(), 1, "{nobody:?}");
    assert_eq!((&nobody[0]["signed_in"], &nobody[0]["reachable"]), (&false.into(), &true.into()));
    relay.sign_in(&laptop);
    let (here, elsewhere) = (Pair::start(&laptop, &relay.url), Pair::start(&laptop, &other.url));

    let told = status(&laptop, &relay.url);
    assert_eq!(told[0]["signed_in"], true);
    assert_eq!((&told[1]["event"], &told[1]["email"]), (&"account".into(), &"alice@example.com".into()));
    let number = |end: &Running| u64::from(end.process.id());
    assert_eq!(pids(&told, "server_here"), [number(&here.server)]);
    assert_eq!(pids(&told, "client_here"), [number(&here.client)]);
    let server = told.iter().find(|event| event["event"] == "server_here").unwrap();
    assert_eq!(
        (&server["cluster"], &server["connected"], &server["waiting"]),
        (&"nowhere".into(), &1.into(), &0.into())
    );
    let text = laptop.text("relay").arg("status").start().process.done().ok();
    assert!(text.contains("answers") && text.contains("at other relays: 1 server and 1 client"), "{text}");
    // Another user's, and another relay's, sign-in is no matter of it.
    assert_eq!(status(&laptop, &other.url)[0]["signed_in"], false);

    // On a terminal it asks, and a no ends nothing.
    let mut asking = laptop.text("relay").arg("disconnect").start_on_terminal();
    asking.process.prints("End 1 server and 1 client of this machine");
    asking.process.write("no\n");
    let done = asking.process.done();
    assert!(done.code == 1 && done.stdout.contains("nothing was ended"), "{}", done.stdout);
    assert_eq!(here.is_running(), [true, true]);

    let ended = laptop.mykube("relay").args(["disconnect", "--yes"]).start().process.done().ok();
    let mut ended = pids(&events(&ended), "disconnected");
    ended.sort_unstable();
    let mut both = [number(&here.server), number(&here.client)];
    both.sort_unstable();
    assert_eq!(ended, both);
    // By the signal, or because its client left first.
    here.server.event("stopped");
    assert_eq!(elsewhere.is_running(), [true, true], "other relays are left alone");
    laptop.mykube("whoami").start().process.done().ok();
    laptop.mykube("relay").arg("disconnect").start().process.done().ok();

    let again = Pair::start(&laptop, &relay.url);
    let done = laptop.mykube("logout").start().process.done().ok();
    assert_eq!((pids(&events(&done), "disconnected").len(), &events(&done)[0]["event"]), (2, &"signed_out".into()));
    again.server.event("stopped");
    assert_eq!(elsewhere.is_running(), [true, true]);
    laptop.mykube("whoami").fails(1, &["you are not signed in"]);
}

#[test]
fn a_relay_that_does_not_answer_ends_nothing_here() {
    let (relay, laptop) = (DevRelay::start(), Laptop::new());
    relay.sign_in(&laptop);
    let here = Pair::start(&laptop, &relay.url);
    relay.running.process.signal(rustix::process::Signal::KILL);
    relay.running.process.done();
    let told = laptop.mykube("relay").arg("status").start().failed(4, &["connection refused"]);
    let told = events(&told.stdout);
    assert_eq!((&told[0]["reachable"], &told[0]["signed_in"]), (&false.into(), &Value::Null));
    assert_eq!((pids(&told, "server_here").len(), pids(&told, "client_here").len()), (1, 1));
    laptop.mykube("logout").fails(4, &["connection refused"]);
    assert_eq!(here.is_running(), [true, true], "neither has ended");
    // Without the relay, too.
    laptop.mykube("relay").args(["disconnect", "--yes"]).start().process.done().ok();
    laptop.mykube("whoami").fails(4, &["connection refused"]);
}
