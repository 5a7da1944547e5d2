//! What a client may do, decided on the request as the API server reads it, before anything is forwarded.
//!
//! This is a fence for those who mean well and a second one for the others: the real fence is RBAC on the identity
//! that the agent uses. GET is not read-only in Kubernetes, and a proxied request does what its target does.
//!
//! Over 500 lines because its tests stand below.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mykube_protocol::text::printable;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    inner::{Wanted, inner},
    request_info::RequestInfo,
    rules::Rule,
};
use crate::{
    Impersonation,
    impersonation::fits,
    moment::{latest, moment},
};

/// How often the wall clock is looked at for `--expires`: a machine that slept notices this late at most.
const EXPIRY_LOOK: Duration = Duration::from_secs(10);
/// Most texts that are compared for each of the few ways to ask whether a request may be made as somebody: that has as many
/// groups as a head has room for, and each is compared with each rule that speaks of impersonation. Some 10 ms.
const IMPERSONATION_MAX: usize = 2_000_000;
/// Longest message to a user, in bytes: a name has 253.
const MESSAGE_MAX: usize = 1024;

/// What stands as it is in the name of an `Impersonate-Extra-` header.
const EXTRA_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// What clients may do. The default is everything that RBAC lets the agent's identity do.
///
/// It is sent from `mykube sessions new` to a server of maybe another release. A field that the server does not know is a
/// restriction that it could not hold, so it takes none; a field that is newer than others is left out where it says nothing.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `--read-only`: get, list, watch, logs and the self-subject reviews; nothing that runs, opens or proxies.
    pub read_only: bool,
    /// `--as`: every request is made as this user.
    pub as_user: Option<String>,
    /// `--as-group`: and as a member of these groups.
    pub as_groups: Vec<String>,
    /// And with this uid: `as-uid` of a kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_uid: Option<String>,
    /// And with these attributes: `as-user-extra` of a kubeconfig.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub as_extra: BTreeMap<String, Vec<String>>,
    /// `--namespace`: only these, and of the cluster only what it offers. Empty: all.
    pub namespaces: Vec<String>,
    /// `--allow`: only what one of these names. Nothing given: everything.
    pub allow: Option<Vec<Rule>>,
    /// `--deny`: never what one of these names.
    pub deny: Vec<Rule>,
    /// `--expires`: nothing after this.
    pub expires: Option<SystemTime>,
}

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The API server takes no groups without a user.
    #[error("--as-group needs --as: name the user too (any name will do where only the groups have rights)")]
    GroupsWithoutUser,
    /// It must fit a header.
    #[error("`{0}` cannot be used with --as or --as-group: a name is text without control characters")]
    BadName(&'static str),
    /// A client may be given less than its server gives, never more or something else.
    #[error("the server itself was started with {0}: a client's own cannot replace it; leave it out here")]
    Wider(&'static str),
    /// Not a namespace's name.
    #[error("`{0}` is not a namespace (a-z, 0-9 and -): correct --namespace")]
    BadNamespace(String),
    /// A rule that names nothing.
    #[error("a rule of {0} {1}")]
    BadRule(&'static str, String),
    /// Later than calendars go.
    #[error("the time of --expires is too far away: leave it out to mean for ever")]
    TooLate,
}

/// A request as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it asks for.
    pub info: &'a RequestInfo,
    /// Its method.
    pub method: &'a Method,
    /// It wants to become something else than HTTP.
    pub upgrade: bool,
    /// It is a PATCH that may make its object, as server-side apply does.
    pub applies: bool,
    /// Whom it wants to be.
    pub impersonates: Option<&'a Wanted>,
}

/// A request that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word for the audit log: `read-only`, `namespace`, `impersonation`, `allow`, `deny`, `expired`.
    pub rule: &'static str,
    /// What the user reads.
    pub message: String,
}

