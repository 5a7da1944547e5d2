//! A user's machine, a relay in dev mode, and a stand-in for a relay that says what a test wants it to.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{LIMIT, Mykube, Running};

/// What commands of one user share: configuration and running programs.
pub(crate) struct Laptop {
    config: TempDir,
    runtime: TempDir,
}

impl Laptop {
    pub(crate) fn new() -> Self {
        let private = std::fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        builder.prefix("e2e-").permissions(private);
        Self { config: builder.tempdir().unwrap(), runtime: builder.tempdir_in("/dev/shm").unwrap() }
    }

    /// With JSON events, and all log lines.
    pub(crate) fn mykube(&self, name: &str) -> Mykube {
        self.own(Mykube::new(name))
    }

    /// As a person runs it.
    pub(crate) fn text(&self, name: &str) -> Mykube {
        self.own(Mykube::text(name))
    }

    pub(crate) fn own(&self, command: Mykube) -> Mykube {
        command.env("XDG_CONFIG_HOME", self.config.path()).env("XDG_RUNTIME_DIR", self.runtime.path())
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.config.path().join("mykube/config.toml")
    }

    /// The one file of this name that belongs to a relay.
    pub(crate) fn find(&self, name: &str) -> PathBuf {
        let relays = std::fs::read_dir(self.config.path().join("mykube/relays")).unwrap();
        let mut found = relays.map(|relay| relay.unwrap().path().join(name)).filter(|file| file.exists());
        found.next().unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub(crate) fn credentials(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.find("credentials")).unwrap()).unwrap()
    }

    /// Changes what is kept of a sign-in.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut credentials = self.credentials();
        change(&mut credentials);
        std::fs::write(self.find("credentials"), credentials.to_string()).unwrap();
    }
}

/// A relay with accounts, in dev mode.
pub(crate) struct DevRelay {
    pub(crate) running: Running,
    pub(crate) url: String,
    pub(crate) secret: PathBuf,
}

impl DevRelay {
    pub(crate) fn start() -> Self {
        // Its own address stands in its configuration, so that it cannot have the system choose one: a port that was free may
        // be somebody else's by now.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(relay) = Self::at(port) {
                return relay;
            }
        }
    }

    fn at(port: u16) -> Option<Self> {
        let relay = Mykube::new("relay");
        let secret = relay.sandbox().file("dev-secret", "a-secret-of-a-dev-relay");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let config = format!("public_url = \"{url}\"\n[accounts]\n[dev]\nsecret_file = \"dev-secret\"\n");
        let config = relay.sandbox().file("relay.toml", config);
        let data = relay.sandbox().home().join("relay");
        let relay = relay.args(["--api-rate", "0", "--listen", &format!("127.0.0.1:{port}"), "--config"]).arg(config);
        let running = relay.arg("--data-dir").arg(data).start();
        let listens = running.process.follow(std::time::Instant::now() + LIMIT, |state| {
            String::from_utf8_lossy(&state.stdout).contains(r#""event":"listening""#)
        });
        let in_use = || running.process.done().stderr.contains("in use");
        assert!(listens || in_use(), "{}", running.process.stderr());
        listens.then_some(Self { running, url, secret })
    }

    /// Signs in at it.
    pub(crate) fn sign_in(&self, laptop: &Laptop) {
        let login = laptop.mykube("login").args(["--relay-url", &self.url, "--dev-email=alice@example.com"]);
        login.arg("--dev-secret-file").arg(&self.secret).start().process.done().ok();
    }

    /// How often its log has this text.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.running.process.stderr().matches(text).count()
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) call: String,
    pub(crate) head: String,
    pub(crate) body: String,
    /// How many of the same call came before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What it comes to.
pub(crate) enum Answer {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing, for as long as the other end waits.
    Nothing,
    /// This one, when the test says so.
    Held(Box<Answer>),
}

