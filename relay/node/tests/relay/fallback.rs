//! What the relay does not answer itself.

use std::sync::Arc;

use mykube_relay::{Answering, Arrival, Config, Fallback};

use crate::support::TestRelay;

/// Says what it was asked.
struct Echo;

impl Fallback for Echo {
    fn answer(&self, request: http::Request<hyper::body::Incoming>, arrival: Arrival) -> Answering {
        let Arrival { address, transport } = arrival;
        let said = format!("{} {} {address} {transport:?}", request.method(), request.uri());
        Box::pin(async move { http::Response::new(said.into_bytes().into()) })
    }
}

async fn relay(adjust: impl FnOnce(&mut Config)) -> TestRelay {
    TestRelay::with_fallback(tempfile::tempdir().unwrap(), adjust, Some(Arc::new(Echo))).await
}

#[tokio::test]
async fn it_has_every_path_but_the_relays_own() {
    let (with, without) = (relay(|_| {}).await, TestRelay::start().await);
    for (method, path) in [
        ("GET", "/healthz"),
        ("DELETE", "/readyz"),
        ("GET", "/api/health"),
        ("GET", "/api/sessions"),
        ("POST", "/api/pair"),
        ("GET", "/ws/agent/00000000000000000000000000000000"),
        ("GET", "/ws/client/00000000000000000000000000000000"),
    ] {
        let [one, other] = [&with, &without].map(|relay| relay.call(method, path, "", ""));
        let (one, other) = (one.await, other.await);
        assert_eq!((one.status, &one.body), (other.status, &other.body), "{method} {path}");
    }
    for (method, path) in [("GET", "/"), ("POST", "/auth/dev?a=1"), ("PUT", "/ws/agent/0"), ("GET", "/metrics")] {
        let answer = with.call(method, path, "", "").await;
        assert_eq!((answer.status, answer.body), (200, format!("{method} {path} 127.0.0.1 Plain")));
        assert_eq!(without.call(method, path, "", "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn it_is_told_whose_a_request_is_and_who_could_read_it() {
    let forwarded = "X-Forwarded-For: 203.0.113.7\r\n";
    let told = async |relay: &TestRelay| relay.call("GET", "/x", forwarded, "").await.body;
    assert_eq!(told(&relay(|_| {}).await).await, "GET /x 127.0.0.1 Plain", "nobody is believed");
    let proxied = relay(|config| config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    assert_eq!(told(&proxied).await, "GET /x 203.0.113.7 Proxy");
    assert_eq!(proxied.call("GET", "/x", "", "").await.body, "GET /x 127.0.0.1 Proxy");
    for (header, transport) in [
        ("X-Forwarded-Proto: https", "Proxy"),
        ("X-Forwarded-Proto: HTTP", "Plain"),
        ("X-Forwarded-Proto: https, http", "Plain"),
        ("Forwarded: for=192.0.2.1;proto=https", "Proxy"),
        ("Forwarded: for=192.0.2.1;Proto=\"http\"", "Plain"),
    ] {
        let told = proxied.call("GET", "/x", &format!("{header}\r\n"), "").await.body;
        assert_eq!(told, format!("GET /x 127.0.0.1 {transport}"), "{header}");
    }
}
