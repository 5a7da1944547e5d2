//! `mykube-relay` sends codes through a real mail server, and invites.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::{Value, json};

use crate::sign_in::Relay;

/// A mail server; `scripts/test` has one.
const SERVER: &str = "MYKUBE_SMTP_SERVER";
const PASSWORD: &str = "canary of smtp";
const ADA: &str = "ada.canary@example.com";
const EVE: &str = "eve.canary@example.com";

/// A mail server, which tells each letter that it took.
struct Server {
    port: u64,
    said: BufReader<ChildStdout>,
    child: Child,
}

impl Server {
    /// None where this run has no such program.
    fn start(way: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os(SERVER) else {
            println!("{SERVER} is not set: not run");
            return None;
        };
        let mut child = Command::new(program).args(way).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { port: 0, said, child };
        server.port = server.line()["port"].as_u64().unwrap();
        Some(server)
    }

    /// The next letter: it waits for one.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The head and the body of an answer.
fn ask(relay: &Relay, method: &str, path: &str, kind: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let origin = relay.url();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nOrigin: {origin}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        relay.port,
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

fn post(relay: &Relay, path: &str, body: &Value) -> (u16, String, String) {
    ask(relay, "POST", path, "application/json", &body.to_string())
}

fn request(relay: &Relay, email: &str) -> u16 {
    post(relay, "/auth/otp/request", &json!({"email": email})).0
}

fn code(letter: &Value) -> String {
    let data = letter["data"].as_str().unwrap();
    let (head, body) = data.split_once("\r\n\r\n").unwrap();
    assert!(body[6..].starts_with(" is your code to sign in at\r\nhttp://127.0.0.1:"), "{body}");
    assert!(head.contains("Auto-Submitted: auto-generated") && head.contains("Message-ID: <"), "{head}");
    body[..6].to_owned()
}

/// Waits for a line of the relay's log; the runner bounds it.
fn until_logged(relay: &Relay, text: &str) {
    while !relay.log().contains(text) {
        sleep(Duration::from_millis(20));
    }
}

fn check_log(relay: &Relay, secrets: &[&str]) {
    let log = relay.log();
    for secret in secrets.iter().chain(&[PASSWORD, ADA, EVE, "canary"]) {
        assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
    }
}

/// Files of a server's certificate, for `localhost`, and of the password; in a directory that goes with it.
fn files() -> (tempfile::TempDir, [String; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let paths = ["cert.pem", "key.pem", "password"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    for (path, content) in paths.iter().zip([made.pem(), key.serialize_pem(), PASSWORD.to_owned()]) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    (dir, paths)
}

fn configuration(sign_up: &str, smtp: &str, more: &str) -> String {
    format!(
        "[accounts]\nsign_up = \"{sign_up}\"\n[mail]\nsmtp = \"{smtp}\"\nfrom = \"The relay <relay@example.com>\"\n{more}"
    )
}

fn run(relay: &Relay, args: &[&str]) -> Output {
    let path = |name: &str| relay.dir.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube-relay"));
    command.env_clear().args(args).arg("--config").arg(path("relay.toml")).arg("--data-dir").arg(path("data"));
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_code_comes_by_mail_and_signs_in_whatever_the_way_to_the_server() {
    let (_dir, [cert, key, password]) = files();
    for way in ["plain", "starttls", "tls"] {
        let Some(mut server) = Server::start(&[way, &cert, &key]) else { return };
        let port = server.port;
        let private = format!("password_file = \"{password}\"\nca_file = \"{cert}\"\n");
        let (smtp, more) = match way {
            "plain" => (format!("smtp://localhost:{port}"), ""),
            "starttls" => (format!("smtp://relay%40example.com@localhost:{port}?tls=required"), private.as_str()),
            _ => (format!("smtps://relay%40example.com@localhost:{port}"), private.as_str()),
        };
        let relay = Relay::start(|_| configuration("open", &smtp, more));
        assert_eq!(request(&relay, &format!(" {}", ADA.to_uppercase())), 202, "{way}");
        let letter = server.line();
        assert_eq!((&letter["from"], &letter["to"]), (&json!("relay@example.com"), &json!([ADA])));
        let user = if way == "plain" { Value::Null } else { json!("relay@example.com") };
        assert_eq!((&letter["tls"], &letter["user"]), (&json!(way != "plain"), &user), "{way}");
        let right = code(&letter);
        let wrong = if right == "000000" { "000001" } else { "000000" };
        let (status, _, body) = post(&relay, "/auth/otp/verify", &json!({"email": ADA, "code": wrong}));
        assert_eq!((status, body.contains("\"attempts_left\":4")), (401, true), "{body}");
        let (status, head, body) = post(&relay, "/auth/otp/verify", &json!({"email": ADA, "code": right}));
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("set-cookie: lukan_token=") && head.contains("set-cookie: __host-mykube="), "{head}");
        check_log(&relay, &[&right]);
    }
}

#[test]
fn somebody_is_invited_beside_the_running_relay_and_comes_in_by_its_pages() {
    let Some(mut server) = Server::start(&["plain"]) else { return };
    let smtp = format!("smtp://127.0.0.1:{}", server.port);
    let relay = Relay::start(|_| configuration("closed", &smtp, ""));
    // A stranger is told the same, and sent nothing: the first letter is that of whoever is invited.
    assert_eq!(request(&relay, EVE), 202);
    let invited = run(&relay, &["invite", ADA, "--operator"]);
    let told = String::from_utf8_lossy(&invited.stderr).into_owned();
    assert!(invited.status.success() && told.contains(ADA) && told.contains("operates the relay"), "{told}");
    let link = String::from_utf8(invited.stdout).unwrap();
    assert_eq!(link, format!("{}/portal/invitation\n", relay.url()));
    let (status, _, page) = ask(&relay, "GET", "/portal/invitation", "text/plain", "");
    assert!(status == 200 && page.contains("Your invitation") && page.contains("/portal/sign-in"), "{page}");
    let (_, _, page) = ask(&relay, "GET", "/portal/sign-in", "text/plain", "");
    assert!(page.contains("/portal/sign-in/email"), "{page}");

    let form = "application/x-www-form-urlencoded";
    let email = "email=ada.canary%40example.com";
    let (status, _, page) = ask(&relay, "POST", "/portal/sign-in/email", form, email);
    assert!(status == 200 && page.contains("Enter the code") && page.contains(ADA), "{page}");
    let letter = server.line();
    assert_eq!(letter["to"], json!([ADA]));
    let right = code(&letter);
    let typed = |code: &str| ask(&relay, "POST", "/portal/sign-in/code", form, &format!("{email}&code={code}"));
    let (status, _, page) = typed(if right == "000000" { "000001" } else { "000000" });
    assert!(status == 401 && page.contains("This is not the code that was sent: 4 tries left."), "{page}");
    let (status, head, _) = typed(&right);
    assert!(
        status == 303 && head.contains("set-cookie: __host-mykube=") && head.contains("location: /portal/"),
        "{head}"
    );
    assert!(relay.log().contains("an invitation was taken"));
    check_log(&relay, &[&right]);
}

#[test]
fn nobody_is_invited_whom_nothing_could_let_in() {
    let relay = Relay::start(|_| "[accounts]\n".to_owned());
    let output = run(&relay, &["invite", ADA]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{told}");
    assert!(told.contains("configure [mail]") && told.contains("email_domains = [\"example.com\"]"), "{told}");
    let (status, _, body) = post(&relay, "/auth/otp/request", &json!({"email": ADA}));
    assert_eq!(status, 404, "{body}");
    let none = run(&relay, &["invite", "ada@example.com\r\nBcc: eve@example.com"]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn a_server_that_cannot_be_used_is_told_to_everybody_alike_and_to_the_operator_why() {
    let (_dir, [cert, key, password]) = files();
    let Some(tls) = Server::start(&["tls", &cert, &key]) else { return };
    let Some(plain) = Server::start(&["plain"]) else { return };
    let wrong = format!("{password}.wrong");
    fs::write(&wrong, "canary of a wrong one").unwrap();
    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o600)).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let user = "relay%40example.com@localhost";
    for (smtp, more, why) in [
        (format!("smtp://127.0.0.1:{nobody}"), String::new(), "no connection"),
        (
            format!("smtps://{user}:{}", tls.port),
            format!("password_file = \"{wrong}\"\nca_file = \"{cert}\"\n"),
            "does not accept user and password (status 535)",
        ),
        // Nobody vouches for its certificate; and one that has no TLS is sent nothing.
        (format!("smtps://{user}:{}", tls.port), format!("password_file = \"{password}\"\n"), "no connection"),
        (format!("smtp://localhost:{}?tls=required", plain.port), String::new(), "STARTTLS is not supported"),
    ] {
        let relay = Relay::start(|_| configuration("closed", &smtp, &more));
        until_logged(&relay, "the mail server cannot be used");
        assert!(run(&relay, &["invite", ADA]).status.success());
        let answers = [ADA, EVE].map(|email| post(&relay, "/auth/otp/request", &json!({"email": email})));
        assert_eq!((answers[0].0, &answers[0].2), (503, &answers[1].2), "{smtp}");
        assert_eq!(answers[1].0, 503);
        assert!(relay.log().contains(why), "{why}: {}", relay.log());
        check_log(&relay, &[]);
    }
}

#[test]
fn a_server_that_refuses_a_letter_or_says_nothing_changes_no_answer() {
    let Some(refusing) = Server::start(&["refusing"]) else { return };
    let relay = Relay::start(|_| configuration("closed", &format!("smtp://127.0.0.1:{}", refusing.port), ""));
    assert!(run(&relay, &["invite", ADA]).status.success());
    assert_eq!([ADA, EVE].map(|email| request(&relay, email)), [202, 202]);
    until_logged(&relay, "the mail server did not take a letter");
    assert!(relay.log().contains("it answered with status 550"), "{}", relay.log());
    assert_eq!(request(&relay, "bob.canary@example.com"), 202, "one letter says nothing of others");
    check_log(&relay, &[]);

    let Some(slow) = Server::start(&["slow"]) else { return };
    let relay = Relay::start(|_| configuration("open", &format!("smtp://127.0.0.1:{}", slow.port), ""));
    assert_eq!([ADA, EVE].map(|email| request(&relay, email)), [202, 202], "nobody waits for it");
}
