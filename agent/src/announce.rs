//! Codes told as Kubernetes Events of the pod that the agent runs in (`--announce-event`).
//!
//! Anybody who may read Events in that namespace can read the code. The pod's own service account writes them, also if
//! clients are served with a kubeconfig; it needs `create` on `events` in its namespace and nothing else.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, header};
use mykube_agent_gateway::{Audit, Caller, Forwarder, Gateway, HeadRoom, Settings};
use mykube_agent_upstream::{Environment, KubeconfigError, KubeconfigSource, Upstream, incluster, moment::moment};
use mykube_dial::Trust;
use mykube_protocol::text::printable;
use serde_json::{Value, json};
use tokio::time::timeout;

/// How long the API server may take to store an Event.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const ANSWER_MAX: usize = 64 * 1024;
/// Longest message of the API server that is shown.
const MESSAGE_MAX: usize = 300;
/// Longest name of a pod (an RFC 1123 subdomain).
const POD_NAME_MAX: usize = 253;

/// Why a code cannot be told as an Event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// This is no pod, or one without a service account.
    #[error("--announce-event needs a pod with a service account: leave it out elsewhere")]
    NoPod,
    /// The pod does not know its own name.
    #[error("--announce-event needs the pod's name: set MYKUBE_POD_NAME from metadata.name (the chart does)")]
    NoName,
    /// The service account cannot be used.
    #[error(transparent)]
    ServiceAccount(#[from] KubeconfigError),
    /// The API server refused the Event.
    #[error("the code is not told as an Event: {0}")]
    Failed(String),
}

/// Writes Events about one pod.
pub struct Announcer {
    gateway: Gateway,
    namespace: String,
    pod: String,
    uid: Option<String>,
}

impl Announcer {
    /// For this pod: its name comes from `MYKUBE_POD_NAME`, else `HOSTNAME`; `MYKUBE_POD_UID`, if set, lets `kubectl
    /// describe pod` find the Events.
    ///
    /// # Errors
    /// This is no pod, or it has no usable service account.
    pub fn for_this_pod(env: &Environment, trust: Trust) -> Result<Self, AnnounceError> {
        if !incluster::possible(env) {
            return Err(AnnounceError::NoPod);
        }
        let upstream = Upstream::from_pod(&KubeconfigSource::default(), env, trust)?;
        let namespace = upstream.namespace.clone().ok_or(AnnounceError::NoPod)?;
        let pod = env.var("MYKUBE_POD_NAME").or_else(|| env.var("HOSTNAME")).filter(|name| is_pod_name(name));
        let forwarder = Forwarder::new(Arc::new(upstream), Settings::default());
        Ok(Self {
            gateway: Gateway::new(Arc::new(forwarder), Audit::off()),
            namespace,
            pod: pod.ok_or(AnnounceError::NoName)?.to_owned(),
            uid: env.var("MYKUBE_POD_UID").map(str::to_owned),
        })
    }

    /// Announces a code that waits for `expires_in` on this relay.
    ///
    /// # Errors
    /// The API server cannot be reached, or refuses.
    pub async fn announce(&self, code: &str, expires_in: Duration, relay_url: &str) -> Result<(), AnnounceError> {
        let event = self.event(code, relay_url, SystemTime::now(), expires_in);
        timeout(ANSWER_TIMEOUT, self.create(event)).await.unwrap_or_else(|_| {
            Err(AnnounceError::Failed(format!("no answer from the API server within {} s", ANSWER_TIMEOUT.as_secs())))
        })
    }

    fn event(&self, code: &str, relay_url: &str, now: SystemTime, expires_in: Duration) -> Value {
        let (at, until) = (moment(now), moment(now + expires_in));
        let Self { namespace, pod, uid, .. } = self;
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "generateName": format!("{pod}.")},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid},
            "type": "Normal",
            "reason": "PairingCode",
            "message": format!("Code: {code} (until {until}). Type: mykube client --relay-url {relay_url}"),
            "source": {"component": "mykube"},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        })
    }

    async fn create(&self, event: Value) -> Result<(), AnnounceError> {
        let caller =
            Caller { name: "mykube server".into(), id: None, policy: Arc::default(), heads: HeadRoom::default() };
        let broken = |error: &dyn std::fmt::Display| AnnounceError::Failed(format!("the request broke off: {error}"));
        let request = Request::post(format!("/api/v1/namespaces/{}/events", self.namespace))
            .header(header::USER_AGENT, "mykube")
            .body(event.to_string())
            .map_err(|error| broken(&error))?;
        let answer = self.gateway.request(caller, request, ANSWER_MAX).await.map_err(|error| broken(&error))?;
        if answer.status().is_success() {
            return Ok(());
        }
        let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let said =
            said["message"].as_str().map_or_else(|| answer.status().to_string(), |text| printable(text, MESSAGE_MAX));
        Err(AnnounceError::Failed(said))
    }
}

fn is_pod_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=POD_NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pods() {
        assert!(is_pod_name("mykube-6d5f7c9b8-x2x4q") && is_pod_name("a.b"));
        for bad in ["", "UPPER", "a/b", "a b", "a\n", &"a".repeat(POD_NAME_MAX + 1)] {
            assert!(!is_pod_name(bad), "{bad:?}");
        }
    }
}
