//! Exec plugins: real processes (`sh` with a script), right and wrong.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

mod common;

use std::{fs, sync::Arc, time::Duration};

use common::{Fixture, base64, identity};
use mykube_agent_upstream::{Credentialer, KubeconfigError};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

const V1: &str = "client.authentication.k8s.io/v1";

/// A user whose plugin is `sh` with this script; the script finds the fixture's directory in `$DIR`.
fn plugin(script: &str) -> Fixture {
    plugin_of(json!({}), script)
}

/// A plugin with further settings of `exec`.
fn plugin_of(more: Value, script: &str) -> Fixture {
    let f = Fixture::new();
    let mut exec = json!({
        "apiVersion": V1,
        "command": "sh",
        "args": [f.write("plugin.sh", script)],
        "env": [{"name": "DIR", "value": f.dir.path()}],
        "interactiveMode": "Never",
    });
    for (name, value) in more.as_object().unwrap() {
        exec[name] = value.clone();
    }
    with_exec(f, &exec)
}

fn with_exec(mut f: Fixture, exec: &Value) -> Fixture {
    let user = format!("exec: {exec}");
    f.source.kubeconfig = Some(f.write("config", common::config("server: https://10.1.2.3:6443", &user)));
    f
}

fn answer(status: &Value) -> String {
    format!(
        "echo run >> $DIR/runs\ncat <<'END'\n{}\nEND\n",
        json!({"apiVersion": V1, "kind": "ExecCredential", "status": status})
    )
}

fn runs(f: &Fixture) -> usize {
    fs::read_to_string(f.path("runs")).map_or(0, |text| text.lines().count())
}

/// Fails the test instead of waiting for ever.
async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.unwrap()
}

