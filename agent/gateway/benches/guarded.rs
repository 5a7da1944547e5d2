//! The work of guarded mode for a request, for bodies, and for an upgraded connection, with that of an API server and a
//! client. `count NAME TIMES` does it that many times, for `valgrind --tool=callgrind`; `list` prints the names.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{pin::Pin, sync::Arc};

use mykube_agent_gateway::{Audit, AuditSettings, Caller, Forwarder, Gateway, HeadRoom, Policy, Settings};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

#[path = "../../upstream/tests/common/mod.rs"]
mod common;

const MIB: usize = 1 << 20;
/// Bytes that the client's side of its connection takes at once: as many as a stream of the tunnel gives.
const PIPE: usize = 256 * 1024;
/// Bytes of one write of the API server.
const PART: usize = 64 * 1024;

type Operation = for<'c> fn(&'c mut DuplexStream) -> Pin<Box<dyn Future<Output = ()> + 'c>>;

const OPERATIONS: [(&str, &str, Operation); 4] = [
    ("guarded_get", "", |client| Box::pin(get(client))),
    ("guarded_download_mib", "", |client| Box::pin(download(client))),
    ("guarded_upload_mib", "", |client| Box::pin(upload(client))),
    (
        "guarded_upgraded_mib",
        "GET /api/v1/namespaces/n/pods/p/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
        |client| Box::pin(echo(client)),
    ),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["count", name, times] => {
            let (_, begin, operation) = OPERATIONS.iter().find(|(known, ..)| known == name).unwrap();
            let times = times.parse().unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let mut client = client().await;
                if !begin.is_empty() {
                    client.write_all(begin.as_bytes()).await.unwrap();
                    head(&mut client).await;
                }
                for _ in 0..times {
                    operation(&mut client).await;
                }
            });
        }
        // `cargo bench` and `cargo test` give no arguments of ours.
        _ => OPERATIONS.iter().for_each(|(name, ..)| println!("{name}")),
    }
}

/// A client's connection to a gateway, with an API server behind it.
async fn client() -> DuplexStream {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move { serve(acceptor.accept(tcp).await.unwrap()).await });
        }
    });
    let fixture = common::Fixture::with_cluster(&format!("server: https://{address}\ninsecure-skip-tls-verify: true"));
    let upstream = Arc::new(fixture.load().await.unwrap());
    let audit = Audit::writer(std::io::sink(), AuditSettings::default()).unwrap();
    let gateway = Gateway::new(Arc::new(Forwarder::new(upstream, Settings::default())), audit);
    let caller =
        Caller { name: "laptop".into(), id: Some(1), policy: Arc::new(Policy::default()), heads: HeadRoom::default() };
    let (near, far) = tokio::io::duplex(PIPE);
    tokio::spawn(async move { gateway.serve(far, Arc::new(caller)).await });
    near
}

/// An API server: the method of a request says what to do.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let part = vec![0x42; PART];
    let mut buffer = vec![0; PART];
    loop {
        let head = match read_head(&mut stream).await {
            Some(head) => head,
            None => return,
        };
        if head.contains("/exec") {
            let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
            stream.write_all(switching.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            // Each byte that comes asks for a MiB.
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                give(&mut stream, &part).await;
            }
            return;
        }
        if head.starts_with("PUT ") {
            let mut left = MIB;
            while left > 0 {
                left -= stream.read(&mut buffer).await.unwrap();
            }
        }
        let (body, many) = if head.contains("/big") { (MIB, true) } else { (300, false) };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nAudit-Id: 1\r\nCache-Control: no-cache, private\r\nContent-Type: application/json\r\n\
             X-Kubernetes-Pf-Flowschema-Uid: 1\r\nX-Kubernetes-Pf-Prioritylevel-Uid: 2\r\nDate: Mon, 30 Nov 2026 17:30:12 GMT\r\n\
             Content-Length: {body}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        match many {
            true => give(&mut stream, &part).await,
            false => stream.write_all(&part[..body]).await.unwrap(),
        }
        stream.flush().await.unwrap();
    }
}

async fn give<S: AsyncWrite + Unpin>(stream: &mut S, part: &[u8]) {
    for _ in 0..MIB / PART {
        stream.write_all(part).await.unwrap();
        stream.flush().await.unwrap();
    }
}

async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn head(client: &mut DuplexStream) -> usize {
    let head = read_head(client).await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 ") || head.starts_with("http/1.1 101 "), "{head}");
    head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap())
}

/// Reads this many bytes and throws them away.
async fn take(client: &mut DuplexStream, mut len: usize) {
    let mut buffer = vec![0; PART];
    while len > 0 {
        let read = client.read(&mut buffer).await.unwrap();
        assert!(read > 0);
        len -= read;
    }
}

const FIELDS: &str = "Host: 127.0.0.1:4321\r\nUser-Agent: kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9\r\n\
                      Accept: application/json\r\nKubectl-Command: kubectl get\r\nAccept-Encoding: gzip\r\n";

async fn get(client: &mut DuplexStream) {
    let request = format!("GET /api/v1/namespaces/default/pods?limit=500 HTTP/1.1\r\n{FIELDS}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let len = head(client).await;
    take(client, len).await;
}

async fn download(client: &mut DuplexStream) {
    let request = format!("GET /api/v1/namespaces/default/pods/big HTTP/1.1\r\n{FIELDS}\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let len = head(client).await;
    assert_eq!(len, MIB);
    take(client, len).await;
}

async fn upload(client: &mut DuplexStream) {
    let request = format!("PUT /api/v1/namespaces/default/pods/p HTTP/1.1\r\n{FIELDS}Content-Length: {MIB}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let part = vec![0x42; PART];
    for _ in 0..MIB / PART {
        client.write_all(&part).await.unwrap();
    }
    let len = head(client).await;
    take(client, len).await;
}

/// A byte up and a MiB down, through an upgraded connection.
async fn echo(client: &mut DuplexStream) {
    client.write_all(b"more").await.unwrap();
    take(client, MIB).await;
}
