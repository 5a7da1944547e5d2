//! Addresses of API servers: `server`, its path, and a cluster's other fields.

use super::entry::{CONTEXT, Entry, USER, config, with_cluster};

pub(super) fn entries() -> Vec<Entry> {
    let server = |server: &str| with_cluster(&format!("server: \"{server}\", certificate-authority-data: $CA"));
    let at = |path: &str| server(&format!("https://$SERVER{path}"));
    let more =
        |fields: &str| with_cluster(&format!("server: 'https://$SERVER', certificate-authority-data: $CA, {fields}"));
    const SCHEME: &str = "kubectl falls back to http:// and sends the request unencrypted, which no API server answers; mykube \
                          takes https, which is what the CA beside it is for";
    const USER_INFO: &str = "mykube refuses names and passwords in a URL, which end up in messages and logs, and says where \
                             they belong";
    const NAMESPACE: &str = "no API server has such a namespace, and it would go into a kubeconfig at the other end";
    const BACKSLASH: &str =
        "some fronts take a backslash for a slash, and mykube carries no path that they read in two ways";
    const TWICE: &str = "kubectl refuses it with the words that the data overrides; mykube takes the data";
    let paths = [
        "/",
        "//",
        "/clusters/root:org:team",
        "/services/workspaces/root:demo/personal",
        "/r/projects/1a5/kubernetes:6443",
        "/k8s/clusters/c-m-abc12",
        "/-/kubernetes-agent/k8s-proxy/",
        "/v1/teleport/cm9vdA/a3ViZQ==",
        "/a+b",
        "/a@b",
        "/a,b",
        "/a=b",
        "/a!b",
        "/a$b",
        "/a&b",
        "/a'b",
        "/(a)",
        "/a*b",
        "/a;b",
        "/~me/x",
        "/a%20b",
        "/a b",
        "/a%2Fb",
        "/a%2fb",
        "/%41",
        "/a%25b",
        "/ä",
        "/%C3%A4",
        "/a//b",
        "/a/../b",
        "/../a",
        "/a/./b/",
        "/%2e%2e/a",
        "/a?b=c",
        "?b",
        "/a#b",
        "/a%",
        "/a%zz",
        "/a%5Cb",
        "/a|b",
        "/a<b>",
        "/a{b}",
        "/a^b`",
    ];
    let mut entries: Vec<_> = paths
        .into_iter()
        .map(|path| {
            let entry = Entry::new(path, at(path));
            match path {
                "/a%5Cb" => entry.differs(BACKSLASH),
                _ => entry,
            }
        })
        .collect();
    let unused = config("server: 'https://$SERVER', certificate-authority-data: $CA", USER, CONTEXT)
        .replace("clusters:\n", "clusters:\n- name: o\n  cluster: {certificate-authority-data: '%%%'}\n");
    let minikube = "extensions: [{name: cluster_info, extension: {last-update: 'Mon, 01 Jan 2024 00:00:00 UTC', \
                    provider: minikube.sigs.k8s.io, version: v1.33.0}}]";
    let insecure = "server: 'https://$SERVER', insecure-skip-tls-verify: true";
    entries.extend([
        Entry::new(
            "a path with a backslash",
            with_cluster("server: 'https://$SERVER/a\\b', certificate-authority-data: $CA"),
        )
        .differs(BACKSLASH),
        Entry::new("a long path", at(&format!("/{}", "x".repeat(900)))),
        Entry::new("a very long path", at(&format!("/{}", "x".repeat(1100))))
            .differs("a path may have 1,024 bytes in a welcome; no front's has"),
        Entry::new("a path with a control character", at("/a\\x01b")),
        Entry::new("capitals", server("HTTPS://$SERVER")),
        Entry::new("localhost", server("https://localhost:$PORT")),
        Entry::new("localhost in capitals", server("https://LOCALHOST:$PORT")),
        Entry::new("a dot behind the name", server("https://localhost.:$PORT")),
        Entry::new("a short IPv4 address", server("https://127.1:$PORT")),
        Entry::new("an IPv4 address as a number", server("https://2130706433:$PORT")),
        Entry::new("an escaped name", server("https://%6cocalhost:$PORT")),
        Entry::new("an underscore in the name", server("https://no_such.localhost:$PORT")),
        Entry::new("a name of ä", server("https://ä.invalid:$PORT")),
        Entry::new("no port behind the colon", server("https://127.0.0.1:")),
        Entry::new("a port with a zero before it", server("https://127.0.0.1:0$PORT")),
        Entry::new("tls-server-name in capitals", more("tls-server-name: LOCALHOST")),
        Entry::new("tls-server-name that is an address", more("tls-server-name: 127.0.0.1")),
        Entry::new("HTTPS_PROXY, which is not for loopback", at("")).env("HTTPS_PROXY", "http://127.0.0.1:1"),
        Entry::new("NO_PROXY before a proxy-url", more("proxy-url: 'http://127.0.0.1:1'")).env("NO_PROXY", "*"),
        Entry::new("no scheme", server("$SERVER")).differs(SCHEME),
        Entry::new("no scheme, a name", server("localhost:$PORT")).differs(SCHEME),
        Entry::new("no scheme, a path", server("$SERVER/a")).differs(SCHEME),
        Entry::new("http", server("http://$SERVER")),
        Entry::new("another scheme", server("ftp://$SERVER")),
        Entry::new("one slash", server("https:/$SERVER")),
        Entry::new("no host", server("https://")),
        Entry::new("port 0", server("https://127.0.0.1:0")),
        Entry::new("port too large", server("https://127.0.0.1:99999")),
        Entry::new("a space before", server(" https://$SERVER")),
        Entry::new("a space behind", server("https://$SERVER ")),
        Entry::new("a newline behind", server("https://$SERVER\\n")),
        Entry::new("user info", server("https://me:pw@$SERVER")).differs(USER_INFO),
        Entry::new("IPv4 in an IPv6 address", server("https://[::ffff:127.0.0.1]:$PORT")),
        Entry::new("tls-server-name", more("tls-server-name: localhost")),
        Entry::new("tls-server-name that is not in the certificate", more("tls-server-name: other.example")),
        Entry::new("insecure", with_cluster(insecure)),
        Entry::new(
            "insecure, and another tls-server-name",
            with_cluster(&format!("{insecure}, tls-server-name: other.example")),
        ),
        Entry::new("insecure beside a CA", more("insecure-skip-tls-verify: true")),
        Entry::new("no CA", with_cluster("server: 'https://$SERVER'")),
        Entry::new("a CA in a file", with_cluster("server: 'https://$SERVER', certificate-authority: pki/ca.crt"))
            .file("pki/ca.crt", CA_FILE),
        Entry::new(
            "a CA in a file that is not there",
            with_cluster("server: 'https://$SERVER', certificate-authority: ca.crt"),
        ),
        Entry::new(
            "a CA that is no base64",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: '%%%'"),
        ),
        Entry::new(
            "a CA in base64 without padding",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: YQ"),
        ),
        Entry::new(
            "a CA that is no PEM",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: aGVsbG8="),
        ),
        Entry::new(
            "a CA with spaces in its base64",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: ' $CA'"),
        ),
        Entry::new(
            "a CA with line breaks in its base64",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: \"\\n$CA\\r\\n\""),
        ),
        Entry::new("a CA twice, in data and in a file", more("certificate-authority: pki/ca.crt"))
            .file("pki/ca.crt", CA_FILE)
            .differs(TWICE),
        Entry::new("an unused CA that is no base64", unused).differs("mykube decodes what it uses"),
        Entry::new("an empty proxy-url", more("proxy-url: ''")),
        Entry::new("a proxy-url with another scheme", more("proxy-url: 'ftp://127.0.0.1:1'")),
        Entry::new("a proxy that is not there", more("proxy-url: 'http://127.0.0.1:1'")),
        Entry::new("disable-compression", more("disable-compression: true")),
        Entry::new("extensions as minikube writes them", more(minikube)),
        Entry::new(
            "a dangling cluster",
            config("server: 'https://$SERVER', certificate-authority-data: $CA", USER, "cluster: gone, user: u"),
        ),
        Entry::new(
            "a namespace that cannot be one",
            config(
                "server: 'https://$SERVER', certificate-authority-data: $CA",
                USER,
                "cluster: c, user: u, namespace: 'No/Such'",
            ),
        )
        .differs(NAMESPACE),
    ]);
    entries
}

/// PEM of the CA, which `$CA` has in base64.
const CA_FILE: &str = "$PEM";
