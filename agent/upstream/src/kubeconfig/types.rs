//! The fields of a kubeconfig (client-go `tools/clientcmd/api/v1/types.go`), as kubectl fills them: a missing or null
//! field is empty, an unknown one is skipped, one of another type makes the file unreadable even if it is not used.

use std::{collections::BTreeMap, ops::Deref};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use zeroize::Zeroizing;

/// A secret: never printed, wiped when dropped.
pub(crate) type Secret = Zeroizing<String>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Kubeconfig {
    pub(crate) kind: Option<String>,
    #[serde(rename = "apiVersion")]
    pub(crate) api_version: Option<String>,
    pub(crate) current_context: Option<String>,
    #[serde(default)]
    pub(crate) clusters: List<NamedCluster>,
    #[serde(default)]
    pub(crate) users: List<NamedUser>,
    #[serde(default)]
    pub(crate) contexts: List<NamedContext>,
}

#[derive(Default, Deserialize)]
pub(crate) struct NamedCluster {
    pub(crate) name: Option<String>,
    pub(crate) cluster: Option<Cluster>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Cluster {
    pub(crate) server: Option<String>,
    pub(crate) tls_server_name: Option<String>,
    pub(crate) insecure_skip_tls_verify: Option<bool>,
    pub(crate) certificate_authority: Option<String>,
    pub(crate) certificate_authority_data: Option<String>,
    pub(crate) proxy_url: Option<String>,
    /// For plugins; the kubectl at the other end has its own setting.
    pub(crate) disable_compression: Option<bool>,
    #[serde(default)]
    pub(crate) extensions: List<NamedExtension>,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct NamedExtension {
    pub(crate) name: Option<String>,
    /// Any value, null too.
    #[serde(default)]
    pub(crate) extension: Value,
}

#[derive(Default, Deserialize)]
pub(crate) struct NamedContext {
    pub(crate) name: Option<String>,
    pub(crate) context: Option<Context>,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct Context {
    pub(crate) cluster: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) namespace: Option<String>,
}

#[derive(Default, Deserialize)]
pub(crate) struct NamedUser {
    pub(crate) name: Option<String>,
    pub(crate) user: Option<AuthInfo>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct AuthInfo {
    pub(crate) client_certificate: Option<String>,
    pub(crate) client_certificate_data: Option<String>,
    pub(crate) client_key: Option<String>,
    pub(crate) client_key_data: Option<Secret>,
    pub(crate) token: Option<Secret>,
    #[serde(rename = "tokenFile")]
    pub(crate) token_file: Option<String>,
    #[serde(rename = "as")]
    pub(crate) impersonate: Option<String>,
    #[serde(rename = "as-uid")]
    pub(crate) impersonate_uid: Option<String>,
    #[serde(default, rename = "as-groups")]
    pub(crate) impersonate_groups: List<String>,
    #[serde(rename = "as-user-extra")]
    pub(crate) impersonate_user_extra: Option<BTreeMap<String, Option<List<String>>>>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) auth_provider: Option<AuthProvider>,
    pub(crate) exec: Option<ExecConfig>,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct AuthProvider {
    pub(crate) name: Option<String>,
    /// Holds the tokens, too.
    pub(crate) config: Option<BTreeMap<String, Option<Secret>>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecConfig {
    pub(crate) command: Option<String>,
    #[serde(default)]
    pub(crate) args: List<String>,
    #[serde(default)]
    pub(crate) env: List<ExecVariable>,
    pub(crate) api_version: Option<String>,
    pub(crate) install_hint: Option<String>,
    pub(crate) provide_cluster_info: Option<bool>,
    /// `Never`, `IfAvailable` or `Always`; another value is an error only if the plugin is used.
    pub(crate) interactive_mode: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct ExecVariable {
    pub(crate) name: Option<String>,
    pub(crate) value: Option<String>,
}

/// A list, or null; a null in it is an empty item.
#[derive(Clone, Debug)]
pub(crate) struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Option::<Vec<Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(Self(items.into_iter().map(Option::unwrap_or_default).collect()))
    }
}
