//! Connections that an API server, or a client, ends without closing in order. All bytes that it had sent arrive, and
//! then no orderly end.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    LIMIT, Mykube, Sandbox, Tunnel, Way,
    certs::Authority,
    cluster::kubeconfig,
    net,
    raw::{Port, config, tls},
};

const EXEC: &str = "POST /api/v1/namespaces/a/pods/p/exec?command=cat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                    Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
const LOG: &str = "/api/v1/namespaces/a/pods/p/log";
/// Some windows, in pieces of one write.
const LENGTHS: [usize; 2] = [3_000_504, 298];

/// Plays an API server that ends every connection without close_notify.
struct StandIn {
    address: SocketAddr,
    authority: Authority,
    /// The uploaded bytes, and whether the upload ended in order.
    uploaded: mpsc::Receiver<(usize, bool)>,
}

/// The payload is letters, which occur nowhere around it.
fn letters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'x').count()
}

impl StandIn {
    /// It sends this many bytes on an upgraded connection, or in a body; or it receives.
    fn start(says: Option<usize>) -> Self {
        let authority = Authority::new("e2e");
        let acceptor = TlsAcceptor::from(authority.sign(&["127.0.0.1"]).server());
        let (tell, uploaded) = mpsc::channel();
        let tell = Arc::new(Mutex::new(tell));
        let address = net::serve(move |tcp| {
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            async move {
                let mut tls = acceptor.accept(tcp).await?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(tls.read_u8().await?);
                }
                let upgrades = head.starts_with(b"POST /api/v1/namespaces/a/pods/p/exec");
                if upgrades {
                    tls.write_all(SWITCHED.as_bytes()).await?;
                    tls.flush().await?;
                }
                match says {
                    Some(len) if upgrades => tls.write_all(&vec![b'x'; len]).await?,
                    Some(len) => {
                        let chunk = format!("{len:x}\r\n{}\r\n", "x".repeat(len));
                        tls.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                        tls.write_all(chunk.as_bytes()).await?;
                    }
                    None => {
                        if !upgrades {
                            tls.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                            tls.flush().await?;
                        }
                        let (mut heard, mut buffer) = (0, vec![0; 64 * 1024]);
                        let in_order = loop {
                            match tls.read(&mut buffer).await {
                                Ok(0) => break true,
                                Ok(read) => heard += letters(&buffer[..read]),
                                Err(_) => break false,
                            }
                        };
                        // kubectl also asks for the version.
                        if head.starts_with(b"POST ") {
                            let _ = tell.lock().unwrap().send((heard, in_order));
                        }
                    }
                }
                tls.flush().await?;
                // Without close_notify.
                drop(tls.into_inner());
                Ok(())
            }
        });
        Self { address, authority, uploaded }
    }

    /// A tunnel to it, the kubeconfig's directory, and the TLS settings for the client's port.
    fn tunnel(&self, guarded: bool) -> (Tunnel, Sandbox, Arc<ClientConfig>) {
        let sandbox = Sandbox::new();
        let cluster = json!({
            "server": format!("https://{}", self.address),
            "certificate-authority-data": data_encoding::BASE64.encode(self.authority.pem().as_bytes()),
        });
        let path = sandbox.file("kubeconfig", kubeconfig("stand-in", &cluster, &json!({"token": "e2e"})).to_string());
        let tunnel = if guarded { Tunnel::guarded(&path) } else { Tunnel::open(&path) };
        let config = match guarded {
            true => {
                let port = Port::of(&Way::new("tunnel", &tunnel.kubeconfig(), None));
                config(&port.ca, Some(&port.client))
            }
            false => self.authority.client(),
        };
        (tunnel, sandbox, config)
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn switched(tunnel: &Tunnel, config: &Arc<ClientConfig>) -> Tls {
    let mut tls = tls(tunnel.address(), config.clone());
    tls.write_all(EXEC.as_bytes()).unwrap();
    answered(&mut tls, "HTTP/1.1 101 ");
    tls
}

/// Reads the head of an answer. Nothing may stay unread: the kernel would reset such a connection when it is closed,
/// and throw away what was not sent yet.
fn answered(tls: &mut Tls, with: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(with.as_bytes()), "{}", String::from_utf8_lossy(&head));
}

#[test]
fn what_an_api_server_said_before_it_was_cut_arrives_and_does_not_look_complete() {
    for len in LENGTHS {
        let stand_in = StandIn::start(Some(len));
        for guarded in [true, false] {
            let (tunnel, _sandbox, config) = stand_in.tunnel(guarded);
            for _ in 0..3 {
                let mut tls = switched(&tunnel, &config);
                let mut heard = Vec::new();
                let ended = tls.read_to_end(&mut heard);
                assert_eq!(heard.len(), len, "upgraded, guarded: {guarded}");
                assert!(ended.is_err(), "upgraded, guarded: {guarded}");
            }
            let way = Way::new("tunnel", &tunnel.kubeconfig(), None);
            let done = way.kubectl(&["get", "--raw", LOG]);
            assert_eq!(letters(done.stdout.as_bytes()), len, "a body, guarded: {guarded}: {}", done.stderr);
            assert_eq!(done.code, 1, "a body, guarded: {guarded}: {}", done.stderr);
        }
    }
}

