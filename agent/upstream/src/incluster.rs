//! A pod's service account: `KUBERNETES_SERVICE_HOST` and `_PORT`, and the mounted token, CA and namespace.

use std::path::Path;

use crate::{
    credentials::CredentialSource,
    environment::Environment,
    error::{KubeconfigError, Place},
    sourced::Sourced,
};

/// How a pod reaches its cluster.
pub(crate) struct InCluster {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ca: Sourced,
    pub(crate) namespace: Option<String>,
    pub(crate) credentials: CredentialSource,
    pub(crate) place: Place,
}

/// Whether this is a pod with a service account, by client-go's own test.
#[must_use]
pub fn possible(env: &Environment) -> bool {
    env.var("KUBERNETES_SERVICE_HOST").is_some()
        && env.var("KUBERNETES_SERVICE_PORT").is_some()
        && env.service_account.join("token").is_file()
}

/// Reads the service account's settings; the token and CA are read when needed, as they rotate.
pub(crate) fn load(env: &Environment) -> Result<InCluster, KubeconfigError> {
    let dir: &Path = &env.service_account;
    let place = Place::of("the service account", dir);
    let field = |field| KubeconfigError::Field {
        field,
        place: place.clone(),
        problem: "is not usable: a pod gets it from Kubernetes, so do not set it by hand",
    };
    let host = env.var("KUBERNETES_SERVICE_HOST").ok_or_else(|| field("KUBERNETES_SERVICE_HOST"))?;
    let port = env
        .var("KUBERNETES_SERVICE_PORT")
        .and_then(|port| port.parse().ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| field("KUBERNETES_SERVICE_PORT"))?;
    Ok(InCluster {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        ca: Sourced::file("ca.crt", dir.join("ca.crt"), place.clone()),
        namespace: std::fs::read_to_string(dir.join("namespace"))
            .ok()
            .map(|namespace| namespace.trim().to_owned())
            .filter(|namespace| !namespace.is_empty()),
        credentials: CredentialSource::from_token_file(
            Sourced::file("token", dir.join("token"), place.clone()),
            place.clone(),
        ),
        place,
    })
}
