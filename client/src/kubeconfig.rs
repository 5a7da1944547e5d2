//! Makes a kubeconfig from the agent's welcome. The other end's data is not trusted: every field is checked first.
//!
//! The file is JSON, which every YAML reader can read: a string in JSON is always quoted, so that no name and no token
//! can become a number, a tag, a comment or a second key (YAML 1.1 and 1.2 disagree on what needs quotes).

use std::{
    net::{IpAddr, SocketAddrV4},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mykube_protocol::{
    channel::{Credentials, Welcome},
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
    /// A field has a wrong form.
    #[error(
        "the other end sent {field} that is not {expected}: nothing was written; update mykube on both ends, and if it stays, do not trust that server"
    )]
    Field {
        /// Which field, with its article.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// The welcome has two ways to authenticate, and kubectl uses only one.
    #[error(
        "the other end sent both a token and a password: nothing was written; its kubeconfig must have one of them"
    )]
    TwoCredentials,
}

/// The files of a kubeconfig, checked and ready to be written.
pub struct Rendered {
    /// The kubeconfig itself.
    pub kubeconfig: Zeroizing<String>,
    /// Names and contents of the files that it refers to: later welcomes replace these credentials.
    pub files: Vec<(&'static str, Zeroizing<String>)>,
}

/// Makes the kubeconfig of a cluster that is reached at a loopback `address`. `dir` is where the files will be.
///
/// # Errors
/// A field of the welcome has a wrong form.
pub fn render(welcome: &Welcome, address: SocketAddrV4, dir: &Path) -> Result<Rendered, WelcomeError> {
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
        clusters: [Named { name, cluster: cluster(welcome, address)? }],
        contexts: [NamedContext { name, context: Context { cluster: name, user: name, namespace } }],
        users: [NamedUser { name, user }],
    };
    let kubeconfig = serde_json::to_string_pretty(&config).expect("strings and booleans always serialise");
    Ok(Rendered { kubeconfig: Zeroizing::new(kubeconfig + "\n"), files })
}

fn cluster(welcome: &Welcome, address: SocketAddrV4) -> Result<Cluster<'_>, WelcomeError> {
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
        server: format!("https://{address}{path}"),
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

/// Keeps the sections of these kinds, written anew; comments and other sections, usual in CA bundles, are left out.
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
mod tests;