#[test]
fn what_a_client_said_before_it_was_cut_arrives_and_does_not_look_complete() {
    let stand_in = StandIn::start(None);
    for guarded in [true, false] {
        let (tunnel, _sandbox, config) = stand_in.tunnel(guarded);
        for len in LENGTHS {
            let mut upgraded = switched(&tunnel, &config);
            upgraded.write_all(&vec![b'x'; len]).unwrap();
            upgraded.flush().unwrap();
            drop(upgraded);
            let heard = stand_in.uploaded.recv_timeout(LIMIT).unwrap();
            assert_eq!(heard, (len, false), "upgraded, guarded: {guarded}");

            let mut body = tls(tunnel.address(), config.clone());
            let head = "POST /api/v1/namespaces/a/services/s/proxy/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
                        Expect: 100-continue\r\n\r\n";
            body.write_all(head.as_bytes()).unwrap();
            answered(&mut body, "HTTP/1.1 100 ");
            body.write_all(format!("{len:X}\r\n{}\r\n", "x".repeat(len)).as_bytes()).unwrap();
            body.flush().unwrap();
            drop(body);
            let heard = stand_in.uploaded.recv_timeout(LIMIT).unwrap();
            assert_eq!(heard, (len, false), "a body, guarded: {guarded}");
        }
    }
}

/// A code was burned, and nobody answers the question about the next.
#[test]
fn an_unanswered_question_holds_nobody_up() {
    let relay = crate::support::Relay::start();
    let sandbox = Sandbox::new();
    let cluster = json!({
        "server": format!("https://{}", net::closed_port()),
        "certificate-authority-data": data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes()),
    });
    let path = sandbox.file("kubeconfig", kubeconfig("nowhere", &cluster, &json!({"token": "e2e"})).to_string());
    let log = sandbox.home().join("audit.jsonl");
    let server = Mykube::guarding(&relay.url, &path).args(["--max-clients=2", "--audit-log"]).arg(&log);
    let server = server.start_on_terminal();
    let first = server.nth_event("code", 0)["code"].as_str().unwrap().to_owned();
    let client = Mykube::client(&relay.url).start_with(&first);
    client.event("connected");
    let second = server.nth_event("code", 1)["code"].as_str().unwrap().to_owned();
    let last = if second.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &second[..second.len() - 1]);
    for _ in 0..3 {
        Mykube::client(&relay.url).fails_with(&wrong, 3, &["ask for a new code"]);
    }
    server.process.prints("Make a new code? [yes/no] ");
    let sessions = |args: &[&str]| {
        let asked = Mykube::new("sessions").args(args).env("XDG_RUNTIME_DIR", server.sandbox.ram());
        asked.start().process.done().ok()
    };
    assert!(sessions(&["list"]).contains("client-1"));
    sessions(&["kill", "1"]);
    assert_eq!(client.process.done().code, 5);
    assert_eq!(server.event("client_gone")["client"], "client-1");
    // A slot is free, and its new code needs the same question.
    server.process.signal(rustix::process::Signal::TERM);
    let done = server.process.done_within(std::time::Duration::from_secs(5));
    assert_eq!(done.code, 0, "{}", done.stdout);
    let lines = std::fs::read_to_string(log).unwrap();
    let events: Vec<_> = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    let of = |name: &str| events.iter().filter(|line| line["event"] == name).count();
    assert_eq!((of("paired"), of("refused"), of("left")), (1, 3, 1), "{lines}");
}

/// A client that is stopped while the words are compared tells the server, which would wait for it otherwise.
#[test]
fn a_goodbye_is_said_while_words_are_compared() {
    let sandbox = Sandbox::new();
    let cluster = json!({
        "server": format!("https://{}", net::closed_port()),
        "certificate-authority-data": data_encoding::BASE64.encode(Authority::new("e2e").pem().as_bytes()),
    });
    let path = sandbox.file("kubeconfig", kubeconfig("nowhere", &cluster, &json!({"token": "e2e"})).to_string());
    for stopped in ["client", "server"] {
        let relay = crate::support::Relay::start();
        let server = Mykube::guarding(&relay.url, &path).arg("--verify").start_on_terminal();
        let mut server = server;
        let code = server.event("code")["code"].as_str().unwrap().to_owned();
        let mut client = Mykube::client(&relay.url).arg(code).start_on_terminal();
        for end in [&server, &client] {
            end.process.prints("the same four words? [yes/no] ");
        }
        let (one, other) = match stopped {
            "client" => (&client, &mut server),
            _ => (&server, &mut client),
        };
        other.process.write("yes\n");
        if stopped == "client" {
            // To the server, the client has paired.
            other.event("paired");
        }
        one.process.signal(rustix::process::Signal::TERM);
        let done = one.process.done_within(std::time::Duration::from_secs(5));
        assert_eq!(done.code, if stopped == "client" { 1 } else { 0 }, "{}", done.stdout);
        let done = other.process.done();
        assert_eq!(done.code, if stopped == "client" { 0 } else { 5 }, "{}", done.stdout);
    }
}