#[derive(Default)]
struct Seen {
    all: Mutex<Vec<Asked>>,
    changed: Condvar,
    goes_on: Mutex<bool>,
    may_go_on: Condvar,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that answers as it is told to.
pub(crate) struct StandIn {
    pub(crate) url: String,
    seen: Arc<Seen>,
}

impl StandIn {
    /// One that answers as a relay does, but for what `instead` says. It is given its own address.
    pub(crate) fn start(instead: impl Fn(&Asked, &str) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, instead, own) = (Arc::new(Seen::default()), Arc::new(instead), url.clone());
        let all = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, instead, own) = (all.clone(), instead.clone(), own.clone());
                thread::spawn(move || {
                    let mut stream = stream;
                    let Some(asked) = read(&mut stream, &seen) else { return };
                    let mut answer = instead(&asked, &own).unwrap_or_else(|| as_relay(&asked, &own));
                    loop {
                        answer = match answer {
                            Answer::Bytes(bytes) => return drop(stream.write_all(&bytes)),
                            Answer::Nothing => return drop(stream.read(&mut [0])),
                            Answer::Held(answer) => {
                                let goes_on = seen.goes_on.lock().unwrap();
                                drop(seen.may_go_on.wait_while(goes_on, |goes_on| !*goes_on).unwrap());
                                *answer
                            }
                        };
                    }
                });
            }
        });
        Self { url, seen }
    }

    /// All requests, as they came.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen.lock().clone()
    }

    /// Those of one call.
    pub(crate) fn calls(&self, call: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.call == call).collect()
    }

    /// What is held is answered.
    pub(crate) fn go_on(&self) {
        *self.seen.goes_on.lock().unwrap() = true;
        self.seen.may_go_on.notify_all();
    }

    /// Waits until this call has come so often.
    pub(crate) fn wait(&self, call: &str, times: usize) {
        let came = |seen: &mut Vec<Asked>| seen.iter().filter(|asked| asked.call == call).count() < times;
        let (_seen, timeout) = self.seen.changed.wait_timeout_while(self.seen.lock(), LIMIT, came).unwrap();
        assert!(!timeout.timed_out(), "no {call}");
    }
}

fn read(stream: &mut TcpStream, seen: &Seen) -> Option<Asked> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    let body_of = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
        (body.len() >= length).then(|| (head.to_owned(), body.to_owned()))
    };
    let (head, body) = loop {
        if let Some(whole) = body_of(&text) {
            break whole;
        }
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            n => text.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
        }
    };
    let call = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut all = seen.lock();
    let before = all.iter().filter(|asked| asked.call == call).count();
    let asked = Asked { call, head, body, before };
    all.push(asked.clone());
    seen.changed.notify_all();
    Some(asked)
}

/// An answer in JSON.
pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    Answer::Bytes((head + &body).into_bytes())
}

/// A sign-in at this relay, with tokens that no other one has.
pub(crate) fn signed_in(relay: &str, token: &str) -> Value {
    json!({"token": format!("jwt-{token}"), "expiresIn": 3600, "refresh_token": format!("refresh-{token}"), "relay": [relay]})
}

fn as_relay(asked: &Asked, own: &str) -> Answer {
    let port = own.rsplit(':').next().unwrap();
    match asked.call.as_str() {
        "GET /portal/sign-in" | "GET /healthz" => json_answer(200, &json!({})),
        "POST /auth/exchange" => json_answer(200, &signed_in(own, &format!("{port}-{}", asked.before))),
        "POST /auth/device" => json_answer(
            200,
            &json!({"deviceCode": "device-code", "userCode": "ABCD-EFGH", "verificationUrl": format!("{own}/device"),
                "expiresIn": 600, "interval": 1}),
        ),
        "GET /v1/whoami" if asked.head.contains("authorization: Bearer jwt-") => json_answer(
            200,
            &json!({"account": "user_1", "user_id": "alice@example.com", "email": "alice@example.com",
                "organisation": "org_1", "signed_in_at": "2026-01-01T00:00:00Z"}),
        ),
        "GET /v1/whoami" => json_answer(401, &json!({"error": "no token"})),
        "POST /auth/revoke" | "POST /auth/refresh/received" => json_answer(200, &json!({"ok": true})),
        "POST /auth/refresh" => json_answer(200, &signed_in(own, &format!("{port}-renewed-{}", asked.before))),
        _ => json_answer(404, &json!({"error": "not found"})),
    }
}

/// What a browser gets from a port of this machine: the whole answer.
pub(crate) fn browse(port: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The parameters with which a sign-in began.
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) port: String,
    pub(crate) state: String,
    pub(crate) challenge: String,
}

impl Begun {
    pub(crate) fn of(url: &str) -> Self {
        let value = |name: &str| {
            let (_, query) = url.split_once('?').unwrap();
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.to_owned()
        };
        Self { url: url.to_owned(), port: value("cli_port"), state: value("state"), challenge: value("code_challenge") }
    }

    /// Waits until a command asks for the browser.
    pub(crate) fn by(login: &Running) -> Self {
        Self::of(login.event("sign_in_at")["url"].as_str().unwrap())
    }

    /// What the relay's page ends with: the browser brings the code.
    pub(crate) fn bring(&self, code: &str) -> String {
        self.get(&format!("/callback?code={code}&state={}&user_id=u&email=alice%40example.com", self.state))
    }

    pub(crate) fn get(&self, target: &str) -> String {
        browse(&self.port, &format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n\r\n", self.port))
    }
}

/// Whether a file is the user's alone.
pub(crate) fn is_private(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}
