//! The files of `--allow` and `--deny`: which requests, by verb and resource, as RBAC has it.
//!
//! YAML or JSON:
//!
//! ```yaml
//! rules:
//! - verbs: [get, list, watch]
//!   apiGroups: ["", apps]             # "" is the core group, "*" every group
//!   resources: [pods, pods/log, deployments]
//!   namespaces: [staging]             # every namespace, and none, where left out
//! - verbs: [get, update]
//!   apiGroups: [""]
//!   resources: [configmaps]
//!   resourceNames: [settings]         # every object where left out
//! - verbs: [create]
//!   apiGroups: [""]
//!   resources: [pods/exec]
//! - verbs: [get]
//!   nonResourceURLs: [/metrics, /logs/*]
//! ```
//!
//! - `"*"` is every verb, group or resource with its subresources. `pods` is not `pods/log`; `pods/*` is every
//!   subresource of pods, `*/scale` the subresource of everything.
//! - `exec`, `attach` and `portforward` are `create` whether they are asked for with POST or, by WebSocket, with GET.
//!   A rule that denies either `get` or `create` of one denies both; one that allows it must say `create`.
//! - A rule of `--deny` with namespaces denies requests across all namespaces too: they show what is in these.
//! - `resourceNames` are matched with the name in the path, or with `metadata.name=` in the field selector of a list or
//!   watch. A `create` or `deletecollection` names nothing and is never allowed by name. A rule of `--deny` with names
//!   denies a list, watch or deletecollection that is not for one name too, as these reach the named object.
//! - With `--allow`, what no rule names is refused; discovery, health and the self-subject reviews are not. A rule of
//!   `--deny` wins over everything.
//! - As in RBAC, `list` and `watch` show the content of objects: who may not `get` secrets should not list them.

use std::path::Path;

use mykube_protocol::text::printable;
use serde::Deserialize;

use super::request_info::RequestInfo;

/// Longest file of rules.
pub const RULES_FILE_MAX: u64 = 1024 * 1024;

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Not there, or not for us.
    #[error("the rules {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's word.
        cause: String,
    },
    /// Not of the shape above.
    #[error(
        "the rules {path} are not valid: {problem}; they look like \
         `rules: [{{verbs: [get, list], apiGroups: [\"\"], resources: [pods, pods/log]}}]`"
    )]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

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
    /// Only in these namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Only these objects.
    #[serde(default)]
    pub resource_names: Vec<String>,
    /// Paths that name no resource, the last segment may be `*`.
    #[serde(default, rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

/// Reads a file of rules.
///
/// # Errors
/// It cannot be read, or says something that no rule says.
pub fn read_rules(path: &Path) -> Result<Vec<Rule>, RulesError> {
    use std::io::Read as _;
    let shown = || printable(&path.to_string_lossy(), 300);
    let unreadable =
        |cause: std::io::Error| RulesError::Unreadable { path: shown(), cause: printable(&cause.to_string(), 200) };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(RULES_FILE_MAX + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    parse_rules(&text).map_err(|problem| RulesError::Invalid { path: shown(), problem })
}

fn parse_rules(text: &str) -> Result<Vec<Rule>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        rules: Vec<Rule>,
    }
    if text.len() as u64 > RULES_FILE_MAX {
        return Err(format!("they have more than {RULES_FILE_MAX} bytes"));
    }
    // The position stands in the parser's own message.
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        printable(first.trim_start_matches("error: "), 200)
    })?;
    for (at, rule) in file.rules.iter().enumerate() {
        let problem = |what: &str| Err(format!("rule {} {what}", at + 1));
        if rule.verbs.is_empty() {
            return problem("has no verbs");
        }
        match (rule.resources.is_empty(), rule.non_resource_urls.is_empty()) {
            (true, true) => return problem("has neither resources nor nonResourceURLs"),
            (false, false) => return problem("has both resources and nonResourceURLs: make two of it"),
            (false, true) if rule.api_groups.is_empty() => {
                return problem("has resources without apiGroups (\"\" is the core group)");
            }
            (true, false)
                if [&rule.api_groups, &rule.namespaces, &rule.resource_names].iter().any(|l| !l.is_empty()) =>
            {
                return problem("has apiGroups, namespaces or resourceNames beside nonResourceURLs");
            }
            _ => {}
        }
        if rule.resource_names.iter().any(|name| matches!(name.as_str(), "" | "*")) {
            return problem("has \"*\" or nothing among its resourceNames: leave them out to mean every object");
        }
    }
    Ok(file.rules)
}