/// RFC 3339, this many seconds from now.
fn in_seconds(seconds: i64) -> String {
    let at = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

#[tokio::test]
async fn a_token_without_end_is_asked_for_once() {
    let f = plugin(&answer(&json!({"token": "from-plugin"})));
    let c = Arc::new(f.credentialer().await.unwrap());
    assert_eq!(runs(&f), 0, "loading runs nothing");
    let (a, b, d) = tokio::join!(c.welcome(), c.welcome(), c.welcome());
    for welcome in [a, b, d] {
        let credentials = welcome.unwrap().credentials.unwrap();
        assert_eq!(credentials.token.as_deref(), Some("from-plugin"));
        assert!(!credentials.expiring);
    }
    assert_eq!(runs(&f), 1);
}

#[tokio::test]
async fn a_certificate_and_yaml_and_v1beta1() {
    let (certificate, key) = identity();
    let f = plugin(&answer(&json!({"clientCertificateData": certificate, "clientKeyData": key, "token": "t"})));
    let credentials = f.credentials().await.unwrap();
    assert!(credentials.certificate.is_some() && credentials.key.is_some());
    assert_eq!(credentials.token.as_deref(), Some("t"));

    let beta = "client.authentication.k8s.io/v1beta1";
    let script = format!("printf 'apiVersion: {beta}\\nkind: ExecCredential\\nstatus:\\n  token: beta\\n'");
    let f = plugin_of(json!({"apiVersion": beta, "interactiveMode": null}), &script);
    assert_eq!(f.credentials().await.unwrap().token.as_deref(), Some("beta"));
}

#[tokio::test]
async fn a_fixed_token_password_or_certificate_keeps_the_plugin_from_running() {
    let (certificate, key) = identity();
    let certificate = format!("client-certificate-data: {}\nclient-key-data: {}", base64(&certificate), base64(&key));
    for fixed in ["token: fixed", "username: ann\npassword: pw", &certificate] {
        let mut f = Fixture::new();
        let script = f.write("plugin.sh", "exit 1");
        // A plugin that does not run needs no terminal, either.
        let exec = json!({"apiVersion": V1, "command": "sh", "args": [script], "interactiveMode": "Always"});
        let user = format!("{fixed}\nexec: {exec}");
        f.source.kubeconfig = Some(f.write("config", common::config("server: https://h", &user)));
        assert!(f.credentials().await.is_ok());
    }
}

#[tokio::test]
async fn it_is_told_of_the_cluster_where_asked() {
    let (ca, _) = identity();
    let script = "printf %s \"$KUBERNETES_EXEC_INFO\" > $DIR/info; echo \"$HOME_OF_TEST $EXTRA\" > $DIR/env";
    let mut f = plugin_of(
        json!({
            "provideClusterInfo": true,
            "env": [{"name": "EXTRA", "value": "given"}, {"name": "DIR", "value": "PLACE"}],
        }),
        &format!("{script}\n{}", answer(&json!({"token": "t"}))),
    );
    let text = fs::read_to_string(f.path("config")).unwrap().replace("PLACE", f.dir.path().to_str().unwrap());
    let cluster = format!(
        "server: https://10.1.2.3:6443\n    tls-server-name: inner\n    certificate-authority-data: {}\n    extensions:\n    \
         - name: client.authentication.k8s.io/exec\n      extension: {{audience: me}}",
        base64(&ca)
    );
    f.source.kubeconfig = Some(f.write("config", text.replace("server: https://10.1.2.3:6443", &cluster)));
    f.var("HOME_OF_TEST", "inherited");
    f.credentials().await.unwrap();
    let info: Value = serde_json::from_str(&fs::read_to_string(f.path("info")).unwrap()).unwrap();
    assert_eq!(
        info,
        json!({
            "apiVersion": V1,
            "kind": "ExecCredential",
            "spec": {
                "interactive": false,
                "cluster": {
                    "server": "https://10.1.2.3:6443",
                    "tls-server-name": "inner",
                    "certificate-authority-data": base64(&ca),
                    "config": {"audience": "me"},
                }
            }
        })
    );
    assert_eq!(fs::read_to_string(f.path("env")).unwrap(), "inherited given\n");

    let told = plugin_of(json!({"provideClusterInfo": true}), &format!("{script}\n{}", answer(&json!({"token": "t"}))));
    let f = told.changed(
        "server: https://10.1.2.3:6443",
        "server: https://h\n    insecure-skip-tls-verify: true\n    disable-compression: true",
    );
    f.credentials().await.unwrap();
    let info: Value = serde_json::from_str(&fs::read_to_string(f.path("info")).unwrap()).unwrap();
    let cluster =
        json!({"server": "https://h", "insecure-skip-tls-verify": true, "disable-compression": true, "config": null});
    assert_eq!(info["spec"]["cluster"], cluster);

    let f = plugin(&format!("{script}\n{}", answer(&json!({"token": "t"}))));
    f.credentials().await.unwrap();
    let info: Value = serde_json::from_str(&fs::read_to_string(f.path("info")).unwrap()).unwrap();
    assert_eq!(info["spec"], json!({"interactive": false}));
}

#[tokio::test]
async fn its_command_is_found_beside_the_kubeconfig_or_in_path() {
    let sh = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join("sh"))
        .find(|sh| sh.exists())
        .unwrap();
    for command in ["./bin/my-plugin", "bin/my-plugin", "my-plugin"] {
        let mut f = Fixture::new();
        fs::create_dir(f.path("bin")).unwrap();
        std::os::unix::fs::symlink(&sh, f.path("bin/my-plugin")).unwrap();
        let script =
            f.write("plugin.sh", format!("DIR={}\n{}", f.dir.path().display(), answer(&json!({"token": "t"}))));
        let mut path = f.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        if !command.contains('/') {
            f.var("PATH", path);
        }
        let exec = json!({"apiVersion": V1, "command": command, "args": [script], "interactiveMode": "Never"});
        assert_eq!(with_exec(f, &exec).credentials().await.unwrap().token.as_deref(), Some("t"), "{command}");
    }
}

