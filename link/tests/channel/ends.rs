//! Ends of connections that are none: what came before them arrives, and then they do not look like ends.

use std::{io, net::Shutdown, sync::Arc, time::Duration};

use bytes::Bytes;
use mykube_dial::Coalescing;
use mykube_link::{CopyError, copy};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::channel::{channels, joined, stream_pair, tcp_pair, within};
use crate::support::tls_server;

/// Some windows, and what fits into one write.
const LENGTHS: [usize; 2] = [3_000_504, 298];

/// Ends a connection as a process does that is gone: with a reset, once everything is at the other end.
async fn reset(tcp: TcpStream) {
    while unacknowledged(&tcp) > 0 {
        tokio::task::yield_now().await;
    }
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
}

/// In bytes, of what the kernel keeps for the socket: the sixth counter of `SO_MEMINFO`.
fn unacknowledged(tcp: &TcpStream) -> u32 {
    use nix::{
        libc,
        sys::socket::{getsockopt, sockopt::GetStruct},
    };

    #[derive(Clone, Copy)]
    struct MemInfo;
    nix::getsockopt_impl!(MemInfo, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9], GetStruct<[u32; 9]>);
    getsockopt(tcp, MemInfo).unwrap()[5]
}

fn payload(len: usize) -> Vec<u8> {
    crate::support::relay::pattern(len, 7)
}

/// All that comes, and how it ends.
async fn heard(tcp: &mut (impl tokio::io::AsyncRead + Unpin)) -> (Vec<u8>, io::Result<usize>) {
    let mut heard = Vec::new();
    let ended = tcp.read_to_end(&mut heard).await;
    (heard, ended)
}

#[tokio::test]
async fn what_came_before_a_reset_arrives_and_then_there_is_a_reset() {
    within(async {
        let (agent, client, _relay) = channels().await;
        for len in LENGTHS {
            for down in [true, false] {
                let (laptop, server, copies) = joined(&agent, &client).await;
                let (mut from, mut to) = if down { (server, laptop) } else { (laptop, server) };
                let sent = payload(len);
                let says = async {
                    from.write_all(&sent).await.unwrap();
                    reset(from).await;
                };
                let ((), (heard, ended)) = tokio::join!(says, heard(&mut to));
                assert!(heard == sent, "{} of {len} bytes arrived, down: {down}", heard.len());
                assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{len}, down: {down}");
                for copy in copies {
                    assert!(copy.await.unwrap().is_err());
                }
            }
        }
    })
    .await;
}

/// What stands in this end's kernel when the reset comes is not thrown away because its reader is slow.
#[tokio::test]
async fn a_reset_waits_for_a_reader_that_is_late() {
    const LEN: usize = 200_000;
    within(async {
        let (agent, client, _relay) = channels().await;
        let (mut laptop, mut server, copies) = joined(&agent, &client).await;
        // Less than a window, and more than a segment: the kernel keeps a part of it until it is read.
        SockRef::from(&laptop).set_recv_buffer_size(4096).unwrap();
        server.write_all(&payload(LEN)).await.unwrap();
        reset(server).await;
        let [_at_laptop, at_server] = copies;
        at_server.await.unwrap().unwrap_err();
        // The stream's failure is at the laptop's end by now, or comes while this is read.
        let (heard, ended) = heard(&mut laptop).await;
        assert!(heard == payload(LEN), "{} bytes", heard.len());
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    })
    .await;
}

/// As an API server does that answers before it has read everything, and closes.
#[tokio::test]
async fn a_complete_answer_is_not_lost_with_the_other_direction() {
    // Waits in the stream as a whole, behind its first window.
    const LEN: usize = 400_000;
    within(async {
        let (agent, client, _relay) = channels().await;
        let (accepted, opened) = stream_pair(&agent, &client).await;
        let (mut server, inner) = tcp_pair().await;
        let copied = tokio::spawn(copy(inner, accepted));
        opened.write(Bytes::from_static(b"request")).await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        server.write_all(&payload(LEN)).await.unwrap();
        server.shutdown().await.unwrap();
        while unacknowledged(&server) > 0 {
            tokio::task::yield_now().await;
        }
        drop(server);
        // The client takes no more of this: the connection is reset, and the stream fails.
        while !copied.is_finished() {
            let _ = opened.write(Bytes::from(vec![0; 1000])).await;
            tokio::task::yield_now().await;
        }
        assert!(matches!(copied.await.unwrap(), Err(CopyError::Local(_))));
        let (mut received, mut chunks) = (Vec::new(), Vec::new());
        while opened.read(1 << 20, &mut chunks).await.expect("it was ended in order") {
            chunks.drain(..).for_each(|chunk| received.extend_from_slice(&chunk));
        }
        assert!(received == payload(LEN), "{} bytes", received.len());
    })
    .await;
}