impl Rule {
    /// Whether a rule of `--allow` names it.
    #[must_use]
    pub fn allows(&self, info: &RequestInfo) -> bool {
        let verb = if info.is_connect() { "create" } else { &info.verb };
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        has(&self.verbs, verb) && self.names(info) && named && (self.namespaces.is_empty() || self.is_in_one(info))
    }

    /// Whether a rule of `--deny` names it.
    #[must_use]
    pub fn denies(&self, info: &RequestInfo) -> bool {
        let verb = has(&self.verbs, &info.verb)
            || (info.is_connect() && (has(&self.verbs, "create") || has(&self.verbs, "get")));
        // A request across all namespaces is one in each of them.
        let everywhere = info.is_resource && info.namespace.is_empty();
        // A request for all objects is one for each of them.
        let all = info.name.is_empty() && matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
        let named = self.resource_names.is_empty() || all || self.resource_names.contains(&info.name);
        verb && self.names(info) && named && (self.namespaces.is_empty() || everywhere || self.is_in_one(info))
    }

    fn is_in_one(&self, info: &RequestInfo) -> bool {
        self.namespaces.contains(&info.namespace)
    }

    fn names(&self, info: &RequestInfo) -> bool {
        if !info.is_resource {
            return self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => info.path.starts_with(prefix),
                None => info.path == *url,
            });
        }
        let resource = self.resources.iter().any(|wanted| match wanted.split_once('/') {
            _ if wanted == "*" => true,
            None => info.subresource.is_empty() && *wanted == info.resource,
            Some((resource, subresource)) => {
                !info.subresource.is_empty()
                    && (resource == "*" || resource == info.resource)
                    && (subresource == "*" || subresource == info.subresource)
            }
        });
        resource && has(&self.api_groups, &info.group)
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == wanted)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn info(method: Method, path: &str) -> RequestInfo {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        RequestInfo::new(&method, path, query).unwrap()
    }

    #[test]
    fn yaml_and_json_and_their_matches() {
        let yaml = "rules:\n- verbs: [get, list]\n  apiGroups: ['', apps]\n  resources: [pods, pods/log, '*/scale']\n  namespaces: [a]\n- {verbs: ['*'], nonResourceURLs: [/metrics, /logs/*]}\n";
        let json = r#"{"rules":[{"verbs":["get","list"],"apiGroups":["","apps"],"resources":["pods","pods/log","*/scale"],"namespaces":["a"]},{"verbs":["*"],"nonResourceURLs":["/metrics","/logs/*"]}]}"#;
        let rules = parse_rules(yaml).unwrap();
        assert_eq!(rules, parse_rules(json).unwrap());
        for (method, path, expected) in [
            (Method::GET, "/api/v1/namespaces/a/pods", true),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", true),
            (Method::GET, "/apis/apps/v1/namespaces/a/deployments/d/scale", true),
            (Method::GET, "/api/v1/namespaces/b/pods", false),
            (Method::GET, "/api/v1/namespaces/a/pods/p/status", false),
            (Method::GET, "/apis/batch/v1/namespaces/a/pods", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods/p", false),
            (Method::GET, "/metrics", true),
            (Method::POST, "/logs/x/y", true),
            (Method::GET, "/metricsx", false),
        ] {
            let info = info(method, path);
            assert_eq!(rules.iter().any(|rule| rule.allows(&info)), expected, "{path}");
            assert_eq!(rules.iter().any(|rule| rule.denies(&info)), expected, "{path}");
        }
        let everywhere = info(Method::GET, "/api/v1/pods");
        assert!(!rules.iter().any(|rule| rule.allows(&everywhere)), "more than one namespace is not allowed");
        assert!(rules.iter().any(|rule| rule.denies(&everywhere)), "it shows what is in the denied one");
    }

    #[test]
    fn resource_names() {
        let yaml = "rules: [{verbs: ['*'], apiGroups: [''], resources: ['*'], resourceNames: [x, y]}]";
        let rule = parse_rules(yaml).unwrap().remove(0);
        let base = "/api/v1/namespaces/a/configmaps";
        // Method, rest of the path, allowed by it, denied by it.
        for (method, rest, allows, denies) in [
            (Method::GET, "/x", true, true),
            (Method::PUT, "/y", true, true),
            (Method::PATCH, "/x/status", true, true),
            (Method::DELETE, "/x", true, true),
            (Method::GET, "/%78", true, true),
            (Method::GET, "/z", false, false),
            (Method::GET, "/X", false, false),
            (Method::GET, "?fieldSelector=metadata.name=x", true, true),
            (Method::GET, "?watch=true&fieldSelector=metadata.name%3Dy", true, true),
            (Method::GET, "?fieldSelector=metadata.name=z", false, false),
            (Method::GET, "?fieldSelector=metadata.name!=x", false, true),
            (Method::GET, "", false, true),
            (Method::GET, "?watch=1", false, true),
            (Method::DELETE, "", false, true),
            (Method::DELETE, "?fieldSelector=metadata.name=x", false, true),
            (Method::POST, "", false, false),
            (Method::POST, "?fieldSelector=metadata.name=x", false, false),
        ] {
            let info = info(method.clone(), &format!("{base}{rest}"));
            assert_eq!((rule.allows(&info), rule.denies(&info)), (allows, denies), "{method} {rest}");
        }
        // The pod's name counts for what is done with the pod.
        let exec = info(Method::POST, "/api/v1/namespaces/a/pods/x/exec?command=id");
        assert!(rule.allows(&exec) && rule.denies(&exec));
        let get = Rule { verbs: vec!["get".into()], ..rule };
        assert!(!get.denies(&info(Method::GET, base)), "a rule for get says nothing of list");
    }

    #[test]
    fn exec_is_exec_by_get_and_by_post() {
        let rule = |verb: &str| {
            parse_rules(&format!("rules: [{{verbs: [{verb}], apiGroups: ['*'], resources: [pods/exec]}}]"))
                .unwrap()
                .remove(0)
        };
        for method in [Method::GET, Method::POST] {
            let exec = info(method, "/api/v1/namespaces/a/pods/p/exec");
            assert!(rule("create").denies(&exec) && rule("get").denies(&exec));
            assert!(rule("create").allows(&exec) && !rule("get").allows(&exec));
        }
    }

    #[test]
    fn what_is_no_rule_is_said() {
        for (text, what) in [
            ("", ""),
            ("rules: [{verbs: [get]}]", "neither"),
            ("rules: [{verbs: [], apiGroups: [''], resources: [pods]}]", "no verbs"),
            ("rules: [{verbs: [get], resources: [pods]}]", "apiGroups"),
            ("rules: [{verbs: [get], apigroups: [''], resources: [pods]}]", "unknown"),
            ("rules: [{verbs: [get], nonResourceURLs: [/a], namespaces: [x]}]", "beside"),
            ("rules: [{verbs: [get], nonResourceURLs: [/a], resourceNames: [x]}]", "beside"),
            ("rules: [{verbs: [get], apiGroups: [''], resources: [pods], resourceNames: ['*']}]", "every object"),
        ] {
            let problem = parse_rules(text).unwrap_err();
            assert!(problem.contains(what), "{text}: {problem}");
        }
        let wrong = parse_rules("rules:\n- verbs: [get\n").unwrap_err();
        assert_eq!((wrong.matches("line").count(), wrong.matches("column").count()), (1, 1), "{wrong}");
        let missing = read_rules(Path::new("/no/such/rules")).unwrap_err().to_string();
        assert!(missing.contains("/no/such/rules"), "{missing}");
    }
}
