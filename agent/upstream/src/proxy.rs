//! The proxy to an API server or a provider, as kubectl chooses it.

use mykube_dial::{ProxyEnv, ProxyTarget};

use crate::{environment::Environment, error::KubeconfigError};

/// The proxy of `HTTPS_PROXY`, unless `NO_PROXY` has the API server's own name; kubectl does not read `ALL_PROXY`.
pub(crate) fn proxy_from_environment(
    env: &Environment,
    host: &str,
    port: u16,
) -> Result<Option<ProxyTarget>, KubeconfigError> {
    let vars = env.vars.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_string_lossy())));
    let vars = vars.filter(|(name, _)| !name.eq_ignore_ascii_case("ALL_PROXY"));
    ProxyEnv::from_vars(vars).select(true, host, port).map_err(|error| KubeconfigError::Proxy(Box::new(error)))
}
