//! A relay with accounts, and signing in at it: both are programs, and so is whoever looks for secrets in what they say.

use std::{
    cell::RefCell,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::told;

const SECRET: &str = "canary-of-the-dev-secret";

/// A relay with accounts, at one address for all its starts.
struct Relay {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Relay {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut relay = Self { dir, port: 0, child: None };
        // Its own address stands in its configuration, so that it cannot have the system choose one: a port that was free may
        // be somebody else's by now.
        while relay.child.is_none() {
            relay.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            relay.configure();
            relay.try_start();
        }
        relay
    }

    fn configure(&self) {
        let Self { dir, port, .. } = self;
        fs::write(dir.path().join("dev-secret"), format!("{SECRET}\n")).unwrap();
        fs::set_permissions(dir.path().join("dev-secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let config =
            format!("public_url = \"http://127.0.0.1:{port}\"\n[accounts]\n[dev]\nsecret_file = \"dev-secret\"\n");
        fs::write(dir.path().join("relay.toml"), config).unwrap();
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
        command.env_clear().arg("relay").args(args).arg("--config").arg(self.path("relay.toml"));
        command.arg("--data-dir").arg(self.path("data")).stdin(Stdio::null());
        command
    }

    fn start(&mut self) {
        while self.child.is_none() {
            self.try_start();
        }
    }

    /// Does nothing where its port is somebody else's.
    fn try_start(&mut self) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.path("log")).unwrap();
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = self.command(&["--listen", &listen, "--output", "json", "-vvv"]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.contains(r#""event":"listening""#) {
            self.child = Some(child);
            return;
        }
        assert!(!child.wait().unwrap().success(), "{line} {}", self.log());
        assert!(self.log().lines().last().unwrap_or_default().contains("in use"), "{}", self.log());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
            assert!(child.wait().unwrap().success(), "{}", self.log());
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A user's machine.
struct Laptop(tempfile::TempDir);

impl Laptop {
    /// Its exit code and what it said, at the most talkative.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        told(self.command(args).output().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
        command.args(args).args(["--output", "json", "-vvv"]).env_clear().env("HOME", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The one file of this name below its configuration.
    fn find(&self, name: &str) -> PathBuf {
        let relays = self.0.path().join(".config/mykube/relays");
        let mut found = fs::read_dir(relays).unwrap().map(|relay| relay.unwrap().path().join(name));
        found.next().unwrap()
    }
}

/// The account in the one event of standard output.
fn account(out: &str) -> Value {
    let event: Value = serde_json::from_str(out).unwrap_or_else(|_| panic!("not one event: {out}"));
    assert_eq!(event["event"], "account");
    event
}

#[test]
fn a_sign_in_outlives_the_relay_and_ends_at_log_out() {
    let (mut relay, laptop) = (Relay::new(), Laptop(tempfile::tempdir().unwrap()));
    let said = RefCell::new(Vec::new());
    let run = |args: &[&str], expected| {
        let (code, out, err) = laptop.run(args);
        assert_eq!(code, expected, "{args:?}: {err}");
        said.borrow_mut().extend([out.clone(), err.clone()]);
        (out, err)
    };
    assert!(run(&["whoami"], 2).1.contains("no relay is named"));
    assert!(run(&["whoami", "--relay-url", &relay.url()], 1).1.contains("you are not signed in at"));
    assert!(run(&["login", "--relay-url", &relay.url(), "--provider", "a/b"], 2).1.contains("a provider's name has"));

    let (url, secret) = (relay.url(), relay.path("dev-secret"));
    let log_in = ["login", "--relay-url", &url, "--dev-email", "alice@example.com", "--dev-secret-file"];
    let log_in = |secret: &Path, expected| run(&[&log_in[..], &[secret.to_str().unwrap()]].concat(), expected);
    let alice = account(&log_in(&secret, 0).0);
    assert_eq!((&alice["user_id"], &alice["email"]), (&"dev:alice@example.com".into(), &"alice@example.com".into()));
    // The relay is remembered, unless it is said that none is meant.
    let mut none = laptop.command(&["whoami"]);
    let (code, _, err) = told(none.env("MYKUBE_RELAY_URL", "").output().unwrap());
    assert!(code == 2 && err.contains("no relay is named"), "{err}");
    assert_eq!(account(&run(&["whoami"], 0).0), alice);
    let credentials = laptop.find("credentials");
    for private in [&credentials, &laptop.find("relay.key"), &relay.path("data/keys"), &relay.path("data/relay.db")] {
        assert_eq!(fs::metadata(private).unwrap().mode() & 0o077, 0, "{}", private.display());
    }
    // Four need another token at once: one of them has it replaced, and the others find it.
    let first: Value = serde_json::from_slice(&fs::read(&credentials).unwrap()).unwrap();
    let mut stale = first.clone();
    stale["expires_at"] = 0.into();
    fs::write(&credentials, stale.to_string()).unwrap();
    let four = [(); 4].map(|()| laptop.command(&["whoami"]).spawn().unwrap());
    for child in four {
        let (code, out, err) = told(child.wait_with_output().unwrap());
        assert_eq!((code, account(&out)), (0, alice.clone()), "{err}");
        said.borrow_mut().extend([out, err]);
    }
    // A machine whose clock is two hours behind is told so once, and keeps it.
    let mut wrong: Value = serde_json::from_slice(&fs::read(&credentials).unwrap()).unwrap();
    (wrong["skew"], wrong["expires_at"]) = ((-7_200_000).into(), 0.into());
    fs::write(&credentials, wrong.to_string()).unwrap();
    run(&["whoami"], 0);
    let mended: Value = serde_json::from_slice(&fs::read(&credentials).unwrap()).unwrap();
    assert!(mended["skew"].as_i64().unwrap().abs() < 60_000, "{}", mended["skew"]);
    // One that the relay does not take, whatever this machine's clock says, is replaced too.
    let mut spoilt: Value = serde_json::from_slice(&fs::read(&credentials).unwrap()).unwrap();
    spoilt["token"] = "spoilt".into();
    fs::write(&credentials, spoilt.to_string()).unwrap();
    assert_eq!(account(&run(&["whoami"], 0).0), alice);
    let kept = fs::read(&credentials).unwrap();

    relay.stop();
    assert!(run(&["whoami"], 4).1.contains("connection refused"));
    relay.start();
    assert_eq!(account(&run(&["whoami"], 0).0), alice);

    assert_eq!(run(&["logout"], 0).0.trim(), format!(r#"{{"event":"signed_out","relay":"{url}"}}"#));
    assert!(run(&["whoami"], 1).1.contains("you are not signed in at"));
    // Whoever kept the file has nothing, after another start of the relay too.
    fs::write(&credentials, &kept).unwrap();
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(run(&["whoami"], 1).1.contains("other users may read"));
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        assert!(run(&["whoami"], 1).1.contains("does not know this sign-in any more"));
        relay.stop();
        relay.start();
    }
    // The relay says itself that it is over, and so it is here.
    run(&["logout"], 0);
    assert!(!credentials.exists());
    let wrong = relay.path("wrong-secret");
    fs::write(&wrong, "not-it").unwrap();
    assert!(log_in(&wrong, 1).1.contains("Invalid or missing secret"));

    relay.stop();
    let log = relay.log();
    assert!(log.contains("DEV MODE") && log.contains("sign-in ended"), "{log}");
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(log.matches("token replaced").count(), 3, "{log}");
    let tokens = [&first, &kept].map(|file| ["token", "refresh_token"].map(|name| file[name].as_str().unwrap()));
    let secrets = [&[SECRET], tokens.as_flattened()].concat();
    for text in said.borrow().iter().chain([&log]) {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "a secret is told:\n{text}");
    }
}

/// A relay that does not start: its exit code and what it said. One that does start is killed, and has no exit code.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.args(["--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_configuration_that_cannot_be_is_2_with_its_lines() {
    let relay = Relay::new();
    let (code, err) = refused(relay.command(&["--listen", "127.0.0.1:0"]));
    assert!(code == Some(1) && err.contains("another relay uses the database"), "{err}");
    let (code, err) = refused(relay.command(&["--listen", "0.0.0.0:0"]));
    assert!(code == Some(2) && err.contains("relay.toml:3: [dev] is for this machine alone"), "{err}");

    // One that cannot listen has touched nothing.
    let untouched = relay.path("untouched");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
    command.env_clear().args(["relay", "--listen", &format!("127.0.0.1:{}", relay.port), "--config"]);
    command.arg(relay.path("relay.toml")).arg("--data-dir").arg(&untouched);
    let (code, err) = refused(command);
    assert!(code == Some(1) && err.contains("in use"), "{err}");
    assert!(!untouched.join("relay.db").exists() && !untouched.join("keys").exists());

    let check = |text: &str| {
        let file = relay.path("other.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
        command.env_clear().args(["relay", "check-config"]).arg(&file);
        told(command.stdin(Stdio::null()).output().unwrap())
    };
    let (code, _, err) = check("public_url = \"http://127.0.0.1:8000\"\n[accounts]\n");
    assert!(code == 0 && err.contains("nothing is wrong with it, with --listen 127.0.0.1:8000"), "{err}");
    let (code, _, err) = check("\n[hooks]\nopen = true\n");
    assert!(code == 2 && err.contains("other.toml:2: `hooks` is not built yet"), "{err}");
}

#[test]
fn where_nothing_can_be_remembered_nothing_is() {
    let home = tempfile::tempdir().unwrap();
    for nowhere in ["/dev/null", home.path().to_str().unwrap()] {
        let (code, _, err) = told(crate::mykube(&home, &["client"]).env("HOME", nowhere).output().unwrap());
        assert!(code == 2 && err.contains("no relay is named"), "{nowhere}: {err}");
        let (_, _, err) = told(crate::mykube(&home, &["doctor"]).env("HOME", nowhere).output().unwrap());
        assert!(!err.contains("cannot use"), "{nowhere}: {err}");
    }
}

/// What a relay with this configuration, if any, answers to each request, but for the time.
fn answers(dir: &Path, config: Option<&str>, requests: &[&str]) -> Vec<String> {
    let data = dir.join(format!("data-of-{}", config.unwrap_or("none")));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
    command.env_clear().args(["relay", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir"]).arg(&data);
    command.args(config.map(|config| format!("--config={}", dir.join(config).display())));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    let address = event["listen"].as_str().unwrap();
    let ask = |request: &&str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(crate::DEADLINE)).unwrap();
        write!(stream, "{request}\r\nhost: relay\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
    };
    let answers = requests.iter().map(ask).collect();
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    let portals = names.filter(|name| name.trim() == "portal").count();
    child.kill().unwrap();
    child.wait().unwrap();
    let files = fs::read_dir(&data).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!((portals, files.collect::<Vec<_>>()), (0, vec!["ticket.key".to_owned()]));
    answers
}

#[test]
fn a_relay_without_accounts_is_the_one_of_codes_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.toml"), "").unwrap();
    let requests = [
        "GET / HTTP/1.1",
        "HEAD / HTTP/1.1",
        "GET // HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "OPTIONS /auth/dev HTTP/1.1",
        "CONNECT relay:443 HTTP/1.1",
        "GET http://relay/auth/status HTTP/1.1",
        "POST /auth/dev HTTP/1.1",
        "GET /v1/whoami HTTP/1.1",
        "GET /health HTTP/1.1",
        "GET /healthz HTTP/1.1",
        "DELETE /api/health HTTP/1.1",
        "GET /api/sessions HTTP/1.1",
        "GET /auth/dev HTTP/1.0",
    ];
    let [none, empty] = [None, Some("empty.toml")].map(|config| answers(dir.path(), config, &requests));
    assert_eq!(none, empty);
    for (request, answer) in requests.iter().zip(&none) {
        let is_own = ["/healthz", "/api/"].iter().any(|path| request.contains(path));
        assert_eq!(
            answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.0 404"),
            !is_own,
            "{request}: {answer}"
        );
    }
}
