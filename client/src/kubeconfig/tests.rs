use serde_json::{Value, json};

use mykube_protocol::channel::Mode;

use super::*;

const ADDRESS: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 40123);

fn welcome() -> Welcome {
    Welcome {
        mode: Mode::Shared,
        cluster: "prod".into(),
        path: None,
        server_name: Some("kubernetes.default".into()),
        ca: Some(section("CERTIFICATE", 100)),
        insecure_skip_tls_verify: false,
        namespace: Some("web".into()),
        recorded: false,
        credentials: Some(made(json!({"token": "abc.def"}))),
    }
}

fn made(fields: Value) -> Credentials {
    serde_json::from_value(fields).unwrap()
}

/// A PEM section of a DER SEQUENCE of `len` bytes.
fn section(label: &str, len: usize) -> String {
    let der = [vec![0x30], vec![7; len]].concat();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn rendered(welcome: &Welcome) -> (Value, Vec<(&'static str, Zeroizing<String>)>) {
    let Ok(Rendered { kubeconfig, files }) = render(welcome, ADDRESS, Path::new("/ram/dir")) else { panic!("refused") };
    (serde_json::from_str(&kubeconfig).unwrap(), files)
}

fn refused(change: impl FnOnce(&mut Welcome)) -> String {
    let mut welcome = welcome();
    change(&mut welcome);
    match render(&welcome, ADDRESS, Path::new("/ram/dir")) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_token_and_a_ca_make_a_kubeconfig() {
    let (config, files) = rendered(&welcome());
    assert_eq!(config["current-context"], "prod");
    assert_eq!(config["contexts"][0]["name"], "prod");
    assert_eq!(config["contexts"][0]["context"]["namespace"], "web");
    let cluster = &config["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://127.0.0.1:40123");
    assert_eq!(cluster["tls-server-name"], "kubernetes.default");
    assert_eq!(cluster.get("insecure-skip-tls-verify"), None);
    let ca = BASE64_STANDARD.decode(cluster["certificate-authority-data"].as_str().unwrap()).unwrap();
    assert!(ca.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(config["users"][0]["user"], json!({"token": "abc.def"}));
    assert!(files.is_empty());
}

#[test]
fn an_api_server_may_be_under_a_path() {
    let mut welcome = welcome();
    welcome.path = Some("/k8s/clusters/c-1".into());
    let (config, _) = rendered(&welcome);
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:40123/k8s/clusters/c-1");
}

#[test]
fn what_expires_is_in_files_that_later_welcomes_replace() {
    let mut first = welcome();
    first.credentials = Some(made(
        json!({"token": "one", "certificate": section("CERTIFICATE", 10), "key": section("PRIVATE KEY", 10), "expiring": true}),
    ));
    let (config, files) = rendered(&first);
    let user = &config["users"][0]["user"];
    assert_eq!(user["tokenFile"], "/ram/dir/token");
    assert_eq!(user["client-certificate"], "/ram/dir/client.crt");
    assert_eq!(user["client-key"], "/ram/dir/client.key");
    assert!(!config.to_string().contains("one"));
    assert_eq!(files[0].1.as_str(), "one");

    let mut second = first.clone();
    second.credentials.as_mut().unwrap().token = Some("two".into());
    let (again, files) = rendered(&second);
    assert_eq!(again, config, "the kubeconfig itself stays as it is");
    assert_eq!(files[0].1.as_str(), "two");
}

#[test]
fn a_password_and_a_certificate_go_inside() {
    let mut welcome = welcome();
    welcome.credentials = Some(made(
        json!({"certificate": section("CERTIFICATE", 10), "key": section("EC PRIVATE KEY", 10), "username": "admin", "password": "!!tag \"quoted\" # not a comment\\"}),
    ));
    let (config, _) = rendered(&welcome);
    let user = &config["users"][0]["user"];
    assert_eq!(user["password"], "!!tag \"quoted\" # not a comment\\");
    assert!(user["client-key-data"].is_string() && user["client-certificate-data"].is_string());
    assert_eq!(user.as_object().unwrap().len(), 4);
}

#[test]
fn verification_is_off_only_where_the_welcome_says_so() {
    let mut welcome = welcome();
    welcome.insecure_skip_tls_verify = true;
    let (config, _) = rendered(&welcome);
    assert_eq!(config["clusters"][0]["cluster"]["insecure-skip-tls-verify"], true);
    assert_eq!(config["clusters"][0]["cluster"].get("certificate-authority-data"), None);
}

#[test]
fn only_the_certificates_of_a_bundle_are_kept() {
    let bundle = format!(
        "# made by $(reboot)\nsubject=CN = x\n{}{}\nexec: [\"sh\"]\n{}",
        section("CERTIFICATE", 100),
        section("PRIVATE KEY", 20),
        section("CERTIFICATE", 3).replace('\n', "\r\n"),
    );
    let Ok(kept) = pem(&bundle, "a CA", "PEM", &[SectionKind::Certificate]) else { panic!("refused") };
    assert_eq!(*kept, [wrapped(100), wrapped(3)].concat());
}

fn wrapped(len: usize) -> String {
    let body = BASE64_STANDARD.encode([vec![0x30], vec![7; len]].concat());
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[test]
fn hostile_fields_are_refused_and_named() {
    for bad in
        ["", "..", "../../etc", "a b", "a\nb", "a\"b", "a'b", "$(reboot)", "`id`", "a\x1b[2J", "!!binary", "a: b", "é"]
    {
        let error = refused(|welcome| welcome.cluster = bad.into());
        assert!(error.starts_with("the other end sent a cluster name that is not"), "{bad:?}: {error}");
        assert!(bad.len() < 3 || !error.contains(bad), "the message must not repeat {bad:?}");
        assert!(refused(|welcome| welcome.namespace = Some(bad.into())).contains("a namespace"));
    }
    assert!(refused(|welcome| welcome.cluster = "x".repeat(64)).contains("a cluster name"));
    for bad in [
        "",
        "-",
        "a..b",
        "a b",
        "a/b",
        "a:6443",
        "[::1]",
        "a\n",
        "*.example",
        "-a.example",
        "é.example",
        &"a.".repeat(127),
    ] {
        assert!(refused(|welcome| welcome.server_name = Some(bad.into())).contains("a server name"), "{bad:?}");
    }
    for good in ["10.0.0.1", "fd00::1", "api.example.com", "api.example.com.", "kubernetes", "a_b.example"] {
        assert!(is_host(good), "{good}");
    }
    for bad in ["prefix", "/a b", "/a\n", "/../x", "//evil.example", "/a?b", "/a#b", "/%2e%2e/", "@evil.example", "0/"]
    {
        assert!(refused(|welcome| welcome.path = Some(bad.into())).contains("a URL path"), "{bad:?}");
    }
    for bad in ["", "a b", "a\n", "a\r\nX: y", "\u{7f}", "é", &"x".repeat(TOKEN_MAX + 1)] {
        let credentials = made(json!({"token": bad}));
        assert!(refused(|welcome| welcome.credentials = Some(credentials)).contains("a token"));
    }
    for (username, password) in [("a\n", "b"), ("a", "b\u{1b}"), (&*"x".repeat(PASSWORD_MAX + 1), "b")] {
        let credentials = made(json!({"username": username, "password": password}));
        refused(|welcome| welcome.credentials = Some(credentials));
    }
}

#[test]
fn what_is_no_pem_is_refused() {
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let open = "-----BEGIN CERTIFICATE-----\nMAAA\n";
    let broken = "-----BEGIN CERTIFICATE-----\nM*AA\n-----END CERTIFICATE-----\n";
    for bad in ["", "/etc/kubernetes/pki/ca.crt", not_der, open, broken, &section("PRIVATE KEY", 9)] {
        assert!(refused(|welcome| welcome.ca = Some(bad.into())).contains("a CA that is not PEM"), "{bad}");
    }
    let encrypted = section("ENCRYPTED PRIVATE KEY", 9);
    for bad in ["", &*encrypted, &*section("CERTIFICATE", 9)] {
        let credentials = made(json!({"certificate": section("CERTIFICATE", 9), "key": bad}));
        assert!(refused(|welcome| welcome.credentials = Some(credentials)).contains("a private key"));
    }
}

#[test]
fn halves_and_doubles_are_refused() {
    let lone = made(json!({"certificate": section("CERTIFICATE", 9)}));
    assert!(refused(|welcome| welcome.credentials = Some(lone)).contains("together with its private key"));
    let two = made(json!({"token": "t", "username": "u", "password": "p"}));
    assert!(refused(|welcome| welcome.credentials = Some(two)).contains("both a token and a password"));
}
