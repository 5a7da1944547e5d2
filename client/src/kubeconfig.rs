//! From the agent's welcome to a kubeconfig. What comes from the other end is data: every field is checked first.
//!
//! The file is JSON, which is YAML too, and every YAML reader's: in JSON a string is always quoted, so that no name and
//! no token can become a number, a tag, a comment or a second key (YAML 1.1 and 1.2 disagree on what needs quotes).

use std::{net::IpAddr, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mykube_protocol::{
    channel::{Credentials, Mode, Welcome},
    text::{is_plain_name, is_plain_path},
};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde::Serialize;
use zeroize::Zeroizing;

/// Longest token: service account tokens are about 1 KiB, OIDC tokens with many groups a few.
const TOKEN_MAX: usize = 64 * 1024;
/// Longest user name or password.
const PASSWORD_MAX: usize = 4 * 1024;
/// Longest host name (RFC 1035 section 2.3.4).
const HOST_NAME_MAX: usize = 253;
/// Longest DNS label (RFC 1123 section 2.1).
const LABEL_MAX: usize = 63;

/// File names beside the kubeconfig, for credentials that expire.
const TOKEN_FILE: &str = "token";
const CERTIFICATE_FILE: &str = "client.crt";
const KEY_FILE: &str = "client.key";

/// What the other end sent that cannot go into a kubeconfig. Never holds the value: it may be a secret, or hostile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WelcomeError {
    /// A field that is not what it must be.
    #[error(
        "the other end sent {field} that is not {expected}: nothing was written; update mykube on both ends, and if it stays, do not trust that server"
    )]
    Field {
        /// Which field, with its article.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Two ways to authenticate, of which kubectl takes one.
    #[error(
        "the other end sent both a token and a password: nothing was written; its kubeconfig must have one of them"
    )]
    TwoCredentials,
    /// Credentials stay with the agent; this build only shares them.
    #[error("the other end keeps its credentials (guarded mode), which this mykube cannot use: update mykube here")]
    Guarded,
}

/// The files of a kubeconfig, checked and ready to be written.
pub struct Rendered {
    /// The kubeconfig itself.
    pub kubeconfig: Zeroizing<String>,
    /// Name and content of the files it refers to: credentials that later welcomes replace.
    pub files: Vec<(&'static str, Zeroizing<String>)>,
}

/// Makes the kubeconfig of a cluster that answers on the loopback `port`. `dir` is where the files will be.
///
/// # Errors
/// A field of the welcome is not what it must be.
pub fn render(welcome: &Welcome, port: u16, dir: &Path) -> Result<Rendered, WelcomeError> {
    if welcome.mode != Mode::Shared {
        return Err(WelcomeError::Guarded);
    }
    let name = welcome.cluster.as_str();
    check("a cluster name", "1 to 63 letters, digits, '.', '_' or '-'", is_plain_name(name))?;
    let namespace = welcome.namespace.as_deref();
    check("a namespace", "a DNS label", namespace.is_none_or(is_label))?;

    let mut files = Vec::new();
    let user = match &welcome.credentials {
        Some(credentials) => user(credentials, dir, &mut files)?,
        None => User::default(),
    };
    let config = Config {
        api_version: "v1",
        kind: "Config",
        current_context: name,
        clusters: [Named { name, cluster: cluster(welcome, port)? }],
        contexts: [NamedContext { name, context: Context { cluster: name, user: name, namespace } }],
        users: [NamedUser { name, user }],
    };
    let kubeconfig = serde_json::to_string_pretty(&config).expect("strings and booleans always serialise");
    Ok(Rendered { kubeconfig: Zeroizing::new(kubeconfig + "\n"), files })
}

fn cluster(welcome: &Welcome, port: u16) -> Result<Cluster<'_>, WelcomeError> {
    let server_name = welcome.server_name.as_deref();
    check("a server name", "a DNS name or an IP address", server_name.is_none_or(is_host))?;
    let path = welcome.path.as_deref().unwrap_or_default();
    check("a URL path", "a plain path like /prefix", welcome.path.as_deref().is_none_or(is_plain_path))?;
    let insecure = welcome.insecure_skip_tls_verify;
    let ca = match &welcome.ca {
        Some(ca) => Some(pem(ca, "a CA", "PEM certificates", &[SectionKind::Certificate])?),
        None => None,
    };
    Ok(Cluster {
        server: format!("https://127.0.0.1:{port}{path}"),
        tls_server_name: server_name,
        // kubectl refuses a CA together with "do not verify".
        certificate_authority_data: ca.filter(|_| !insecure).map(|ca| BASE64_STANDARD.encode(&*ca)),
        insecure_skip_tls_verify: insecure,
    })
}

