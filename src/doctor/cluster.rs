//! The cluster side: kubeconfig, API server, rights. Requests go through the gateway that serves clients in guarded
//! mode, so that the checks use what clients will use.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, header};
use mykube_agent_gateway::{Audit, Caller, Forwarder, Gateway, HeadRoom, Policy, Settings};
use mykube_agent_upstream::{Environment, KubeconfigError, KubeconfigSource, Upstream};
use mykube_dial::Trust;
use mykube_protocol::text::printable;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::report::Report;
use crate::{events::Name, prompt};

/// How long the API server may take to answer: connecting may take 10 s, and the TLS handshake 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const ANSWER_MAX: usize = 256 * 1024;
/// Longest name that is shown.
const NAME_MAX: usize = 200;

/// The three checks.
pub(super) async fn check(
    report: &mut Report,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
    ca_file: Option<PathBuf>,
) {
    let set = std::env::var_os("KUBECONFIG").is_some_and(|list| !list.is_empty());
    let asked = set || kubeconfig.is_some() || context.is_some();
    let source = KubeconfigSource { kubeconfig, context, ..Default::default() };
    let environment = Environment::from_system(prompt::can_ask());
    let loaded = match Trust::new(ca_file.as_deref()) {
        Ok(trust) => Upstream::load(&source, &environment, trust).await.map_err(Some),
        Err(error) => {
            report.fail(Name::Kubeconfig, error);
            Err(None)
        }
    };
    let upstream = match loaded {
        Ok(upstream) => Arc::new(upstream),
        Err(None) => return report.skip_rest("depends on --ca-file"),
        Err(Some(KubeconfigError::NoneFound(_) | KubeconfigError::Empty(_))) if !asked => {
            return report.skip_rest("there is none here, and a laptop needs none: run this beside the cluster too");
        }
        Err(Some(error)) => {
            report.fail(Name::Kubeconfig, error);
            return report.skip_rest("depends on the kubeconfig");
        }
    };
    let forwarder = Arc::new(Forwarder::new(upstream.clone(), Settings::default()));
    if let Err(error) = forwarder.check().await {
        report.fail(Name::Kubeconfig, error);
        return report.skip_rest("depends on the kubeconfig");
    }
    let unverified = if upstream.insecure { ", which the kubeconfig says not to verify" } else { "" };
    report.ok(
        Name::Kubeconfig,
        format!("cluster {} at {}{unverified}; its credentials can be had", upstream.cluster_name, upstream.address()),
    );
    if let Err(error) = upstream.check().await {
        report.fail(Name::ApiServer, error);
        return report.skip_rest("depends on the API server");
    }
    let policy = Arc::new(Policy::default().or_as(upstream.impersonation.as_ref()));
    let api = Api { gateway: Gateway::new(forwarder.clone(), Audit::off()), policy };
    match api.version().await {
        Ok(version) => report.ok(Name::ApiServer, version),
        Err(problem) => {
            // The client is not told names of this side; the operator is.
            report.fail(Name::ApiServer, forwarder.unconnected().unwrap_or(problem));
            return report.skip_rest("depends on the API server");
        }
    }
    match api.rights().await {
        Ok(rights) => report.ok(Name::Rbac, rights),
        Err(problem) => report.fail(Name::Rbac, problem),
    }
}

/// Which of these namespaces do not exist, as far as the credentials may see.
pub(crate) async fn missing_namespaces(
    forwarder: Arc<Forwarder>,
    upstream: &Upstream,
    names: &[String],
) -> Vec<String> {
    let policy = Arc::new(Policy::default().or_as(upstream.impersonation.as_ref()));
    let api = Api { gateway: Gateway::new(forwarder, Audit::off()), policy };
    let mut missing = Vec::new();
    for name in names {
        let answer = api.call(Method::GET, &format!("/api/v1/namespaces/{name}"), None).await;
        if matches!(answer, Ok((StatusCode::NOT_FOUND, _))) {
            missing.push(name.clone());
        }
    }
    missing
}

/// Checks the API server, as a client reaches it.
struct Api {
    gateway: Gateway,
    policy: Arc<Policy>,
}

