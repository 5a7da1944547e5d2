//! The agent's credentials in use: they expire, rotate, and are refused.

use std::{collections::HashSet, fs, time::Duration};

use mykube_agent_gateway::Settings;

use crate::{common::base64, setup::Setup};

/// Files are read again for every request.
fn eager() -> Settings {
    Settings { reread: Duration::ZERO, ..Settings::default() }
}

fn accept(setup: &Setup, tokens: &[&str]) {
    let tokens: HashSet<_> = tokens.iter().map(|token| format!("Bearer {token}")).collect();
    *setup.api.state.accepted.lock().unwrap() = Some(tokens);
}

/// A plugin that counts its runs and returns `token-1`, `token-2` ...
fn plugin(fixture: &crate::common::Fixture, status: &str) -> String {
    let script = format!(
        "#!/bin/sh\necho run >> '{runs}'\nn=$(wc -l < '{runs}' | tr -d ' ')\n\
         printf '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"token-%s\"{status}}}}}' \"$n\"\n",
        runs = fixture.path("runs").display()
    );
    let path = fixture.write("plugin", script);
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    format!(
        "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  interactiveMode: Never\n  command: {}",
        path.display()
    )
}

fn runs(setup: &Setup) -> usize {
    fs::read_to_string(setup.fixture.path("runs")).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn basic() {
    let mut setup = Setup::new("username: ann\npassword: 'pass:word'").await;
    assert_eq!(setup.client().get("/version").await.status, 200);
    assert_eq!(setup.api.last().header("authorization"), [format!("Basic {}", base64("ann:pass:word"))]);
}

#[tokio::test]
async fn a_plugin_runs_once_for_many_requests() {
    let mut setup = Setup::with(|fixture, _| plugin(fixture, ""), eager()).await;
    let mut clients: Vec<_> = (0..20).map(|_| setup.client()).collect();
    for client in &mut clients {
        client.send("GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(client.get("/version").await.status, 200);
    }
    assert!(setup.api.seen().iter().all(|seen| seen.header("authorization") == ["Bearer token-1"]));
    assert_eq!(runs(&setup), 1);
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew_once_and_the_request_sent_again() {
    let mut setup = Setup::with(|fixture, _| plugin(fixture, ""), eager()).await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    accept(&setup, &["token-2"]);
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(runs(&setup), 2);
    // A credential that stays refused does not run the plugin again and again.
    accept(&setup, &[]);
    for _ in 0..5 {
        let answer = client.get("/version").await;
        assert_eq!((answer.status, answer.text()), (401, "who are you?".into()));
    }
    assert_eq!(runs(&setup), 2);
}

#[tokio::test]
async fn a_refused_id_token_is_looked_for_in_the_kubeconfig() {
    // Claims `{"exp": 4070908800}`; nobody listens at the issuer.
    const CLAIMS: &str = "eyJleHAiOiA0MDcwOTA4ODAwfQ";
    let user = format!(
        "auth-provider:\n  name: oidc\n  config: {{idp-issuer-url: 'https://127.0.0.1:1', client-id: k, id-token: one.{CLAIMS}.sig}}"
    );
    let mut setup = Setup::new(&user).await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    let (one, two) = (format!("one.{CLAIMS}.sig"), format!("two.{CLAIMS}.sig"));
    accept(&setup, &[&two]);
    let text = fs::read_to_string(setup.fixture.path("config")).unwrap();
    setup.fixture.write("config", text.replace(&one, &two));
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().header("authorization"), [format!("Bearer {two}")]);
}

#[tokio::test]
async fn a_refused_request_with_a_body_is_not_sent_again() {
    let mut setup = Setup::with(|fixture, _| plugin(fixture, ""), eager()).await;
    let mut client = setup.client();
    accept(&setup, &["token-2"]);
    client.send("POST /api/v1/namespaces/a/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}").await;
    let refused = client.answer().await;
    assert_eq!(refused.status, 401);
    assert_eq!(setup.api.seen().len(), 1);
    // New credentials are fetched for the next one.
    let mut client = setup.client();
    client.send("DELETE /api/v1/namespaces/a/pods/p HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(runs(&setup), 2);
}

#[tokio::test]
async fn a_401_from_behind_the_api_server_is_not_about_us() {
    let mut setup = Setup::with(|fixture, _| plugin(fixture, ""), eager()).await;
    let answer = setup.client().get("/api/v1/namespaces/a/services/s/proxy/unauthorized").await;
    assert_eq!((answer.status, setup.api.seen().len()), (401, 1));
    assert_eq!(runs(&setup), 1);
}

#[tokio::test]
async fn a_fixed_token_that_is_refused_is_not_tried_twice() {
    let mut setup = Setup::plain().await;
    accept(&setup, &[]);
    assert_eq!(setup.client().get("/version").await.status, 401);
    assert_eq!(setup.api.seen().len(), 1);
}

#[tokio::test]
async fn a_plugin_that_fails_says_nothing_of_itself_to_the_client() {
    let mut setup = Setup::new(
        "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  interactiveMode: Never\n  command: /no/such/hunter2",
    )
    .await;
    let answer = setup.client().get("/api/v1/nodes").await;
    assert_eq!(answer.status, 503);
    let message = answer.message();
    assert!(message.contains("no usable credentials") && !message.contains("hunter2"), "{message}");
    assert!(setup.api.seen().is_empty());
}

#[tokio::test]
async fn a_token_file_is_read_anew() {
    let mut setup = Setup::with(
        |fixture, _| format!("tokenFile: {}", fixture.write("token", "first\n").display()),
        Settings::default(),
    )
    .await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().header("authorization"), ["Bearer first"]);
    setup.fixture.write("token", "second");
    // The file is not due yet, but a refusal makes the agent read it.
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().header("authorization"), ["Bearer first"]);
    accept(&setup, &["second"]);
    assert_eq!(client.get("/version").await.status, 200);

    let mut setup =
        Setup::with(|fixture, _| format!("tokenFile: {}", fixture.write("token", "first\n").display()), eager()).await;
    let mut client = setup.client();
    client.get("/version").await;
    setup.fixture.write("token", "second");
    client.get("/version").await;
    assert_eq!(setup.api.last().header("authorization"), ["Bearer second"]);
    // A file that is missing for a moment stops nothing.
    fs::remove_file(setup.fixture.path("token")).unwrap();
    assert_eq!(client.get("/version").await.status, 200);
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_its_renewal_picked_up() {
    let mut first = Vec::new();
    let mut setup = Setup::with(
        |fixture, authority| {
            let (cert, key) = authority.sign("agent");
            first = cert.der().to_vec();
            let (cert, key) = (fixture.write("cert", cert.pem()), fixture.write("key", key.serialize_pem()));
            format!("client-certificate: {}\nclient-key: {}", cert.display(), key.display())
        },
        eager(),
    )
    .await;
    let mut client = setup.client();
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().certificate.as_ref(), Some(&first));
    let connection = setup.api.last().connection;
    client.get("/version").await;
    assert_eq!(setup.api.last().connection, connection, "the same one is used while nothing changes");

    let (cert, key) = setup.authority.sign("agent");
    setup.fixture.write("cert", cert.pem());
    // Half of a renewal: certificate and key do not belong together, so the old pair is used on.
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().certificate.as_ref(), Some(&first));
    setup.fixture.write("key", key.serialize_pem());
    // After a failure, the next attempt does not come with the next request.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3)).await;
    tokio::time::resume();
    assert_eq!(client.get("/version").await.status, 200);
    assert_eq!(setup.api.last().certificate, Some(cert.der().to_vec()));
    assert_ne!(setup.api.last().connection, connection);
}

