//! Requests that try to get around policy and identity.

use mykube_agent_gateway::{Policy, Rule};

use crate::{common::config, setup::Setup};

pub(crate) const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n";

fn read_only() -> Policy {
    Policy { read_only: true, ..Policy::default() }
}

pub(crate) fn acting() -> Policy {
    Policy { as_user: Some("dev".into()), as_groups: vec!["devs".into(), "readers".into()], ..Policy::default() }
}

fn in_a() -> Policy {
    Policy { namespaces: vec!["a".into()], ..Policy::default() }
}

/// `verbs/groups/resources/names`, each with commas.
fn rule(words: &str) -> Rule {
    let lists: Vec<Vec<String>> =
        words.split(' ').map(|list| list.split(',').map(|word| word.trim_matches('"').to_owned()).collect()).collect();
    let list = |at: usize| lists.get(at).cloned().unwrap_or_default();
    Rule { verbs: list(0), api_groups: list(1), resources: list(2), resource_names: list(3), ..Rule::default() }
}

fn deny(words: &str) -> Policy {
    Policy { deny: vec![rule(words)], ..Policy::default() }
}

fn deny_in(namespace: &str) -> Policy {
    Policy { deny: vec![Rule { namespaces: vec![namespace.into()], ..rule("* * *") }], ..Policy::default() }
}

fn deny_url(url: &str) -> Policy {
    let rule = Rule { verbs: vec!["get".into()], non_resource_urls: vec![url.into()], ..Rule::default() };
    Policy { deny: vec![rule], ..Policy::default() }
}

fn allow(words: &str) -> Policy {
    Policy { allow: Some(words.split("; ").map(rule).collect()), ..Policy::default() }
}

const APPLY: &str = "Content-Type: application/apply-patch+yaml\r\n";
const MERGE: &str = "Content-Type: application/merge-patch+json\r\n";

