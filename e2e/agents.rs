//! `mykube server --name` and `mykube agents`: real programs, a relay in dev mode, and no cluster: a name needs none.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    accounts::support::DevRelay,
    support::{LIMIT, Mykube, certs::Authority, cluster::kubeconfig, net::closed_port},
};

/// A relay in dev mode, and the machine of somebody who is signed in at it.
struct Scene {
    dir: TempDir,
    relay: DevRelay,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { dir: tempfile::Builder::new().prefix("e2e-").tempdir().unwrap(), relay: DevRelay::start() };
        let login = scene.own("login").args(["--dev-email", "alice@example.com", "--relay-url", &scene.relay.url]);
        login.arg("--dev-secret-file").arg(&scene.relay.secret).start().process.done().ok();
        scene
    }

    /// A private file.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command of whoever is signed in.
    fn own(&self, name: &str) -> Mykube {
        Mykube::new(name).env("XDG_CONFIG_HOME", self.path("config")).env("XDG_STATE_HOME", self.path("state"))
    }

    /// A server whose cluster does not answer.
    fn server(&self, args: &[&str]) -> Mykube {
        let cluster = json!({
            "server": format!("https://{}", closed_port()),
            "certificate-authority-data": data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes()),
        });
        let config = self.file("kubeconfig", &kubeconfig("nowhere", &cluster, &json!({"token": "e2e"})).to_string());
        self.own("server").args(args).arg("--kubeconfig").arg(config)
    }

    fn agents(&self, args: &[&str]) -> Vec<Value> {
        let done = self.own("agents").args(args).start().process.done().ok();
        done.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Name and state of each.
    fn states(&self) -> Vec<(String, String)> {
        let text = |agent: &Value, field: &str| agent[field].as_str().unwrap().to_owned();
        self.agents(&[]).iter().map(|agent| (text(agent, "name"), text(agent, "state"))).collect()
    }

    /// Asks until the one agent is in this state.
    fn until(&self, state: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let states = self.states();
            assert_eq!(states.len(), 1, "{states:?}");
            if states[0].1 == state {
                return;
            }
            assert!(Instant::now() < end, "{states:?}, and not {state}");
        }
    }

    fn find(&self, name: &str) -> PathBuf {
        fn below(dir: &Path, name: &str) -> Option<PathBuf> {
            let mut entries = std::fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path());
            entries.find_map(|path| if path.ends_with(name) { Some(path) } else { below(&path, name) })
        }
        below(&self.path("state"), name).unwrap_or_else(|| panic!("there is no {name}"))
    }
}