#[tokio::test]
async fn the_cas_of_the_kubeconfig_or_nobody() {
    let mut setup = Setup::plain().await;
    let other = crate::api::Authority::new();
    let cluster = format!("server: https://{}\ncertificate-authority-data: {}", setup.api.address, base64(&other.pem));
    setup.fixture.write("config", crate::common::config(&cluster, "token: t0k3n"));
    setup.rebuild().await;
    assert_eq!(setup.client().get("/api/v1/nodes").await.status, 502);

    let cluster = format!("server: https://{}\ninsecure-skip-tls-verify: true", setup.api.address);
    setup.fixture.write("config", crate::common::config(&cluster, "token: t0k3n"));
    setup.rebuild().await;
    assert_eq!(setup.client().get("/api/v1/nodes").await.status, 200);

    let cluster = format!(
        "server: https://{}\ntls-server-name: api.internal\ncertificate-authority-data: {}",
        setup.api.address,
        base64(&setup.authority.pem)
    );
    setup.fixture.write("config", crate::common::config(&cluster, "token: t0k3n"));
    setup.rebuild().await;
    let answer = setup.client().get("/api/v1/nodes").await;
    assert!(answer.status == 502 && answer.message().contains("cannot be verified"), "{}", answer.message());
    let reason = setup.log.wait(3).await[2]["reason"].to_string();
    assert!(reason.contains("it is for other names"), "{reason}");
}
