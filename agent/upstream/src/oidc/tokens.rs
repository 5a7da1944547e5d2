//! What a kubeconfig's provider has of a user.

use crate::kubeconfig::types::{AuthProvider, Secret};

/// What changes: the id token and what buys the next.
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

/// A field of the provider's `config` that is not empty.
pub(super) fn field<'a>(provider: &'a AuthProvider, name: &str) -> Option<&'a Secret> {
    provider.config.as_ref()?.get(name)?.as_ref().filter(|value| !value.is_empty())
}
