//! What must not get through, tried.

use mykube_agent::guarded::Policy;

use crate::setup::Setup;

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";

fn read_only() -> Policy {
    Policy { read_only: true, ..Policy::default() }
}

fn acting() -> Policy {
    Policy { as_user: Some("dev".into()), as_groups: vec!["devs".into(), "readers".into()], ..Policy::default() }
}

fn in_a() -> Policy {
    Policy { namespaces: vec!["a".into()], ..Policy::default() }
}

#[tokio::test]
async fn none_of_these_reaches_the_api_server() {
    let mut setup = Setup::plain().await;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let with = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let post = |headers: &str, body: &str| {
        format!("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}")
    };
    let pod = "/api/v1/namespaces/a/pods/p";
    let table: Vec<(&str, Policy, String, u16)> = vec![
        ("exec by GET", read_only(), get(&format!("{pod}/exec?command=id")), 403),
        ("exec, a letter encoded", read_only(), get(&format!("{pod}/%65xec?command=id")), 403),
        ("exec, all encoded", read_only(), get(&format!("{pod}/%65%78%65%63")), 403),
        ("exec, trailing slash", read_only(), get(&format!("{pod}/exec/")), 403),
        ("exec, more behind it", read_only(), get(&format!("{pod}/exec/x")), 403),
        ("exec by HEAD", read_only(), format!("HEAD {pod}/exec HTTP/1.1\r\nHost: x\r\n\r\n"), 403),
        ("exec by WebSocket", read_only(), with(&format!("{pod}/exec?command=id"), WEBSOCKET), 403),
        ("exec, absolute form", read_only(), get(&format!("http://x{pod}/exec")), 403),
        ("attach", read_only(), get(&format!("{pod}/attach")), 403),
        ("port-forward", read_only(), with(&format!("{pod}/portforward?ports=80"), WEBSOCKET), 403),
        ("pod proxy", read_only(), get(&format!("{pod}/proxy/")), 403),
        ("service proxy", read_only(), get("/api/v1/namespaces/a/services/s:80/proxy/x"), 403),
        ("node proxy", read_only(), get("/api/v1/nodes/n/proxy/run/a/p/c?cmd=id"), 403),
        ("legacy proxy", read_only(), get("/api/v1/proxy/nodes/n/"), 403),
        ("legacy proxy, encoded", read_only(), get("/api/v1/%70roxy/nodes/n/"), 403),
        (
            "DELETE dressed as a watch",
            read_only(),
            "DELETE /api/v1/watch/namespaces/a/pods HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            403,
        ),
        ("a method of its own", read_only(), format!("EXEC {pod} HTTP/1.1\r\nHost: x\r\n\r\n"), 405),
        ("CONNECT", read_only(), "CONNECT a:443 HTTP/1.1\r\nHost: x\r\n\r\n".into(), 405),
        ("an upgrade on a plain get", read_only(), with(pod, WEBSOCKET), 403),
        (
            "a console of another API",
            read_only(),
            with("/apis/s.kubevirt.io/v1/namespaces/a/vmis/v/console", WEBSOCKET),
            403,
        ),
        ("a write", read_only(), post("Content-Length: 2\r\n", "{}"), 403),
        ("an encoded slash", read_only(), get(&format!("{pod}%2fexec")), 400),
        ("an encoded slash, upper case", read_only(), get("/api/v1/namespaces/a%2Fpods%2Fp%2Fexec"), 400),
        ("dot segments", in_a(), get("/api/v1/namespaces/a/../b/secrets"), 400),
        ("dot segments, encoded", in_a(), get("/api/v1/namespaces/a/%2e%2e/b/secrets"), 400),
        ("one dot", in_a(), get("/api/v1/namespaces/./b/secrets"), 400),
        ("an empty segment", in_a(), get("/api/v1//namespaces/b/secrets"), 400),
        ("an empty first segment", in_a(), get("//api/v1/namespaces/b/secrets"), 400),
        ("NUL", in_a(), get("/api/v1/namespaces/a%00/pods"), 400),
        ("not UTF-8", in_a(), get("/api/v1/namespaces/%ff/pods"), 400),
        ("another namespace", in_a(), get("/api/v1/namespaces/b/pods"), 403),
        ("all namespaces", in_a(), get("/api/v1/pods"), 403),
        ("all namespaces by the old watch", in_a(), get("/api/v1/watch/pods"), 403),
        ("somebody else", acting(), with("/api", "Impersonate-User: admin\r\n"), 403),
        ("other groups", acting(), with("/api", "Impersonate-Group: system:masters\r\n"), 403),
        ("more about oneself", acting(), with("/api", "Impersonate-Extra-Scopes: all\r\n"), 403),
        ("another uid", acting(), with("/api", "Impersonate-Uid: 1\r\n"), 403),
        ("an underscore", acting(), with("/api", "Impersonate_User: admin\r\n"), 403),
        ("our header taken off on the way", acting(), with("/api", "Connection: Impersonate-User\r\n"), 400),
        (
            "the length taken off",
            acting(),
            post("Connection: close, Content-Length\r\nContent-Length: 2\r\n", "{}"),
            400,
        ),
        ("two lengths", read_only(), post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}x"), 400),
        (
            "a length and chunks",
            Policy::default(),
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "chunks and a length",
            Policy::default(),
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            400,
        ),
        ("chunked twice", Policy::default(), post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400),
        (
            "chunked twice, two lines",
            Policy::default(),
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "chunked, but not at the end",
            Policy::default(),
            post("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
            400,
        ),
        ("chunked with a tab", Policy::default(), post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), 400),
        ("a space before the colon", Policy::default(), post("Content-Length : 2\r\n", "{}"), 400),
        ("two hosts", Policy::default(), with("/api", "Host: y\r\n"), 400),
        (
            "an upgrade with a body",
            Policy::default(),
            with(&format!("{pod}/exec"), &format!("{WEBSOCKET}Content-Length: 2\r\n")) + "{}",
            400,
        ),
        ("headers of 2 MB", Policy::default(), with("/api", &format!("X-Long: {}\r\n", "x".repeat(1 << 21))), 431),
        ("ten thousand headers", Policy::default(), with("/api", &"X-A: b\r\n".repeat(10_000)), 431),
    ];
    let mut shown = String::new();
    for (what, policy, request, expected) in table {
        let mut client = setup.client_under(policy);
        // The other end may stop reading: what comes back is what counts.
        let (mut reading, mut writing) = tokio::io::split(client.stream);
        let sent = async {
            use tokio::io::AsyncWriteExt as _;
            let _ = writing.write_all(request.as_bytes()).await;
        };
        let read = async {
            use tokio::io::AsyncReadExt as _;
            while reading.read_buf(&mut client.early).await.is_ok_and(|n| n > 0) {
                if client.early.windows(4).any(|window| window == b"\r\n\r\n") {
                    break;
                }
            }
        };
        tokio::join!(sent, read);
        client.stream = reading.unsplit(writing);
        let head = client.head().await;
        shown.push_str(&format!("{expected} {what}\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{what}: {head}");
        assert!(setup.api.seen().is_empty(), "{what}");
    }
    println!("{shown}");
}

#[tokio::test]
async fn a_refusal_is_a_status_that_kubectl_prints() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client_under(read_only());
    let answer = client.ask("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.message(), "mykube: read-only: delete of deployments.apps is refused");
    // The connection lives on.
    assert_eq!(client.get("/api/v1/namespaces/a/pods?limit=500").await.status, 200);
    let mut client = setup.client_under(in_a());
    assert_eq!(
        client.get("/api/v1/namespaces/b/pods").await.message(),
        "mykube: only in namespace a: list of pods in namespace \"b\" is refused"
    );
}

#[tokio::test]
async fn a_request_behind_another_is_not_smuggled() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    client.send("GET /api HTTP/1.1\r\nHost: x\r\n\r\nDELETE /api/v1/nodes/n HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let second = client.answer().await;
    assert_eq!(second.status, 400);
    assert!(second.message().contains("before the last one was answered"));
    assert_eq!(second.header("connection").as_deref(), Some("close"));
    assert_eq!(setup.api.seen().len(), 1);
}

#[tokio::test]
async fn who_somebody_is_is_ours_to_say() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client_under(acting());
    let headers = "Authorization: Bearer stolen\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\
                   X-Forwarded-For: 1.2.3.4\r\nAudit-ID: mine\r\nX-Other: kept\r\nUser-Agent: kubectl/v1\r\n";
    let answer = client.ask("GET", "/api/v1/namespaces/a/pods?labelSelector=a%3Db", headers).await;
    assert_eq!(answer.status, 200);
    let seen = setup.api.last();
    assert_eq!(seen.target, "/api/v1/namespaces/a/pods?labelSelector=a%3Db");
    assert_eq!(seen.header("authorization"), ["Bearer t0k3n"]);
    assert_eq!(seen.header("impersonate-user"), ["dev"]);
    assert_eq!(seen.header("impersonate-group"), ["devs", "readers"]);
    assert_eq!(seen.header("host"), [setup.api.address.to_string()]);
    assert_eq!(seen.header("x-other"), ["kept"]);
    assert_eq!(seen.header("user-agent"), ["kubectl/v1"]);
    for gone in ["x-remote-user", "x-remote-group", "x-forwarded-for", "connection"] {
        assert!(seen.header(gone).is_empty(), "{gone}");
    }
    let audit_id = answer.header("audit-id").unwrap();
    assert_ne!(audit_id, "mine");
    assert_eq!(seen.header("audit-id"), [audit_id.as_str()]);
    assert_eq!(answer.header("keep-alive"), None, "of the other hop");
    let lines = setup.log.wait(1).await;
    assert_eq!(lines[0]["audit_id"], audit_id.as_str());
    assert_eq!(lines[0]["removed"], serde_json::json!(["authorization", "x-remote-*", "x-forwarded-*"]));
}

