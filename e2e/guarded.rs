//! Guarded mode with a real API server: what works as it does directly, what is refused, and which clients may connect.
//!
//! Over 500 lines because it is one list of things tried, each with its set-up.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{net::TcpSocket, sync::watch, task::JoinSet};

use crate::support::{
    Cluster, Done, LIMIT, Mykube, Namespace, Relay, Sandbox, Tunnel, Way,
    certs::Authority,
    contains, net, noise,
    raw::{Answer, Port, config, connection, tls},
    sha256,
};

/// `web` serves pages and measures uploads; `kept` and `let-go` are evicted; `none` is a service without pods.
const OBJECTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    command:
    - sh
    - -c
    - |
      mkdir -p /www/cgi-bin; echo hello >/www/index.html
      printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nhead -c $CONTENT_LENGTH | sha256sum\n' >/www/cgi-bin/sum
      chmod +x /www/cgi-bin/sum; exec httpd -f -p 8080 -h /www
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: none}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: kept, labels: {app: kept}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: IMAGE, command: [sleep, "100000"]}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: kept}
spec: {minAvailable: 1, selector: {matchLabels: {app: kept}}}
"#;

/// The list of kinds that a PUT creates must be right for everything that this cluster serves.
#[test]
fn no_put_makes_what_may_not_be_created() {
    let cluster = Cluster::get();
    let tunnel = Tunnel::to(|relay| {
        let server = Mykube::guarding(relay, &cluster.kubeconfig).args(["--deny", "deny.yaml"]);
        let rule = json!({"verbs": ["create"], "apiGroups": ["*"], "resources": ["*"]});
        server.sandbox().file("deny.yaml", json!({"rules": [rule]}).to_string());
        server
    });
    let (direct, guarded) =
        (Way::new("direct", &cluster.kubeconfig, None), Way::new("guarded", &tunnel.kubeconfig(), None));
    let get = |path: &str| serde_json::from_str::<Value>(&direct.kubectl(&["get", "--raw", path]).ok()).unwrap();
    let groups = get("/apis");
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap());
    let mut bases = vec!["/api/v1".to_owned()];
    bases.extend(versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap())));
    let (mut made, mut not_made) = (Vec::new(), 0);
    for base in bases {
        let listed = direct.kubectl(&["get", "--raw", &base]);
        let Ok(listed) = serde_json::from_str::<Value>(&listed.stdout) else { continue };
        for resource in listed["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            if name.contains('/') || !resource["verbs"].as_array().unwrap().contains(&"update".into()) {
                continue;
            }
            let namespace = if resource["namespaced"] == true { "namespaces/default/" } else { "" };
            let path = format!("{base}/{namespace}{name}/mykube-e2e-none?dryRun=All");
            let body = json!({
                "apiVersion": listed["groupVersion"], "kind": resource["kind"],
                "metadata": {"name": "mykube-e2e-none"},
            });
            let put = |way: &Way| way.kubectl_with(&["replace", "--raw", &path, "-f", "-"], body.to_string());
            let (here, there) = (put(&guarded), put(&direct));
            assert_ne!(here.code, 0, "{path}: {here:?}");
            if there.code != 0 && there.stderr.contains("(NotFound)") {
                not_made += 1;
                assert!(here.stderr.contains("(NotFound)"), "{path} is refused for nothing: {here:?}");
            } else {
                made.push(name.to_owned());
                assert!(here.stderr.contains("mykube: deny: a rule refuses create of"), "{path}: {here:?} {there:?}");
            }
        }
    }
    assert!(not_made > 20 && made.contains(&"services".to_owned()), "{not_made} {made:?}");
    for args in [&["get", "services"][..], &["label", "--overwrite", "namespace", "default", "mykube-e2e-none-"]] {
        guarded.kubectl(args).ok();
    }
    let applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mykube-e2e-none}\n";
    let apply = guarded.kubectl_with(&["apply", "--server-side", "-f", "-"], applied);
    assert!(apply.code == 1 && apply.stderr.contains("server-side apply makes the object"), "{apply:?}");
}

