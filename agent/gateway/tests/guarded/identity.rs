//! Headers that say who the sender is, and whom a request is made as.

use mykube_agent_gateway::Policy;

use crate::{
    bypass::{WEBSOCKET, acting},
    setup::Setup,
};

#[tokio::test]
async fn cookies_are_for_programs_behind_the_api_server_only() {
    let mut setup = Setup::plain().await;
    let sent = "Cookie: R_SESS=token\r\nX-Auth-Request-User: admin\r\nX-Auth-Request-Groups: g\r\n";
    for (target, cookies) in [
        ("/api/v1/namespaces/a/pods", false),
        ("/api/v1/nodes/n/proxy/metrics", false),
        ("/version", false),
        ("/api/v1/namespaces/a/services/web/proxy/login", true),
        ("/api/v1/namespaces/a/pods/p:80/proxy/", true),
    ] {
        let answer = setup.client().ask("GET", target, sent).await;
        assert_eq!(answer.status, 200);
        let seen = setup.api.last();
        assert_eq!(seen.header("cookie"), if cookies { vec!["R_SESS=token"] } else { vec![] }, "{target}");
        assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-auth-request")), "{target}");
        assert_eq!(answer.header("set-cookie").is_some(), cookies, "{target}");
    }
    let lines = setup.log.wait(5).await;
    assert_eq!(lines[0]["removed"], serde_json::json!(["cookie", "x-auth-request-*"]));
}

#[tokio::test]
async fn a_clients_identity_is_ours_to_say() {
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
    // The second user's headers are not mixed with the first one's.
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
