//! Connecting to the API server: directly, through the proxy that the kubeconfig or the environment names, or not at
//! all.
#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

mod common;

use std::time::Duration;

use common::Fixture;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers one CONNECT with `answer` and returns the request.
async fn proxy(listener: TcpListener, answer: &'static str) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    let _ = socket.read(&mut [0; 16]).await;
    String::from_utf8(asked).unwrap()
}

#[tokio::test]
async fn direct_and_without_nagle() {
    let (listener, port) = listener().await;
    let upstream = Fixture::with_cluster(&format!("server: https://127.0.0.1:{port}")).load().await.unwrap();
    upstream.check().await.unwrap();
    let mut stream = upstream.connect().await.unwrap();
    assert!(stream.tcp().nodelay().unwrap());
    listener.accept().await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(
        &{
            let mut b = [0; 5];
            server.read_exact(&mut b).await.unwrap();
            b
        },
        b"hello"
    );
}

#[tokio::test]
async fn nobody_there() {
    let (listener, port) = listener().await;
    drop(listener);
    let upstream = Fixture::with_cluster(&format!("server: https://127.0.0.1:{port}")).load().await.unwrap();
    let message = upstream.check().await.unwrap_err().to_string();
    assert_eq!(message, format!("cannot reach the API server 127.0.0.1:{port}: connection refused; is it running?"));
}

#[tokio::test]
async fn the_proxy_of_the_kubeconfig_and_its_password() {
    let (listener, port) = listener().await;
    let f = Fixture::with_cluster(&format!(
        "server: https://api.internal:6443\nproxy-url: http://ann:hunter2@127.0.0.1:{port}"
    ));
    let upstream = f.load().await.unwrap();
    assert!(!format!("{upstream:?}").contains("hunter2"));
    let (asked, connected) =
        tokio::join!(proxy(listener, "HTTP/1.1 200 OK\r\n\r\n"), async { upstream.connect().await.map(drop) });
    connected.unwrap();
    assert!(asked.starts_with("CONNECT api.internal:6443 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("proxy-authorization: basic yw5uomh1bnrlcji="), "{asked}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let (listener, port) = listener().await;
    let f = Fixture::with_cluster(&format!(
        "server: https://api.internal:6443\nproxy-url: http://ann:hunter2@127.0.0.1:{port}"
    ));
    let upstream = f.load().await.unwrap();
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
    let (_, connected) = tokio::join!(proxy(listener, answer), upstream.check());
    let message = connected.unwrap_err().to_string();
    assert!(message.starts_with("cannot reach the API server api.internal:6443: the proxy"), "{message}");
    assert!(message.len() <= 200 && !message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn the_environments_proxy_by_the_api_servers_own_name() {
    let (listener, port) = listener().await;
    let mut f = Fixture::with_cluster("server: https://api.internal:6443");
    f.var("ALL_PROXY", "socks5://127.0.0.1:1");
    f.var("HTTPS_PROXY", format!("127.0.0.1:{port}"));
    f.var("NO_PROXY", "127.0.0.1,other.internal");
    let upstream = f.load().await.unwrap();
    let (asked, connected) = tokio::join!(proxy(listener, "HTTP/1.1 200 OK\r\n\r\n"), upstream.check());
    connected.unwrap();
    assert!(asked.starts_with("CONNECT api.internal:6443 "), "{asked}");

    f.var("NO_PROXY", ".internal");
    assert!(format!("{:?}", f.load().await.unwrap()).contains("proxy: None"));
    f.env.vars.remove(std::ffi::OsStr::new("HTTPS_PROXY"));
    f.env.vars.remove(std::ffi::OsStr::new("NO_PROXY"));
    assert!(format!("{:?}", f.load().await.unwrap()).contains("proxy: None"), "kubectl knows no ALL_PROXY");
    f.var("https_proxy", "ftp://ann:hunter2@proxy");
    assert!(f.failure().await.contains("https_proxy is not a usable proxy URL"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_is_given_up() {
    let (listener, port) = listener().await;
    let mut f =
        Fixture::with_cluster(&format!("server: https://api.internal:6443\nproxy-url: http://127.0.0.1:{port}"));
    f.source.connect_timeout = Duration::from_secs(7);
    let message = f.load().await.unwrap().check().await.unwrap_err().to_string();
    assert!(message.contains("no answer within 7 s"), "{message}");
    drop(listener);
}
