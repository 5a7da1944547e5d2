//! A pod's code as an Event: which account sends it where, and the error if it is refused.

#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

#[allow(dead_code, reason = "the gateway's tests use the rest")]
#[path = "../gateway/tests/guarded/api.rs"]
mod api;
#[path = "../upstream/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the gateway's tests use the rest")]
#[path = "../gateway/tests/guarded/lines.rs"]
mod lines;

use std::time::Duration;

use mykube_agent::announce::{AnnounceError, Announcer};

use api::{Api, Authority};
use common::{Fixture, trust};

const WAITS: Duration = Duration::from_secs(120);

/// A pod named `mykube-0` in the namespace `ops`.
fn pod(authority: &Authority, api: &Api) -> Fixture {
    let mut pod = Fixture::new();
    for (name, content) in [("token", "p0d"), ("ca.crt", &*authority.pem), ("namespace", "ops")] {
        pod.write(&format!("serviceaccount/{name}"), content);
    }
    pod.var("KUBERNETES_SERVICE_HOST", api.address.ip().to_string());
    pod.var("KUBERNETES_SERVICE_PORT", api.address.port().to_string());
    pod.var("MYKUBE_POD_NAME", "mykube-0");
    pod
}

fn announcer(pod: &Fixture) -> Result<Announcer, AnnounceError> {
    Announcer::for_this_pod(&pod.env, trust(pod.dir.path()))
}

#[tokio::test]
async fn the_pods_own_account_creates_it_in_its_own_namespace() {
    let authority = Authority::new();
    let api = Api::start(&authority).await;
    let pod = pod(&authority, &api);
    announcer(&pod).unwrap().announce("483 20417", WAITS, "https://relay.example").await.unwrap();
    let seen = api.last();
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/api/v1/namespaces/ops/events"));
    assert_eq!(seen.header("authorization"), ["Bearer p0d"]);
    assert!(*api.state.received.borrow() > 0);
}

#[tokio::test]
async fn a_refusal_says_what_the_api_server_said_and_no_code() {
    let authority = Authority::new();
    let api = Api::start(&authority).await;
    *api.state.accepted.lock().unwrap() = Some(["nobody".to_owned()].into());
    let pod = pod(&authority, &api);
    let refused = announcer(&pod).unwrap().announce("483 20417", WAITS, "https://relay.example").await.unwrap_err();
    assert!(refused.to_string().contains("401"), "{refused}");
    assert!(!refused.to_string().contains("483"), "{refused}");
    api.stop().await;
    let failed = announcer(&pod).unwrap().announce("483 20417", WAITS, "https://relay.example").await.unwrap_err();
    assert!(failed.to_string().contains("API server"), "{failed}");
}

#[tokio::test]
async fn elsewhere_it_is_refused_before_a_code_is_shown() {
    let authority = Authority::new();
    let api = Api::start(&authority).await;
    assert_eq!(announcer(&Fixture::new()).err(), Some(AnnounceError::NoPod));
    let mut nameless = pod(&authority, &api);
    nameless.var("MYKUBE_POD_NAME", "");
    assert_eq!(announcer(&nameless).err(), Some(AnnounceError::NoName));
    nameless.var("HOSTNAME", "../other");
    assert_eq!(announcer(&nameless).err(), Some(AnnounceError::NoName));
    nameless.var("HOSTNAME", "mykube-0");
    assert!(announcer(&nameless).is_ok());
}
