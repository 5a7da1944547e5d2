//! Cut connections: the bytes that came before the cut arrive, and then no orderly end.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mykube_agent_gateway::Policy;
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    net::TcpSocket,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    common::{base64, config},
    raw::Raw,
    setup::Setup,
};

/// Some windows, in pieces of one write.
const LENGTHS: [usize; 2] = [3_000_504, 298];
const EXEC: &str = "POST /api/v1/namespaces/a/pods/p/exec?command=cat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                    Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// The bytes after the head that an API server received, and whether the connection ended in order.
type Heard = (Vec<u8>, bool);

/// An API server: after a request's head it sends `answer` and drops the connection without close_notify, or reads to
/// the end.
async fn stand_in(setup: &mut Setup, answer: Vec<u8>, hears: bool) -> mpsc::UnboundedReceiver<Heard> {
    let (cert, key) = setup.authority.sign("127.0.0.1");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let socket = TcpSocket::new_v4().unwrap();
    // Bytes wait in the gateway rather than in this socket.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = mpsc::unbounded_channel();
    setup.served.spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tls.read_u8().await.unwrap());
            }
            tls.write_all(&answer).await.unwrap();
            tls.flush().await.unwrap();
            if hears {
                let mut bytes = Vec::new();
                let in_order = tls.read_to_end(&mut bytes).await.is_ok();
                let _ = tell.send((bytes, in_order));
            }
            drop(tls.into_inner());
        }
    });
    let ca = base64(&setup.authority.pem);
    let cluster = format!("server: https://{address}\ncertificate-authority-data: {ca}");
    setup.fixture.write("config", config(&cluster, "token: t0k3n"));
    setup.rebuild().await;
    heard
}

/// A stream that fails when its duplex ends, and takes only a number of writes.
struct Failing(DuplexStream, usize);

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() == before => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            polled => polled,
        }
    }
}

impl AsyncWrite for Failing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(left) = self.1.checked_sub(1) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let polled = Pin::new(&mut self.0).poll_write(cx, buf);
        if polled.is_ready() {
            self.1 = left;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn letters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'x').count()
}

#[tokio::test]
async fn a_body_that_breaks_off_arrives_as_far_as_it_came() {
    for len in LENGTHS {
        let mut setup = Setup::plain().await;
        let chunk = format!("{len:x}\r\n{}\r\n", "x".repeat(len));
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        let _heard = stand_in(&mut setup, answer.into_bytes(), false).await;
        // Less than a record: something always waits to be written.
        let (near, far) = tokio::io::duplex(100);
        setup.serve(far, Policy::default());
        let mut client = Raw::new(near);
        client.send("GET /api/v1/namespaces/a/pods/p/log HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        let body = client.rest().await;
        assert_eq!(letters(&body), len);
        assert!(!body.ends_with(b"0\r\n\r\n"), "no last chunk");
        let line = setup.log.wait(1).await.remove(0);
        assert_eq!((&line["end"], line["bytes_out"].as_u64()), (&"aborted".into(), Some(len as u64)));
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_arrives_as_far_as_it_came() {
    for len in LENGTHS {
        let mut setup = Setup::plain().await;
        let mut heard = stand_in(&mut setup, Vec::new(), true).await;
        let mut client = setup.client();
        client
            .send("POST /api/v1/namespaces/a/configmaps HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.send(format!("{len:X}\r\n{}\r\n", "x".repeat(len))).await;
        drop(client);
        let (bytes, in_order) = heard.recv().await.unwrap();
        assert_eq!((letters(&bytes), in_order), (len, false));
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "no last chunk");
    }
}

#[tokio::test]
async fn what_a_client_said_before_it_was_cut_goes_up_and_is_no_end() {
    // A client that takes no more than the head is seen to be gone before all its bytes were read.
    for (len, writes) in LENGTHS.into_iter().flat_map(|len| [(len, usize::MAX), (len, 1)]) {
        let mut setup = Setup::plain().await;
        // The client sends bytes too, which nobody reads.
        let answer = [SWITCHED.as_bytes(), &[b'y'; 10_000]].concat();
        let mut heard = stand_in(&mut setup, answer, true).await;
        let (near, far) = tokio::io::duplex(64 * 1024);
        setup.serve(Failing(far, writes), Policy::default());
        let mut client = Raw::new(near);
        client.send(EXEC).await;
        client.head().await;
        client.send("x".repeat(len)).await;
        drop(client);
        let (bytes, in_order) = heard.recv().await.unwrap();
        assert_eq!((bytes.len(), in_order), (len, false), "{writes}");
        assert_eq!(setup.log.wait(1).await[0]["end"], "aborted");
    }
}
