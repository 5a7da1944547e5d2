//! One rule of `--allow` or `--deny`, as it is written.

use serde::Deserialize;

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `get`, `list`, `create` ..., or `*`.
    pub verbs: Vec<String>,
    /// API groups of the resources.
    #[serde(default)]
    pub api_groups: Vec<String>,
    /// `pods`, `pods/exec`, `pods/*`, `*/scale`, `*`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Only in these namespaces. Empty: in all, and outside of namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Only objects of these names. Empty: all.
    #[serde(default)]
    pub resource_names: Vec<String>,
    /// Paths that name no resource, the last segment may be `*`.
    #[serde(default, rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}
