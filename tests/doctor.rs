//! `mykube doctor` with every kind of fault: it finds each, names it, and names no other.
//!
//! Over 500 lines because it is one list of faults, and the small servers that have them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::SystemTime,
};

use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

const NAMES: [&str; 9] = ["dns", "proxy", "tls", "websocket", "clock", "relay", "kubeconfig", "api_server", "rbac"];

/// An authority of this test's own.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key of 127.0.0.1.
    fn sign(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn server(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.sign();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }
}

/// Serves each connection with `serve`, for as long as the test's process lives.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    at
}

/// A port at which nothing listens: it belongs to a connection that lives as long as the test.
fn closed() -> (u16, TcpStream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream.local_addr().unwrap().port(), stream, listener)
}

/// Reads the head of a request; `None` if the connection ends before its end.
fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn answer(stream: &mut impl Write, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}");
    let _ = stream.flush();
}

/// Answers everything alike.
fn canned(status: &'static str, headers: &'static str, body: &'static str) -> String {
    let at = listen(move |mut stream| {
        if head(&mut stream).is_some() {
            answer(&mut stream, status, headers, body);
            // Until the other end has read the answer and closes.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    format!("http://{at}")
}

/// The real relay. Killed on drop.
struct Relay {
    child: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Relay {
    fn start(ca: Option<&Ca>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
        command.args(["relay", "--listen", "127.0.0.1:0", "--output", "json", "--data-dir"]).arg(data.path());
        if let Some(ca) = ca {
            let (certificate, key) = ca.sign();
            let files = [("--tls-cert", certificate.pem()), ("--tls-key", key.serialize_pem())];
            for (flag, content) in files {
                let path = data.path().join(flag);
                fs::write(&path, content).unwrap();
                command.arg(flag).arg(path);
            }
        }
        let mut child = command.env_clear().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: event["url"].as_str().unwrap().to_owned(), _data: data }
    }

    fn address(&self) -> SocketAddr {
        self.url.split_once("://").unwrap().1.parse().unwrap()
    }

    /// A proxy before the relay that changes the heads of requests and answers.
    fn behind(
        &self,
        request: impl Fn(String) -> String + Send + Sync + 'static,
        response: impl Fn(String) -> Option<String> + Send + Sync + 'static,
    ) -> String {
        let relay = self.address();
        let at = listen(move |mut stream| {
            let Some(asked) = head(&mut stream) else { return };
            let mut onward = TcpStream::connect(relay).unwrap();
            onward.write_all(request(asked).as_bytes()).unwrap();
            let (mut from, mut to) = (stream.try_clone().unwrap(), onward.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let Some(answered) = head(&mut onward).and_then(&response) else {
                return drop(stream.shutdown(std::net::Shutdown::Both));
            };
            let _ = stream.write_all(answered.as_bytes());
            let _ = std::io::copy(&mut onward, &mut stream);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        format!("http://{at}")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An API server's answer for a path.
type Says = fn(&str) -> (&'static str, Value);

fn healthy(path: &str) -> (&'static str, Value) {
    match path {
        "/version" => ("200 OK", json!({"gitVersion": "v1.36.0"})),
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => {
            ("201 Created", json!({"status": {"userInfo": {"username": "ann\u{1b}[31m", "groups": ["dev", "ops"]}}}))
        }
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            ("201 Created", json!({"status": {"allowed": true}}))
        }
        _ => ("404 Not Found", json!({})),
    }
}

/// A kubeconfig for an API server that accepts the token `t0k3n`.
fn cluster(ca: &Ca, says: Says) -> Value {
    let tls = ca.server();
    let at = listen(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(tls.clone()).unwrap(), stream);
        let Some(head) = head(&mut stream) else { return };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let (status, body) = if head.to_lowercase().contains("authorization: bearer t0k3n") {
            says(&path)
        } else {
            ("401 Unauthorized", json!({"message": "Unauthorized"}))
        };
        answer(&mut stream, status, "Content-Type: application/json\r\n", &body.to_string());
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = std::io::copy(&mut stream.sock, &mut std::io::sink());
    });
    kubeconfig(at.port(), ca, "t0k3n")
}

fn kubeconfig(port: u16, ca: &Ca, token: &str) -> Value {
    json!({
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "prod", "user": "u"}}],
        "clusters": [{"name": "prod", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": BASE64.encode(ca.pem.as_bytes()),
        }}],
        "users": [{"name": "u", "user": {"token": token}}],
    })
}

/// One run, in a home of its own.
struct Doctor {
    home: tempfile::TempDir,
    command: Command,
}

/// The outcome of one run.
struct Found {
    code: i32,
    lines: Vec<Value>,
    stderr: String,
}

impl Doctor {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
        command.args(["doctor", "--output", "json"]).env_clear().env("HOME", home.path());
        // Makes this the only authority that a run trusts, on a machine that has none.
        let doctor = Self { home, command };
        let stranger = Ca::new("stranger").pem;
        doctor.ca(&stranger)
    }

    fn ca(mut self, pem: &str) -> Self {
        let path = self.file("ca.pem", pem);
        self.command.env("MYKUBE_CA_FILE", path);
        self
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn relay(mut self, url: &str) -> Self {
        self.command.args(["--relay-url", url]);
        self
    }

    fn kubeconfig(mut self, content: &str) -> Self {
        let path = self.file("kubeconfig", content);
        self.command.arg("--kubeconfig").arg(path);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn run(mut self) -> Found {
        let output = self.command.stdin(Stdio::null()).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stdout.contains("t0k3n") && !stderr.contains("t0k3n"), "{stderr}");
        let lines = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Found { code: output.status.code().unwrap(), lines, stderr }
    }
}

impl Found {
    /// The verdicts, one letter each: `o`k, `F`AIL or `s`kip.
    fn verdicts(&self) -> String {
        let names: Vec<_> = self.lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
        assert_eq!(names, NAMES, "{}", self.stderr);
        let letter = |line: &Value| match line["ok"] {
            Value::Bool(true) => 'o',
            Value::Bool(false) => 'F',
            _ => 's',
        };
        self.lines.iter().map(letter).collect()
    }

    fn detail(&self, name: &str) -> &str {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        self.lines[at]["detail"].as_str().unwrap()
    }

    /// Exactly one check failed, with these words; the exit code says so.
    #[track_caller]
    fn only(&self, verdicts: &str, failed: &str, words: &[&str]) {
        assert_eq!(self.verdicts(), verdicts, "{}", self.stderr);
        assert_eq!(self.code, 1);
        for word in words {
            assert!(self.detail(failed).contains(word), "no {word:?} in {}", self.detail(failed));
        }
        assert!(self.stderr.contains("\nerror: not well: "), "{}", self.stderr);
        assert!(self.stderr.contains("FAIL  "), "{}", self.stderr);
    }
}

#[test]
fn all_is_well() {
    let ca = Ca::new("Relay Test CA");
    let relay = Relay::start(Some(&ca));
    let cluster = cluster(&ca, healthy).to_string();
    let found = Doctor::new().ca(&ca.pem).relay(&relay.url).kubeconfig(&cluster).run();
    assert_eq!((found.verdicts().as_str(), found.code), ("ooooooooo", 0), "{}", found.stderr);
    assert!(found.detail("tls").contains("\"Relay Test CA\", trusted through --ca-file"), "{}", found.detail("tls"));
    assert!(found.detail("api_server").contains("v1.36.0"));
    assert!(
        found.detail("rbac").contains("we are ann[31m (dev, ops), and may list namespaces"),
        "{}",
        found.detail("rbac")
    );
    assert!(found.stderr.contains("ok    DNS") && found.stderr.ends_with("All is well.\n"), "{}", found.stderr);
    // No code or token was shown.
    assert!(!found.stderr.to_lowercase().contains("code"), "{}", found.stderr);
}

#[test]
fn a_laptop_needs_no_kubeconfig_and_a_cluster_no_relay() {
    let relay = Relay::start(None);
    let found = Doctor::new().relay(&relay.url).run();
    assert_eq!((found.verdicts().as_str(), found.code), ("oosooosss", 0), "{}", found.stderr);
    let ca = Ca::new("ca");
    let found = Doctor::new().kubeconfig(&cluster(&ca, healthy).to_string()).run();
    assert_eq!((found.verdicts().as_str(), found.code), ("ssssssooo", 0), "{}", found.stderr);
    let found = Doctor::new().run();
    assert_eq!((found.verdicts().as_str(), found.code), ("sssssssss", 2), "{}", found.stderr);
    assert!(found.stderr.contains("--relay-url"));
    assert_eq!(Doctor::new().relay("http://relay.example").run().code, 2);
    let missing = Doctor::new().env("KUBECONFIG", "/nonexistent/kubeconfig").run();
    missing.only("ssssssFss", "kubeconfig", &["/nonexistent/kubeconfig"]);
}

#[test]
fn a_name_that_has_no_address() {
    // Longer than a label may be (RFC 1035): refused without asking a name server.
    let found = Doctor::new().relay(&format!("https://{}.test", "x".repeat(64))).run();
    found.only("Fssssssss", "dns", &["cannot be resolved", "spelling"]);
}

#[test]
fn a_port_where_nothing_listens() {
    let (port, _connection, _listener) = closed();
    let ca = Ca::new("ca");
    let found =
        Doctor::new().relay(&format!("http://127.0.0.1:{port}")).kubeconfig(&cluster(&ca, healthy).to_string()).run();
    found.only("oosssFooo", "relay", &["connection refused", "port"]);
}

#[test]
fn something_else_than_a_relay() {
    let html = canned("200 OK", "Content-Type: text/html\r\n", "<html>");
    Doctor::new().relay(&html).run().only("oosssFsss", "relay", &["is not a mykube relay", "text/html"]);
    let redirect = canned("302 Found", "Location: https://login.example/\r\n", "");
    Doctor::new().relay(&redirect).run().only("oosssFsss", "relay", &["redirects to https://login.example/"]);
    let busy = canned("429 No", "Content-Type: application/json\r\nRetry-After: 7\r\n", r#"{"error":"no"}"#);
    Doctor::new().relay(&busy).run().only("oosssFsss", "relay", &["try again in 7 s"]);
}

#[test]
fn tls_that_is_not_trusted() {
    let ca = Ca::new("Zscaler Root CA");
    let relay = Relay::start(Some(&ca));
    let found = Doctor::new().relay(&relay.url).run();
    found.only("ooFssssss", "tls", &["--ca-file", "\"Zscaler Root CA\"", "a proxy seems to inspect"]);

    let plain = Relay::start(None);
    let url = plain.url.replace("http://", "https://");
    Doctor::new().relay(&url).run().only("ooFssssss", "tls", &["does not speak TLS"]);
    let found = Doctor::new().relay(&relay.url).env("MYKUBE_CA_FILE", "/nonexistent/ca").run();
    assert_eq!(found.verdicts(), "ssFsssFss", "{}", found.stderr);
    assert!(found.detail("tls").contains("--ca-file"));
}

#[test]
fn a_proxy_that_is_in_the_way() {
    let asks = canned("407 No", "Proxy-Authenticate: Basic realm=\"x\"\r\n", "").replace("http://", "");
    let through = |proxy: &str| Doctor::new().relay("https://relay.test").env("HTTPS_PROXY", proxy).run();
    through(&asks).only("oFsssssss", "proxy", &["asks for a user name and password", "HTTPS_PROXY"]);
    let wrong = through(&format!("http://ann:hunter2@{asks}"));
    wrong.only("oFsssssss", "proxy", &["does not accept"]);
    assert!(!wrong.stderr.contains("hunter2"));
    let cannot = canned("502 No", "", "");
    through(&cannot).only("oFsssssss", "proxy", &["could not reach relay.test:443"]);
    through("ftp://ann:hunter2@x").only("sFsssssss", "proxy", &["not a usable proxy URL"]);
    let (port, _connection, _listener) = closed();
    through(&format!("http://127.0.0.1:{port}")).only("oFsssssss", "proxy", &["connection refused"]);
}

#[test]
fn a_way_on_which_websockets_die() {
    let relay = Relay::start(None);
    let without_upgrade = |head: String| {
        let kept = head.split_inclusive("\r\n").filter(|line| {
            let line = line.to_lowercase();
            !line.starts_with("upgrade:") && !line.starts_with("connection: upgrade")
        });
        kept.collect::<String>()
    };
    let strips = relay.behind(without_upgrade, Some);
    let advice = &["something on the way", "`Upgrade: websocket`"];
    Doctor::new().relay(&strips).run().only("oosFoosss", "websocket", advice);
    let blocks = relay.behind(
        |head| head,
        |head| {
            let refusal =
                "HTTP/1.1 403 No\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            Some(if head.starts_with("HTTP/1.1 101") { refusal.to_owned() } else { head })
        },
    );
    Doctor::new().relay(&blocks).run().only("oosFoosss", "websocket", &["403", advice[0], advice[1]]);
    // The upgrade is let through, but no frame.
    let cuts = {
        let relay = relay.address();
        let at = listen(move |mut stream| {
            let Some(asked) = head(&mut stream) else { return };
            let mut onward = TcpStream::connect(relay).unwrap();
            onward.write_all(asked.as_bytes()).unwrap();
            if !asked.starts_with("GET /ws") {
                let (mut from, mut to) = (stream.try_clone().unwrap(), onward.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut onward, &mut stream);
                return drop(stream.shutdown(std::net::Shutdown::Both));
            }
            let answered = head(&mut onward).unwrap();
            assert!(answered.starts_with("HTTP/1.1 101"), "{answered}");
            stream.write_all(answered.as_bytes()).unwrap();
        });
        format!("http://{at}")
    };
    Doctor::new().relay(&cuts).run().only("oosFoosss", "websocket", &["cut before a frame came back", advice[0]]);
}

#[test]
fn a_clock_that_is_wrong() {
    let relay = Relay::start(None);
    let dated = |date: &'static str| {
        relay.behind(
            |head| head,
            move |head| {
                let other = head.split_inclusive("\r\n").filter(|line| !line.to_lowercase().starts_with("date:"));
                let head: String = other.collect();
                Some(head.replacen("\r\n", &format!("\r\n{date}"), 1))
            },
        )
    };
    let began = SystemTime::now();
    let past = Doctor::new().relay(&dated("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")).run();
    past.only("oosoFosss", "clock", &["ahead of the relay's", "timedatectl"]);
    // From 1994-11-06T08:49:37Z, in seconds since 1970, to some moment of the run.
    let ahead = |now: SystemTime| now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - 784_111_777;
    let told = past.stderr.split_once("clock is ").unwrap().1.split(' ').next().unwrap();
    assert!((ahead(began)..=ahead(SystemTime::now())).contains(&told.parse().unwrap()), "{told}");
    let future = Doctor::new().relay(&dated("Date: Tue, 01 Jan 2999 00:00:00 GMT\r\n")).run();
    future.only("oosoFosss", "clock", &["behind the relay's"]);
    let none = Doctor::new().relay(&dated("")).run();
    assert_eq!((none.verdicts().as_str(), none.code), ("oosososss", 0), "{}", none.stderr);
}

#[test]
fn a_kubeconfig_that_is_broken() {
    let run = |content: &str| Doctor::new().kubeconfig(content).run();
    run("clusters: [").only("ssssssFss", "kubeconfig", &["not a valid kubeconfig"]);
    run("{}").only("ssssssFss", "kubeconfig", &["is empty"]);
    let ca = Ca::new("ca");
    let mut config = kubeconfig(1, &ca, "t0k3n");
    config["users"][0]["user"] = json!({"tokenFile": "/nonexistent/token"});
    run(&config.to_string()).only("ssssssFss", "kubeconfig", &["/nonexistent/token"]);
    config["users"][0]["user"] = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin", "interactiveMode": "Never"}});
    run(&config.to_string()).only("ssssssFss", "kubeconfig", &["no-such-plugin"]);
    config["current-context"] = json!("gone");
    run(&config.to_string()).only("ssssssFss", "kubeconfig", &["gone"]);
}

#[test]
fn an_api_server_that_is_down_or_another() {
    let ca = Ca::new("ca");
    let (port, _connection, _listener) = closed();
    let found = Doctor::new().kubeconfig(&kubeconfig(port, &ca, "t0k3n").to_string()).run();
    found.only("ssssssoFs", "api_server", &["connection refused"]);

    let mut config = cluster(&ca, healthy);
    config["clusters"][0]["cluster"]["certificate-authority-data"] =
        json!(BASE64.encode(Ca::new("another").pem.as_bytes()));
    let found = Doctor::new().kubeconfig(&config.to_string()).run();
    found.only("ssssssoFs", "api_server", &["cannot be verified"]);

    let not_one = cluster(&ca, |_| ("200 OK", json!({"hello": "world"})));
    let found = Doctor::new().kubeconfig(&not_one.to_string()).run();
    found.only("ssssssoFs", "api_server", &["check `server`"]);
    let plain = listen(|mut stream| {
        answer(&mut stream, "400 Bad Request", "", "");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let found = Doctor::new().kubeconfig(&kubeconfig(plain.port(), &ca, "t0k3n").to_string()).run();
    found.only("ssssssoFs", "api_server", &["does not speak TLS", "port"]);
}

#[test]
fn credentials_that_are_not_accepted() {
    let ca = Ca::new("ca");
    let mut config = cluster(&ca, healthy);
    config["users"][0]["user"]["token"] = json!("stale");
    let found = Doctor::new().kubeconfig(&config.to_string()).run();
    found.only("ssssssoFs", "api_server", &["401", "Log in"]);
}

#[test]
fn rights_are_told_and_only_their_lack_at_all_is_a_failure() {
    let ca = Ca::new("ca");
    let few = cluster(&ca, |path| match path {
        "/version" => ("403 Forbidden", json!({"message": "no"})),
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            ("201 Created", json!({"status": {"allowed": false}}))
        }
        "/apis/authentication.k8s.io/v1/selfsubjectreviews" => ("404 Not Found", json!({})),
        path if path.contains("v1beta1") => healthy(&path.replace("v1beta1", "v1")),
        path => healthy(path),
    });
    let found = Doctor::new().kubeconfig(&few.to_string()).run();
    assert_eq!((found.verdicts().as_str(), found.code), ("ssssssooo", 0), "{}", found.stderr);
    assert!(found.detail("rbac").contains("we are ann") && found.detail("rbac").contains("Warning: may not list"));
    assert!(found.detail("rbac").contains("a ClusterRoleBinding"), "{}", found.detail("rbac"));

    let none = cluster(&ca, |path| match path {
        "/version" => healthy(path),
        _ => ("403 Forbidden", json!({"message": "system:anonymous cannot create this"})),
    });
    let found = Doctor::new().kubeconfig(&none.to_string()).run();
    found.only("ssssssooF", "rbac", &["system:anonymous cannot create this", "credentials"]);
}