#[test]
fn what_passes_is_as_without_it() {
    let namespace = Namespace::create(&Cluster::get(), "passes");
    let direct = namespace.direct();
    direct.kubectl_with(&["apply", "-f", "-"], OBJECTS.replace("IMAGE", &namespace.cluster.image)).ok();
    let tunnel = Tunnel::guarded_with(&namespace.cluster.kubeconfig, &["--audit-log", "audit.jsonl"]);
    let guarded = namespace.through("guarded", &tunnel.kubeconfig());
    let budget = "--for=jsonpath={.status.currentHealthy}=1";
    for way in [direct, &guarded] {
        let waited = way.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/kept", "--timeout=60s"]).ok();
        assert_eq!(waited, "pod/web condition met\npod/kept condition met\n");
        way.kubectl(&["wait", budget, "pdb/kept", "--timeout=60s"]).ok();
    }
    let late = guarded.kubectl(&["wait", "--for=condition=Ready", "service/web", "--timeout=1s"]);
    assert!(late.code == 1 && late.stderr.contains("timed out waiting"), "{late:?}");

    // The API server's own text, whatever it says.
    let service =
        |name: &str, path: &str| format!("--raw=/api/v1/namespaces/{}/services/{name}:80/proxy/{path}", namespace.name);
    let eviction = |pod: &str| format!("--raw=/api/v1/namespaces/{}/pods/{pod}/eviction", namespace.name);
    let evict =
        |pod: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}).to_string();
    let (page, nobody, evicts) = (service("web", "index.html"), service("none", ""), eviction("kept"));
    let evicts = ["create", &evicts, "-f", "-"];
    let table: &[(&[&str], &str, i32, &str)] = &[
        (&["auth", "whoami", "-o", "jsonpath={.status.userInfo}"], "", 0, "username"),
        (&["auth", "can-i", "create", "pods/exec"], "", 0, "yes"),
        (&["--as=alice", "auth", "whoami", "-o", "jsonpath={.status.userInfo}"], "", 0, "alice"),
        (&["--as=alice", "--as-group=devs", "auth", "whoami", "-o", "jsonpath={.status.userInfo}"], "", 0, "devs"),
        (&["--as=alice", "auth", "can-i", "list", "secrets"], "", 1, "no"),
        (&["--as=alice", "get", "secrets"], "", 1, "User \"alice\" cannot list"),
        (&["get", &page], "", 0, "hello\n"),
        (&["get", &nobody], "", 1, "no endpoints available"),
        (&evicts, &evict("kept"), 1, "disruption budget"),
    ];
    for (args, input, code, words) in table {
        let [expected, got] = [direct, &guarded].map(|way| way.kubectl_with(args, *input));
        let said = |done: &Done| done.stdout.clone() + &done.stderr;
        assert_eq!((expected.code, got.code), (*code, *code), "{args:?}: {expected:?} {got:?}");
        assert_eq!(said(&expected), said(&got), "{args:?}");
        assert!(said(&got).contains(words), "{args:?}: {got:?}");
    }

    // By status; as soon as the budget is gone, the same request succeeds.
    let port = Port::of(&guarded);
    let body = evict("kept");
    let path = format!("/api/v1/namespaces/{}/pods/kept/eviction", namespace.name);
    let post = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(port.ask(&post).status(), 429);
    guarded.kubectl(&["delete", "pdb", "kept"]).ok();
    assert_eq!(port.ask(&post).status(), 201);
    guarded.kubectl(&["wait", "--for=delete", "pod/kept", "--timeout=60s"]).ok();

    token_is_ignored_and_logged(&tunnel, &guarded);
    through_kubectl_proxy(&namespace, &guarded);
    upload(&port, &namespace);
    top(&[direct, &guarded]);
}

