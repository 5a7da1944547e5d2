//! `auth-provider: oidc` with a provider of our own, over TLS.
#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::common::{Fixture, base64};

/// A request: path, `Authorization`, and the fields of its form.
#[derive(Clone)]
struct Asked {
    path: String,
    authorization: Option<String>,
    form: HashMap<String, String>,
}

type Answers = Box<dyn FnMut(&Asked) -> (u16, Value) + Send>;

struct Idp {
    url: String,
    ca: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Idp {
    /// Answers the discovery document; `answers` are those of the token endpoint.
    async fn start(answers: impl FnMut(&Asked) -> (u16, Value) + Send + 'static) -> Self {
        let authority = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&authority).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let server = server.signed_by(&key, &Issuer::new(params, authority)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![server.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, base) = (asked.clone(), url.clone());
        let answers: Arc<Mutex<Answers>> = Arc::new(Mutex::new(Box::new(answers)));
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(tls) = acceptor.accept(tcp).await else { continue };
                let service = service_fn(|request| answer(request, &base, &seen, &answers));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
            }
        });
        Self { url, ca, asked, task }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path == "/token").cloned().collect()
    }

    /// A user with these tokens, whose client has the secret `c/ecret`.
    fn user(&self, id: &str, refresh: &str) -> String {
        format!(
            "# by hand\nauth-provider:\n  name: oidc\n  config:\n    idp-issuer-url: {}/\n    client-id: 'k8s:x'\n    client-secret: c/ecret\n    \
             idp-certificate-authority-data: {}\n    id-token: {id}\n    refresh-token: {refresh}\n    extra-scopes: groups",
            self.url,
            base64(&self.ca)
        )
    }
}

async fn answer(
    request: Request<Incoming>,
    base: &str,
    seen: &Mutex<Vec<Asked>>,
    answers: &Mutex<Answers>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let header = request.headers().get(header::AUTHORIZATION);
    let authorization = header.map(|value| value.to_str().unwrap().to_owned());
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let form = url::form_urlencoded::parse(&body).into_owned().collect();
    let asked = Asked { path, authorization, form };
    seen.lock().unwrap().push(asked.clone());
    let mut response = Response::new(Full::default());
    let (status, body) = match asked.path.as_str() {
        "/.well-known/openid-configuration" => {
            response.headers_mut().insert(header::LOCATION, "/moved/discovery".parse().unwrap());
            (302, Value::Null)
        }
        "/moved/discovery" => (200, json!({"issuer": base, "token_endpoint": format!("{base}/token")})),
        "/token" => answers.lock().unwrap()(&asked),
        _ => (404, Value::Null),
    };
    *response.status_mut() = status.try_into().unwrap();
    *response.body_mut() = Full::new(Bytes::from(body.to_string()));
    Ok(response)
}

/// A token that expires in this many seconds.
fn jwt(name: &str, seconds: i64) -> String {
    let exp = time::OffsetDateTime::now_utc().unix_timestamp() + seconds;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(json!({"alg": "RS256"})), part(json!({"sub": name, "exp": exp})))
}

fn bought(id: &str, refresh: Option<&str>) -> (u16, Value) {
    (200, json!({"access_token": "a", "token_type": "Bearer", "id_token": id, "refresh_token": refresh}))
}

fn fixture(user: &str) -> Fixture {
    Fixture::with_user(user)
}

async fn token(f: &Fixture) -> String {
    f.credentials().await.unwrap().token.clone().unwrap()
}

