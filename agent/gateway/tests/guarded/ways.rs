//! How the gateway reaches the API server: proxies, `NO_PROXY`, a pod's service account.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mykube_agent_gateway::{Audit, Forwarder, Gateway, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    common::{base64, config},
    setup::Setup,
};

/// An HTTP proxy that joins every request to one address, and the targets that it was asked for.
struct Proxy {
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<String>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (said, asked) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut carried = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let said = said.clone();
                carried.spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(near.read_u8().await.unwrap());
                    }
                    said.send(String::from_utf8(head).unwrap()).unwrap();
                    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }
}

/// A cluster with a name that only a proxy resolves.
fn cluster(setup: &Setup, more: &str) -> String {
    let ca = base64(&setup.authority.pem);
    let port = setup.api.address.port();
    format!("server: https://api.internal:{port}\ntls-server-name: 127.0.0.1\ncertificate-authority-data: {ca}\n{more}")
}

#[tokio::test]
async fn requests_and_upgrades_go_through_the_proxy_of_the_kubeconfig() {
    let mut setup = Setup::plain().await;
    let mut proxy = Proxy::to(setup.api.address).await;
    let cluster = cluster(&setup, &format!("proxy-url: http://ann:hunter2@{}", proxy.address));
    setup.fixture.write("config", config(&cluster, "token: t0k3n"));
    // A proxy in the kubeconfig wins over the environment's, and `NO_PROXY` is about the latter only.
    setup.fixture.var("HTTPS_PROXY", "http://127.0.0.1:1");
    setup.fixture.var("NO_PROXY", "api.internal");
    setup.rebuild().await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.text(), "/version 0");
    let asked = proxy.asked.recv().await.unwrap();
    assert!(asked.starts_with(&format!("CONNECT api.internal:{} ", setup.api.address.port())), "{asked}");
    assert!(asked.to_lowercase().contains("\r\nproxy-authorization: basic "), "{asked}");
    let seen = setup.api.last();
    assert!(seen.header("proxy-authorization").is_empty(), "the proxy's password is not for the API server");

    client.send(EXEC).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client.send("typed").await;
    assert_eq!(client.take(5).await, b"typed");
}

const EXEC: &str = "POST /api/v1/namespaces/a/pods/p/exec?command=cat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                    Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn the_proxy_of_the_environment_is_used_by_the_name_of_the_api_server() {
    let mut setup = Setup::plain().await;
    let mut proxy = Proxy::to(setup.api.address).await;
    let named = cluster(&setup, "");
    // An address for documentation, at which nothing listens.
    let address = named.replace("api.internal", "192.0.2.1");
    for (cluster, no_proxy, through) in [
        // The proxy's own address in NO_PROXY does not concern the API server.
        (&named, "127.0.0.1,example.com", true),
        (&address, "127.0.0.1,example.com", true),
        (&named, "internal", false),
        (&address, "192.0.2.0/24", false),
    ] {
        setup.fixture.write("config", config(cluster, "token: t0k3n"));
        setup.fixture.var("HTTPS_PROXY", format!("http://{}", proxy.address));
        setup.fixture.var("NO_PROXY", no_proxy);
        setup.fixture.source.connect_timeout = Duration::from_millis(if through { 10_000 } else { 1 });
        setup.rebuild().await;
        let status = setup.client().get("/api/v1/nodes").await.status;
        assert_eq!((status, proxy.asked.try_recv().is_ok()), (if through { 200 } else { 503 }, through), "{no_proxy}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_without_its_password() {
    let mut setup = Setup::plain().await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cluster = cluster(&setup, &format!("proxy-url: http://ann:hunter2@{gone}"));
    setup.fixture.write("config", config(&cluster, "token: t0k3n"));
    setup.rebuild().await;
    let answer = setup.client().get("/api/v1/nodes").await;
    assert_eq!(answer.status, 503);
    let message = answer.message();
    assert!(message.contains("proxy") && !message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn a_pod_uses_its_service_account_and_each_new_token_of_it() {
    let mut setup = Setup::plain().await;
    setup.fixture.source.kubeconfig = None;
    setup.fixture.var("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    setup.fixture.var("KUBERNETES_SERVICE_PORT", setup.api.address.port().to_string());
    setup.fixture.write("serviceaccount/ca.crt", &setup.authority.pem);
    setup.fixture.write("serviceaccount/namespace", "mykube");
    setup.fixture.write("serviceaccount/token", "of-the-pod\n");
    let upstream = setup.fixture.load().await.unwrap();
    assert_eq!((upstream.cluster_name.as_str(), upstream.namespace.as_deref()), ("in-cluster", Some("mykube")));
    let eager = Settings { reread: Duration::ZERO, ..Settings::default() };
    setup.forwarder = Arc::new(Forwarder::new(Arc::new(upstream), eager));
    setup.gateway = Gateway::new(setup.forwarder.clone(), Audit::off());
    let mut client = setup.client();
    for token in ["of-the-pod", "rotated"] {
        setup.fixture.write("serviceaccount/token", token);
        assert_eq!(client.get("/version").await.status, 200);
        assert_eq!(setup.api.last().header("authorization"), [format!("Bearer {token}")]);
    }
    // The pod's own CA is used: an API server with another CA's certificate is refused.
    setup.fixture.write("serviceaccount/ca.crt", crate::api::Authority::new().pem);
    assert_eq!(setup.client().get("/api/v1/nodes").await.status, 502);
}