fn token_is_ignored_and_logged(tunnel: &Tunnel, guarded: &Way) {
    let whoami = ["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
    let without = guarded.kubectl(&whoami).ok();
    let with = guarded.kubectl(&[&["--token=not-a-token-of-anybody"][..], &whoami].concat()).ok();
    assert_eq!(without, with);
    tunnel.server.process.says("were removed");
    let lines = audit_until(tunnel, |line| line["removed"].is_array());
    let last = lines.last().expect("the one waited for");
    assert_eq!((&last["removed"], &last["resource"]), (&json!(["authorization"]), &json!("selfsubjectreviews")));
    assert!(lines.iter().any(|line| line["resource"] == "selfsubjectreviews" && line["removed"].is_null()));
    assert!(!lines.iter().any(|line| line.to_string().contains("not-a-token-of-anybody")));
}

fn through_kubectl_proxy(namespace: &Namespace, guarded: &Way) {
    // By default the server refuses exec itself.
    let proxy = guarded.start(&["proxy", "--port=0", "--reject-paths=^/nothing$"]);
    let port: u16 = proxy.wait("port", |state| {
        let text = String::from_utf8_lossy(&state.stdout);
        text.lines().find_map(|line| line.rsplit_once(':')?.1.trim().parse().ok())
    });
    let sandbox = Sandbox::new();
    let cluster = json!({"server": format!("http://127.0.0.1:{port}")});
    let config = crate::support::cluster::kubeconfig("proxy", &cluster, &json!({})).to_string();
    let proxied = namespace.through("kubectl proxy", &sandbox.file("kubeconfig", config));
    for websockets in ["true", "false"] {
        let env = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)];
        let exec = ["exec", "-i", "web", "--", "sh", "-c", "cat; exit 7"];
        let done = proxied.kubectl_env(&exec, &env, "over and back");
        assert_eq!((done.code, &*done.stdout), (7, "over and back"), "{done:?}");
    }
}

/// 100 MiB to a program behind a service.
fn upload(port: &Port, namespace: &Namespace) {
    let bytes = noise(100 * 1024 * 1024);
    let path = format!("/api/v1/namespaces/{}/services/web:80/proxy/cgi-bin/sum", namespace.name);
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len()).into_bytes();
    request.extend_from_slice(&bytes);
    let answer = port.ask(request);
    assert_eq!(answer.status(), 200, "{}", answer.head);
    assert!(answer.body.contains(&sha256(&bytes)), "{}", answer.body);
}

fn top(ways: &[&Way; 2]) {
    // Only by asking can one tell when the metrics server has looked at a new node or pod.
    let until = Instant::now() + Duration::from_secs(90);
    // Nodes that another test made, without a machine, do not have this label.
    let nodes = ["top", "nodes", "--no-headers", "-l", "kubernetes.io/os=linux"];
    for args in [&nodes[..], &["top", "pods", "-l", "app=web", "--no-headers"]] {
        let names = ways.map(|way| {
            loop {
                let done = way.kubectl(args);
                if done.code == 0 && !done.stdout.is_empty() {
                    // The other columns are measured anew each time.
                    let names = done.stdout.lines().filter_map(|line| line.split_whitespace().next());
                    break names.map(str::to_owned).collect::<Vec<_>>();
                }
                assert!(Instant::now() < until, "{}: {done:?}", way.name);
                thread::sleep(Duration::from_millis(200));
            }
        });
        assert_eq!(names[0], names[1], "{args:?}");
    }
}

