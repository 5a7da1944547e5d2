//! What the API server asks of its authorizer inside a request, beside what method and path say.
//!
//! The API server asks that of the agent's identity, which may do much: a client with `update` only must not `create`
//! by it. What the API server asks because of a body's content (`bind`, `escalate`, `approve`, `sign`, `attest`, `use`)
//! cannot be told here.

use crate::{
    request_info::RequestInfo,
    scope::{Kinds, is_among},
};

/// Kinds of Kubernetes' own that a PUT never creates (`AllowCreateOnUpdate` is false, in 1.20 as in 1.36), by group. A
/// PUT may create any other kind: it does create services, leases and the kinds of RBAC, and an aggregated API may do
/// either.
const PUT_MAKES_NONE: Kinds = &[
    (
        "",
        &[
            "configmaps",
            "namespaces",
            "nodes",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "podtemplates",
            "replicationcontrollers",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
        ],
    ),
    (
        "admissionregistration.k8s.io",
        &[
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "validatingwebhookconfigurations",
        ],
    ),
    ("apiextensions.k8s.io", &["customresourcedefinitions"]),
    ("apiregistration.k8s.io", &["apiservices"]),
    ("apps", &["controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"]),
    ("autoscaling", &["horizontalpodautoscalers"]),
    ("batch", &["cronjobs", "jobs"]),
    ("certificates.k8s.io", &["certificatesigningrequests", "clustertrustbundles", "podcertificaterequests"]),
    ("discovery.k8s.io", &["endpointslices"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("networking.k8s.io", &["ingressclasses", "ingresses", "ipaddresses", "networkpolicies", "servicecidrs"]),
    ("policy", &["poddisruptionbudgets"]),
    ("resource.k8s.io", &["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    (
        "storage.k8s.io",
        &[
            "csidrivers",
            "csinodes",
            "csistoragecapacities",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ],
    ),
];

/// A second action that a request causes.
#[derive(Debug)]
pub(crate) struct Inner {
    /// The action as a request of its own.
    pub(crate) info: RequestInfo,
    /// Whether the API server asks its authorizer for it, so that a rule of `--allow` must name it too.
    pub(crate) asked: bool,
    /// Why the request causes it, for the refusal's text.
    pub(crate) why: &'static str,
}

/// The second action that a request causes, if any. `applies` means a PATCH that may create its object. The API server
/// itself does nothing with a request that it proxies.
pub(crate) fn inner(info: &RequestInfo, applies: bool) -> Option<Inner> {
    if info.is_proxy() {
        return None;
    }
    let with = |verb: &str| RequestInfo { verb: verb.to_owned(), ..info.clone() };
    let create = |why| Some(Inner { info: with("create"), asked: true, why });
    match info.verb.as_str() {
        "update" if !never_made_by_put(info) => create("a PUT makes the object where there is none"),
        "patch" if applies => create("server-side apply makes the object where there is none"),
        "create" if info.group.is_empty() && info.resource == "pods" && info.subresource == "eviction" => {
            let info = RequestInfo { subresource: String::new(), ..with("delete") };
            Some(Inner { info, asked: false, why: "an eviction deletes the pod" })
        }
        _ => None,
    }
}

fn never_made_by_put(info: &RequestInfo) -> bool {
    is_among(PUT_MAKES_NONE, &info.group, &info.resource)
}

/// Which user a request is to be made as: its `Impersonate-*` headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `Impersonate-User`.
    pub user: String,
    /// `Impersonate-Group`, each.
    pub groups: Vec<String>,
    /// `Impersonate-Uid`.
    pub uid: String,
    /// `Impersonate-Extra-*`: key and value, each.
    pub extra: Vec<(String, String)>,
}

/// The API group of `uids` and `userextras`, and of all that is impersonated in the constrained form.
const AUTHENTICATION: &str = "authentication.k8s.io";

impl Wanted {
    /// How many questions for the authorizer it makes.
    pub(crate) fn len(&self) -> usize {
        2 + self.groups.len() + self.extra.len()
    }

    /// What the API server asks its authorizer in the form that every release knows: all of these must be allowed.
    pub(crate) fn plain(&self) -> Vec<RequestInfo> {
        self.asks("impersonate", "", |who| match who {
            Who::ServiceAccount(namespace, name) => ("serviceaccounts", namespace, name),
            Who::Node(_) | Who::Other => ("users", "", self.user.as_str()),
        })
    }

    /// What the API server asks in the constrained form (KEP 5284, on since 1.36), if that allows the request: all of
    /// these. Empty where the constrained form cannot say it.
    pub(crate) fn constrained(&self, info: &RequestInfo) -> Vec<RequestInfo> {
        let alone = self.groups.is_empty() && self.uid.is_empty() && self.extra.is_empty();
        let mode = match self.who() {
            Who::Other => "user-info",
            Who::ServiceAccount(..) if alone => "serviceaccount",
            Who::Node(_) if alone => "arbitrary-node",
            _ => return Vec::new(),
        };
        let on = RequestInfo { verb: format!("impersonate-on:{mode}:{}", info.verb), ..info.clone() };
        let mut asks = self.asks(&format!("impersonate:{mode}"), AUTHENTICATION, |who| match who {
            Who::ServiceAccount(namespace, name) => ("serviceaccounts", namespace, name),
            Who::Node(name) => ("nodes", "", name),
            Who::Other => ("users", "", self.user.as_str()),
        });
        asks.push(on);
        asks
    }

    /// What a rule of `--deny` may name besides: a service account as the user of its name, and a node as the agent may
    /// be that runs on it.
    pub(crate) fn otherwise(&self, info: &RequestInfo) -> Vec<RequestInfo> {
        let mut asks = vec![ask("impersonate", "", "users", "", &self.user)];
        if let Who::Node(name) = self.who() {
            asks.push(ask("impersonate:associated-node", AUTHENTICATION, "nodes", "", name));
            let verb = format!("impersonate-on:associated-node:{}", info.verb);
            asks.push(RequestInfo { verb, ..info.clone() });
        }
        asks
    }

    fn asks<'a>(
        &'a self,
        verb: &str,
        group: &str,
        user: impl FnOnce(Who<'a>) -> (&'static str, &'a str, &'a str),
    ) -> Vec<RequestInfo> {
        let (resource, namespace, name) = user(self.who());
        let mut asks = vec![ask(verb, group, resource, namespace, name)];
        if !self.uid.is_empty() {
            asks.push(ask(verb, AUTHENTICATION, "uids", "", &self.uid));
        }
        asks.extend(self.groups.iter().map(|name| ask(verb, group, "groups", "", name)));
        asks.extend(self.extra.iter().map(|(key, value)| RequestInfo {
            subresource: key.clone(),
            ..ask(verb, AUTHENTICATION, "userextras", "", value)
        }));
        asks
    }

    fn who(&self) -> Who<'_> {
        let account = self.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        match account {
            Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
                Who::ServiceAccount(namespace, name)
            }
            _ => self.user.strip_prefix("system:node:").filter(|name| is_subdomain(name)).map_or(Who::Other, Who::Node),
        }
    }
}