#[tokio::test]
async fn a_good_id_token_is_sent_and_nobody_is_asked() {
    let idp = Idp::start(|_| (500, Value::Null)).await;
    let id = jwt("one", 3600);
    let f = fixture(&idp.user(&id, "r1"));
    let credentials = f.credentials().await.unwrap();
    assert_eq!((credentials.token.as_deref(), credentials.expiring), (Some(id.as_str()), true));
    // Without a refresh token, an id token that expires soon is used to its end.
    let soon = jwt("soon", 30);
    let f = fixture(&idp.user(&soon, "''"));
    assert_eq!(token(&f).await, soon);
    // A fixed token or password wins, whatever the provider has.
    let f = fixture(&format!("token: fixed\n{}", idp.user("nonsense", "r1")));
    assert_eq!(token(&f).await, "fixed");
    assert!(idp.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_refresh_token_buys_the_next_and_both_go_back_into_the_kubeconfig() {
    let (old, new) = (jwt("old", -1), jwt("new", 3600));
    let given = new.clone();
    let idp = Idp::start(move |_| bought(&given, Some("r2"))).await;
    let f = fixture(&idp.user(&old, "r1"));
    let before = fs::read_to_string(f.path("config")).unwrap();
    assert_eq!(token(&f).await, new);
    let after = fs::read_to_string(f.path("config")).unwrap();
    assert_eq!(after, before.replace(&old, &new).replace("refresh-token: r1", "refresh-token: r2"));
    assert!(!f.path("config.lock").exists());

    let asked = idp.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].authorization, Some(format!("Basic {}", base64("k8s%3Ax:c%2Fecret"))));
    let form = HashMap::from(
        [("grant_type", "refresh_token"), ("refresh_token", "r1")].map(|(a, b)| (a.to_owned(), b.to_owned())),
    );
    assert_eq!(asked[0].form, form);
    // The next start finds them.
    assert_eq!(token(&f).await, new);
    assert_eq!(idp.asked().len(), 1);
}

#[tokio::test]
async fn a_client_may_have_to_say_who_it_is_in_the_form() {
    let idp = Idp::start(|asked| match asked.form.get("client_secret").map(String::as_str) {
        Some("c/ecret") if asked.authorization.is_none() && asked.form["client_id"] == "k8s:x" => {
            bought(&jwt("short", 20), None)
        }
        _ => (401, json!({"error": "invalid_client"})),
    })
    .await;
    let f = fixture(&idp.user(&jwt("old", -1), "r1"));
    let c = f.credentialer().await.unwrap();
    c.welcome().await.unwrap();
    assert_eq!(idp.asked().len(), 2);
    // The way is remembered and used at once; a refresh token that was not replaced is used again.
    c.welcome().await.unwrap();
    let asked = idp.asked();
    assert_eq!((asked.len(), asked[2].form["refresh_token"].as_str()), (3, "r1"));
}