#[tokio::test]
async fn a_name_is_looked_for_on_our_own_path_and_not_on_its_own() {
    let plugin = |f: &Fixture, name: &str, token: &str, mode: u32| {
        let answer = json!({"apiVersion": V1, "kind": "ExecCredential", "status": {"token": token}});
        let path = f.write(name, format!("#!/bin/sh\necho '{answer}'\n"));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let with_path = |mut f: Fixture, path: &str| {
        f.var("PATH", path);
        let env = json!([{"name": "PATH", "value": f.path("its")}]);
        with_exec(f, &json!({"apiVersion": V1, "command": "my-auth", "env": env, "interactiveMode": "Never"}))
    };
    let f = Fixture::new();
    plugin(&f, "its/my-auth", "its", 0o700);
    plugin(&f, "ours/my-auth", "ours", 0o700);
    plugin(&f, "data/my-auth", "data", 0o600);
    fs::create_dir_all(f.path("dir/my-auth")).unwrap();
    let dirs = ["dir", "data", "ours"].map(|dir| f.path(dir));
    let path = std::env::join_paths(dirs).unwrap().into_string().unwrap();
    assert_eq!(with_path(f, &path).credentials().await.unwrap().token.as_deref(), Some("ours"));

    let f = Fixture::new();
    plugin(&f, "its/my-auth", "its", 0o700);
    assert!(with_path(f, "/nonexistent").failure().await.contains("was not found: install it"));
}

#[tokio::test]
async fn answers_that_kubectl_takes() {
    let printed = |value: Value| format!("cat <<'END'\n{value}\n\nEND");
    for (script, expiring) in [
        (printed(json!({"apiVersion": V1, "status": {"token": "good"}})), false),
        (
            printed(json!({"apiVersion": V1, "kind": null, "status": {"token": "good", "expirationTimestamp": null}})),
            false,
        ),
        (
            printed(
                json!({"apiVersion": V1, "metadata": {"name": "x"}, "status": {"token": "good", "colour": "blue"}}),
            ),
            false,
        ),
        (
            printed(
                json!({"apiVersion": V1, "status": {"token": "good", "expirationTimestamp": "2099-01-01T2:00:00,5+02:00"}}),
            ),
            true,
        ),
        (
            format!("printf 'apiVersion: {V1}\\nkind: ExecCredential\\nstatus:\\n  token: bad\\n  token: good\\n'"),
            false,
        ),
    ] {
        let credentials = plugin(&script).credentials().await.unwrap();
        assert_eq!((credentials.token.as_deref(), credentials.expiring), (Some("good"), expiring), "{script}");
    }
}

#[tokio::test]
async fn an_unknown_plugin_shows_how_to_install_it() {
    for command in ["no-such-plugin", "./no-such-plugin"] {
        let exec = json!({
            "apiVersion": V1,
            "command": command,
            "args": ["--password=hunter2"],
            "interactiveMode": "Never",
            "installHint": "Get it:\n\u{1b}[31mbrew install no-such-plugin\u{202e}",
        });
        let message = with_exec(Fixture::new(), &exec).failure().await;
        assert!(message.contains("no-such-plugin\" of user \"dev\""), "{message}");
        assert!(message.contains("was not found: install it"), "{message}");
        assert!(message.ends_with("The kubeconfig says: Get it: / [31mbrew install no-such-plugin"), "{message}");
    }
    let f = Fixture::new();
    let not_executable = f.write("data", "x");
    let exec = json!({"apiVersion": V1, "command": not_executable, "interactiveMode": "Never"});
    assert!(with_exec(f, &exec).failure().await.contains("cannot be started: Permission denied"));
}

#[tokio::test]
async fn its_failure_shows_the_end_of_what_it_said_and_never_its_output() {
    let f = plugin(
        "echo '{\"token\":\"hunter2\"}'; yes filler | head -n 3000 >&2; printf 'log in first:\\n\\033[1m run x\\033[0m' >&2; exit 7",
    );
    let message = f.failure().await;
    assert!(message.contains("failed (exit status: 7)"), "{message}");
    assert!(message.ends_with("filler / log in first: / [1m run x[0m"), "{message}");
    assert!(message.len() < 1000, "{message}");
    assert!(plugin("exit 1").failure().await.contains("it said nothing on standard error"));
}

#[tokio::test]
async fn answers_that_are_no_credential() {
    let printed = |value: Value| format!("cat <<'END'\n{value}\nEND");
    let with = |status: Value| printed(json!({"apiVersion": V1, "kind": "ExecCredential", "status": status}));
    let (certificate, key) = identity();
    let (other, _) = identity();
    let good = json!({"apiVersion": V1, "kind": "ExecCredential", "status": {"token": "hunter2"}});
    for (script, expected) in [
        (String::new(), "did not print an ExecCredential"),
        (format!("{}\necho bye", printed(good.clone())), "did not print an ExecCredential"),
        (format!("{}\n{}", printed(good.clone()), printed(good)), "did not print an ExecCredential"),
        ("echo hunter2".into(), "did not print an ExecCredential"),
        ("printf '\\377hunter2'".into(), "did not print an ExecCredential"),
        (
            printed(json!({"apiVersion": V1, "kind": "Secret", "status": {"token": "hunter2"}})),
            "did not print an ExecCredential",
        ),
        (
            printed(json!({"kind": "ExecCredential", "apiVersion": "hunter2", "status": {"token": "hunter2"}})),
            "answered in another apiVersion (none of its) than the kubeconfig's (client.authentication.k8s.io/v1)",
        ),
        (
            printed(json!({"kind": "ExecCredential", "status": {"token": "hunter2"}})),
            "answered in another apiVersion (none of its)",
        ),
        (
            printed(json!({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v2\u{1b}"})),
            "apiVersion (client.authentication.k8s.io/v2) than",
        ),
        (printed(json!({"apiVersion": V1, "kind": "ExecCredential"})), "`status` is missing"),
        (with(json!({})), "gave no credential"),
        (with(json!({"token": ""})), "gave no credential"),
        (with(json!({"token": "hunter2\nx"})), "spaces, line ends"),
        (with(json!({"token": "hunter2\n"})), "spaces, line ends"),
        (with(json!({"clientCertificateData": certificate})), "only one of"),
        (with(json!({"clientCertificateData": "hunter2", "clientKeyData": key})), "no PEM certificate"),
        (with(json!({"clientCertificateData": certificate, "clientKeyData": "hunter2"})), "no usable PEM key"),
        (with(json!({"clientCertificateData": other, "clientKeyData": key})), "do not belong together"),
        (with(json!({"token": "t", "expirationTimestamp": ""})), "that is not like 2030-01-31T18:00:00Z"),
        (with(json!({"token": "t", "expirationTimestamp": "2099-01-01 00:00:00Z"})), "that is not like"),
        (with(json!({"token": "t", "expirationTimestamp": 4_070_908_800_u32})), "did not print an ExecCredential"),
        (with(json!({"token": "t", "expirationTimestamp": "hunter2"})), "that is not like 2030-01-31T18:00:00Z"),
        ("yes hunter2".into(), "far more than a credential"),
        ("yes hunter2 | head -c 300000".into(), "far more than a credential"),
    ] {
        let message = plugin(&script).failure().await;
        assert!(message.contains(expected), "{script}\n-> {message}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be() {
    for (change, expected) in [
        (json!({"apiVersion": null}), "`exec.apiVersion`"),
        (json!({"apiVersion": "client.authentication.k8s.io/v1alpha1"}), "Kubernetes 1.24 removed"),
        (json!({"apiVersion": "hunter2"}), "must be client.authentication.k8s.io/v1 "),
        (json!({"command": ""}), "`exec.command`"),
        (json!({"interactiveMode": null}), "`exec.interactiveMode`"),
        (json!({"interactiveMode": "Always"}), "needs a terminal"),
        (json!({"env": [{"value": "hunter2"}]}), "`exec.env`"),
        (json!({"env": [{"name": "a=b", "value": "hunter2"}]}), "`exec.env`"),
        (json!({"args": ["hunter2\u{0}"]}), "`exec.args`"),
    ] {
        let message = plugin_of(change, "").failure().await;
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_stopped_with_what_it_started() {
    hangs(false, "wait for it").await;
}

#[tokio::test]
async fn so_is_one_whose_words_are_seen_as_they_come() {
    hangs(true, "see what it said above").await;
}

async fn hangs(terminal: bool, said: &str) {
    // The pipe ends when its last writer, the plugin's own child, has ended.
    let mut f = plugin("echo wait for it >&2; exec 3> $DIR/alive; sleep 1000 & echo up >&3; wait");
    f.env.terminal = terminal;
    let fifo = f.path("alive");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut alive = tokio::net::unix::pipe::OpenOptions::new().open_receiver(&fifo).unwrap();
    f.source.exec_timeout = Duration::from_secs(3600);
    let mut run = tokio::spawn(async move { f.failure().await });
    let mut up = [0; 3];
    tokio::select! {
        read = alive.read_exact(&mut up) => read.unwrap(),
        ended = &mut run => panic!("{ended:?}"),
    };
    assert_eq!(&up, b"up\n");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3601)).await;
    let message = run.await.unwrap();
    assert!(message.contains("gave no credential within 3600 s"), "{message}");
    assert!(message.ends_with(said), "{message}");
    tokio::time::resume();
    let mut rest = Vec::new();
    bounded(alive.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_credential_is_renewed_before_its_end() {
    let f = plugin("echo run >> $DIR/runs; cat $DIR/answer");
    let say = |token: &str, seconds| {
        let status = json!({"token": token, "expirationTimestamp": in_seconds(seconds)});
        f.write("answer", json!({"apiVersion": V1, "kind": "ExecCredential", "status": status}).to_string());
    };
    say("one", 3600);
    let mut c = f.credentialer().await.unwrap();
    let credentials = c.welcome().await.unwrap().credentials.unwrap();
    assert_eq!(credentials.token.as_deref(), Some("one"));
    assert!(credentials.expiring);
    say("two", 3600);

    tokio::time::pause();
    assert!(
        tokio::time::timeout(Duration::from_secs(47 * 60), c.changed()).await.is_err(),
        "not before 80 % of its life"
    );
    assert_eq!(runs(&f), 1);
    tokio::time::advance(Duration::from_secs(65)).await;
    tokio::time::resume();
    assert_eq!(bounded(c.changed()).await.credentials.unwrap().token.as_deref(), Some("two"));
    assert_eq!(runs(&f), 2);
    c.welcome().await.unwrap();
    assert_eq!(runs(&f), 2, "a fresh credential is not asked for again");
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_old_credential_until_its_end() {
    let f = plugin("echo run >> $DIR/runs; cat $DIR/answer");
    let say = |seconds| {
        let status = json!({"token": "one", "expirationTimestamp": in_seconds(seconds)});
        f.write("answer", json!({"apiVersion": V1, "kind": "ExecCredential", "status": status}).to_string());
    };
    say(600);
    let c = f.credentialer().await.unwrap();
    c.welcome().await.unwrap();
    fs::remove_file(f.path("answer")).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(500)).await;
    tokio::time::resume();
    assert_eq!(c.welcome().await.unwrap().credentials.unwrap().token.as_deref(), Some("one"));
    assert_eq!(runs(&f), 2, "it was asked");

    say(-5);
    let c = f.credentialer().await.unwrap();
    c.welcome().await.unwrap();
    fs::remove_file(f.path("answer")).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(500)).await;
    tokio::time::resume();
    assert!(matches!(c.welcome().await, Err(KubeconfigError::ExecFailed { .. })), "over is over");
}

#[tokio::test]
async fn nothing_runs_after_the_credentialer_is_gone() {
    let f = plugin(&answer(&json!({"token": "t", "expirationTimestamp": in_seconds(100)})));
    let upstream = Arc::new(f.load().await.unwrap());
    let c = Credentialer::new(Arc::clone(&upstream));
    c.welcome().await.unwrap();
    drop(c);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(1000)).await;
    assert_eq!(runs(&f), 1);
    assert_eq!(Arc::strong_count(&upstream), 1);
}