#[test]
fn an_aggregated_api_that_is_down_is_refused_by_the_api_server() {
    let cluster = Cluster::get();
    let down = std::env::var("MYKUBE_CLUSTER_API_DOWN").expect("this test needs the cluster that scripts/cluster runs");
    let tunnel = Tunnel::guarded_with(&cluster.kubeconfig, &[]);
    let (direct, guarded) =
        (Way::new("direct", &cluster.kubeconfig, None), Way::new("guarded", &tunnel.kubeconfig(), None));
    let _gone = Gone { way: &direct, file: &down };
    direct.kubectl(&["apply", "-f", &down]).ok();
    let unavailable = ["wait", "--for=condition=Available=False", "apiservice/v1.down.mykube.test", "--timeout=60s"];
    direct.kubectl(&unavailable).ok();
    let [expected, got] =
        [&direct, &guarded].map(|way| way.kubectl(&["get", "--raw=/apis/down.mykube.test/v1/things"]));
    assert_eq!((expected.code, got.code), (1, 1), "{expected:?} {got:?}");
    assert_eq!(expected.stderr, got.stderr);
    let answer = Port::of(&guarded).get("/apis/down.mykube.test/v1/things");
    assert_eq!(answer.status(), 503, "{}", answer.head);
    assert!(!answer.body.contains("mykube: "), "the API server's own words: {}", answer.body);
}

/// Objects of a file, deleted on drop.
struct Gone<'a> {
    way: &'a Way,
    file: &'a str,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        let _ = self.way.command(&["delete", "--ignore-not-found", "-f", self.file]).status();
    }
}

#[test]
fn requests_are_made_as_the_user_of_as() {
    let namespace = Namespace::create(&Cluster::get(), "as");
    let direct = namespace.direct();
    direct.kubectl(&["create", "rolebinding", "viewers", "--clusterrole=view", "--group=viewers"]).ok();
    let tunnel = Tunnel::guarded_with(&namespace.cluster.kubeconfig, &["--as=guest", "--as-group=viewers"]);
    let guarded = namespace.through("guarded", &tunnel.kubeconfig());
    let who = ["auth", "whoami", "-o", "jsonpath={.status.userInfo}"];
    let as_guest = ["--as=guest", "--as-group=viewers"];
    for args in [&who[..], &["get", "configmaps", "-o", "name"], &["get", "secrets"], &["get", "nodes"]] {
        let expected = direct.kubectl(&[&as_guest[..], args].concat());
        let got = guarded.kubectl(args);
        assert_eq!(
            (expected.code, &expected.stdout, &expected.stderr),
            (got.code, &got.stdout, &got.stderr),
            "{args:?}"
        );
    }
    assert!(guarded.kubectl(&who).ok().contains("\"guest\""));
    // Not even as the user that it already is.
    for other in [&["--as=admin"][..], &["--as=guest"], &["--as=guest", "--as-group=system:masters"]] {
        let done = guarded.kubectl(&[other, &["get", "configmaps"][..]].concat());
        assert!(done.code == 1 && done.stderr.contains("--as of your own is refused"), "{other:?}: {done:?}");
    }
    let port = Port::of(&guarded);
    for header in ["Impersonate-Group: system:masters", "impersonate_user: admin", "Impersonate-Uid: 1"] {
        let answer = port.ask(format!("GET /api/v1/namespaces HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"));
        assert_eq!(answer.status(), 403, "{header}: {}", answer.head);
        assert!(answer.body.contains("mykube: impersonation"), "{header}: {}", answer.body);
    }
}

