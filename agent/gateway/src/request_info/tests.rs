use super::*;

fn read(method: Method, target: &str) -> RequestInfo {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    RequestInfo::new(&method, path, query).unwrap()
}

#[test]
fn as_the_api_server_reads_it() {
    // method, target, verb, group, version, namespace, resource, subresource, name
    let table = [
        ("GET", "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
        ("GET", "/api/v1/namespaces/other", ["get", "", "v1", "other", "namespaces", "", "other"]),
        ("GET", "/api/v1/namespaces/other/pods", ["list", "", "v1", "other", "pods", "", ""]),
        ("GET", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ["get", "", "v1", "other", "pods", "", "foo"]),
        ("GET", "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
        ("HEAD", "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch=true", ["watch", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch", ["watch", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch=False", ["list", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?watch=0&watch=1", ["list", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/pods?%77atch=1", ["watch", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/namespaces/o/pods/foo?watch=1", ["get", "", "v1", "o", "pods", "", "foo"]),
        ("GET", "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]),
        ("DELETE", "/api/v1/watch/namespaces/o/pods", ["watch", "", "v1", "o", "pods", "", ""]),
        ("GET", "/api/v1/proxy/nodes/n1/logs", ["proxy", "", "v1", "", "nodes", "", "n1"]),
        ("GET", "/api/v1/proxy/namespaces/o/pods/p/x/y", ["proxy", "", "v1", "o", "pods", "", "p"]),
        ("POST", "/api/v1/namespaces/o/pods/p/exec?command=ls", ["create", "", "v1", "o", "pods", "exec", "p"]),
        ("GET", "/api/v1/namespaces/o/pods/p/exec/", ["get", "", "v1", "o", "pods", "exec", "p"]),
        ("GET", "/api/v1/namespaces/o/services/s:80/proxy/a/b", ["get", "", "v1", "o", "services", "proxy", "s:80"]),
        ("GET", "/api/v1/nodes/n/proxy/run", ["get", "", "v1", "", "nodes", "proxy", "n"]),
        ("PUT", "/api/v1/namespaces/o/finalize", ["update", "", "v1", "o", "namespaces", "finalize", "o"]),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/o/deployments",
            ["deletecollection", "apps", "v1", "o", "deployments", "", ""],
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/o/deployments/d/scale",
            ["patch", "apps", "v1", "o", "deployments", "scale", "d"],
        ),
        ("GET", "/api/v1/namespaces/o/pods?fieldSelector=metadata.name%3Dp", ["list", "", "v1", "o", "pods", "", "p"]),
        (
            "GET",
            "/api/v1/pods?watch=1&fieldSelector=spec.nodeName!=n,metadata.name==p",
            ["watch", "", "v1", "", "pods", "", "p"],
        ),
        ("DELETE", "/api/v1/pods?fieldSelector=metadata.name=p", ["deletecollection", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/watch/pods?fieldSelector=metadata.name=p", ["watch", "", "v1", "", "pods", "", ""]),
        ("POST", "/api/v1/pods?fieldSelector=metadata.name=p", ["create", "", "v1", "", "pods", "", ""]),
        ("OPTIONS", "/api/v1/pods", ["", "", "v1", "", "pods", "", ""]),
        ("GET", "/api/v1/namespaces/o/pods/%65xample/%65xec", ["get", "", "v1", "o", "pods", "exec", "example"]),
    ];
    for (method, target, [verb, group, version, namespace, resource, subresource, name]) in table {
        let info = read(method.parse().unwrap(), target);
        let expected = RequestInfo {
            verb: verb.into(),
            path: info.path.clone(),
            is_resource: true,
            group: group.into(),
            version: version.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            subpath: info.subpath.clone(),
        };
        assert_eq!(info, expected, "{method} {target}");
    }
}

#[test]
fn field_selectors_that_leave_one_name() {
    for (selector, expected) in [
        ("metadata.name=a", "a"),
        ("metadata.name==a", "a"),
        (",metadata.name=a,", "a"),
        ("status.phase=Running,metadata.name=a", "a"),
        ("metadata.name=a,metadata.name=b", "a"),
        ("metadata.name=b,metadata.name=a", "a"),
        ("metadata.name=a,metadata.name==b", "b"),
        ("metadata.name=a\\,b", "a,b"),
        ("metadata.name!=a", ""),
        ("metadata.name=", ""),
        ("metadata.name=..", ""),
        ("metadata.name=a%2525", ""),
        ("metadata.name=a=b", ""),
        ("metadata.name=a\\x", ""),
        ("metadata.name=a,broken", ""),
        ("metadata.name", ""),
        ("Metadata.name=a", ""),
        (" metadata.name=a", ""),
        ("status.phase=x\\,metadata.name=a", ""),
        ("&fieldSelector=metadata.name=a", ""),
    ] {
        let query = format!("limit=1&fieldSelector={}", selector.replace(' ', "+"));
        assert_eq!(ListOptions::new(Some(&query)).name.unwrap_or_default(), expected, "{selector}");
    }
    assert_eq!(ListOptions::new(None).name, None);
}

#[test]
fn flags_fold_as_in_go_and_options_that_cannot_be_read_leave_the_watch() {
    for (query, verb, name) in [
        ("watch=fal%C5%BFe", "list", ""),
        ("watch=FAL%C5%BFE&fieldSelector=metadata.name=a", "list", "a"),
        ("watch=fal%C5%BFe&limit=x", "watch", ""),
        ("watch=FALSE&limit=", "list", ""),
        ("watch=1&timeoutSeconds=1.5&fieldSelector=metadata.name=a", "watch", ""),
        ("limit=+5&fieldSelector=metadata.name=a", "list", ""),
        ("limit=-5&fieldSelector=metadata.name=a", "list", "a"),
        ("watch=0&fieldSelector=broken", "list", ""),
    ] {
        let info = read(Method::GET, &format!("/api/v1/pods?{query}"));
        assert_eq!((info.verb.as_str(), info.name.as_str()), (verb, name), "{query}");
    }
}

#[test]
fn a_proxied_name_has_scheme_and_port_and_a_path_behind_it() {
    for (target, object, subpath) in [
        ("/api/v1/namespaces/a/services/https:vault:8200/proxy/v1/x/", "vault", "v1/x"),
        ("/api/v1/namespaces/a/services/vault:8200/proxy", "vault", ""),
        ("/api/v1/namespaces/a/services/:vault:/proxy/", "vault", ""),
        ("/api/v1/namespaces/a/services/vault/proxy/a%20b", "vault", "a b"),
        ("/api/v1/nodes/https:n:10250/proxy/run/a/p/c", "n", "run/a/p/c"),
        ("/api/v1/proxy/namespaces/a/pods/http:p:80/x/y", "p", "x/y"),
        ("/api/v1/namespaces/a/pods/a:b/exec/x", "a:b", "x"),
    ] {
        let info = read(Method::GET, target);
        assert_eq!((info.object(), info.subpath.as_str()), (object, subpath), "{target}");
    }
}

#[test]
fn paths_of_others() {
    for target in
        ["/v1/secrets", "/v1", "/k8s/clusters/c/api/v1/secrets", "/clusters/a:b/api/v1/secrets", "/API/v1/pods"]
    {
        assert!(read(Method::GET, target).is_foreign(), "{target}");
    }
    for target in
        ["/", "/api", "/apis/apps", "/api/v1/pods", "/metrics", "/logs/a", "/.well-known/openid-configuration"]
    {
        assert!(!read(Method::GET, target).is_foreign(), "{target}");
    }
}

#[test]
fn what_names_no_resource() {
    for target in
        ["/", "/api", "/api/", "/api/v1", "/api/v1/", "/apis/apps/v1", "/version", "/healthz/etcd", "/logs/a/b/c"]
    {
        let info = read(Method::POST, target);
        assert!(!info.is_resource && info.verb == "post", "{target}");
    }
    for (target, expected) in [
        ("/api", true),
        ("/apis/apps/v1/", true),
        ("/openapi/v3/apis/apps/v1", true),
        ("/apisx", false),
        ("/metrics", false),
        ("/", false),
    ] {
        assert_eq!(read(Method::GET, target).is_discovery(), expected, "{target}");
    }
    assert!(!read(Method::POST, "/api").is_discovery());
}

#[test]
fn a_query_that_others_could_read_differently_is_refused() {
    let amps = |count| format!("fieldSelector=metadata.name=x{}", "&".repeat(count));
    let (most, more) = (amps(9_999), amps(10_000));
    for (query, refused) in [
        (most.as_str(), false),
        (&more, true),
        ("a;watch=1", true),
        ("watch=1;", true),
        ("watch=1&a=%3B", false),
        ("watch=%", true),
        ("watch=1&%zz=1", true),
        ("watch=1&a=%2", true),
        ("a=\"<>`^|\\{}[]+&=&&b", false),
    ] {
        for path in ["/api/v1/pods", "/api/v1/namespaces/a/pods/p/exec", "/apis/example.com/v1/widgets"] {
            let read = RequestInfo::new(&Method::GET, path, Some(query));
            assert_eq!(read.is_err(), refused, "{path}?{}", &query[..query.len().min(40)]);
        }
        // A query to a program behind the API server, or to another API, is not read here.
        for path in ["/api/v1/namespaces/a/services/s/proxy/x", "/api/v1/proxy/nodes/n/x", "/v1/secrets", "/metrics"] {
            assert!(RequestInfo::new(&Method::GET, path, Some(query)).is_ok(), "{path}");
        }
    }
}

#[test]
fn what_others_could_read_differently_is_refused() {
    for (target, expected) in [
        ("/api/v1/namespaces/o/pods/p%2fexec", PathError::EncodedSlash),
        ("/api/v1/namespaces/o/pods/p%2Fexec", PathError::EncodedSlash),
        ("/api/v1/namespaces/o/pods/p%5Cexec", PathError::EncodedSlash),
        ("/api/v1/../v1/pods", PathError::DotSegment),
        ("/api/v1/%2e%2E/pods", PathError::DotSegment),
        ("/api/v1/./pods", PathError::DotSegment),
        ("/api/v1/pods/.", PathError::DotSegment),
        ("/api//v1/pods", PathError::EmptySegment),
        ("//api/v1/pods", PathError::EmptySegment),
        ("/api/v1/pods//", PathError::EmptySegment),
        ("/api/v1/pods/a%00", PathError::Control),
        ("/api/v1/pods/a%0a", PathError::Control),
        ("/api/v1/pods/%ff", PathError::NotUtf8),
        ("/api/v1/pods/%C0%AF", PathError::NotUtf8),
        ("/api/v1/pods/%zz", PathError::BrokenEncoding),
        ("/api/v1/pods/%2", PathError::BrokenEncoding),
        ("*", PathError::NotAbsolute),
        ("", PathError::NotAbsolute),
        ("/api/v1/proxy", PathError::NoResource),
        ("/api/v1/watch/", PathError::NoResource),
        ("/api/v1/pods\\exec", PathError::EncodedSlash),
    ] {
        assert_eq!(RequestInfo::new(&Method::GET, target, None), Err(expected), "{target}");
    }
    // Decoded once: what is encoded twice is a name with a percent sign in it.
    assert_eq!(read(Method::GET, "/api/v1/nodes/a%252fb").name, "a%2fb");
}
