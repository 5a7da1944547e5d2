//! Real WebSockets through `KeepaliveConnection`: a client that pings, a server that is away, and everything that is no WebSocket.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mykube_client::keepalive::KeepaliveConnection;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional, duplex},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Bytes, Message, protocol::frame::coding::CloseCode},
};

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("it hangs")
}

/// kubectl's end, the server's end, whether the server is away, and the copy between them.
struct Joined {
    kubectl: DuplexStream,
    server: DuplexStream,
    away: watch::Sender<bool>,
    copy: JoinHandle<std::io::Result<(u64, u64)>>,
}

/// `near` bytes fit between kubectl and the copy: with few of them every write has to wait.
fn joined(near: usize) -> Joined {
    let (kubectl, inner) = duplex(near);
    let (mut stream, server) = duplex(1 << 20);
    let (away, status) = watch::channel(false);
    let mut kept = KeepaliveConnection::new(inner, status, |away| *away);
    let copy = tokio::spawn(async move { copy_bidirectional(&mut kept, &mut stream).await });
    Joined { kubectl, server, away, copy }
}

type Socket = WebSocketStream<DuplexStream>;

async fn websockets(near: usize) -> (Socket, Socket, watch::Sender<bool>, JoinHandle<std::io::Result<(u64, u64)>>) {
    let Joined { kubectl, server, away, copy } = joined(near);
    let (client, server) = tokio::join!(client_async("ws://127.0.0.1/exec", kubectl), accept_async(server));
    (client.unwrap().0, server.unwrap(), away, copy)
}

fn ping(payload: &'static str) -> Message {
    Message::Ping(Bytes::from_static(payload.as_bytes()))
}

fn pong(payload: &'static str) -> Message {
    Message::Pong(Bytes::from_static(payload.as_bytes()))
}

async fn next(socket: &mut Socket) -> Message {
    socket.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn pings_are_answered_while_the_server_is_away() {
    for near in [7, 1 << 20] {
        within(async {
            let (mut client, mut server, away, copy) = websockets(near).await;
            // The server's end runs only in these calls.
            client.send(ping("up")).await.unwrap();
            assert_eq!(next(&mut server).await, ping("up"));
            server.flush().await.unwrap();
            assert_eq!(next(&mut client).await, pong("up"));

            client.send(ping("on its way")).await.unwrap();
            // The server writes its pong with the next thing that it does.
            assert_eq!(next(&mut server).await, ping("on its way"));
            away.send_replace(true);
            assert_eq!(next(&mut client).await, pong("on its way"));
            for _ in 0..500 {
                client.send(ping("away")).await.unwrap();
                assert_eq!(next(&mut client).await, pong("away"));
            }
            client.send(Message::text("typed meanwhile")).await.unwrap();
            client.send(ping("last")).await.unwrap();
            assert_eq!(next(&mut client).await, pong("last"));

            away.send_replace(false);
            assert_eq!(next(&mut server).await, Message::text("typed meanwhile"), "no ping between");
            assert_eq!(next(&mut client).await, pong("on its way"), "again, which does no harm");
            client.send(ping("back")).await.unwrap();
            assert_eq!(next(&mut server).await, ping("back"));
            server.flush().await.unwrap();
            assert_eq!(next(&mut client).await, pong("back"));

            let large = Message::binary(vec![7; 100_000]);
            let (sent, received) = tokio::join!(server.send(large.clone()), next(&mut client));
            sent.unwrap();
            assert_eq!(received, large);
            let (sent, received) = tokio::join!(client.send(large.clone()), next(&mut server));
            sent.unwrap();
            assert_eq!(received, large);

            client.close(None).await.unwrap();
            assert_eq!(next(&mut server).await, Message::Close(None));
            assert!(server.next().await.is_none());
            drop(server);
            let Message::Close(close) = next(&mut client).await else { panic!("no close") };
            assert!(close.is_none_or(|close| close.code == CloseCode::Normal));
            drop(client);
            copy.await.unwrap().unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_pong_never_falls_into_a_frame() {
    within(async {
        let (mut client, server, away, _copy) = websockets(1 << 20).await;
        let mut server = server.into_inner();
        server.write_all(b"\x82\x05he").await.unwrap();
        client.send(ping("cut")).await.unwrap();
        let mut seen = [0; 4];
        server.read_exact(&mut seen[..2]).await.unwrap();
        assert_eq!(seen[0], 0x89, "the copy has looked at both sides");
        away.send_replace(true);
        assert_eq!(next(&mut client).await, pong("cut"));
        server.write_all(b"llo").await.unwrap();
        assert_eq!(next(&mut client).await, Message::binary(&b"hello"[..]));
    })
    .await;
}

#[tokio::test]
async fn what_is_cut_in_a_frame_arrives_as_far_as_it_came() {
    within(async {
        let (client, server, _away, copy) = websockets(64).await;
        let (mut client, mut server) = (client.into_inner(), server.into_inner());
        client.write_all(b"\x89\x84keys").await.unwrap();
        client.shutdown().await.unwrap();
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"\x89\x84keys");
        server.write_all(b"\x82\x09half").await.unwrap();
        drop(server);
        seen.clear();
        client.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, b"\x82\x09half");
        copy.await.unwrap().unwrap();
    })
    .await;
}

/// kubectl sends its last bytes and a ping, and goes away: the pong cannot be written.
#[tokio::test]
async fn what_came_with_a_ping_that_cannot_be_answered_arrives() {
    within(async {
        let (mut client, mut server, away, copy) = websockets(1 << 20).await;
        away.send_replace(true);
        client.send(Message::text("typed at last")).await.unwrap();
        client.send(ping("unanswered")).await.unwrap();
        client.send(Message::text("and this")).await.unwrap();
        drop(client);
        copy.await.unwrap().expect_err("an end in order, where the answers are lost");
        for typed in ["typed at last", "and this"] {
            assert_eq!(next(&mut server).await, Message::text(typed));
        }
    })
    .await;
}

/// A body that looks like an upgrade, on a connection that carries more than one request.
#[tokio::test]
async fn what_is_no_websocket_passes_untouched() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    for near in [1, 50, 1 << 20] {
        within(async {
            let Joined { mut kubectl, mut server, away, copy } = joined(near);
            let bulk = [0x89, 0x80, 1, 2, 3, 4].repeat(if near == 1 { 2_000 } else { 40_000 });
            let body = [UPGRADE.as_bytes(), &bulk].concat();
            let request =
                [format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
            let answer = [SWITCHED.as_bytes(), &bulk].concat();
            away.send_replace(true);
            let (client, server) = (
                async {
                    let (mut read, mut write) = tokio::io::split(&mut kubectl);
                    let mut seen = Vec::new();
                    let (sent, received) = tokio::join!(
                        async {
                            write.write_all(&request).await?;
                            write.shutdown().await
                        },
                        read.read_to_end(&mut seen)
                    );
                    sent.and(received.map(|_| seen))
                },
                async {
                    let mut seen = Vec::new();
                    server.read_to_end(&mut seen).await.unwrap();
                    server.write_all(&answer).await.unwrap();
                    server.shutdown().await.unwrap();
                    seen
                },
            );
            let (received, seen) = tokio::join!(client, server);
            assert!(seen == request, "{near}");
            assert!(received.unwrap() == answer, "{near}");
            copy.await.unwrap().unwrap();
        })
        .await;
    }
}
