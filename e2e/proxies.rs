//! Through an HTTP proxy with a password, and through one that opens TLS.

use crate::support::{
    Cluster, Mykube, Namespace, Relay, Sandbox,
    certs::Authority,
    net::{Intercept, Proxy},
};

/// A name only the proxy can resolve: loopback addresses are never proxied.
const NAME: &str = "relay.e2e.test";
const ROUTE: &str = "relay.e2e.test:443";
const URL: &str = "https://relay.e2e.test";
/// `user:p@ss word`
const CREDENTIALS: &str = "dXNlcjpwQHNzIHdvcmQ=";

fn tls_relay(authority: &Authority) -> Relay {
    let files = Sandbox::new();
    let signed = authority.sign(&[NAME, "127.0.0.1"]);
    let cert = files.file("cert.pem", signed.certificate);
    let key = files.file("key.pem", signed.key);
    let args = ["--api-rate", "0", "--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    Relay::with(&args)
}

/// Pairs through the proxy on both ends, with `ca` as `--ca-file`, and uses the cluster.
fn works_through(proxy: &Proxy, ca: &str) {
    let namespace = Namespace::create(&Cluster::get(), "proxy");
    let files = Sandbox::new();
    let ca = files.file("ca.pem", ca);
    let proxy_url = format!("http://user:p%40ss%20word@{}", proxy.address);
    let by_proxy = |end: Mykube| end.env("HTTPS_PROXY", &proxy_url).arg("--ca-file").arg(&ca);
    let server = by_proxy(Mykube::server(URL, &namespace.cluster.kubeconfig)).start();
    let client = by_proxy(Mykube::client(URL)).start_with(&server.code());
    let way = namespace.through("tunnel", &client.kubeconfig());
    assert_eq!(way.kubectl(&["get", "serviceaccount", "default", "-o", "name"]).ok(), "serviceaccount/default\n");
    for end in [&server, &client] {
        let said = end.process.stderr();
        for secret in ["p@ss word", "p%40ss", CREDENTIALS] {
            assert!(!said.contains(secret), "the proxy's password in a log:\n{said}");
        }
    }
}

#[test]
fn a_proxy_with_a_password() {
    let authority = Authority::new("the relay's own CA");
    let relay = tls_relay(&authority);
    let proxy = Proxy::start(CREDENTIALS, (ROUTE, relay.address()), None);
    works_through(&proxy, &authority.pem());
    // Two calls, two WebSockets.
    assert_eq!(proxy.seen(), [ROUTE; 4]);
}

#[test]
fn a_proxy_that_opens_tls() {
    let (relays, proxys) = (Authority::new("the relay's own CA"), Authority::new("the company's CA"));
    let relay = tls_relay(&relays);
    let intercept = Intercept { as_server: proxys.sign(&[NAME]).server(), as_client: relays.client() };
    let proxy = Proxy::start(CREDENTIALS, (ROUTE, relay.address()), Some(intercept));
    works_through(&proxy, &proxys.pem());
    let calls = ["POST /api/sessions HTTP", "GET /ws/agent", "POST /api/pair HTTP", "GET /ws/client"];
    assert_eq!(proxy.seen(), calls, "it has read what the relay is told, and still no more than that");
    // Without --ca-file it looks like an attacker in the middle.
    let client = Mykube::client(URL).env("HTTPS_PROXY", format!("http://user:p%40ss%20word@{}", proxy.address));
    client.fails_with("483 20417", 4, &["not signed by an authority this machine trusts", "--ca-file"]);
}

#[test]
fn no_proxy_is_heeded() {
    let authority = Authority::new("the relay's own CA");
    let relay = tls_relay(&authority);
    let proxy = Proxy::start(CREDENTIALS, (ROUTE, relay.address()), None);
    let client =
        Mykube::client("https://relay.e2e.invalid").env("HTTPS_PROXY", format!("http://u:p@{}", proxy.address));
    let words = ["cannot be resolved"];
    client.env("NO_PROXY", "example.com, .e2e.invalid").fails_with("483 20417", 4, &words);
    assert!(proxy.seen().is_empty());
}