impl Policy {
    /// Whether it can be used at all.
    ///
    /// # Errors
    /// See [`PolicyError`].
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.as_user.is_none() && !(self.as_groups.is_empty() && self.as_uid.is_none() && self.as_extra.is_empty()) {
            return Err(PolicyError::GroupsWithoutUser);
        }
        let about = self.as_uid.iter().chain(self.as_extra.values().flatten());
        if !self.as_user.iter().chain(about).all(|name| fits(name)) {
            return Err(PolicyError::BadName("--as"));
        }
        if !self.as_groups.iter().all(|group| fits(group)) {
            return Err(PolicyError::BadName("--as-group"));
        }
        let is_label = |name: &str| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if let Some(name) = self.namespaces.iter().find(|name| !is_label(name)) {
            return Err(PolicyError::BadNamespace(printable(name, 63)));
        }
        for (flag, rules) in [("--allow", self.allow.as_ref()), ("--deny", Some(&self.deny))] {
            for rule in rules.into_iter().flatten() {
                rule.check().map_err(|problem| PolicyError::BadRule(flag, problem))?;
            }
        }
        if self.expires.is_some_and(|expires| expires > latest()) {
            return Err(PolicyError::TooLate);
        }
        Ok(())
    }

    /// Whether anything is restricted.
    #[must_use]
    pub fn restricts(&self) -> bool {
        // A uid and attributes are always a user's.
        let Self { read_only, as_user, as_groups, as_uid: _, as_extra: _, namespaces, allow, deny, expires } = self;
        *read_only
            || as_user.is_some()
            || !as_groups.is_empty()
            || !namespaces.is_empty()
            || allow.is_some()
            || !deny.is_empty()
            || expires.is_some()
    }

    /// The same, acting as the user of the kubeconfig where it names nobody itself. Its own `--as` replaces that user
    /// whole: groups, uid and attributes are one person's.
    #[must_use]
    pub fn or_as(self, default: Option<&Impersonation>) -> Self {
        match default {
            Some(Impersonation { user, groups, uid, extra }) if self.as_user.is_none() => Self {
                as_user: Some(user.clone()),
                as_groups: groups.clone(),
                as_uid: uid.clone(),
                as_extra: extra.clone(),
                ..self
            },
            _ => self,
        }
    }

    /// What one client may do on a server of this policy: all of both apply.
    ///
    /// # Errors
    /// [`PolicyError::Wider`], and what [`Policy::check`] finds.
    pub fn narrowed(&self, asked: &Self) -> Result<Self, PolicyError> {
        asked.check()?;
        if self.as_user.is_some() && asked.as_user.is_some() && asked.as_user != self.as_user {
            return Err(PolicyError::Wider("--as"));
        }
        if self.as_user.is_some() && !asked.as_groups.iter().all(|group| self.as_groups.contains(group)) {
            return Err(PolicyError::Wider("--as-group"));
        }
        if !self.namespaces.is_empty() && !asked.namespaces.iter().all(|name| self.namespaces.contains(name)) {
            return Err(PolicyError::Wider("--namespace"));
        }
        if self.allow.is_some() && asked.allow.is_some() {
            return Err(PolicyError::Wider("--allow"));
        }
        let own_identity = self.as_user.is_none();
        let narrower =
            |ours: &Vec<String>, asked: &Vec<String>| if asked.is_empty() { ours.clone() } else { asked.clone() };
        Ok(Self {
            read_only: self.read_only || asked.read_only,
            as_user: if own_identity { asked.as_user.clone() } else { self.as_user.clone() },
            as_groups: if own_identity { asked.as_groups.clone() } else { narrower(&self.as_groups, &asked.as_groups) },
            as_uid: if own_identity { asked.as_uid.clone() } else { self.as_uid.clone() },
            as_extra: if own_identity { asked.as_extra.clone() } else { self.as_extra.clone() },
            namespaces: narrower(&self.namespaces, &asked.namespaces),
            allow: self.allow.clone().or_else(|| asked.allow.clone()),
            deny: self.deny.iter().chain(&asked.deny).cloned().collect(),
            expires: self.expires.into_iter().chain(asked.expires).min(),
        })
    }

    /// Decides on one request.
    ///
    /// # Errors
    /// It is refused.
    pub fn decide(&self, asked: Asked<'_>, now: SystemTime) -> Result<(), Refusal> {
        let Asked { info, method, upgrade, applies, impersonates } = asked;
        let refuse = |rule, message: String| {
            Err(Refusal { rule, message: printable(&format!("mykube: {message}"), MESSAGE_MAX) })
        };
        if let Some(expires) = self.expires.filter(|expires| now >= *expires) {
            return refuse("expired", format!("expired: this access ended at {}", moment(expires)));
        }
        if let Some(user) = self.as_user.as_ref().filter(|_| impersonates.is_some()) {
            let text = format!("impersonation: requests here are made as \"{user}\", --as of your own is refused");
            return refuse("impersonation", text);
        }
        let what = || words(info, method);
        if self.read_only && !reads(info, method, upgrade) {
            return refuse("read-only", format!("read-only: {} is refused", what()));
        }
        if !self.namespaces.is_empty() && !self.in_namespaces(info) {
            let place = match info.namespace.as_str() {
                "" if info.is_resource => " outside a namespace".to_owned(),
                "" => String::new(),
                namespace => format!(" in namespace \"{namespace}\""),
            };
            let allowed = self.namespaces.join(", ");
            return refuse("namespace", format!("only in namespace {allowed}: {}{place} is refused", what()));
        }
        let inner = inner(info, applies);
        if let Some(text) = self.denied(info, method) {
            return refuse("deny", text);
        }
        if let Some(inner) = &inner
            && let Some(text) = self.denied(&inner.info, method)
        {
            return refuse("deny", format!("{text}: {}", inner.why));
        }
        if let Some(wanted) = impersonates {
            let rules = self.deny.iter().chain(self.allow.iter().flatten());
            let cost: usize = rules.map(Rule::impersonation_cost).sum();
            if cost.saturating_mul(wanted.len()) > IMPERSONATION_MAX {
                let text = "impersonation: these are too many groups at once for as many rules as there are here";
                return refuse("impersonation", text.to_owned());
            }
            let rules = speaking(&self.deny);
            let all = [wanted.plain(), wanted.constrained(info), wanted.otherwise(info)];
            if let Some(ask) = all.iter().flatten().find(|ask| rules.iter().any(|rule| rule.denies(ask))) {
                return refuse("deny", format!("deny: a rule refuses {}", words(ask, method)));
            }
        }
        if !self.allowed(info) && !info.is_discovery() && !info.is_self_review() {
            // For `exec` and the like by GET it is `create` that a rule has to say.
            let create = RequestInfo { verb: "create".into(), ..info.clone() };
            let info = if info.is_connect() { &create } else { info };
            return refuse("allow", format!("allow: no rule allows {}", words(info, method)));
        }
        if let Some(inner) = inner.filter(|inner| inner.asked && !self.allowed(&inner.info)) {
            let text = format!("allow: no rule allows {} too: {}", words(&inner.info, method), inner.why);
            return refuse("allow", text);
        }
        if let Some(wanted) = impersonates {
            let (plain, constrained) = (wanted.plain(), wanted.constrained(info));
            let rules = self.allow.as_deref().map(speaking);
            let allowed =
                |ask: &RequestInfo| rules.as_ref().is_none_or(|rules| rules.iter().any(|rule| rule.allows(ask)));
            let all = |asks: &[RequestInfo]| !asks.is_empty() && asks.iter().all(allowed);
            if !all(&plain) && !all(&constrained) {
                let missing = plain.iter().find(|ask| !allowed(ask));
                let text = missing.map_or_else(|| "impersonate".to_owned(), |ask| words(ask, method));
                return refuse("allow", format!("allow: no rule allows {text}"));
            }
        }
        Ok(())
    }

    /// Why a rule of `--deny` refuses it.
    fn denied(&self, info: &RequestInfo, method: &Method) -> Option<String> {
        if self.deny.iter().any(|rule| rule.denies(info)) {
            return Some(format!("deny: a rule refuses {}", words(info, method)));
        }
        let names_resources = self.deny.iter().any(|rule| !rule.resources.is_empty());
        (info.is_foreign() && names_resources).then(|| {
            format!(
                "deny: {} is refused: it is no path of the API server, and denied resources may be under it",
                info.path
            )
        })
    }

    fn allowed(&self, info: &RequestInfo) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.iter().any(|rule| rule.allows(info)))
    }

    /// Adds whom the request is made as.
    pub(super) fn impersonate(&self, headers: &mut HeaderMap) {
        // `check` has seen that the names fit.
        let value = |name: &str| HeaderValue::from_str(name).ok();
        if let Some(user) = self.as_user.as_deref().and_then(value) {
            headers.insert("impersonate-user", user);
        }
        for group in self.as_groups.iter().filter_map(|group| value(group)) {
            headers.append("impersonate-group", group);
        }
        if let Some(uid) = self.as_uid.as_deref().and_then(value) {
            headers.insert("impersonate-uid", uid);
        }
        for (key, texts) in &self.as_extra {
            let name = format!("impersonate-extra-{}", utf8_percent_encode(key, EXTRA_KEY));
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                for text in texts.iter().filter_map(|text| value(text)) {
                    headers.append(name.clone(), text);
                }
            }
        }
    }

    fn in_namespaces(&self, info: &RequestInfo) -> bool {
        let allowed = |name: &String| self.namespaces.contains(name);
        match info.resource.as_str() {
            _ if info.is_discovery() || info.is_self_review() => true,
            "namespaces" => info.verb == "get" && info.subresource.is_empty() && allowed(&info.name),
            _ => info.is_resource && allowed(&info.namespace),
        }
    }

    /// Waits until nothing is allowed any more; for ever where there is no such time.
    pub async fn expired(&self) {
        let Some(expires) = self.expires else { return std::future::pending().await };
        while let Ok(left) = expires.duration_since(SystemTime::now()) {
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(EXPIRY_LOOK)).await;
        }
    }
}

