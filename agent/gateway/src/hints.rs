//! Refuses rules that could never match, and says what was probably meant. A rule of `--deny` that matches nothing is
//! worse than none.

use http::Method;

use crate::{
    inner::{is_label, is_subdomain},
    request_info::RequestInfo,
    rule::Rule,
    scope::is_in_no_namespace,
};

/// The verbs of requests for resources.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
/// The verbs of requests for other paths: the method, in lower case.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];
/// Forms of impersonation (KEP 5284), besides the plain one.
const MODES: [&str; 4] = ["user-info", "serviceaccount", "arbitrary-node", "associated-node"];
/// What can be impersonated.
const WHO: [&str; 6] = ["users", "groups", "serviceaccounts", "uids", "userextras", "nodes"];

/// What people write as a verb, and what to write instead.
const NO_VERBS: &[(&str, &str)] = &[
    ("exec", "write `verbs: [create], resources: [pods/exec]`"),
    ("attach", "write `verbs: [create], resources: [pods/attach]`"),
    ("portforward", "write `verbs: [create], resources: [pods/portforward]`"),
    ("port-forward", "write `verbs: [create], resources: [pods/portforward]`"),
    ("log", "write `verbs: [get], resources: [pods/log]`"),
    ("logs", "write `verbs: [get], resources: [pods/log]`"),
    ("proxy", "write `verbs: [\"*\"], resources: [pods/proxy, services/proxy, nodes/proxy]`"),
    ("scale", "write `verbs: [update, patch], resources: [deployments/scale]`"),
    ("evict", "write `verbs: [create], resources: [pods/eviction]`"),
    ("apply", "it is `patch`, and `create` of what is not there yet"),
    ("edit", "write `update` and `patch`"),
    ("write", "write `create`, `update`, `patch`, `delete`, `deletecollection`"),
    ("read", "write `get`, `list`, `watch`"),
    ("head", "of a resource it is `get`"),
    ("post", "of a resource it is `create`"),
    ("put", "of a resource it is `update`"),
    (
        "options",
        "resources have no verb for it: every rule of --deny that names the resource denies it, and only `\"*\"` allows it",
    ),
    (
        "bind",
        "the API server asks that by what a binding says: name `create`, `update`, `patch` of `rolebindings` and `clusterrolebindings`, or leave it to RBAC",
    ),
    (
        "escalate",
        "the API server asks that by what a role says: name `create`, `update`, `patch` of `roles` and `clusterroles`, or leave it to RBAC",
    ),
    (
        "approve",
        "the API server asks that by the request's signer: name `update`, `patch` of `certificatesigningrequests/approval`, or leave it to RBAC",
    ),
    (
        "sign",
        "the API server asks that by the request's signer: name `update`, `patch` of `certificatesigningrequests/status`, or leave it to RBAC",
    ),
    (
        "attest",
        "the API server asks that by the bundle's signer: name `create`, `update`, `patch` of `clustertrustbundles`, or leave it to RBAC",
    ),
    ("use", "the API server asks that by what a pod says: it can only be left to RBAC"),
    (
        "unsafe-delete-ignore-read-errors",
        "the API server asks that by a delete's options: name `delete`, or leave it to RBAC",
    ),
];

/// Groups of Kubernetes' own, by their first word.
const SHORT_GROUPS: [(&str, &str); 15] = [
    ("admissionregistration", "admissionregistration.k8s.io"),
    ("apiextensions", "apiextensions.k8s.io"),
    ("apiregistration", "apiregistration.k8s.io"),
    ("authentication", "authentication.k8s.io"),
    ("authorization", "authorization.k8s.io"),
    ("certificates", "certificates.k8s.io"),
    ("coordination", "coordination.k8s.io"),
    ("discovery", "discovery.k8s.io"),
    ("events", "events.k8s.io"),
    ("metrics", "metrics.k8s.io"),
    ("networking", "networking.k8s.io"),
    ("node", "node.k8s.io"),
    ("rbac", "rbac.authorization.k8s.io"),
    ("scheduling", "scheduling.k8s.io"),
    ("storage", "storage.k8s.io"),
];

