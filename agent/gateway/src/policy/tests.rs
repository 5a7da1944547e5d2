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
    assert_eq!(check(Policy { as_groups: vec!["g".into()], ..Policy::default() }), Err(PolicyError::GroupsWithoutUser));
    for name in ["", "a\nb"] {
        assert!(check(Policy { as_user: Some(name.into()), ..Policy::default() }).is_err());
    }
    for name in ["", "A", "a/b", "a.b"] {
        assert!(check(Policy { namespaces: vec![name.into()], ..Policy::default() }).is_err(), "{name}");
    }
    assert_eq!(check(Policy { as_user: Some("ann@example".into()), ..Policy::default() }), Ok(()));
}