#[test]
fn read_only_cannot_be_got_around() {
    let namespace = Namespace::create(&Cluster::get(), "reads");
    let direct = namespace.direct();
    direct.kubectl_with(&["apply", "-f", "-"], OBJECTS.replace("IMAGE", &namespace.cluster.image)).ok();
    let tunnels = [
        Tunnel::guarded_with(&namespace.cluster.kubeconfig, &["--read-only"]),
        Tunnel::guarded_with(&namespace.cluster.kubeconfig, &[]),
    ];
    let [reading, writing] = [("reading", &tunnels[0]), ("writing", &tunnels[1])]
        .map(|(name, tunnel)| namespace.through(name, &tunnel.kubeconfig()));
    reading.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]).ok();

    for args in [&["get", "pods", "-o", "name"][..], &["auth", "can-i", "--list"], &["logs", "web"]] {
        assert_eq!(reading.kubectl(args).ok(), direct.kubectl(args).ok(), "{args:?}");
    }
    for args in [
        &["exec", "web", "--", "true"][..],
        &["attach", "web"],
        &["port-forward", "pod/web", ":8080"],
        &["cp", "web:/www/index.html", "stolen"],
        &["delete", "pod", "web"],
        &["label", "pod", "web", "a=b"],
        &["create", "configmap", "made"],
        &["create", "token", "default"],
        &["debug", "web", "--image=busybox", "--attach=false"],
        &["get", "--raw=/api/v1/nodes/localhost/proxy/pods"],
    ] {
        let done = reading.kubectl(args);
        assert!(done.code != 0 && done.stderr.contains("mykube: read-only"), "{args:?}: {done:?}");
    }
    let spdy = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")];
    let done = reading.kubectl_env(&["exec", "web", "--", "true"], &spdy, "");
    assert!(done.code != 0 && done.stderr.contains("mykube: read-only"), "{done:?}");

    const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let pod = format!("/api/v1/namespaces/{}/pods/web", namespace.name);
    let channel = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
    let [reading, writing] = [&reading, &writing].map(Port::of);
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    // Description, how it is refused, how the API server answers without the policy.
    let table = [
        ("exec by GET", get(&format!("{pod}/exec?command=id&stdout=1"), &format!("{WEBSOCKET}{channel}")), 403, 101),
        (
            "a letter encoded",
            get(&format!("{pod}/%65xec?command=id&stdout=1"), &format!("{WEBSOCKET}{channel}")),
            403,
            101,
        ),
        ("exec without an upgrade", get(&format!("{pod}/exec?command=id&stdout=1"), ""), 403, 400),
        ("attach", get(&format!("{pod}/attach?stdout=1"), &format!("{WEBSOCKET}{channel}")), 403, 101),
        (
            "port-forward",
            get(
                &format!("{pod}/portforward?ports=8080"),
                &format!("{WEBSOCKET}Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n"),
            ),
            403,
            101,
        ),
        ("pod proxy", get(&format!("{pod}:8080/proxy/index.html"), ""), 403, 200),
        ("service proxy", get(&format!("{}/services/web:80/proxy/index.html", &pod[..pod.len() - 9]), ""), 403, 200),
        // The API server itself sends nothing to a node called localhost, as the test cluster's node is.
        ("node proxy", get("/api/v1/nodes/localhost/proxy/healthz", ""), 403, 400),
        ("an encoded slash", get(&format!("{pod}%2fexec?command=id"), &format!("{WEBSOCKET}{channel}")), 400, 400),
        ("an empty segment", get(&format!("/{pod}/exec?command=id"), ""), 400, 400),
        ("an empty segment inside", get(&pod.replace("/pods", "//pods"), ""), 400, 400),
        ("dot segments", get(&format!("{pod}/log/../exec?command=id"), ""), 400, 400),
        ("an upgrade of a plain get", get(&pod, WEBSOCKET), 403, 200),
        ("DELETE as a watch", format!("DELETE /api/v1/watch{} HTTP/1.1\r\nHost: x\r\n\r\n", &pod[7..]), 403, 405),
        ("a method of its own", format!("EXEC {pod} HTTP/1.1\r\nHost: x\r\n\r\n"), 405, 405),
    ];
    for (what, request, refused, without) in table {
        let answer = reading.ask(&*request);
        assert_eq!(answer.status(), refused, "{what}: {}\n{}", answer.head, answer.body);
        assert!(answer.body.contains("mykube: "), "{what}: {}", answer.body);
        assert_eq!(writing.ask(&*request).status(), without, "{what}, without the policy");
    }
    direct.kubectl(&["get", "pod", "web"]).ok();
}

