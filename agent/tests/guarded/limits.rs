//! Each limit of the settings is obeyed. Those on requests and connections at once are in `forwarding`, the audit log's
//! in `audit`.

use std::time::Duration;

use mykube_agent::guarded::Settings;
use tokio::{net::TcpListener, time::timeout};

use crate::setup::Setup;

async fn setup(settings: Settings) -> Setup {
    Setup::with(|_, _| "token: t0k3n".into(), settings).await
}

#[tokio::test]
async fn the_length_of_a_head() {
    for (header_max, status) in [(8 * 1024, "431"), (16 * 1024, "200")] {
        let mut setup = setup(Settings { header_max, ..Settings::default() }).await;
        let mut client = setup.client();
        assert_eq!(client.ask("GET", "/version", &format!("X-Long: {}\r\n", "x".repeat(6000))).await.status, 200);
        client.send(format!("GET /version HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(10_000))).await;
        assert!(client.head().await.starts_with(&format!("HTTP/1.1 {status} ")), "{header_max}");
    }
}

#[tokio::test]
async fn the_time_for_a_head() {
    let mut setup = setup(Settings { header_timeout: Duration::from_millis(1), ..Settings::default() }).await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    client.send("GET /version HTTP/1.1\r\nHost:").await;
    let ended = timeout(Settings::default().header_timeout / 2, client.rest()).await;
    assert!(ended.expect("not after the default's time").is_empty());
    assert_eq!(setup.api.seen().len(), 1);
}

#[tokio::test]
async fn the_time_for_tls() {
    let mut setup = setup(Settings { handshake_timeout: Duration::from_millis(1), ..Settings::default() }).await;
    let (address, _) = std::mem::replace(&mut setup.api, crate::api::Api::start(&setup.authority).await).stop().await;
    // Takes connections and never says a word.
    let _silent = TcpListener::bind(address).await.unwrap();
    let mut client = setup.client();
    let answered = timeout(Settings::default().handshake_timeout / 2, client.get("/api/v1/nodes")).await;
    let answer = answered.expect("not after the default's time");
    assert_eq!(answer.status, 503);
    assert!(answer.message().contains("did not answer in time"), "{}", answer.message());
}

#[tokio::test]
async fn the_time_that_an_idle_connection_is_kept() {
    for (pool_idle, connections) in [(Duration::from_nanos(1), [1, 2]), (Duration::from_secs(60), [1, 1])] {
        let mut setup = setup(Settings { pool_idle, ..Settings::default() }).await;
        let mut client = setup.client();
        for expected in connections {
            assert_eq!(client.get("/version").await.status, 200);
            assert_eq!(setup.api.last().connection, expected, "{pool_idle:?}");
        }
    }
}