/// Those that say something of impersonation.
fn speaking(rules: &[Rule]) -> Vec<&Rule> {
    rules.iter().filter(|rule| rule.impersonation_cost() > 0).collect()
}

/// `create of pods/exec`, `impersonate of users "ann"`.
fn words(info: &RequestInfo, method: &Method) -> String {
    let verb = if info.verb.is_empty() { method.as_str() } else { &info.verb };
    let whom = if verb.starts_with("impersonate") { format!(" \"{}\"", info.name) } else { String::new() };
    format!("{verb} of {}{whom}", info.target())
}

/// What `--read-only` lets through.
fn reads(info: &RequestInfo, method: &Method, upgrade: bool) -> bool {
    let by_reading = matches!(*method, Method::GET | Method::HEAD);
    if !info.is_resource {
        // Under a path of somebody else's there may be another API server, and a proxy of its pods.
        return by_reading && !upgrade && !info.is_foreign();
    }
    if info.is_self_review() {
        return *method == Method::POST && info.subresource.is_empty() && !upgrade;
    }
    let is_log = info.group.is_empty() && info.resource == "pods" && info.subresource == "log";
    by_reading
        && matches!(info.verb.as_str(), "get" | "list" | "watch")
        && !info.is_connect()
        && !info.is_proxy()
        && (!upgrade || info.verb == "watch" || is_log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(policy: &Policy, method: &str, target: &str, upgrade: bool) -> Result<(), &'static str> {
        let method: Method = method.parse().unwrap();
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let info = RequestInfo::new(&method, path, query).unwrap();
        let asked = Asked { info: &info, method: &method, upgrade, applies: false, impersonates: None };
        policy.decide(asked, SystemTime::now()).map_err(|refusal| refusal.rule)
    }

    #[test]
    fn a_client_gets_no_more_than_its_server_gives() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let soon = SystemTime::now();
        let server = Policy {
            as_user: Some("guest".into()),
            as_groups: names(&["team", "ops"]),
            namespaces: names(&["a", "b"]),
            expires: Some(soon),
            ..Policy::default()
        };
        let same = server.narrowed(&Policy::default()).unwrap();
        assert_eq!((same.as_user.as_deref(), &same.namespaces), (Some("guest"), &server.namespaces));
        let asked = Policy {
            read_only: true,
            namespaces: names(&["b"]),
            expires: Some(soon + Duration::from_secs(60)),
            ..Policy::default()
        };
        let less = server.narrowed(&asked).unwrap();
        assert!(less.read_only && less.as_user == server.as_user && less.as_groups == server.as_groups);
        assert_eq!((less.namespaces, less.expires), (names(&["b"]), Some(soon)));
        let wider = [
            Policy { as_user: Some("admin".into()), ..Policy::default() },
            Policy { as_user: Some("guest".into()), as_groups: names(&["system:masters"]), ..Policy::default() },
            Policy { namespaces: names(&["a", "kube-system"]), ..Policy::default() },
        ];
        for asked in wider {
            assert!(matches!(server.narrowed(&asked), Err(PolicyError::Wider(_))), "{asked:?}");
        }
        let allow = Policy { allow: Some(vec![]), ..Policy::default() };
        assert!(matches!(allow.narrowed(&allow), Err(PolicyError::Wider("--allow"))));
        assert!(server.restricts() && !Policy::default().restricts());
    }

    #[test]
    fn read_only() {
        let policy = Policy { read_only: true, ..Policy::default() };
        let allowed = [
            ("GET", "/api/v1/namespaces/a/pods", false),
            ("HEAD", "/api/v1/namespaces/a/pods/p", false),
            ("GET", "/api/v1/pods?watch=1", true),
            ("GET", "/api/v1/watch/pods", true),
            ("GET", "/api/v1/namespaces/a/pods/p/log?follow=true", true),
            ("GET", "/api/v1/namespaces/a/secrets/s", false),
            ("GET", "/version", false),
            ("GET", "/openapi/v3", false),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", false),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", false),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", false),
        ];
        for (method, target, upgrade) in allowed {
            assert_eq!(decide(&policy, method, target, upgrade), Ok(()), "{method} {target}");
        }
        let refused = [
            ("POST", "/api/v1/namespaces/a/pods", false),
            ("PUT", "/api/v1/namespaces/a/pods/p", false),
            ("PATCH", "/api/v1/namespaces/a/pods/p/ephemeralcontainers", false),
            ("DELETE", "/api/v1/namespaces/a/pods", false),
            ("DELETE", "/api/v1/watch/namespaces/a/pods", false),
            ("OPTIONS", "/api/v1/pods", false),
            ("GET", "/api/v1/namespaces/a/pods/p/exec?command=ls", true),
            ("GET", "/api/v1/namespaces/a/pods/p/exec?command=ls", false),
            ("GET", "/api/v1/namespaces/a/pods/p/%65xec", false),
            ("GET", "/api/v1/namespaces/a/pods/p/exec/", false),
            ("GET", "/api/v1/namespaces/a/pods/p/attach", false),
            ("GET", "/api/v1/namespaces/a/pods/p/portforward", true),
            ("GET", "/api/v1/namespaces/a/pods/p/proxy", false),
            ("GET", "/api/v1/namespaces/a/services/s/proxy/admin", false),
            ("GET", "/api/v1/nodes/n/proxy/run/a/b/c", false),
            ("GET", "/api/v1/proxy/nodes/n", false),
            ("GET", "/api/v1/proxy/namespaces/a/pods/p", false),
            ("GET", "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/v/vnc", true),
            ("GET", "/api/v1/namespaces/a/pods/p?watch=1", true),
            ("GET", "/api/v1/namespaces/a/pods", true),
            ("GET", "/version", true),
            ("POST", "/version", false),
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", false),
            ("POST", "/apis/evil.example/v1/selfsubjectaccessreviews", false),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", false),
        ];
        for (method, target, upgrade) in refused {
            assert_eq!(decide(&policy, method, target, upgrade), Err("read-only"), "{method} {target}");
        }
    }

    #[test]
    fn namespaces() {
        let policy = Policy { namespaces: vec!["a".into(), "b".into()], ..Policy::default() };
        for (method, target) in [
            ("GET", "/api/v1/namespaces/a/pods"),
            ("POST", "/apis/apps/v1/namespaces/b/deployments"),
            ("GET", "/api/v1/namespaces/%61/pods"),
            ("GET", "/api/v1/namespaces/a"),
            ("GET", "/apis"),
            ("GET", "/version"),
            ("GET", "/readyz/etcd"),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"),
        ] {
            assert_eq!(decide(&policy, method, target, false), Ok(()), "{method} {target}");
        }
        for (method, target) in [
            ("GET", "/api/v1/namespaces/c/pods"),
            ("GET", "/api/v1/namespaces/A/pods"),
            ("GET", "/api/v1/pods"),
            ("GET", "/api/v1/namespaces"),
            ("GET", "/api/v1/namespaces?fieldSelector=metadata.name=a"),
            ("DELETE", "/api/v1/namespaces/a"),
            ("PUT", "/api/v1/namespaces/a/finalize"),
            ("GET", "/api/v1/namespaces/c"),
            ("GET", "/api/v1/nodes/n"),
            ("GET", "/metrics"),
            ("GET", "/logs/a"),
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
        ] {
            assert_eq!(decide(&policy, method, target, false), Err("namespace"), "{method} {target}");
        }
    }

    #[test]
    fn deny_wins_and_allow_leaves_discovery() {
        let rule = |verb: &str, resource: &str| Rule {
            verbs: vec![verb.into()],
            api_groups: vec!["".into()],
            resources: vec![resource.into()],
            ..Rule::default()
        };
        let policy =
            Policy { allow: Some(vec![rule("*", "pods")]), deny: vec![rule("delete", "pods")], ..Policy::default() };
        assert_eq!(decide(&policy, "GET", "/api/v1/namespaces/a/pods/p", false), Ok(()));
        assert_eq!(decide(&policy, "DELETE", "/api/v1/namespaces/a/pods/p", false), Err("deny"));
        assert_eq!(decide(&policy, "GET", "/api/v1/namespaces/a/secrets", false), Err("allow"));
        assert_eq!(decide(&policy, "GET", "/metrics", false), Err("allow"));
        assert_eq!(decide(&policy, "GET", "/apis", false), Ok(()));
        let nothing = Policy { allow: Some(Vec::new()), ..Policy::default() };
        assert_eq!(decide(&nothing, "GET", "/api/v1/pods", false), Err("allow"));
    }

    #[test]
    fn expiry_and_impersonation() {
        let info = RequestInfo::new(&Method::GET, "/api", None).unwrap();
        let now = SystemTime::now();
        let policy = Policy { expires: Some(now), as_user: Some("dev".into()), ..Policy::default() };
        let ann = Wanted { user: "ann".into(), ..Wanted::default() };
        let decide = |impersonates, at| {
            let asked = Asked { info: &info, method: &Method::GET, upgrade: false, applies: false, impersonates };
            policy.decide(asked, at).map_err(|refusal| refusal.rule)
        };
        let before = now - Duration::from_secs(1);
        assert_eq!(decide(None, before), Ok(()));
        assert_eq!(decide(Some(&ann), before), Err("impersonation"));
        assert_eq!(decide(None, now), Err("expired"));
    }

    #[test]
    fn being_many_is_judged_by_few_rules_or_not_at_all() {
        let rule = |verb: &str, name: String| Rule {
            verbs: vec![verb.into()],
            api_groups: vec![String::new()],
            resources: vec![if verb == "get" { "secrets" } else { "groups" }.into()],
            resource_names: vec![name],
            ..Rule::default()
        };
        let many = |verb: &str| (0..2_000).map(|n| rule(verb, format!("g{n}"))).collect::<Vec<_>>();
        let pods = RequestInfo::new(&Method::GET, "/api/v1/pods", None).unwrap();
        let decide = |policy: &Policy, groups: usize| {
            let groups = (0..groups).map(|n| format!("other{n}")).collect();
            let wanted = Wanted { user: "ann".into(), groups, ..Wanted::default() };
            let impersonates = Some(&wanted);
            let asked = Asked { info: &pods, method: &Method::GET, upgrade: false, applies: false, impersonates };
            policy.decide(asked, SystemTime::now()).map_err(|refusal| refusal.rule)
        };
        let denies = |verb: &str| Policy { deny: many(verb), ..Policy::default() };
        assert_eq!(decide(&denies("get"), 4_000), Ok(()), "rules that say nothing of it do not count");
        assert_eq!(decide(&denies("impersonate"), 100), Ok(()));
        assert_eq!(decide(&denies("impersonate"), 4_000), Err("impersonation"));
        let mut allow = vec![Rule { resource_names: Vec::new(), ..rule("impersonate", String::new()) }];
        allow[0].resources.extend(["users".into(), "pods".into()]);
        allow[0].verbs.push("list".into());
        let mut few = Policy { allow: Some(allow), ..Policy::default() };
        assert_eq!(decide(&few, 4_000), Ok(()));
        few.deny = vec![rule("impersonate", "other3999".into())];
        assert_eq!((decide(&few, 4_000), decide(&few, 3_000)), (Err("deny"), Ok(())), "each is looked at");
        few.allow.as_mut().unwrap().extend(many("impersonate"));
        assert_eq!(decide(&few, 4_000), Err("impersonation"));
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_is_waited_for() {
        let past = Policy { expires: Some(SystemTime::now() - Duration::from_secs(1)), ..Policy::default() };
        past.expired().await;
        let never = Policy::default();
        assert!(tokio::time::timeout(Duration::from_secs(1 << 20), never.expired()).await.is_err());
    }

    #[test]
    fn what_cannot_be_a_policy() {
        let check = |policy: Policy| policy.check();
        assert_eq!(
            check(Policy { as_groups: vec!["g".into()], ..Policy::default() }),
            Err(PolicyError::GroupsWithoutUser)
        );
        for name in ["", "a\nb"] {
            assert!(check(Policy { as_user: Some(name.into()), ..Policy::default() }).is_err());
        }
        for name in ["", "A", "a/b", "a.b"] {
            assert!(check(Policy { namespaces: vec![name.into()], ..Policy::default() }).is_err(), "{name}");
        }
        assert_eq!(check(Policy { as_user: Some("ann@example".into()), ..Policy::default() }), Ok(()));
    }
}