#[tokio::test]
async fn the_as_of_the_kubeconfig_is_the_default_of_as() {
    let user = "token: t0k3n\nas: ann\nas-groups: [devs, ops]\nas-uid: '42'\n\
                as-user-extra: {example.org/Scope%: [view, edit], plain: [x]}";
    let mut setup = Setup::new(user).await;
    let named = setup.fixture.load().await.unwrap().impersonation;
    let headers = |setup: &Setup| {
        let seen = setup.api.last();
        let mut all: Vec<_> = seen
            .headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("impersonate-"))
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        all.sort();
        all
    };
    let mut client = setup.client_under(Policy::default().or_as(named.as_ref()));
    assert_eq!(client.get("/api").await.status, 200);
    assert_eq!(
        headers(&setup),
        [
            "impersonate-extra-example.org%2fscope%25: edit",
            "impersonate-extra-example.org%2fscope%25: view",
            "impersonate-extra-plain: x",
            "impersonate-group: devs",
            "impersonate-group: ops",
            "impersonate-uid: 42",
            "impersonate-user: ann",
        ]
    );
    let before = setup.api.seen().len();
    assert_eq!(client.ask("GET", "/api/v1/pods", "Impersonate-User: ann\r\n").await.status, 403);
    assert_eq!(setup.api.seen().len(), before);
    // Another user has nothing of the first one.
    let mut client = setup.client_under(acting().or_as(named.as_ref()));
    assert_eq!(client.get("/api").await.status, 200);
    assert_eq!(headers(&setup), ["impersonate-group: devs", "impersonate-group: readers", "impersonate-user: dev"]);
}