impl Api {
    async fn version(&self) -> Result<String, String> {
        match self.call(Method::GET, "/version", None).await? {
            (status, body) if status.is_success() => match body["gitVersion"].as_str() {
                Some(version) => Ok(format!("answers, Kubernetes {}", printable(version, NAME_MAX))),
                None => {
                    Err("answers, but not as a Kubernetes API server does: check `server` in the kubeconfig".into())
                }
            },
            // The API server accepts our credentials; the rights are another check.
            (StatusCode::FORBIDDEN, _) => Ok("answers (and keeps its version to itself)".into()),
            (StatusCode::UNAUTHORIZED, _) => Err(
                "does not accept the kubeconfig's credentials (401): they have expired or were revoked. Log in to the \
                 cluster again"
                    .into(),
            ),
            (status, body) => Err(said(status, &body)),
        }
    }

    /// Checks who we are, and whether we may list namespaces, which nearly everybody wants to.
    async fn rights(&self) -> Result<String, String> {
        let mut who = "who we are is not told (Kubernetes before 1.28)".to_owned();
        for version in ["v1", "v1beta1"] {
            let review = json!({"apiVersion": format!("authentication.k8s.io/{version}"), "kind": "SelfSubjectReview"});
            let path = format!("/apis/authentication.k8s.io/{version}/selfsubjectreviews");
            match self.call(Method::POST, &path, Some(review)).await? {
                (StatusCode::NOT_FOUND, _) => continue,
                (StatusCode::FORBIDDEN, body) => return Err(no_rights(&body)),
                (status, body) if status.is_success() => who = identity(&body["status"]["userInfo"]),
                (status, body) => return Err(said(status, &body)),
            }
            break;
        }
        let attributes = json!({"verb": "list", "resource": "namespaces"});
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        match self.call(Method::POST, path, Some(review)).await? {
            (status, body) if status.is_success() => Ok(match body["status"]["allowed"].as_bool() {
                Some(true) => format!("{who}, and may list namespaces"),
                _ => format!(
                    "{who}. Warning: may not list namespaces, so clients must know the names of theirs (a \
                     ClusterRoleBinding to a ClusterRole that may list namespaces would show them; a RoleBinding cannot)"
                ),
            }),
            (StatusCode::FORBIDDEN, body) => Err(no_rights(&body)),
            (status, body) => Err(said(status, &body)),
        }
    }

    /// Makes one request through the gateway.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value), String> {
        let caller =
            Caller { name: "mykube doctor".into(), id: None, policy: self.policy.clone(), heads: HeadRoom::default() };
        let broken = |error: &dyn std::fmt::Display| format!("the request was broken off: {error}");
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = Request::builder().method(method).uri(path).body(body).map_err(|error| broken(&error))?;
        let answer = timeout(ANSWER_TIMEOUT, self.gateway.request(caller, request, ANSWER_MAX))
            .await
            .map_err(|_| format!("did not answer within {} s", ANSWER_TIMEOUT.as_secs()))?
            .map_err(|error| broken(&error))?;
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let is_text = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let body = answer.body();
        let text = || if is_text { String::from_utf8_lossy(body).into() } else { Value::Null };
        Ok((answer.status(), serde_json::from_slice(body).unwrap_or_else(|_| text())))
    }
}

/// The message of a Kubernetes `Status`, ours or the API server's, or the plain text that discovery has instead.
fn said(status: StatusCode, body: &Value) -> String {
    match body["message"].as_str().or(body.as_str().filter(|text| !text.is_empty())) {
        Some(message) => printable(message, 4 * NAME_MAX),
        None => format!(
            "answers {}, not as a Kubernetes API server does: check `server` in the kubeconfig",
            status.as_u16()
        ),
    }
}

fn no_rights(body: &Value) -> String {
    format!(
        "this identity has not even the rights that every user of a cluster has ({}): are there credentials in the \
         kubeconfig, and does the cluster know them?",
        printable(body["message"].as_str().unwrap_or("403"), NAME_MAX)
    )
}

fn identity(user: &Value) -> String {
    let name = printable(user["username"].as_str().unwrap_or("?"), NAME_MAX);
    let groups: Vec<_> = user["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let groups = printable(&groups.join(", "), NAME_MAX);
    if groups.is_empty() { format!("we are {name}") } else { format!("we are {name} ({groups})") }
}