/// What kind of user a name means.
enum Who<'a> {
    ServiceAccount(&'a str, &'a str),
    Node(&'a str),
    Other,
}

/// An RFC 1123 label, as namespaces are.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Labels with dots between them, as most objects' names and API groups are.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn ask(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> RequestInfo {
    RequestInfo {
        verb: verb.to_owned(),
        is_resource: true,
        group: group.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn verbs(method: Method, target: &str, applies: bool) -> Option<(String, String, bool)> {
        let info = RequestInfo::new(&method, target, None).unwrap();
        inner(&info, applies).map(|inner| (inner.info.verb.clone(), inner.info.target(), inner.asked))
    }

    #[test]
    fn what_a_put_and_an_apply_make() {
        for (target, expected) in [
            ("/api/v1/namespaces/a/services/s", Some("services")),
            ("/api/v1/namespaces/a/services/s/status", Some("services/status")),
            ("/api/v1/namespaces/a/endpoints/e", Some("endpoints")),
            ("/api/v1/namespaces/a/events/e", Some("events")),
            ("/apis/events.k8s.io/v1/namespaces/a/events/e", Some("events.events.k8s.io")),
            ("/api/v1/namespaces/a/limitranges/l", Some("limitranges")),
            ("/apis/coordination.k8s.io/v1/namespaces/a/leases/l", Some("leases.coordination.k8s.io")),
            ("/apis/node.k8s.io/v1/runtimeclasses/r", Some("runtimeclasses.node.k8s.io")),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/b",
                Some("clusterrolebindings.rbac.authorization.k8s.io"),
            ),
            ("/apis/example.com/v1/namespaces/a/widgets/w", Some("widgets.example.com")),
            ("/api/v1/namespaces/a/configmaps/c", None),
            ("/api/v1/namespaces/a/pods/p/status", None),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", None),
            // The kind is known in its own group only.
            ("/apis/example.com/v1/namespaces/a/pods/p", Some("pods.example.com")),
        ] {
            let made = verbs(Method::PUT, target, false).map(|(verb, target, asked)| {
                assert!(verb == "create" && asked);
                target
            });
            assert_eq!(made.as_deref(), expected, "{target}");
            assert_eq!(verbs(Method::PATCH, target, false), None, "{target}");
            let (verb, _, asked) = verbs(Method::PATCH, target, true).unwrap();
            assert!(verb == "create" && asked, "{target}");
        }
        let eviction = verbs(Method::POST, "/api/v1/namespaces/a/pods/p/eviction", false);
        assert_eq!(eviction, Some(("delete".into(), "pods".into(), false)));
        assert_eq!(verbs(Method::POST, "/api/v1/namespaces/a/pods", false), None);
    }

    #[test]
    fn what_is_done_behind_a_proxy_makes_nothing_here() {
        for target in [
            "/api/v1/namespaces/a/services/s:80/proxy/api/pods",
            "/api/v1/namespaces/a/pods/p/proxy",
            "/api/v1/nodes/n/proxy/x",
            "/api/v1/proxy/namespaces/a/services/s/x",
        ] {
            for (method, applies) in [(Method::PUT, false), (Method::PATCH, true), (Method::POST, false)] {
                assert_eq!(verbs(method.clone(), target, applies), None, "{method} {target}");
            }
        }
    }

    #[test]
    fn what_is_asked_of_who_wants_to_be_somebody() {
        let list = RequestInfo::new(&Method::GET, "/api/v1/pods", None).unwrap();
        let told = |asks: Vec<RequestInfo>| {
            let one = |ask: RequestInfo| format!("{} {} {}/{}", ask.verb, ask.target(), ask.namespace, ask.name);
            asks.into_iter().map(one).collect::<Vec<_>>()
        };
        let ann = Wanted {
            user: "ann".into(),
            groups: vec!["g".into()],
            uid: "7".into(),
            extra: vec![("example.org/scopes".into(), "all".into())],
        };
        assert_eq!(
            told(ann.plain()),
            [
                "impersonate users /ann",
                "impersonate uids.authentication.k8s.io /7",
                "impersonate groups /g",
                "impersonate userextras.authentication.k8s.io/example.org/scopes /all",
            ]
        );
        assert_eq!(told(ann.constrained(&list))[0], "impersonate:user-info users.authentication.k8s.io /ann");
        assert_eq!(told(ann.constrained(&list))[4], "impersonate-on:user-info:list pods /");
        let account = Wanted { user: "system:serviceaccount:a:s".into(), ..Wanted::default() };
        assert_eq!(told(account.plain()), ["impersonate serviceaccounts a/s"]);
        assert_eq!(
            told(account.constrained(&list)),
            [
                "impersonate:serviceaccount serviceaccounts.authentication.k8s.io a/s",
                "impersonate-on:serviceaccount:list pods /"
            ]
        );
        let more = Wanted { groups: vec!["g".into()], ..account };
        assert!(more.constrained(&list).is_empty());
        let node = Wanted { user: "system:node:n".into(), ..Wanted::default() };
        assert_eq!(told(node.plain()), ["impersonate users /system:node:n"]);
        assert_eq!(told(node.constrained(&list))[0], "impersonate:arbitrary-node nodes.authentication.k8s.io /n");
    }
}
