//! Relays that cannot be reached, addresses that are no relay, and a laptop that lacks something.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::{
    Mykube, Relay,
    certs::Authority,
    net::{Proxy, answers, closed_port},
};

const CODE: &str = "483 20417";

/// Runs a client and a server, which must fail alike.
#[track_caller]
fn both_fail(relay: &str, env: &[(&str, &str)], code: i32, words: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    let client = env.iter().fold(Mykube::client(relay), |end, (name, value)| end.env(name, value));
    said.push(client.fails_with(CODE, code, words).stderr);
    let server = Mykube::new("server").args(["--relay-url", relay]);
    let config = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9", "insecure-skip-tls-verify": true}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "e2e"}}]}"#;
    let path = server.sandbox().file("kubeconfig", config);
    let server = env.iter().fold(server, |end, (name, value)| end.env(name, value));
    said.push(server.arg("--kubeconfig").arg(path).fails(code, words).stderr);
    said
}

#[test]
fn a_relay_that_is_away() {
    let url = format!("http://{}", closed_port());
    both_fail(&url, &[], 4, &["cannot reach", "connection refused", "Check host and port"]);
    both_fail("https://no-such-host.invalid", &[], 4, &["cannot be resolved", "Check the spelling"]);
}

#[test]
fn something_that_is_no_relay() {
    let html = answers("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Log in</html>");
    both_fail(&format!("http://{html}"), &[], 4, &["is not a mykube relay", "--relay-url"]);
    let ssh = answers("SSH-2.0-OpenSSH_9.9\r\n");
    both_fail(&format!("http://{ssh}"), &[], 4, &["is not a mykube relay", "HTTP"]);
    let redirect = answers("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\u{202e}\r\nContent-Length: 0\r\n\r\n");
    let said = both_fail(&format!("http://{redirect}"), &[], 4, &["redirects to", "not followed", "--relay-url"]);
    assert!(said.iter().all(|text| !text.contains('\u{202e}')), "a direction mark from afar: {said:?}");
}

#[test]
fn a_relay_whose_certificate_is_not_trusted() {
    let relay = TlsRelay::start(&Authority::new("stranger"), &["127.0.0.1"]);
    both_fail(&relay.0.url, &[], 4, &["not signed by an authority this machine trusts", "--ca-file"]);
    let plain = Relay::start();
    both_fail(&plain.url.replace("http:", "https:"), &[], 4, &["does not speak TLS", "http://"]);
}

/// A relay with a certificate.
struct TlsRelay(Relay);

impl TlsRelay {
    fn start(authority: &Authority, names: &[&str]) -> Self {
        let files = crate::support::Sandbox::new();
        let signed = authority.sign(names);
        let cert = files.file("cert.pem", signed.certificate);
        let key = files.file("key.pem", signed.key);
        let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
        Self(Relay::with(&["--api-rate", "0", "--tls-cert", cert, "--tls-key", key]))
    }
}

#[test]
fn a_proxy_that_does_not_let_us_through() {
    let url = "https://relay.e2e.test";
    let proxy = Proxy::start("dXNlcjpyaWdodA==", ("other.e2e.test:443", closed_port()), None);
    let with = |credentials: &str| format!("http://{credentials}{}", proxy.address);
    let wrong = with("user:wr0ngpassword@");
    let said =
        both_fail(url, &[("HTTPS_PROXY", &wrong)], 4, &["does not accept the user name and password", "HTTPS_PROXY"]);
    assert!(said.iter().all(|text| !text.contains("wr0ngpassword")), "a password in a message: {said:?}");
    both_fail(url, &[("HTTPS_PROXY", &with(""))], 4, &["asks for a user name and password", "HTTPS_PROXY=http://USER"]);
    both_fail(url, &[("HTTPS_PROXY", &with("user:right@"))], 4, &["does not allow", "relay.e2e.test"]);
    let closed = format!("http://{}", closed_port());
    both_fail(url, &[("HTTPS_PROXY", &closed)], 4, &["connection refused"]);
    both_fail(url, &[("HTTPS_PROXY", "http://user:pass word@")], 1, &["HTTPS_PROXY is not a usable proxy URL"]);
}

#[test]
fn a_relay_url_that_cannot_be_one() {
    both_fail("http://relay.example", &[], 2, &["https"]);
    both_fail("ftp://127.0.0.1", &[], 2, &["http"]);
    Mykube::new("client").fails_with(CODE, 2, &["no relay is named", "--relay-url", "mykube relay"]);
}

#[test]
fn a_port_that_is_taken_costs_no_code() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // The relay is away, but the port's error comes first.
    let client = Mykube::client(&format!("http://{}", closed_port())).args(["--port", &port]);
    client.fails_with(CODE, 1, &[&format!("cannot listen on port {port}"), "--port"]);
}

#[test]
fn a_laptop_without_a_directory_on_ram() {
    let url = format!("http://{}", closed_port());
    let hide = "mount --bind \"$HOME\" /dev/shm && exec \"$@\"";
    let mut unshare = vec!["--mount"];
    if !rustix::process::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    unshare.extend(["sh", "-c", hide, "sh"]);
    let client = Mykube::client(&url).env_remove("XDG_RUNTIME_DIR").behind("unshare", &unshare);
    let words = ["no directory on RAM", "XDG_RUNTIME_DIR is not set", "--kubeconfig-dir"];
    client.fails_with(CODE, 1, &words);
}

#[test]
fn a_kubeconfig_directory_of_ones_own_is_used_and_cleaned() {
    let client = Mykube::client(&format!("http://{}", closed_port()));
    let tmp = client.sandbox().tmp();
    let done = client.arg("--kubeconfig-dir").arg(tmp).fails_with(CODE, 4, &["cannot reach"]);
    assert!(done.stderr.contains("is not on RAM"), "{}", done.stderr);
    let client = Mykube::client("http://127.0.0.1:9").args(["--kubeconfig-dir", "/proc/nonexistent"]);
    client.fails_with(CODE, 1, &["/proc/nonexistent"]);
}