#[test]
fn another_user_of_the_laptop_gets_no_answer() {
    let cluster = Cluster::get();
    let tunnels = [
        Tunnel::guarded_with(&cluster.kubeconfig, &["--audit-log", "audit.jsonl"]),
        Tunnel::guarded_with(&cluster.kubeconfig, &[]),
    ];
    let [port, other] = [0, 1].map(|at: usize| Port::of(&Way::new("guarded", &tunnels[at].kubeconfig(), None)));
    let strange = Authority::new("mykube session CA").sign(&["mykube client"]);
    let get = "GET /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (who, config) in [
        ("nobody", config(&port.ca, None)),
        ("another session", config(&port.ca, Some(&other.client))),
        ("a certificate of one's own", config(&port.ca, Some(&strange))),
    ] {
        let (mut tls, mut read) = (tls(port.address, config), Vec::new());
        // The TLS alert may come before the request is sent, or after.
        let end = tls.write_all(get.as_bytes()).and_then(|()| tls.read_to_end(&mut read)).map(drop);
        assert!(end.is_err() && read.is_empty(), "{who}: {end:?} {:?}", String::from_utf8_lossy(&read));
    }
    let mut plain = connection(port.address);
    let mut read = Vec::new();
    let _ = plain.write_all(get.as_bytes()).and_then(|()| plain.read_to_end(&mut read).map(drop));
    assert!(!contains(&read, b"HTTP/"), "{:?}", String::from_utf8_lossy(&read));
    assert_eq!(port.get("/api").status(), 200);
    let lines = audit_until(&tunnels[0], |line| line["event"] == "request");
    assert_eq!(lines.iter().filter(|line| line["event"] == "request").count(), 1, "{lines:?}");
}

