use super::*;

/// `verbs groups resources`, each with commas.
fn rule(words: &str) -> Rule {
    let mut lists = words.split(' ').map(|list| list.split(',').map(|word| word.replace('\'', "")).collect());
    let mut list = || lists.next().unwrap_or_default();
    Rule { verbs: list(), api_groups: list(), resources: list(), ..Rule::default() }
}

#[test]
fn what_can_never_match_is_refused_with_what_was_meant() {
    for (words, hint) in [
        ("exec '' pods", "`verbs: [create], resources: [pods/exec]`"),
        ("port-forward '' pods", "pods/portforward"),
        ("Delete '' pods", "write `delete`"),
        ("GET '' pods", "write `get`"),
        ("get,options '' services/proxy", "only `\"*\"` allows it"),
        ("post '' pods", "`create`"),
        ("frobnicate '' pods", "get, list, watch"),
        ("bind rbac.authorization.k8s.io clusterroles", "leave it to RBAC"),
        ("escalate rbac.authorization.k8s.io roles", "`create`, `update`, `patch` of `roles`"),
        ("approve certificates.k8s.io signers", "certificatesigningrequests/approval"),
        ("attest certificates.k8s.io signers", "clustertrustbundles"),
        ("use policy podsecuritypolicies", "left to RBAC"),
        ("Impersonate '' users", "write `impersonate`"),
        ("impersonate:somebody '' users", "verbs are"),
        ("impersonate '' pods", "impersonated are users"),
        ("impersonate '' uids", "authentication.k8s.io"),
        ("impersonate authentication.k8s.io users", "apiGroups: [\"\"]"),
        ("get core pods", "the core group is written \"\""),
        ("get v1 pods", "the core group is written \"\""),
        ("get v1beta1 pods", "it is a version"),
        ("get apps/v1 deployments", "write `apps`"),
        ("get Apps deployments", "write `apps`"),
        ("get *.k8s.io leases", "`*` stands alone"),
        ("get rbac roles", "write `rbac.authorization.k8s.io`"),
        ("get '' Pods", "write `pods`"),
        ("get apps Deployment", "write `deployments`"),
        ("get '' pod", "write `pods`"),
        ("get * secret", "write `secrets`"),
        ("get '' svc/proxy", "write `services/proxy`"),
        ("get apps deploy", "write `deployments`"),
        ("get apps pods", "apiGroups: [\"\"]"),
        ("get '' deployments", "apiGroups: [\"apps\"]"),
        ("get '',apps widgets", "no such resource"),
        ("get apps deployments.apps", "`resources: [deployments]` and `apiGroups: [apps]`"),
        ("get '' pods/", "pods/log"),
        ("get '' /log", "pods/log"),
        ("get '' pods/logs", "write `pods/log`"),
        ("get * pods/logs", "write `pods/log`"),
        ("get '' */logs", "write `*/log`"),
        ("create '' pods/Exec", "write `pods/exec`"),
        ("get '' services/proxy/admin", "one subresource"),
        ("get * po*", "whole resource"),
    ] {
        let problem = rule(words).check().expect_err(words);
        assert!(problem.contains("can never match") && problem.contains(hint), "{words}: {problem}");
    }
    for (namespaces, hint) in [("*", "leave `namespaces` out"), ("Staging", "a-z"), ("", "a-z")] {
        let problem = Rule { namespaces: vec![namespaces.into()], ..rule("get '' pods") }.check().unwrap_err();
        assert!(problem.contains(hint), "{problem}");
    }
    for words in ["get '' nodes", "get '',apps pods,nodes/proxy", "* storage.k8s.io storageclasses"] {
        let problem = Rule { namespaces: vec!["a".into()], ..rule(words) }.check().expect_err(words);
        assert!(problem.contains("can never match") && problem.contains("in no namespace"), "{words}: {problem}");
    }
    let users = Rule { namespaces: vec!["a".into()], ..rule("impersonate '' users") };
    assert!(users.check().unwrap_err().contains("only serviceaccounts"));
    let paths = |verb: &str, url: &str| Rule {
        verbs: vec![verb.into()],
        non_resource_urls: vec![url.into()],
        ..Rule::default()
    };
    for (verb, url, hint) in [
        ("list", "/metrics", "it is `get`"),
        ("GET", "/metrics", "it is `get`"),
        ("impersonate", "/metrics", "methods"),
        ("get", "metrics", "from its `/`"),
        ("get", "https://h/metrics", "from its `/`"),
        ("get", "", "from its `/`"),
        ("get", "/a/*/b", "last character"),
        ("get", "/logs?x=y", "without a query"),
        ("get", "/api/v1/secrets", "resources: [secrets]"),
    ] {
        let problem = paths(verb, url).check().unwrap_err();
        assert!(problem.contains("can never match") && problem.contains(hint), "{verb} {url}: {problem}");
    }
    for (verb, url) in [("*", "*"), ("get", "/*"), ("head", "/v1/*"), ("get", "/api/*"), ("options", "/healthz")] {
        assert_eq!(paths(verb, url).check(), Ok(()), "{verb} {url}");
    }
}

#[test]
fn what_can_match_is_taken() {
    for words in [
        "* * *",
        "get,list,watch,create,update,patch,delete,deletecollection '',apps pods,pods/log,deployments,pods/*,*/scale",
        "create '' pods/exec,serviceaccounts/token,pods/eviction,bindings",
        "get,update rbac.authorization.k8s.io clusterroles",
        "get metrics.k8s.io,custom.metrics.k8s.io pods,nodes",
        "get example.com widgets,widgets/frob,pod",
        "get policy,batch,autoscaling poddisruptionbudgets,jobs,horizontalpodautoscalers",
        "get '',events.k8s.io events",
        "impersonate '' users,groups,serviceaccounts",
        "impersonate authentication.k8s.io uids,userextras/example.org/Scopes,userextras",
        "impersonate * *",
        "impersonate '',authentication.k8s.io users,uids",
        "impersonate:user-info,impersonate:serviceaccount authentication.k8s.io users,groups,serviceaccounts",
        "impersonate:arbitrary-node authentication.k8s.io nodes",
        "impersonate-on:user-info:list,get '' pods",
        "get x.example.com runs/logs,runs/Frob,*/tokens",
        "get '',x.example.com pods/logs",
        "get * runs/logs",
    ] {
        assert_eq!(rule(words).check(), Ok(()), "{words}");
    }
    for words in ["get '',apps pods,deployments,namespaces", "get * nodes", "get '',x.example.com nodes"] {
        let rule = Rule { namespaces: vec!["a".into()], ..rule(words) };
        assert_eq!(rule.check(), Ok(()), "{words}");
    }
    let accounts = Rule { namespaces: vec!["a".into()], ..rule("impersonate '' serviceaccounts") };
    assert_eq!(accounts.check(), Ok(()));
}