#[test]
fn a_server_with_a_name_is_live_while_it_is_there_and_at_no_other_time() {
    let mut scene = Scene::new();
    assert_eq!(scene.agents(&[]), Vec::<Value>::new());
    let server = scene.server(&["--name", "prod"]).start();
    server.event("agent_live");
    // Codes go on beside it.
    assert!(!server.code().is_empty());
    assert_eq!(scene.states(), [("prod".to_owned(), "live".to_owned())]);
    for private in ["token", "relay-keys"] {
        let mode = scene.find(private).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let token = std::fs::read_to_string(scene.find("token")).unwrap();
    // A second program of this name on this machine would only take the first one's place.
    scene.server(&["--name", "prod"]).fails(1, &["another mykube server with this name runs here"]);

    server.process.signal(Signal::KILL);
    server.process.done();
    scene.until("away");

    // It is the same agent again: the same token, the same key.
    let key = scene.agents(&[])[0]["relay_key"].clone();
    let server = scene.server(&["--name", "prod"]).start();
    server.event("agent_live");
    let listed = &scene.agents(&[])[0];
    assert_eq!((&listed["relay_key"], &listed["new_key_since"]), (&key, &Value::Null));
    assert_eq!(std::fs::read_to_string(scene.find("token")).unwrap(), token);

    // The relay is killed, and knows nothing of it until it is back by itself.
    scene.relay.end(Signal::KILL);
    server.event("agent_lost");
    scene.relay.go_on();
    server.nth_event("agent_live", 1);
    assert_eq!(scene.states(), [("prod".to_owned(), "live".to_owned())]);
    server.stop(Signal::TERM);
    scene.until("away");
    scene.relay.end(Signal::TERM);
    scene.relay.go_on();
    assert_eq!(scene.states(), [("prod".to_owned(), "unknown".to_owned())], "since the start");
    let log = scene.relay.running.process.stderr();
    assert!(!log.contains(&token) && !server.process.stderr().contains(&token), "the token is told");
}

#[test]
fn a_token_that_is_revoked_ends_the_name_and_not_the_server() {
    let scene = Scene::new();
    let made = scene.agents(&["add", "prod"]);
    let token = made[0]["token"].as_str().unwrap();
    assert_eq!((&made[0]["event"], token.starts_with("rla_prod_")), (&"agent_token".into(), true));
    scene.own("agents").args(["add", "prod"]).fails(1, &["there is an agent prod already"]);
    scene.server(&["--name", "prod"]).fails(1, &["its token is not on this machine", "agents rotate prod"]);
    assert_eq!(scene.server(&["--name", "123"]).start().process.done().code, 2, "no name looks like a code");

    let file = scene.file("token", token);
    for other in ["staging", "pro", "prod_x"] {
        let server = scene.server(&["--name", other, "--token-file", file.to_str().unwrap()]);
        server.fails(2, &["holds the token of another agent"]);
    }
    let with_token = |file: &Path| scene.server(&["--name", "prod", "--token-file", file.to_str().unwrap()]);
    let server = with_token(&file).start();
    server.event("agent_live");
    // For an hour both work; the old one's channel lives on.
    let second = scene.agents(&["rotate", "prod"])[0]["token"].as_str().unwrap().to_owned();
    assert_eq!(scene.states()[0].1, "live");
    let third = scene.agents(&["rotate", "prod", "--now"])[0]["token"].as_str().unwrap().to_owned();
    let refused = server.event("agent_refused");
    assert!(refused["reason"].as_str().unwrap().contains("was revoked"), "{refused}");
    assert_eq!(scene.states()[0].1, "away");
    assert!(server.process.is_running() && !server.code().is_empty());
    server.stop(Signal::TERM);

    let server = with_token(&scene.file("second", &second)).start();
    server.event("agent_refused");
    server.stop(Signal::TERM);
    let server = with_token(&scene.file("third", &third)).start();
    server.event("agent_live");
    scene.agents(&["remove", "prod"]);
    server.event("agent_refused");
    assert_eq!(scene.states(), []);
    server.stop(Signal::TERM);

    let exposed = scene.file("exposed", &third);
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    with_token(&exposed).fails(1, &["other users may read", "0400"]);
    with_token(&scene.path("none")).fails(1, &["cannot take a token from"]);
}

#[test]
fn of_two_with_one_token_the_newest_has_the_name_and_both_are_told() {
    let scene = Scene::new();
    let token = scene.agents(&["add", "prod"])[0]["token"].as_str().unwrap().to_owned();
    let file = scene.file("token", &token);
    let start = |state: &str| {
        let args = ["--name", "prod", "--token-file", file.to_str().unwrap()];
        scene.server(&args).arg("--state-dir").arg(scene.path(state)).start()
    };
    let first = start("one");
    first.event("agent_live");
    let second = start("two");
    second.event("agent_live");
    let lost = first.event("agent_lost");
    assert!(lost["reason"].as_str().unwrap().contains("another program"), "{lost}");
    let listed = &scene.agents(&[])[0];
    assert_eq!(listed["state"], "live");
    assert!(listed["new_key_since"].is_string(), "another machine has another key: {listed}");
}

#[test]
fn where_no_name_can_be_had_it_is_said_what_to_do() {
    let scene = Scene::new();
    let nobody = |args: &[&str]| {
        let server = scene.server(args).args(["--relay-url", &scene.relay.url]);
        server.env("XDG_CONFIG_HOME", scene.path("nobody"))
    };
    nobody(&["--name", "prod"]).fails(1, &["you are not signed in", "--token-file"]);
    assert_eq!(scene.states(), []);
    let without = crate::support::Relay::start();
    let file = scene.file("token", &format!("rla_prod_{}", "a".repeat(52)));
    let args = ["--name", "prod", "--token-file", file.to_str().unwrap()];
    let server = scene.server(&args).args(["--relay-url", &without.url]).start();
    let lost = server.event("agent_lost");
    assert!(lost["reason"].as_str().unwrap().contains("has no accounts"), "{lost}");
    assert!(!server.code().is_empty());
    let server = scene.server(&args).args(["--relay-url", &scene.relay.url]).start();
    server.event("agent_refused");
    scene.own("agents").args(["rotate", "staging"]).fails(1, &["this organisation has no agent staging"]);
    scene.own("agents").args(["remove", "staging"]).fails(1, &["this organisation has no agent staging"]);
    let usage = scene.own("agents").args(["add", "Prod"]).start().process.done();
    assert!(usage.code == 2 && usage.stderr.contains("lower-case letters"), "{}", usage.stderr);
}
