//! A user's machine, a relay in dev mode, and a stand-in for a relay that says what a test wants it to.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::Signal;
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
    dir: TempDir,
}

impl DevRelay {
    pub(crate) fn start() -> Self {
        // Its own address stands in its configuration, so that it cannot have the system choose one: a port that was free may
        // be somebody else's by now.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let (url, secret) = (format!("http://127.0.0.1:{port}"), dir.path().join("dev-secret"));
            std::fs::write(&secret, "a-secret-of-a-dev-relay").unwrap();
            std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
            let config = format!("public_url = \"{url}\"\n[accounts]\n[dev]\nsecret_file = \"dev-secret\"\n");
            std::fs::write(dir.path().join("relay.toml"), config).unwrap();
            if let Some(running) = Self::run(dir.path(), &url) {
                return Self { running, url, secret, dir };
            }
        }
    }

    /// Nothing where its port is somebody else's.
    fn run(dir: &Path, url: &str) -> Option<Running> {
        let listen = url.strip_prefix("http://").unwrap();
        let relay = Mykube::new("relay").args(["--api-rate", "0", "--listen", listen, "--config"]);
        let running = relay.arg(dir.join("relay.toml")).arg("--data-dir").arg(dir.join("data")).start();
        let listens = running.process.follow(std::time::Instant::now() + LIMIT, |state| {
            String::from_utf8_lossy(&state.stdout).contains(r#""event":"listening""#)
        });
        let in_use = || running.process.done().stderr.contains("in use");
        assert!(listens || in_use(), "{}", running.process.stderr());
        listens.then_some(running)
    }

    /// Ends it; what it had on disk is there for [`Self::go_on`].
    pub(crate) fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// The same by a signal of one's choice.
    pub(crate) fn end(&self, signal: Signal) {
        self.running.process.signal(signal);
        self.running.process.done();
    }

    /// Starts it anew at its address, as soon as that is free.
    pub(crate) fn go_on(&mut self) {
        self.running = loop {
            if let Some(running) = Self::run(self.dir.path(), &self.url) {
                break running;
            }
        };
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

/// What a page came to.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    cookies: Vec<String>,
    pub(crate) body: String,
}

/// A person's browser at one relay: it keeps cookies, fills in forms, and says where they are from.
pub(crate) struct Browser {
    relay: String,
    cookies: Vec<(String, String)>,
}

impl Browser {
    pub(crate) fn new(relay: &str) -> Self {
        Self { relay: relay.to_owned(), cookies: Vec::new() }
    }

    /// Signs in on the page that was opened, in dev mode; the page that it leads to.
    pub(crate) fn sign_in(&mut self, page: &Page, relay: &DevRelay) -> Page {
        let secret = std::fs::read_to_string(&relay.secret).unwrap();
        let fields = [("email", "alice@example.com"), ("secret", secret.as_str())];
        let signed_in = self.submit(page, "/portal/sign-in/dev", &fields);
        self.get(&signed_in.location.unwrap_or_else(|| panic!("{}", signed_in.body)))
    }

    /// Somebody who has signed in there, in dev mode.
    pub(crate) fn signed_in(relay: &DevRelay) -> Self {
        let mut browser = Self::new(&relay.url);
        let secret = std::fs::read_to_string(&relay.secret).unwrap();
        let body = json!({"email": "alice@example.com", "secret": secret}).to_string();
        let page = browser.ask("POST", "/auth/dev", "application/json", &body);
        assert_eq!(page.status, 200, "{}", page.body);
        browser
    }

    /// `target` is a path, or a whole address at this relay.
    pub(crate) fn get(&mut self, target: &str) -> Page {
        let target = target.strip_prefix(&self.relay).unwrap_or(target).to_owned();
        self.ask("GET", &target, "", "")
    }

    /// Sends the one form of a page that leads there, whatever its query is, with its hidden fields and these.
    pub(crate) fn submit(&mut self, page: &Page, action: &str, fields: &[(&str, &str)]) -> Page {
        let leads_there = |form: &&str| {
            let rest = form.split_once(&format!("action=\"{action}")).map(|(_, rest)| rest);
            rest.is_some_and(|rest| rest.starts_with(['"', '?']))
        };
        let form = page.body.split("<form ").find(leads_there);
        let form =
            form.unwrap_or_else(|| panic!("no form for {action} in {}", page.body)).split("</form>").next().unwrap();
        let value = |input: &str, name: &str| {
            input.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned)
        };
        let hidden = form.split("<input ").skip(1).filter(|input| input.contains("type=\"hidden\""));
        let hidden = hidden.map(|input| (value(input, "name").unwrap(), value(input, "value").unwrap_or_default()));
        let given = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let pairs = hidden.chain(given).map(|(name, value)| format!("{}={}", encode(&name), encode(&value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let action = value(form, "action").unwrap().replace("&#38;", "&").replace("&amp;", "&");
        self.ask("POST", &action, "application/x-www-form-urlencoded", &body)
    }

    fn ask(&mut self, method: &str, target: &str, kind: &str, body: &str) -> Page {
        let address = self.relay.split_once("://").unwrap().1;
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = if cookies.is_empty() { String::new() } else { format!("cookie: {}\r\n", cookies.join("; ")) };
        let sent = match method {
            "GET" => String::new(),
            _ => format!("content-type: {kind}\r\ncontent-length: {}\r\norigin: {}\r\n", body.len(), self.relay),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{cookies}{sent}\r\n");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let headers = |name: &str| -> Vec<String> {
            let values =
                head.lines().filter_map(|line| line.split_once(": ")).filter(|(key, _)| key.eq_ignore_ascii_case(name));
            values.map(|(_, value)| value.to_owned()).collect()
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let location = headers("location").pop();
        let page = Page { status, location, cookies: headers("set-cookie"), body: body.to_owned() };
        for cookie in &page.cookies {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(kept, _)| kept != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        page
    }
}