#[test]
fn every_request_has_its_line() {
    let namespace = Namespace::create(&Cluster::get(), "audited");
    let relay = Relay::start();
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig);
    let server = server.args(["--audit-log", "audit.jsonl", "--deny", "deny.yaml"]);
    let rule = json!({"rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]});
    server.sandbox().file("deny.yaml", rule.to_string());
    let server = server.start();
    let code = server.code();
    let wrong = format!("{}{:05}", &code[..3], (code[3..].parse::<u32>().unwrap() + 1) % 100_000);
    Mykube::client(&relay.url).fails_with(&wrong, 3, &["ask for a new code"]);
    let client = Mykube::client(&relay.url).start_with(&code);
    let way = namespace.through("guarded", &client.kubeconfig());
    let port = Port::of(&way);
    let base = format!("/api/v1/namespaces/{}", namespace.name);
    let asked = [
        (format!("{base}/configmaps?labelSelector=of%3Dnobody"), 200, ["allowed", "list", "configmaps", ""]),
        (format!("{base}/configmaps/absent"), 404, ["allowed", "get", "configmaps", "absent"]),
        (format!("{base}/secrets/hidden"), 403, ["refused", "get", "secrets", "hidden"]),
        (format!("{base}//pods"), 400, ["refused", "", "", ""]),
        ("/version".to_owned(), 200, ["allowed", "get", "", ""]),
    ];
    let answers: Vec<Answer> = asked.iter().map(|(path, _, _)| port.get(path)).collect();
    way.kubectl(&["create", "configmap", "made", "--from-literal=key=confidential"]).ok();
    assert_eq!(client.stop(Signal::TERM).code, 0);
    assert_eq!(server.process.done().code, 0);

    let text = fs::read_to_string(server.sandbox.home().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!text.contains("confidential") && !text.contains("nobody"), "{text}");
    assert!(lines.iter().all(|line| line["client_id"] == 1), "{text}");
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let (first, last) = (lines.iter().take(2), lines.last().unwrap());
    assert_eq!(first.map(|line| &line["event"]).collect::<Vec<_>>(), ["refused", "paired"]);
    assert_eq!((&last["event"], &last["client"]), (&json!("left"), &json!("client-1")));
    assert!(last["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{last}");
    for event in ["refused", "paired", "left"] {
        assert_eq!(events.iter().filter(|found| **found == event).count(), 1, "{event}: {text}");
    }
    for ((path, status, words), answer) in asked.iter().zip(&answers) {
        assert_eq!(answer.status(), *status, "{path}");
        let id = answer.header("audit-id").unwrap_or_else(|| panic!("no Audit-ID: {}", answer.head));
        let of_it: Vec<_> = lines.iter().filter(|line| line["audit_id"] == *id).collect();
        let [line] = &of_it[..] else { panic!("{path} has {} lines:\n{text}", of_it.len()) };
        assert_eq!(line["status"], *status, "{line}");
        let found = ["decision", "verb", "resource", "name"].map(|field| line[field].as_str().unwrap_or_default());
        assert_eq!(found, *words, "{line}");
        assert_eq!(line["bytes_out"], answer.body.len(), "{line}");
    }
    let created = lines.iter().filter(|line| line["verb"] == "create" && line["resource"] == "configmaps");
    assert_eq!(created.map(|line| &line["status"]).collect::<Vec<_>>(), [&json!(201)], "{text}");
    let ids: HashSet<_> = lines.iter().filter_map(|line| line["audit_id"].as_str()).collect();
    assert_eq!(ids.len(), events.iter().filter(|event| **event == "request").count(), "{text}");
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_is_used_again() {
    let cluster = Cluster::get();
    let real: SocketAddr = {
        let url = cluster.endpoint()["server"].as_str().unwrap().to_owned();
        url.trim_start_matches("https://").parse().expect("this test needs the cluster that scripts/cluster runs")
    };
    // Bound, so that no other program takes the port, and refusing.
    let socket = net::runtime().block_on(async { TcpSocket::new_v4() }).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let sandbox = Sandbox::new();
    let own = Way::new("direct", &cluster.kubeconfig, None);
    let text = own.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"] = format!("https://{address}").into();
    let path = sandbox.file("kubeconfig", config.to_string());

    let tunnel = Tunnel::guarded(&path);
    let way = Way::new("guarded", &tunnel.kubeconfig(), None);
    let get = ["get", "namespace", "default", "-o", "name"];
    let raw = ["get", "--raw=/api/v1/namespaces/default"];
    let fails = || {
        let done = way.kubectl(&raw);
        assert!(done.code == 1 && done.stderr.contains("(ServiceUnavailable): mykube: "), "{done:?}");
    };
    fails();
    let (away, is_away) = watch::channel(false);
    net::runtime().spawn(async move {
        let listener = socket.listen(64)?;
        let mut passing = JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await?;
            let mut is_away = is_away.clone();
            passing.spawn(async move {
                let pass = async {
                    let mut far = tokio::net::TcpStream::connect(real).await?;
                    tokio::io::copy_bidirectional(&mut near, &mut far).await
                };
                tokio::select! {
                    _ = is_away.wait_for(|away| *away) => {}
                    _ = pass => {}
                }
            });
        }
        #[expect(unreachable_code, reason = "the loop's type")]
        io::Result::Ok(())
    });
    // The first connection is either refused still or answered.
    let until = Instant::now() + LIMIT;
    while way.kubectl(&get).code != 0 {
        assert!(Instant::now() < until, "not used again");
    }
    let watch = way.start(&["get", "namespaces", "-w", "-o", "name"]);
    watch.prints("namespace/default");
    away.send_replace(true);
    watch.done();
    fails();
    away.send_replace(false);
    assert_eq!(way.kubectl(&get).ok(), "namespace/default\n");
    assert!(tunnel.client.process.is_running() && tunnel.server.process.is_running());
}

/// The audit log up to the first line that is `wanted`. A line is written when its request is over, which a client
/// cannot see.
fn audit_until(tunnel: &Tunnel, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let path = tunnel.server.sandbox.home().join("audit.jsonl");
    let until = Instant::now() + LIMIT;
    loop {
        let text = fs::read_to_string(&path).unwrap();
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        if let Some(at) = lines.iter().position(&wanted) {
            return lines[..=at].to_vec();
        }
        assert!(Instant::now() < until, "no such line:\n{text}");
        thread::yield_now();
    }
}