/// Resources, each with its short names in `kubectl`.
type Resources = [(&'static str, &'static [&'static str])];

/// Groups that get no new kinds, with all of their kinds; the core group's also with what can be impersonated.
const CLOSED: &[(&str, &Resources)] = &[
    (
        "",
        &[
            ("bindings", &[]),
            ("componentstatuses", &["cs"]),
            ("configmaps", &["cm"]),
            ("endpoints", &["ep"]),
            ("events", &["ev"]),
            ("limitranges", &["limits"]),
            ("namespaces", &["ns"]),
            ("nodes", &["no"]),
            ("persistentvolumeclaims", &["pvc"]),
            ("persistentvolumes", &["pv"]),
            ("pods", &["po"]),
            ("podtemplates", &[]),
            ("replicationcontrollers", &["rc"]),
            ("resourcequotas", &["quota"]),
            ("secrets", &[]),
            ("serviceaccounts", &["sa"]),
            ("services", &["svc"]),
            ("users", &[]),
            ("groups", &[]),
        ],
    ),
    (
        "apps",
        &[
            ("controllerrevisions", &[]),
            ("daemonsets", &["ds"]),
            ("deployments", &["deploy"]),
            ("replicasets", &["rs"]),
            ("statefulsets", &["sts"]),
        ],
    ),
    ("batch", &[("cronjobs", &["cj"]), ("jobs", &[])]),
    (
        "rbac.authorization.k8s.io",
        &[("clusterrolebindings", &[]), ("clusterroles", &[]), ("rolebindings", &[]), ("roles", &[])],
    ),
];

/// Mistaken names of subresources, and the right ones.
const SUBRESOURCES: [(&str, &str); 8] = [
    ("attaches", "attach"),
    ("ephemeralcontainer", "ephemeralcontainers"),
    ("evict", "eviction"),
    ("evictions", "eviction"),
    ("execs", "exec"),
    ("logs", "log"),
    ("port-forward", "portforward"),
    ("tokens", "token"),
];

/// See the module.
///
/// Why a rule cannot match, and the hint, as the end of a sentence about the rule.
/// What cannot match, and the hint, as the end of a sentence about the rule.
pub(crate) fn check(rule: &Rule) -> Result<(), String> {
    if !rule.non_resource_urls.is_empty() {
        rule.verbs.iter().try_for_each(|verb| method(verb))?;
        return rule.non_resource_urls.iter().try_for_each(|url| path(url));
    }
    rule.verbs.iter().try_for_each(|word| verb(word))?;
    rule.api_groups.iter().try_for_each(|name| group(name))?;
    impersonation(rule)?;
    rule.resources.iter().try_for_each(|name| resource(name, &rule.api_groups))?;
    if !rule.namespaces.is_empty() {
        rule.resources.iter().try_for_each(|name| namespaced(name, &rule.api_groups))?;
    }
    if let Some(name) = rule.namespaces.iter().find(|name| !is_label(name)) {
        let hint = match name.as_str() {
            "*" => "leave `namespaces` out to mean all of them",
            _ => "namespaces have a-z, 0-9 and -",
        };
        return never(name, "namespaces", hint);
    }
    Ok(())
}

fn never<T>(what: &str, field: &str, hint: &str) -> Result<T, String> {
    Err(format!(
        "has `{}` among its {field}, which can never match: {hint}",
        mykube_protocol::text::printable(what, 100)
    ))
}

fn verb(word: &str) -> Result<(), String> {
    let constrained = |rest: &str| match rest.split_once(':') {
        None => false,
        Some((mode, verb)) => MODES.contains(&mode) && (VERBS.contains(&verb) || METHODS.contains(&verb)),
    };
    let known = matches!(word, "*" | "impersonate")
        || VERBS.contains(&word)
        || word.strip_prefix("impersonate:").is_some_and(|mode| MODES.contains(&mode))
        || word.strip_prefix("impersonate-on:").is_some_and(constrained);
    if known {
        return Ok(());
    }
    let lower = word.to_ascii_lowercase();
    if VERBS.contains(&lower.as_str()) || lower == "impersonate" {
        return never(word, "verbs", &format!("verbs are lower case, write `{lower}`"));
    }
    let hint = NO_VERBS.iter().find(|(name, _)| *name == lower).map(|(_, hint)| (*hint).to_owned());
    never(word, "verbs", &hint.unwrap_or_else(|| format!("verbs are {}, or \"*\"", VERBS.join(", "))))
}

fn method(word: &str) -> Result<(), String> {
    if word == "*" || METHODS.contains(&word) {
        return Ok(());
    }
    let lower = word.to_ascii_lowercase();
    let meant = match lower.as_str() {
        "list" | "watch" | "read" => "get",
        "create" => "post",
        "update" => "put",
        other if METHODS.contains(&other) => other,
        _ => "",
    };
    let all = || format!("of nonResourceURLs they are methods in lower case ({}), or \"*\"", METHODS.join(", "));
    never(word, "verbs", &if meant.is_empty() { all() } else { format!("of nonResourceURLs it is `{meant}`") })
}

fn path(url: &str) -> Result<(), String> {
    let field = "nonResourceURLs";
    let start = url.strip_suffix('*').unwrap_or(url);
    if url == "*" || (start.is_empty() && !url.is_empty()) {
        return Ok(());
    }
    if !start.starts_with('/') {
        return never(url, field, "write the path from its `/`, without scheme and host");
    }
    if start.contains('*') {
        return never(url, field, "`*` can only be the last character");
    }
    if start.contains(['?', '#', '%']) {
        return never(url, field, "write the path decoded, and without a query");
    }
    match RequestInfo::new(&Method::GET, start, None) {
        Ok(info) if info.is_resource && !url.ends_with('*') => {
            never(url, field, &format!("it is a resource: write `resources: [{}]`", info.resource))
        }
        _ => Ok(()),
    }
}

fn group(name: &str) -> Result<(), String> {
    let field = "apiGroups";
    let is_version = |text: &str| {
        let digits = text.strip_prefix('v').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        digits.is_some_and(|rest| {
            rest.len() + 1 < text.len() && (rest.is_empty() || rest.starts_with("alpha") || rest.starts_with("beta"))
        })
    };
    match name {
        "" | "*" => Ok(()),
        "core" | "legacy" | "v1" | "core/v1" | "api" | "api/v1" => never(name, field, "the core group is written \"\""),
        _ if name.contains('/') => {
            let group = name.split('/').next().unwrap_or_default();
            never(name, field, &format!("leave the version out, write `{group}`"))
        }
        _ if is_version(name) => {
            never(name, field, "it is a version: write the group, like apps, or \"\" for the core group")
        }
        _ if name.contains('*') => never(name, field, "`*` stands alone: name each group"),
        _ if name.to_ascii_lowercase() != name => {
            never(name, field, &format!("groups are lower case, write `{}`", name.to_ascii_lowercase()))
        }
        _ if !is_subdomain(name) => never(name, field, "groups look like apps or networking.k8s.io"),
        _ => match SHORT_GROUPS.iter().find(|(short, _)| *short == name) {
            Some((_, group)) => never(name, field, &format!("write `{group}`")),
            None => Ok(()),
        },
    }
}

fn resource(name: &str, groups: &[String]) -> Result<(), String> {
    let field = "resources";
    if name == "*" {
        return Ok(());
    }
    let (kind, subresource) = name.split_once('/').map_or((name, None), |(kind, rest)| (kind, Some(rest)));
    if kind.is_empty() || subresource == Some("") {
        return never(name, field, "write it like pods or pods/log");
    }
    if kind.contains('.') {
        let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
        return never(name, field, &format!("write `resources: [{kind}]` and `apiGroups: [{group}]`"));
    }
    if kind.to_ascii_lowercase() != kind {
        let lower = name.to_ascii_lowercase();
        return never(name, field, &format!("resources are lower case and plural, write `{}`", meant(&lower, groups)));
    }
    // A kind can be called unknown only in groups whose kinds are all known.
    let has = |kinds: &Resources| kinds.iter().any(|(known, _)| *known == kind);
    let every = groups.iter().any(|group| group == "*");
    let open = groups.iter().any(|group| closed(group).is_none());
    let told = !open || (every && CLOSED.iter().any(|(_, kinds)| has(kinds)));
    // Keys of `userextras` are free.
    if kind == "userextras" {
        return Ok(());
    }
    if let Some(subresource) = subresource {
        if subresource.contains('/') {
            return never(
                name,
                field,
                "a resource has one subresource: what stands behind it in the path is not judged",
            );
        }
        // Other groups may name their subresources as they like.
        if told && let Some((_, right)) = SUBRESOURCES.iter().find(|(wrong, _)| *wrong == subresource) {
            return never(name, field, &format!("write `{kind}/{right}`"));
        }
        if told && subresource.to_ascii_lowercase() != subresource {
            return never(name, field, &format!("subresources are lower case, write `{}`", name.to_ascii_lowercase()));
        }
    }
    if kind == "*" {
        return Ok(());
    }
    if !is_label(kind) || kind.contains('*') {
        return never(name, field, "`*` stands for a whole resource or subresource; other names have a-z, 0-9 and -");
    }
    if (open && !every) || groups.iter().filter_map(|group| closed(group)).any(has) {
        return Ok(());
    }
    let at_home = CLOSED.iter().find(|(_, kinds)| has(kinds)).map(|(group, _)| *group);
    let right = meant(kind, groups);
    match at_home {
        Some(_) if every => Ok(()),
        Some(group) => never(name, field, &format!("it is in another group, write `apiGroups: [{group:?}]`")),
        None if right != kind => {
            let rest = subresource.map_or_else(String::new, |rest| format!("/{rest}"));
            never(name, field, &format!("resources are plural and in full, write `{right}{rest}`"))
        }
        None if every => Ok(()),
        None => never(name, field, "its groups have no such resource"),
    }
}

/// All kinds of a group, if they are known.
fn closed(group: &str) -> Option<&'static Resources> {
    CLOSED.iter().find(|(name, _)| *name == group).map(|(_, kinds)| *kinds)
}

/// Checks a resource of a rule with namespaces.
fn namespaced(name: &str, groups: &[String]) -> Result<(), String> {
    let kind = name.split('/').next().unwrap_or_default();
    let lacks = |group: &String| closed(group).is_some_and(|kinds| kinds.iter().all(|(known, _)| *known != kind));
    let nowhere = |group: &String| is_in_no_namespace(group, kind);
    if groups.iter().any(nowhere) && groups.iter().all(|group| nowhere(group) || lacks(group)) {
        return never(name, "resources", "it is in no namespace: make a rule for it without `namespaces`");
    }
    Ok(())
}

/// The plural of a kind's singular or short name, where one is known.
fn meant(name: &str, groups: &[String]) -> String {
    let (kind, rest) = name.split_once('/').map_or((name, String::new()), |(kind, rest)| (kind, format!("/{rest}")));
    let fits = |plural: &str, short: &[&str]| {
        plural == kind || plural.strip_suffix('s') == Some(kind) || short.contains(&kind)
    };
    let of = |all: bool| {
        CLOSED
            .iter()
            .filter(|(group, _)| all || groups.iter().any(|name| name == group))
            .flat_map(|(_, kinds)| *kinds)
            .find(|(plural, short)| fits(plural, short))
            .map(|(plural, _)| *plural)
    };
    format!("{}{rest}", of(false).or_else(|| of(true)).unwrap_or(kind))
}

/// Checks a rule whose verbs are all of impersonation.
fn impersonation(rule: &Rule) -> Result<(), String> {
    let speaks = |verb: &String| verb == "impersonate" || verb.starts_with("impersonate:");
    if !rule.verbs.iter().all(speaks) {
        return Ok(());
    }
    for name in &rule.resources {
        let kind = name.split('/').next().unwrap_or_default();
        if name != "*" && !WHO.contains(&kind) {
            return never(
                name,
                "resources",
                "impersonated are users, groups, serviceaccounts (group \"\"), uids and userextras/KEY (group \
                 authentication.k8s.io)",
            );
        }
        if !rule.namespaces.is_empty() && !matches!(kind, "serviceaccounts" | "*") {
            return never(name, "resources", "beside `namespaces`, only serviceaccounts have one");
        }
        let plain = rule.verbs.iter().any(|verb| verb == "impersonate");
        let fits = |group: &String| match group.as_str() {
            "*" | "authentication.k8s.io" => true,
            "" => plain && matches!(kind, "users" | "groups" | "serviceaccounts" | "*"),
            _ => false,
        };
        if !rule.api_groups.iter().any(fits) {
            let group = if plain && matches!(kind, "users" | "groups" | "serviceaccounts") {
                "\"\""
            } else {
                "authentication.k8s.io"
            };
            return never(
                name,
                "resources",
                &format!("to be impersonated it is in another group, write `apiGroups: [{group}]`"),
            );
        }
        if plain
            && matches!(kind, "users" | "groups" | "serviceaccounts")
            && !rule.api_groups.iter().any(|g| matches!(g.as_str(), "" | "*"))
        {
            return never(name, "resources", "for `impersonate` it is in the core group, write `apiGroups: [\"\"]`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