fn user(
    credentials: &Credentials,
    dir: &Path,
    files: &mut Vec<(&'static str, Zeroizing<String>)>,
) -> Result<User, WelcomeError> {
    let mut user = User::default();
    let mut file = |name: &'static str, content: Zeroizing<String>| {
        files.push((name, content));
        Some(dir.join(name).to_string_lossy().into_owned())
    };
    if let Some(token) = &credentials.token {
        let plain = (1..=TOKEN_MAX).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic());
        check("a token", "printable ASCII without spaces, up to 64 KiB", plain)?;
        let token = Zeroizing::new(token.clone());
        if credentials.expiring { user.token_file = file(TOKEN_FILE, token) } else { user.token = Some(token) }
    }
    match (&credentials.certificate, &credentials.key) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let certificate =
                pem(certificate, "a client certificate", "PEM certificates", &[SectionKind::Certificate])?;
            let keys = [SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey];
            let key = pem(key, "a private key", "an unencrypted PEM private key", &keys)?;
            if credentials.expiring {
                user.client_certificate = file(CERTIFICATE_FILE, certificate);
                user.client_key = file(KEY_FILE, key);
            } else {
                user.client_certificate_data = Some(BASE64_STANDARD.encode(&*certificate));
                user.client_key_data = Some(Zeroizing::new(BASE64_STANDARD.encode(&*key)));
            }
        }
        _ => {
            return Err(WelcomeError::Field {
                field: "a client certificate",
                expected: "together with its private key",
            });
        }
    }
    if credentials.username.is_some() || credentials.password.is_some() {
        if credentials.token.is_some() {
            return Err(WelcomeError::TwoCredentials);
        }
        let plain = |text: &Option<String>| {
            text.as_ref().is_none_or(|text| text.len() <= PASSWORD_MAX && !text.chars().any(char::is_control))
        };
        check("a user name", "text without control characters, up to 4 KiB", plain(&credentials.username))?;
        check("a password", "text without control characters, up to 4 KiB", plain(&credentials.password))?;
        user.username = credentials.username.clone().map(Zeroizing::new);
        user.password = credentials.password.clone().map(Zeroizing::new);
    }
    Ok(user)
}

fn check(field: &'static str, expected: &'static str, good: bool) -> Result<(), WelcomeError> {
    if good { Ok(()) } else { Err(WelcomeError::Field { field, expected }) }
}

/// Keeps the sections of these kinds, written anew: comments and other sections, usual in CA bundles, stay out.
fn pem(
    text: &str,
    field: &'static str,
    expected: &'static str,
    kinds: &[SectionKind],
) -> Result<Zeroizing<String>, WelcomeError> {
    let wrong = WelcomeError::Field { field, expected };
    let mut out = Zeroizing::new(String::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|_| wrong.clone())?;
        let der = Zeroizing::new(der);
        if !kinds.contains(&kind) {
            continue;
        }
        // X.509 (RFC 5280) and the private key formats (RFC 5958, 8017, 5915) are all a DER SEQUENCE.
        if der.first() != Some(&0x30) {
            return Err(wrong);
        }
        let label = match kind {
            SectionKind::Certificate => "CERTIFICATE",
            SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
            SectionKind::EcPrivateKey => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let body = Zeroizing::new(BASE64_STANDARD.encode(&*der));
        let mut rest = body.as_str();
        *out += &format!("-----BEGIN {label}-----\n");
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            *out += line;
            *out += "\n";
            rest = tail;
        }
        *out += &format!("-----END {label}-----\n");
    }
    if out.is_empty() { Err(wrong) } else { Ok(out) }
}

/// An IP address or a DNS name (RFC 1123, with the underscores that some clusters have).
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.parse::<IpAddr>().is_ok()
        || (name.len() <= HOST_NAME_MAX && name.strip_suffix('.').unwrap_or(name).split('.').all(label))
}

/// A namespace's name: a DNS label (RFC 1123), lower case.
fn is_label(name: &str) -> bool {
    (1..=LABEL_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Config<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    current_context: &'a str,
    clusters: [Named<'a>; 1],
    contexts: [NamedContext<'a>; 1],
    users: [NamedUser<'a>; 1],
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    cluster: Cluster<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster<'a> {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure_skip_tls_verify: bool,
}

#[derive(Serialize)]
struct NamedContext<'a> {
    name: &'a str,
    context: Context<'a>,
}

#[derive(Serialize)]
struct Context<'a> {
    cluster: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
struct NamedUser<'a> {
    name: &'a str,
    user: User,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Zeroizing<String>>,
    #[serde(rename = "tokenFile", skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<Zeroizing<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Zeroizing<String>>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn welcome() -> Welcome {
        Welcome {
            mode: Mode::Shared,
            cluster: "prod".into(),
            path: None,
            server_name: Some("kubernetes.default".into()),
            ca: Some(section("CERTIFICATE", 100)),
            insecure_skip_tls_verify: false,
            namespace: Some("web".into()),
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
        let Ok(Rendered { kubeconfig, files }) = render(welcome, 40123, Path::new("/ram/dir")) else {
            panic!("refused")
        };
        (serde_json::from_str(&kubeconfig).unwrap(), files)
    }

    fn refused(change: impl FnOnce(&mut Welcome)) -> String {
        let mut welcome = welcome();
        change(&mut welcome);
        match render(&welcome, 40123, Path::new("/ram/dir")) {
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
        for bad in [
            "",
            "..",
            "../../etc",
            "a b",
            "a\nb",
            "a\"b",
            "a'b",
            "$(reboot)",
            "`id`",
            "a\x1b[2J",
            "!!binary",
            "a: b",
            "é",
        ] {
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
        for bad in
            ["prefix", "/a b", "/a\n", "/../x", "//evil.example", "/a?b", "/a#b", "/%2e%2e/", "@evil.example", "0/"]
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
        assert!(refused(|welcome| welcome.mode = Mode::Guarded).contains("guarded"));
    }
}
