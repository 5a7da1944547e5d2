//! The tokens of a user, in the kubeconfig's `auth-provider`.

use crate::kubeconfig::types::{AuthProvider, Secret};

/// The id token, and the refresh token that gets the next one.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) id: Option<Secret>,
    pub(super) refresh: Option<Secret>,
}

impl Tokens {
    pub(super) fn of(provider: &AuthProvider) -> Self {
        let given = |name: &str| field(provider, name).cloned();
        Self { id: given("id-token"), refresh: given("refresh-token") }
    }
}

/// A field of the provider's `config`, if it is not empty.
pub(super) fn field<'a>(provider: &'a AuthProvider, name: &str) -> Option<&'a Secret> {
    provider.config.as_ref()?.get(name)?.as_ref().filter(|value| !value.is_empty())
}
