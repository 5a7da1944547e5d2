//! The files of `--allow` and `--deny`: which requests, by verb and resource, as in RBAC.
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
//! - A rule of `--deny` with namespaces denies a list, watch or deletecollection across all namespaces too: these reach
//!   what is in the named ones. Not one of a kind that is in no namespace (nodes, say), nor a request for one object that is
//!   in none, nor its creation. A namespace is in itself.
//! - A rule of `--deny` takes a path with a slash at its end for the one without, and `/logs/*` for `/logs` too.
//! - `resourceNames` are matched with the name in the path, or with `metadata.name=` in the field selector of a list or
//!   watch. A `create` or `deletecollection` names nothing and is never allowed by name. A rule of `--deny` with names
//!   denies a list, watch or deletecollection that is not for one name too, as these reach the named object.
//! - On a `proxy`, a rule of `--deny` means the object whatever scheme and port its name has. A rule of `--allow` means the
//!   name as it is written, as RBAC does.
//! - A method for which resources have no verb (OPTIONS) is denied by any verb, and allowed by `"*"` only.
//! - `impersonate` is a verb of `users`, `groups`, `serviceaccounts`, `uids` and `userextras/KEY`, for the `Impersonate-*`
//!   headers; so are the constrained forms of KEP 5284.
//! - With `--allow`, what no rule names is refused; discovery, health and the self-subject reviews are not. A rule of
//!   `--deny` wins over everything.
//! - A rule that could never match is refused, with what was probably meant: `hints`.
//! - As in RBAC, `list` and `watch` show the content of objects: who may not `get` secrets should not list them.

use std::path::Path;

use mykube_protocol::text::printable;
use serde::Deserialize;

use crate::{hints, request_info::RequestInfo, rule::Rule, scope::is_in_no_namespace};

/// Longest file of rules.
pub const RULES_FILE_MAX: u64 = 1024 * 1024;

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file is not there, or cannot be read.
    #[error("the rules {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's error.
        cause: String,
    },
    /// The file does not have the form above.
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

/// Reads a file of rules.
///
/// # Errors
/// The file cannot be read, or a rule of it is not one.
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
        rule.check().map_err(|problem| format!("rule {} {problem}", at + 1))?;
    }
    Ok(file.rules)
}

impl Rule {
    /// Checks that the rule can match something.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence about the rule.
    pub fn check(&self) -> Result<(), String> {
        if self.verbs.is_empty() {
            return Err("has no verbs".into());
        }
        match (self.resources.is_empty(), self.non_resource_urls.is_empty()) {
            (true, true) => return Err("has neither resources nor nonResourceURLs".into()),
            (false, false) => return Err("has both resources and nonResourceURLs: make two of it".into()),
            (false, true) if self.api_groups.is_empty() => {
                return Err("has resources without apiGroups (\"\" is the core group)".into());
            }
            (true, false)
                if [&self.api_groups, &self.namespaces, &self.resource_names].iter().any(|l| !l.is_empty()) =>
            {
                return Err("has apiGroups, namespaces or resourceNames beside nonResourceURLs".into());
            }
            _ => {}
        }
        if self.resource_names.iter().any(|name| matches!(name.as_str(), "" | "*")) {
            return Err("has \"*\" or nothing among its resourceNames: leave them out to mean every object".into());
        }
        hints::check(self)
    }

