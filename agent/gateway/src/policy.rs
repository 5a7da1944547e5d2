//! What a client may do, decided on the request as the API server reads it, before anything is forwarded.
//!
//! The policy stops mistakes, and is a second fence for clients that mean harm: the real fence is RBAC on the identity
//! that the agent uses. GET is not read-only in Kubernetes, and a proxied request does what its target does.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mykube_agent_upstream::{
    Impersonation,
    impersonation::fits,
    moment::{latest, moment},
};
use mykube_protocol::text::printable;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    inner::{Wanted, inner},
    request_info::RequestInfo,
    rule::Rule,
};

/// How often the wall clock is read for `--expires`: after a sleep of the machine, the end comes this late at most.
const EXPIRY_LOOK: Duration = Duration::from_secs(10);
/// Most texts compared, for each way of asking, to find whether a request may be made as another user: a head has room
/// for many groups, and each is compared with each rule about impersonation. Some 10 ms.
const IMPERSONATION_MAX: usize = 2_000_000;
/// Longest message to a user, in bytes: a name has 253.
const MESSAGE_MAX: usize = 1024;

/// Characters that stand unescaped in the name of an `Impersonate-Extra-` header.
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
/// It is sent from `mykube sessions new` to a server of maybe another release. A server refuses a policy with a field
/// that it does not know, as that is a restriction it could not keep; so a field that is newer than others is left out
/// where it restricts nothing.
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
    /// The text is no name of a namespace.
    #[error("`{0}` is not a namespace (a-z, 0-9 and -): correct --namespace")]
    BadNamespace(String),
    /// A rule can match nothing.
    #[error("a rule of {0} {1}")]
    BadRule(&'static str, String),
    /// The time is later than calendars go.
    #[error("the time of --expires is too far away: leave it out to mean for ever")]
    TooLate,
}

/// A request as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What the request asks for.
    pub info: &'a RequestInfo,
    /// Its method.
    pub method: &'a Method,
    /// It asks for an upgrade.
    pub upgrade: bool,
    /// It is a PATCH that may create its object, as server-side apply does.
    pub applies: bool,
    /// Which user it is to be made as.
    pub impersonates: Option<&'a Wanted>,
}

/// A request that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// One word for the audit log: `read-only`, `namespace`, `impersonation`, `allow`, `deny`, `expired`.
    pub rule: &'static str,
    /// The text for the client's user.
    pub message: String,
}

impl Policy {
    /// Checks that the policy can be used.
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
        // A uid and attributes are never without a user.
        let Self { read_only, as_user, as_groups, as_uid: _, as_extra: _, namespaces, allow, deny, expires } = self;
        *read_only
            || as_user.is_some()
            || !as_groups.is_empty()
            || !namespaces.is_empty()
            || allow.is_some()
            || !deny.is_empty()
            || expires.is_some()
    }

    /// This policy, acting as the user of the kubeconfig where it names no user itself. Its own `--as` replaces that
    /// user with groups, uid and attributes.
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

    /// The policy of one client on a server with this policy: the restrictions of both apply.
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
            // For `exec` and the like with GET, the rule to write says `create`.
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

    /// Adds the headers of the user that requests are made as.
    pub(crate) fn impersonate(&self, headers: &mut HeaderMap) {
        // `check` has found that the names fit a header.
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

    /// Waits until the policy expires; for ever if it does not.
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

/// Rules that can match impersonation.
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
        // An unknown path may lead to another API server, and to a proxy of its pods.
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
mod tests;
