//! The server's audit log and the cluster's own have the same requests, made as the same user.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::{Cluster, LIMIT, Mykube, Namespace, Sandbox, Tunnel, Way};

#[test]
fn a_request_has_the_same_audit_id_in_the_clusters_log() {
    let namespace = Namespace::create(&Cluster::get(), "joined");
    let direct = namespace.direct();
    let image = format!("--image={}", namespace.cluster.image);
    direct.kubectl(&["create", "rolebinding", "editors", "--clusterrole=edit", "--group=editors"]).ok();
    direct.kubectl(&["run", "joined", &image, "--restart=Never", "--", "sleep", "100000"]).ok();
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/joined", "--timeout=60s"]).ok();
    let own = direct.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).ok();

    for as_guest in [&[][..], &["--as=guest", "--as-group=editors"]] {
        let flags = [&["--audit-log=audit.jsonl"], as_guest].concat();
        let tunnel = Tunnel::guarded_with(&namespace.cluster.kubeconfig, &flags);
        let way = namespace.through("guarded", &tunnel.kubeconfig());
        assert_eq!(way.kubectl(&["exec", "joined", "--", "echo", "hello"]).ok(), "hello\n");
        way.kubectl(&["get", "pod", "joined"]).ok();
        for subresource in ["exec", ""] {
            let ours = line_of(&tunnel.server.sandbox.home().join("audit.jsonl"), "ours", |line| {
                line["name"] == "joined" && line["subresource"].as_str().unwrap_or_default() == subresource
            });
            let theirs = line_of(&clusters_log(), "the cluster's", |line| {
                line["auditID"] == ours["audit_id"] && line["stage"] == "ResponseComplete"
            });
            let object = &theirs["objectRef"];
            assert_eq!(object["namespace"], *namespace.name, "{theirs}");
            for field in ["resource", "subresource", "namespace", "name"] {
                assert_eq!(object[field], ours[field], "{field}\n{ours}\n{theirs}");
            }
            assert_eq!(theirs["verb"], ours["verb"], "{ours}\n{theirs}");
            assert_eq!(theirs["responseStatus"]["code"], ours["status"], "{ours}\n{theirs}");
            assert_eq!(theirs["userAgent"], ours["user_agent"], "{ours}\n{theirs}");
            assert_eq!(theirs["user"]["username"], *own, "{theirs}");
            match as_guest {
                [] => assert!(theirs.get("impersonatedUser").is_none(), "{theirs}"),
                _ => {
                    assert_eq!(theirs["impersonatedUser"]["username"], "guest", "{theirs}");
                    let groups = theirs["impersonatedUser"]["groups"].as_array().expect("groups");
                    assert!(groups.contains(&json!("editors")), "{theirs}");
                }
            }
        }
    }
}

#[test]
fn a_kubeconfig_that_impersonates_does_so_in_guarded_mode_too() {
    let cluster = Cluster::get();
    let sandbox = Sandbox::new();
    let text = Way::new("direct", &cluster.kubeconfig, None)
        .kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"])
        .ok();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    let user = &mut config["users"][0]["user"];
    user["as"] = json!("ann");
    user["as-groups"] = json!(["devs", "ops"]);
    user["as-uid"] = json!("42");
    user["as-user-extra"] = json!({"example.org/scope": ["view", "edit"]});
    let kubeconfig = sandbox.file("impersonates", config.to_string());
    let whoami = ["auth", "whoami", "-o", "jsonpath={.status.userInfo}"];
    let ways = |tunnel: &Tunnel| Way::new("guarded", &tunnel.kubeconfig(), None);

    let tunnel = Tunnel::guarded_with(&kubeconfig, &[]);
    let [expected, got] = [Way::new("direct", &kubeconfig, None), ways(&tunnel)].map(|way| way.kubectl(&whoami).ok());
    let told = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(told(&expected), told(&got));
    assert_eq!((&told(&got)["username"], &told(&got)["uid"]), (&json!("ann"), &json!("42")));
    let refused = ways(&tunnel).kubectl(&["--as=ann", "get", "namespaces"]);
    assert!(refused.code == 1 && refused.stderr.contains("--as of your own is refused"), "{refused:?}");

    // The check makes its requests as clients' requests are made.
    let doctor = Mykube::new("doctor").arg("--kubeconfig").arg(&kubeconfig).start().process.done();
    assert!(doctor.code == 0 && doctor.stdout.contains("we are ann (devs, ops, system:authenticated)"), "{doctor:?}");

    // The flag replaces the kubeconfig's user with all its groups.
    let tunnel = Tunnel::guarded_with(&kubeconfig, &["--as=bob"]);
    let bob = told(&ways(&tunnel).kubectl(&whoami).ok());
    assert_eq!(bob, json!({"username": "bob", "groups": ["system:authenticated"]}));
}

/// The log of the API server.
fn clusters_log() -> PathBuf {
    let path = std::env::var_os("MYKUBE_CLUSTER_AUDIT_LOG");
    path.expect("this test needs the cluster that scripts/cluster runs, started anew with an audit log").into()
}

/// Waits for a line; a log may be rotated in between.
fn line_of(path: &Path, whose: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let stem = path.file_stem().expect("a file").to_str().expect("plain text").to_owned();
    let until = Instant::now() + LIMIT;
    loop {
        let files = fs::read_dir(path.parent().expect("a directory")).unwrap();
        let files = files.map(|file| file.unwrap().path());
        for file in files.filter(|file| file.file_name().unwrap().to_string_lossy().starts_with(&stem)) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            if let Some(line) = lines.into_iter().find(&wanted) {
                return line;
            }
        }
        assert!(Instant::now() < until, "no such line in {whose}");
        thread::yield_now();
    }
}
