//! What clients may do: the flags of `mykube server` and `mykube sessions new`, and the policy they make.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, ValueHint, builder::BoolishValueParser};
use mykube_agent_gateway::{Policy, read_rules};
use mykube_agent_upstream::moment::{latest, moment};
use mykube_protocol::units;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::exit::Failure;

/// The heading of these flags in `--help`.
const HEADING: &str = "What clients may do";

/// Flags of a policy. They go with guarded mode only.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = HEADING)]
pub(crate) struct PolicyArgs {
    /// Only get, list, watch and logs: no exec, attach, port-forward or proxy
    #[arg(long, env = "MYKUBE_READ_ONLY", value_parser = BoolishValueParser::new())]
    pub(crate) read_only: bool,
    /// Make every request as this user (the kubeconfig's identity needs the right to impersonate)
    #[arg(long = "as", env = "MYKUBE_AS", value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// And as a member of this group; may be given again
    #[arg(
        long = "as-group",
        env = "MYKUBE_AS_GROUP",
        value_name = "GROUP",
        value_delimiter = ',',
        requires = "as_user"
    )]
    pub(crate) as_group: Vec<String>,
    /// Only this namespace; may be given again
    #[arg(long, env = "MYKUBE_NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    pub(crate) namespace: Vec<String>,
    /// Only what a rule in FILE names (YAML: rules with verbs, apiGroups, resources, namespaces, as RBAC has them)
    #[arg(long, env = "MYKUBE_ALLOW", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) allow: Option<PathBuf>,
    /// Never what a rule in FILE names; wins over --allow
    #[arg(long, env = "MYKUBE_DENY", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) deny: Option<PathBuf>,
    /// Nothing after this: a time from now, like 8h, or a moment, like 2030-01-31T18:00:00Z
    #[arg(long, env = "MYKUBE_EXPIRES", value_name = "TIME", value_parser = expires)]
    pub(crate) expires: Option<SystemTime>,
}

impl PolicyArgs {
    /// Whether anything is restricted.
    pub(crate) fn is_given(&self) -> bool {
        let Self { read_only, as_user, as_group, namespace, allow, deny, expires } = self;
        *read_only
            || as_user.is_some()
            || !as_group.is_empty()
            || !namespace.is_empty()
            || allow.is_some()
            || deny.is_some()
            || expires.is_some()
    }

    /// The policy, its files read.
    pub(crate) fn policy(self) -> Result<Policy, Failure> {
        let policy = Policy {
            read_only: self.read_only,
            as_user: self.as_user,
            as_groups: self.as_group,
            as_uid: None,
            as_extra: Default::default(),
            namespaces: self.namespace,
            allow: self.allow.map(|path| read_rules(&path)).transpose().map_err(Failure::usage)?,
            deny: self.deny.map(|path| read_rules(&path)).transpose().map_err(Failure::usage)?.unwrap_or_default(),
            expires: self.expires,
        };
        policy.check().map_err(Failure::usage)?;
        Ok(policy)
    }
}

/// The policy in few words, for lists.
pub(crate) fn summary(policy: &Policy) -> String {
    let mut parts = Vec::new();
    if policy.read_only {
        parts.push("read-only".to_owned());
    }
    if let Some(user) = &policy.as_user {
        let groups =
            if policy.as_groups.is_empty() { String::new() } else { format!(" of {}", policy.as_groups.join(", ")) };
        parts.push(format!("as {user}{groups}"));
    }
    if !policy.namespaces.is_empty() {
        parts.push(format!("in {}", policy.namespaces.join(", ")));
    }
    if policy.allow.is_some() || !policy.deny.is_empty() {
        parts.push("by rules".to_owned());
    }
    if let Some(expires) = policy.expires {
        parts.push(format!("until {}", moment(expires)));
    }
    if parts.is_empty() { "as RBAC allows".to_owned() } else { parts.join("; ") }
}

/// `8h`, `90m`, `30s`, `2d`, or RFC 3339.
fn expires(text: &str) -> Result<SystemTime, String> {
    let moment = match units::time(unsigned(text), &["s", "m", "h", "d"]) {
        Some(from_now) => SystemTime::now().checked_add(from_now),
        None => OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from),
    };
    match moment {
        Some(moment) if moment > latest() => Err("that is too far away: leave it out to mean for ever".to_owned()),
        Some(moment) if moment > SystemTime::now() => Ok(moment),
        Some(_) => Err("that is over already".to_owned()),
        None => Err("a time from now, like 8h or 2d, or a moment, like 2030-01-31T18:00:00Z".to_owned()),
    }
}

/// A leading plus has always been accepted.
pub(crate) fn unsigned(text: &str) -> &str {
    text.strip_prefix('+').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_end_is_a_span_or_a_moment() {
        let from_now = |text: &str| expires(text).unwrap().duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((3590..=3600).contains(&from_now("1h")));
        assert!((172_790..=172_800).contains(&from_now("2d")));
        assert!((28_790..=28_800).contains(&from_now("+8h")));
        assert!(expires("2999-01-31T18:00:00Z").is_ok());
        for bad in ["9999999d", "99999999d", "213503982334601d", "9999-12-31T23:59:59-01:00"] {
            let refused = expires(bad).unwrap_err();
            assert!(refused.contains("too far") || refused.contains("a time from now"), "{bad}: {refused}");
        }
        // A far time, if it has a date, can be printed.
        let far = Policy { expires: Some(expires("2900000d").unwrap()), ..Policy::default() };
        assert!(summary(&far).starts_with("until 99"), "{}", summary(&far));
        for bad in
            ["", "h", "0s", "2001-01-31T18:00:00Z", "tomorrow", "-1h", "++1h", "90", "500ms", "99999999999999999999d"]
        {
            assert!(expires(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_says_what_it_is() {
        assert_eq!(summary(&Policy::default()), "as RBAC allows");
        let policy = Policy {
            read_only: true,
            as_user: Some("dev".into()),
            namespaces: vec!["a".into(), "b".into()],
            ..Policy::default()
        };
        assert_eq!(summary(&policy), "read-only; as dev; in a, b");
        // A server of another release may send any time; nobody reads nanoseconds.
        let at = |time| summary(&Policy { expires: Some(time), ..Policy::default() });
        let precise = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_767_225_599_123_456_789);
        assert_eq!(at(precise), "until 2025-12-31T23:59:59Z");
        assert_eq!(at(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60)), "until 9999-12-31T23:59:59Z");
    }
}