#[tokio::test]
async fn without_as_impersonation_passes_for_rbac_to_decide() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    assert_eq!(client.ask("GET", "/api", "Impersonate-User: ann\r\nImpersonate-Group: g\r\n").await.status, 200);
    assert_eq!(setup.api.last().header("impersonate-user"), ["ann"]);
    assert_eq!(setup.log.wait(1).await[0]["impersonated"], "ann");
}

#[tokio::test]
async fn the_bearer_subprotocol_does_not_pass() {
    let mut setup = Setup::plain().await;
    let mut client = setup.client();
    let headers = WEBSOCKET.replace("v5.channel", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v5.channel");
    client.send(format!("GET /api/v1/namespaces/a/pods/p/exec?command=id HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    let seen = setup.api.last();
    assert_eq!(seen.header("sec-websocket-protocol"), ["v5.channel.k8s.io"]);
    assert_eq!(seen.header("authorization"), ["Bearer t0k3n"]);
}

#[tokio::test]
async fn after_its_time_nothing_is_served() {
    use std::time::{Duration, SystemTime};
    let mut setup = Setup::plain().await;
    let now = SystemTime::now();
    for expires in [now - Duration::from_secs(1), now + Duration::from_millis(50)] {
        let mut client = setup.client_under(Policy { expires: Some(expires), ..Policy::default() });
        assert!(client.rest().await.is_empty(), "an idle connection ends too");
        assert!(SystemTime::now() >= expires);
    }
    assert!(setup.api.seen().is_empty());
}