/// The system tells of a reset to the task that asks first, the writer here, as the stream takes no more; and the reader then sees an
/// end.
#[tokio::test]
async fn a_reset_that_the_writer_hears_of_is_no_end() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (accepted, opened) = stream_pair(&agent, &client).await;
        let (server, inner) = tcp_pair().await;
        let copied = tokio::spawn(copy(inner, accepted));
        // Until nothing moves: everybody had a thousand turns since the last byte.
        let mut idle = 0;
        while idle < 1000 {
            idle = if server.try_write(&[7; 64 * 1024]).is_ok() { 0 } else { idle + 1 };
            tokio::task::yield_now().await;
        }
        SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
        drop(server);
        opened.write(Bytes::from_static(b"too late")).await.unwrap();
        let (mut received, mut chunks) = (0, Vec::new());
        let ended = loop {
            match opened.read(1 << 20, &mut chunks).await {
                Ok(true) => received += chunks.drain(..).map(|chunk| chunk.len()).sum::<usize>(),
                ended => break ended,
            }
        };
        assert!(received > 256 << 10, "more than the first window");
        assert!(ended.is_err(), "a clean end");
        assert!(copied.await.unwrap().is_err());
    })
    .await;
}

/// kubectl's TLS to a port like the guarded one, over a copy of `stream`.
async fn over_tls(stream: mykube_link::ChannelStream) -> tokio_rustls::client::TlsStream<TcpStream> {
    over_tls_and(tcp_pair().await, stream).await
}

/// The same over a connection that is there.
async fn over_tls_and(
    (kubectl, port): (TcpStream, TcpStream),
    stream: mykube_link::ChannelStream,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let (acceptor, certificate) = tls_server("localhost");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio::spawn(async move { copy(Coalescing::new(acceptor.accept(port).await.unwrap()), stream).await });
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, kubectl).await.unwrap()
}

#[tokio::test]
async fn over_tls_a_cut_is_the_middle_of_a_record_and_nothing_is_lost() {
    within(async {
        let (agent, client, _relay) = channels().await;
        for len in LENGTHS {
            let (accepted, opened) = stream_pair(&agent, &client).await;
            let mut kubectl = over_tls(opened).await;
            let said = tokio::spawn(async move {
                accepted.write(Bytes::from(payload(len))).await.unwrap();
                accepted.fail("the API server is gone");
            });
            // kubectl goes on speaking meanwhile, and the agent reads none of it.
            kubectl.write_all(&[1; 10_000]).await.unwrap();
            let (heard, ended) = heard(&mut kubectl).await;
            said.await.unwrap();
            assert!(heard == payload(len), "{} of {len} bytes", heard.len());
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        // Between two records Go takes an end without close_notify for one in order: below TLS it is in a record.
        let (accepted, opened) = stream_pair(&agent, &client).await;
        let kubectl = over_tls(opened).await;
        accepted.fail("the API server is gone");
        let (mut tcp, _) = kubectl.into_inner();
        let (raw, ended) = heard(&mut tcp).await;
        ended.expect("no reset");
        let mut rest = &raw[..];
        while rest.len() >= 5 {
            rest = &rest[(5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]))).min(rest.len())..];
        }
        assert_eq!(rest, [23, 3, 3], "the begin of a record");
    })
    .await;
}