#[tokio::test]
async fn what_a_request_does_besides_is_judged_too() {
    let mut setup = Setup::plain().await;
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/root";
    let (service, settings) = ("/api/v1/namespaces/a/services/web", "/api/v1/namespaces/a/configmaps/settings");
    let (deployment, lease) =
        ("/apis/apps/v1/namespaces/a/deployments/d", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l");
    let vault = |name: &str| format!("/api/v1/namespaces/a/services/{name}/proxy/v1/secret");
    let (vault_full, vault_port, vault_odd) = (vault("https:vault:8200"), vault("vault:8200"), vault(":vault:"));
    let none = "";
    let exec = "/api/v1/namespaces/a/pods/p/exec";
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let no_create = "create * *";
    let no_vault = "* \"\" services/proxy,pods/proxy,nodes/proxy vault";
    let all_verbs = "get,list,watch,create,update,patch,delete,deletecollection \"\" services/proxy";
    let no_masters = "impersonate \"\" groups system:masters";
    let be = "Impersonate-User: ann\r\n";
    let cbor = APPLY.replace("yaml", "cbor");
    let charset = APPLY.replace("yaml", "yaml; charset=utf-8");
    let vault_other = vault("vault2:8200");
    let vault_plain = vault("vault");
    let be_scoped = format!("{be}Impersonate-Extra-Scopes: all\r\n");
    let deployment_status = format!("{deployment}/status");
    let service_status = format!("{service}/status");
    // Policy, method, target, headers, whether it is forwarded.
    let table: Vec<(Policy, &str, &str, &str, bool)> = vec![
        (deny(no_create), "PATCH", deployment, APPLY, false),
        (deny(no_create), "PATCH", deployment, &cbor, false),
        (deny(no_create), "PATCH", deployment, &charset, false),
        (deny(no_create), "PATCH", deployment, none, false),
        (deny(no_create), "PATCH", deployment, MERGE, true),
        (deny(no_create), "PATCH", &deployment_status, APPLY, false),
        (deny(no_create), "PUT", binding, none, false),
        (deny(no_create), "PUT", service, none, false),
        (deny(no_create), "PUT", &service_status, none, false),
        (deny(no_create), "PUT", lease, none, false),
        (deny(no_create), "PUT", "/apis/example.com/v1/namespaces/a/widgets/w", none, false),
        (deny(no_create), "PUT", settings, none, true),
        (deny(no_create), "PUT", deployment, none, true),
        (deny(no_create), "DELETE", service, none, true),
        (deny(no_create), "PUT", &vault_full, none, true),
        (deny(no_create), "PATCH", &vault_full, APPLY, true),
        (allow("update \"\" services/proxy"), "PUT", &vault_full, none, true),
        (deny_in("kube-system"), "POST", review, none, true),
        (deny_in("kube-system"), "GET", "/api/v1/nodes", none, true),
        (deny_in("kube-system"), "GET", "/api/v1/secrets", none, false),
        (deny_url("/version"), "GET", "/version/", none, false),
        (deny_url("/logs/*"), "GET", "/logs", none, false),
        (deny("create \"\" services web"), "PUT", service, none, false),
        (deny("create \"\" services web"), "PATCH", service, APPLY, false),
        (deny("create \"\" services db"), "PUT", service, none, true),
        (allow("update \"\" services"), "PUT", service, none, false),
        (allow("update,create \"\" services"), "PUT", service, none, true),
        (allow("update \"\" services; create \"\" services web"), "PUT", service, none, true),
        (allow("update \"\" services; create \"\" services db"), "PUT", service, none, false),
        (allow("update \"\" configmaps"), "PUT", settings, none, true),
        (allow("patch apps deployments"), "PATCH", deployment, APPLY, false),
        (allow("patch apps deployments"), "PATCH", deployment, MERGE, true),
        (allow("patch,create apps deployments"), "PATCH", deployment, APPLY, true),
        (allow("patch,create apps deployments"), "PATCH", &deployment_status, APPLY, false),
        (deny("delete \"\" pods"), "POST", "/api/v1/namespaces/a/pods/p/eviction", none, false),
        (allow("create \"\" pods/eviction"), "POST", "/api/v1/namespaces/a/pods/p/eviction", none, true),
        (deny(no_vault), "GET", &vault_full, none, false),
        (deny(no_vault), "GET", &vault_port, none, false),
        (deny(no_vault), "GET", &vault_odd, none, false),
        (deny(no_vault), "GET", "/api/v1/namespaces/a/pods/vault:80/proxy/", none, false),
        (deny(no_vault), "GET", "/api/v1/nodes/https:vault:10250/proxy/metrics", none, false),
        (deny(no_vault), "GET", &vault_other, none, true),
        (allow("get \"\" services/proxy vault"), "GET", &vault_plain, none, true),
        (allow("get \"\" services/proxy vault"), "GET", &vault_full, none, false),
        (deny(all_verbs), "OPTIONS", &vault_full, none, false),
        (deny("get \"\" services/proxy"), "OPTIONS", &vault_full, none, false),
        (deny("get \"\" pods"), "OPTIONS", &vault_full, none, true),
        (allow("get,create \"\" services/proxy"), "OPTIONS", &vault_full, none, false),
        (allow("* \"\" services/proxy"), "OPTIONS", &vault_full, none, true),
        (deny("* \"\" secrets"), "GET", "/v1/secrets", none, false),
        (deny("* \"\" secrets"), "GET", "/k8s/clusters/c-1/api/v1/secrets", none, false),
        (deny("* \"\" secrets"), "GET", "/clusters/root:org/api/v1/secrets", none, false),
        (deny("* \"\" secrets"), "GET", "/metrics", none, true),
        (deny("* \"\" secrets"), "GET", "/apis", none, true),
        (Policy::default(), "GET", "/v1/secrets", none, true),
        (read_only(), "GET", "/clusters/root:org/api/v1/nodes/n/proxy/", none, false),
        (deny("impersonate \"\" users"), "GET", "/api/v1/pods", be, false),
        (deny("impersonate \"\" users"), "GET", "/api", be, false),
        (deny("impersonate \"\" users admin"), "GET", "/api/v1/pods", be, true),
        (
            deny(no_masters),
            "GET",
            "/api/v1/pods",
            "Impersonate-User: ann\r\nImpersonate-Group: system:masters\r\n",
            false,
        ),
        (deny(no_masters), "GET", "/api/v1/pods", "Impersonate-User: ann\r\nImpersonate-Group: a\r\n", true),
        (deny("impersonate authentication.k8s.io userextras/scopes"), "GET", "/api", &be_scoped, false),
        (deny("impersonate:user-info authentication.k8s.io users"), "GET", "/api", be, false),
        (deny("impersonate-on:user-info:list \"\" pods"), "GET", "/api/v1/pods", be, false),
        (deny("impersonate-on:user-info:list \"\" pods"), "GET", "/api/v1/services", be, true),
        (allow("list \"\" pods"), "GET", "/api/v1/pods", be, false),
        (allow("list \"\" pods; impersonate \"\" users ann"), "GET", "/api/v1/pods", be, true),
        (allow("list \"\" pods; impersonate \"\" users bob"), "GET", "/api/v1/pods", be, false),
        (allow("create \"\" pods/exec; impersonate:user-info authentication.k8s.io users"), "GET", exec, be, false),
        (
            allow(
                "create \"\" pods/exec; impersonate:user-info authentication.k8s.io users; \
                 impersonate-on:user-info:get \"\" pods/exec",
            ),
            "GET",
            exec,
            be,
            true,
        ),
        (
            allow(
                "list \"\" pods; impersonate:user-info authentication.k8s.io users; impersonate-on:user-info:list \"\" pods",
            ),
            "GET",
            "/api/v1/pods",
            be,
            true,
        ),
    ];
    for (policy, method, target, headers, passes) in table {
        let what = format!("{method} {target} {headers:?} {:?} {:?}", policy.allow, policy.deny);
        let before = setup.api.seen().len();
        let answer = setup.client_under(policy).ask(method, target, headers).await;
        assert_eq!(answer.status, if passes { 200 } else { 403 }, "{what}");
        assert_eq!(setup.api.seen().len() - before, usize::from(passes), "{what}");
    }
}

#[tokio::test]
async fn a_client_that_is_refused_is_told_why() {
    let mut setup = Setup::plain().await;
    let service = "/api/v1/namespaces/a/services/web";
    let mut told = async |policy, method: &str, target: &str, headers: &str| {
        setup.client_under(policy).ask(method, target, headers).await.message()
    };
    assert_eq!(
        told(allow("update \"\" services"), "PUT", service, "").await,
        "mykube: allow: no rule allows create of services too: a PUT makes the object where there is none"
    );
    assert_eq!(
        told(deny("create * *"), "PATCH", service, APPLY).await,
        "mykube: deny: a rule refuses create of services: server-side apply makes the object where there is none"
    );
    assert_eq!(
        told(allow("get \"\" pods"), "GET", "/api/v1/namespaces/a/pods/p/exec", "").await,
        "mykube: allow: no rule allows create of pods/exec"
    );
    assert_eq!(
        told(deny("impersonate \"\" users"), "GET", "/api/v1/pods", "Impersonate-User: ann\r\n").await,
        "mykube: deny: a rule refuses impersonate of users \"ann\""
    );
    assert!(told(deny("* \"\" secrets"), "GET", "/v1/secrets", "").await.contains("no path of the API server"));
}

/// Every failure in which the API server gives no answer, by what is at its address.
#[tokio::test]
async fn no_answer_of_ours_names_an_address() {
    use mykube_agent_gateway::Settings;
    use std::{sync::atomic::Ordering, time::Duration};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    /// Takes connections at an address and sends each this answer, or, without one, keeps them open in silence.
    async fn somebody(says: Option<&'static [u8]>) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                if let Some(says) = says {
                    let _ = socket.read(&mut [0; 4096]).await;
                    let _ = socket.write_all(says).await;
                } else {
                    kept.push(socket);
                }
            }
        });
        (address, task)
    }
    let settings = Settings { handshake_timeout: Duration::from_millis(100), ..Settings::default() };
    let mut setup = Setup::with(|_, _| "token: t0k3n".into(), settings).await;
    let (gone, task) = somebody(None).await;
    task.abort();
    let _ = task.await;
    let (silent, _silent) = somebody(None).await;
    let (closing, _closing) = somebody(Some(b"")).await;
    let (foreign, _foreign) = somebody(Some(b"SSH-2.0-OpenSSH_9.2\r\n")).await;
    let (refusing, _refusing) =
        somebody(Some(b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"p\"\r\n\r\n")).await;
    let (unreaching, _unreaching) = somebody(Some(b"HTTP/1.1 502 api.internal is away\r\n\r\n")).await;
    let api = setup.api.address.to_string();
    let ca = crate::common::base64(&setup.authority.pem);
    let at = |server: &str| format!("server: https://{server}\ncertificate-authority-data: {ca}");
    let through = |proxy: &str| format!("{}\nproxy-url: http://ann:hunter2@{proxy}", at("api.internal:6443"));
    for (what, cluster, status) in [
        ("nobody", at(&gone), 503),
        ("no such name", at("api.mykube.invalid:6443"), 503),
        ("silent in TLS", at(&silent), 503),
        ("closes in TLS", at(&closing), 503),
        ("no TLS", at(&foreign), 502),
        ("another name", format!("{}\ntls-server-name: api.internal", at(&api)), 502),
        ("another CA", at(&api).replace(&ca, &crate::common::base64(&crate::api::Authority::new().pem)), 502),
        ("no proxy", through(&gone), 503),
        ("a proxy that wants a password", through(&refusing), 503),
        ("a proxy that cannot", through(&unreaching), 503),
        ("a proxy that is none", through(&foreign), 503),
    ] {
        setup.fixture.write("config", config(&cluster, "token: t0k3n"));
        setup.rebuild_with(settings).await;
        setup.log.clear();
        for target in ["/api/v1/nodes", "/api"] {
            let answer = setup.client().get(target).await;
            let all = format!("{}{}", answer.head, answer.text());
            let discovery = target == "/api" && status == 503;
            assert_eq!(answer.status, if discovery { 502 } else { status }, "{what}: {all}");
            assert!(all.contains("mykube: "), "{what}: {all}");
            for (secret, port) in [&gone, &silent, &closing, &foreign, &refusing, &unreaching, &api]
                .map(|address| address.rsplit_once(':').unwrap())
                .into_iter()
                .chain([("api.internal", "6443"), ("api.mykube", "6443"), ("hunter2", "ann:")])
            {
                assert!(!all.contains(secret) && !all.contains(port), "{what}: {all}");
            }
        }
        // The operator gets the whole reason.
        let (host, _) = cluster.split_once("https://").unwrap().1.split_once(':').unwrap();
        let reason = setup.log.wait(2).await[0]["reason"].to_string();
        assert!(reason.contains(host), "{what}: {reason}");
    }
    // The server closes before it answers.
    setup.fixture.write("config", config(&at(&api), "token: t0k3n"));
    setup.rebuild_with(settings).await;
    setup.api.state.hang_up.store(true, Ordering::Relaxed);
    let answer = setup.client().ask("POST", "/api/v1/nodes", "Content-Length: 0\r\n").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.message().contains("127.0.0.1"), "{}", answer.message());
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
    let named = "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=x";
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
        ("a backslash", in_a(), get("/api/v1/namespaces/a\\..\\b/secrets"), 400),
        (
            "more parameters than Go reads",
            allow("list \"\" secrets x"),
            get(&format!("{named}{}", "&".repeat(10_000))),
            400,
        ),
        ("a semicolon in a query", allow("list \"\" secrets x"), get(&format!("{named}&a;watch=1")), 400),
        ("a broken escape in a query", allow("list \"\" secrets x"), get(&format!("{named}&watch=%")), 400),
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
        ("two at once", Policy::default(), with("/api", "Impersonate-User: a\r\nImpersonate-User: b\r\n"), 400),
        ("two uids", Policy::default(), with("/api", "Impersonate-Uid: a\r\nImpersonate-Uid: b\r\n"), 400),
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
        // The other end may stop reading: only the answer counts.
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
    // The connection is still usable.
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