#[tokio::test]
async fn what_kubectl_has_fetched_meanwhile_is_taken() {
    let idp = Idp::start(|_| (500, Value::Null)).await;
    let (soon, new) = (jwt("soon", 30), jwt("kubectl's", 3600));
    let f = fixture(&idp.user(&soon, "''"));
    let c = f.credentialer().await.unwrap();
    let given = async || c.welcome().await.unwrap().credentials.unwrap().token.clone().unwrap();
    assert_eq!(given().await, soon);
    let text = fs::read_to_string(f.path("config")).unwrap();
    f.write("config", text.replace(&soon, &new));
    assert_eq!(given().await, new);
    assert!(idp.asked().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_kubeconfig_that_cannot_be_written_does_not_end_the_session() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut count = 1;
    let idp = Idp::start(move |asked| {
        assert_eq!(asked.form["refresh_token"], format!("r{count}"));
        count += 1;
        bought(&jwt("short", 20), Some(&format!("r{count}")))
    })
    .await;
    let f = fixture(&idp.user(&jwt("old", -1), "r1"));
    fs::set_permissions(f.path("config"), fs::Permissions::from_mode(0o400)).unwrap();
    let before = fs::read(f.path("config")).unwrap();
    let c = f.credentialer().await.unwrap();
    for _ in 0..3 {
        c.welcome().await.unwrap();
    }
    assert_eq!(idp.asked().len(), 3);
    assert_eq!(fs::read(f.path("config")).unwrap(), before);
}

/// Another program holds the lock for long, or a file system was full: the old refresh token is spent, so a restart
/// needs the new one.
#[cfg(unix)]
#[tokio::test]
async fn tokens_that_could_not_be_written_are_written_later() {
    use std::os::unix::fs::PermissionsExt as _;
    let (old, new) = (jwt("old", -1), jwt("new", 3600));
    let given = new.clone();
    let idp = Idp::start(move |_| bought(&given, Some("r2"))).await;
    let f = fixture(&idp.user(&old, "r1"));
    let mode = |mode| fs::set_permissions(f.path("config"), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o400);
    let before = fs::read_to_string(f.path("config")).unwrap();
    let c = f.credentialer().await.unwrap();
    c.welcome().await.unwrap();
    assert_eq!(fs::read_to_string(f.path("config")).unwrap(), before);
    mode(0o600);
    let expected = before.replace(&old, &new).replace("refresh-token: r1", "refresh-token: r2");
    tokio::time::pause();
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        if fs::read_to_string(f.path("config")).unwrap() == expected {
            break;
        }
    }
    assert_eq!(fs::read_to_string(f.path("config")).unwrap(), expected);
    assert_eq!(idp.asked().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_said_without_a_token() {
    let old = jwt("hunter2", -1);
    for (answer, expected) in [
        (
            (400, json!({"error": "invalid_grant", "error_description": "spent\u{1b}[31m"})),
            "refused the refresh token (invalid_grant: spent[31m)",
        ),
        ((200, json!({"error": "invalid_grant"})), "refused the refresh token (invalid_grant)"),
        ((500, json!("hunter2")), "refused the refresh token (status 500)"),
        ((200, json!({"access_token": "hunter2"})), "gave no id_token"),
        ((200, json!({"id_token": "hunter2"})), "has no access_token"),
        (bought("hunter2", None), "is no JWT"),
        (bought(&old, None), "has expired; is the clock right?"),
    ] {
        let idp = Idp::start(move |_| answer.clone()).await;
        let message = fixture(&idp.user(&old, "hunter2")).failure().await;
        assert!(message.contains("`auth-provider: oidc` of user \"dev\"") && message.contains(expected), "{message}");
    }
    let idp = Idp::start(|_| (500, Value::Null)).await;
    let changed = |from: &str, to: &str| fixture(&idp.user(&old, "hunter2").replace(from, to));
    let ca = base64(&idp.ca);
    let other = base64(&crate::common::identity().0);
    for (from, to, expected) in [
        (old.as_str(), "hunter2", "is no JWT"),
        ("refresh-token: hunter2", "refresh-token: ''", "there is no refresh-token; log in"),
        ("client-id", "client", "`client-id` of user \"dev\""),
        ("idp-issuer-url", "issuer", "`idp-issuer-url` of user \"dev\""),
        ("https://", "http://idp.example:", "must not cross the network unencrypted"),
        (&ca, &other, "not signed by an authority"),
        (&ca, "aHVudGVyMg==", "`idp-certificate-authority-data` of user \"dev\""),
        ("/\n", "/wrong\n", "has no discovery document (status 404)"),
        ("name: oidc", "name: gcp", "which Kubernetes 1.26 removed"),
        ("name: oidc", "name: azure", "which Kubernetes 1.26 removed"),
        ("name: oidc", "name: hunter2", "that kubectl does not know either"),
        ("name: oidc", "name: null", "that kubectl does not know either"),
    ] {
        let message = changed(from, to).failure().await;
        assert!(message.contains(expected), "{to}\n-> {message}");
    }
    let nothing = fixture("auth-provider: {name: oidc, config: null}").failure().await;
    assert!(nothing.contains("`idp-issuer-url`"), "{nothing}");
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}";
    let both = fixture(&format!("{exec}\n{}", idp.user(&old, "r1"))).failure().await;
    assert!(both.contains("stands beside `exec`"), "{both}");
    assert!(idp.asked().is_empty());
}