    /// Whether the rule, of `--allow`, allows the request.
    #[must_use]
    pub fn allows(&self, info: &RequestInfo) -> bool {
        let verb = if info.is_connect() && !info.verb.starts_with("impersonate") { "create" } else { &info.verb };
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let names = if info.is_resource {
            self.names_resource(info)
        } else {
            self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => info.path.starts_with(prefix),
                None => info.path == *url,
            })
        };
        has(&self.verbs, verb) && names && named && (self.namespaces.is_empty() || self.is_in_one(info))
    }

    /// Whether the rule, of `--deny`, denies the request.
    #[must_use]
    pub fn denies(&self, info: &RequestInfo) -> bool {
        let verb = match info.verb.as_str() {
            "" => true,
            "head" => has(&self.verbs, "head") || has(&self.verbs, "get"),
            verb => {
                has(&self.verbs, verb) || (info.is_connect() && (has(&self.verbs, "create") || has(&self.verbs, "get")))
            }
        };
        // A request for all objects means each of them. A verb of impersonation has the plain verb at its end.
        let plain = info.verb.rsplit(':').next().unwrap_or_default();
        let all = matches!(plain, "" | "list" | "watch" | "deletecollection");
        let names = &self.resource_names;
        let named = names.is_empty()
            || (all && info.name.is_empty())
            || [info.name.as_str(), info.object()].iter().any(|name| has(names, name));
        let reached = self.namespaces.is_empty() || self.is_in_one(info) || (all && self.is_across(info));
        let target = if info.is_resource { self.names_resource(info) } else { self.means_path(&info.path) };
        verb && target && named && reached
    }

    fn is_in_one(&self, info: &RequestInfo) -> bool {
        self.namespaces.contains(&info.namespace)
    }

    /// Whether a request for all objects reaches into one of the namespaces from outside. Requests of other verbs
    /// outside of namespaces do not reach objects within.
    fn is_across(&self, info: &RequestInfo) -> bool {
        let is_namespaces = info.group.is_empty() && info.resource == "namespaces";
        match info.namespace.as_str() {
            _ if !info.is_resource => false,
            "" if is_namespaces => info.name.is_empty() || self.namespaces.contains(&info.name),
            "" => !is_in_no_namespace(&info.group, &info.resource),
            _ => false,
        }
    }

    /// Whether the rule names the path, in any spelling that may be served as the same.
    fn means_path(&self, path: &str) -> bool {
        let bare = |path| str::trim_end_matches(path, '/');
        self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix) || (prefix.ends_with('/') && bare(path) == bare(prefix)),
            None => bare(path) == bare(url),
        })
    }

    fn names_resource(&self, info: &RequestInfo) -> bool {
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

    /// How many texts are compared to find whether the rule matches one question about impersonation; 0 if it cannot
    /// match any.
    pub(crate) fn impersonation_cost(&self) -> usize {
        let lists = [&self.verbs, &self.api_groups, &self.resources, &self.namespaces, &self.resource_names];
        let speaks = self.verbs.iter().any(|verb| verb == "*" || verb.starts_with("impersonate"));
        if speaks && !self.resources.is_empty() { lists.iter().map(|list| list.len()).sum() } else { 0 }
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
        // The rule's name is that of the pod, for subresources too.
        let exec = info(Method::POST, "/api/v1/namespaces/a/pods/x/exec?command=id");
        assert!(rule.allows(&exec) && rule.denies(&exec));
        let get = Rule { verbs: vec!["get".into()], ..rule };
        assert!(!get.denies(&info(Method::GET, base)), "a rule for get says nothing of list");
    }

    #[test]
    fn a_denied_namespace_leaves_what_is_in_none() {
        let rule = Rule {
            verbs: vec!["*".into()],
            api_groups: vec!["*".into()],
            resources: vec!["*".into()],
            namespaces: vec!["kube-system".into()],
            ..Rule::default()
        };
        for (method, path, denied) in [
            (Method::GET, "/api/v1/nodes", false),
            (Method::GET, "/api/v1/nodes?watch=1", false),
            (Method::GET, "/apis/metrics.k8s.io/v1beta1/nodes", false),
            (Method::GET, "/api/v1/persistentvolumes/x", false),
            (Method::DELETE, "/api/v1/persistentvolumes", false),
            (Method::PATCH, "/apis/rbac.authorization.k8s.io/v1/clusterroles/x", false),
            (Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", false),
            (Method::GET, "/apis/example.com/v1/things/x", false),
            (Method::POST, "/apis/example.com/v1/things", false),
            (Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", false),
            (Method::GET, "/api/v1/nodes/n/proxy/metrics", false),
            // These reach into the namespace.
            (Method::GET, "/api/v1/pods", true),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name=p", true),
            (Method::GET, "/api/v1/pods?watch=1&fieldSelector=metadata.name=p", true),
            (Method::GET, "/api/v1/watch/pods", true),
            (Method::GET, "/apis/example.com/v1/things", true),
            (Method::GET, "/apis/example.com/v1/nodes", true),
            (Method::DELETE, "/api/v1/pods", true),
            (Method::OPTIONS, "/api/v1/pods", true),
            (Method::GET, "/api/v1/namespaces/kube-system/secrets/s", true),
            (Method::GET, "/api/v1/namespaces/default/secrets", false),
            // A namespace is in itself.
            (Method::GET, "/api/v1/namespaces", true),
            (Method::GET, "/api/v1/namespaces?fieldSelector=metadata.name=kube-system", true),
            (Method::GET, "/api/v1/namespaces?fieldSelector=metadata.name=default", false),
            (Method::GET, "/api/v1/namespaces/kube-system", true),
            (Method::GET, "/api/v1/namespaces/default", false),
            (Method::POST, "/api/v1/namespaces", false),
        ] {
            assert_eq!(rule.denies(&info(method.clone(), path)), denied, "{method} {path}");
        }
        let ask = |verb: &str| RequestInfo { verb: verb.into(), ..info(Method::GET, "/api/v1/pods") };
        assert!(
            rule.denies(&ask("impersonate-on:user-info:list")) && !rule.denies(&ask("impersonate-on:user-info:get"))
        );
    }

    #[test]
    fn a_slash_at_its_end_takes_no_path_out_of_a_denial() {
        for (url, path, denied, allowed) in [
            ("/version", "/version", true, true),
            ("/version", "/version/", true, false),
            ("/logs/", "/logs", true, false),
            ("/logs/*", "/logs", true, false),
            ("/logs/*", "/logs/", true, true),
            ("/logs/*", "/logs/a/", true, true),
            ("/logs/*", "/logsx", false, false),
            ("/logs*", "/logsx", true, true),
            ("/", "/", true, true),
            ("/", "/version", false, false),
            ("/*", "/version", true, true),
            ("*", "/version", true, true),
        ] {
            let rule = Rule { verbs: vec!["get".into()], non_resource_urls: vec![url.into()], ..Rule::default() };
            let info = info(Method::GET, path);
            assert_eq!((rule.denies(&info), rule.allows(&info)), (denied, allowed), "{url} {path}");
        }
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
