//! Tables of kinds, among them those that are in no namespace.

/// Resources by group.
pub(crate) type Kinds = &'static [(&'static str, &'static [&'static str])];

/// Whether a kind is in the table.
pub(crate) fn is_among(kinds: Kinds, group: &str, resource: &str) -> bool {
    kinds.iter().any(|(name, resources)| *name == group && resources.contains(&resource))
}

/// Kinds of Kubernetes' own outside of namespaces (`NamespaceScoped` is false, in 1.20 as in 1.36), by group, without
/// those that are only created. `namespaces` is not among them: to the API server, and so here, a namespace is in
/// itself.
const IN_NO_NAMESPACE: Kinds = &[
    ("", &["componentstatuses", "nodes", "persistentvolumes"]),
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
    ("certificates.k8s.io", &["certificatesigningrequests", "clustertrustbundles"]),
    ("flowcontrol.apiserver.k8s.io", &["flowschemas", "prioritylevelconfigurations"]),
    ("internal.apiserver.k8s.io", &["storageversions"]),
    ("metrics.k8s.io", &["nodes"]),
    ("networking.k8s.io", &["ingressclasses", "ipaddresses", "servicecidrs"]),
    ("node.k8s.io", &["runtimeclasses"]),
    ("rbac.authorization.k8s.io", &["clusterrolebindings", "clusterroles"]),
    ("resource.k8s.io", &["deviceclasses", "devicetaintrules", "resourceslices"]),
    ("scheduling.k8s.io", &["priorityclasses"]),
    ("storage.k8s.io", &["csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses"]),
    ("storagemigration.k8s.io", &["storageversionmigrations"]),
];

/// Whether objects of a kind are known to be outside of namespaces. Other groups' kinds are unknown.
pub(crate) fn is_in_no_namespace(group: &str, resource: &str) -> bool {
    is_among(IN_NO_NAMESPACE, group, resource)
}