/// A kubectl that was killed: its last words go up, and its stream fails.
#[tokio::test]
async fn over_tls_what_was_said_before_a_cut_goes_up() {
    within(async {
        let (agent, client, _relay) = channels().await;
        for len in LENGTHS {
            let (accepted, opened) = stream_pair(&agent, &client).await;
            let mut kubectl = over_tls(opened).await;
            // Closed with something unread (a ticket of TLS, say) its own kernel would throw away what it has said.
            accepted.write(Bytes::from_static(b"ready")).await.unwrap();
            kubectl.read_exact(&mut [0; 5]).await.unwrap();
            let says = async {
                kubectl.write_all(&payload(len)).await.unwrap();
                kubectl.flush().await.unwrap();
                // Without close_notify.
                drop(kubectl.into_inner());
            };
            let hears = async {
                let (mut received, mut chunks) = (Vec::new(), Vec::new());
                let ended = loop {
                    match accepted.read(1 << 20, &mut chunks).await {
                        Ok(true) => chunks.drain(..).for_each(|chunk| received.extend_from_slice(&chunk)),
                        ended => break ended,
                    }
                };
                (received, ended)
            };
            let ((), (received, ended)) = tokio::join!(says, hears);
            assert!(received == payload(len), "{} of {len} bytes", received.len());
            assert!(ended.is_err(), "a clean end");
        }
    })
    .await;
}

/// All that comes over a stream, and how it ends.
async fn received(stream: &mykube_link::ChannelStream) -> (Vec<u8>, Result<bool, mykube_link::StreamFailed>) {
    let (mut received, mut chunks) = (Vec::new(), Vec::new());
    loop {
        match stream.read(1 << 20, &mut chunks).await {
            Ok(true) => chunks.drain(..).for_each(|chunk| received.extend_from_slice(&chunk)),
            ended => return (received, ended),
        }
    }
}

/// A good record and one that does not open, in one segment.
#[tokio::test]
async fn over_tls_what_came_with_a_broken_record_goes_up() {
    within(async {
        let (agent, client, _relay) = channels().await;
        let (accepted, opened) = stream_pair(&agent, &client).await;
        let mut kubectl = over_tls(opened).await;
        // Through the handshake, so that nothing of it stands in the same read.
        accepted.write(Bytes::from_static(b"ready")).await.unwrap();
        kubectl.read_exact(&mut [0; 5]).await.unwrap();
        let (tcp, tls) = kubectl.get_mut();
        io::Write::write_all(&mut tls.writer(), &payload(1000)).unwrap();
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).unwrap();
        }
        records.extend([23, 3, 3, 0, 20]);
        records.extend([7; 20]);
        tcp.write_all(&records).await.unwrap();
        let (received, ended) = received(&accepted).await;
        assert!(received == payload(1000), "{} bytes", received.len());
        assert!(ended.is_err(), "a clean end");
    })
    .await;
}

/// A kubectl that says no more, without close_notify, and still reads, slowly.
#[tokio::test]
async fn over_tls_what_has_come_for_a_kubectl_that_was_cut_is_its_own() {
    // Within a stream's first window, and far beyond what the kernel takes here.
    const LEN: usize = 200_000;
    within(async {
        let (agent, client, _relay) = channels().await;
        let beside = stream_pair(&agent, &client).await;
        for whole in [true, false] {
            let (accepted, opened) = stream_pair(&agent, &client).await;
            let (near, port) = tcp_pair().await;
            SockRef::from(&near).set_recv_buffer_size(4096).unwrap();
            SockRef::from(&port).set_send_buffer_size(4096).unwrap();
            let mut kubectl = over_tls_and((near, port), opened).await;
            accepted.write(Bytes::from(payload(LEN))).await.unwrap();
            if whole {
                accepted.finish();
            }
            // Each stream has its turn: by then all of it is at the client's end.
            for _ in 0..100 {
                beside.0.write(Bytes::from_static(b"x")).await.unwrap();
                assert!(beside.1.read(1, &mut Vec::new()).await.unwrap());
            }
            SockRef::from(kubectl.get_ref().0).shutdown(Shutdown::Write).unwrap();
            received(&accepted).await.1.expect_err("a clean end");
            let (heard, ended) = heard(&mut kubectl).await;
            assert!(heard == payload(LEN), "{} bytes, whole: {whole}", heard.len());
            match whole {
                true => drop(ended.expect("all of it was there, and its end")),
                false => assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
            }
        }
    })
    .await;
}
