//! HTTPS by hand to a client's loopback port: requests that kubectl never sends, and clients with other certificates.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::Value;

use super::{LIMIT, Way, certs::Signed};

/// A client's loopback port, with the keys in its kubeconfig that open it.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    pub(crate) client: Signed,
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Port {
    pub(crate) fn of(way: &Way) -> Self {
        let text = way.kubectl(&["config", "view", "--raw", "--flatten", "--minify", "-o", "json"]).ok();
        let config: Value = serde_json::from_str(&text).unwrap();
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let pem = |value: &Value| {
            let bytes = data_encoding::BASE64.decode(value.as_str().expect("PEM in base64").as_bytes()).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        Self {
            address: cluster["server"].as_str().unwrap().trim_start_matches("https://").parse().unwrap(),
            ca: pem(&cluster["certificate-authority-data"]),
            client: Signed { certificate: pem(&user["client-certificate-data"]), key: pem(&user["client-key-data"]) },
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }

    /// Sends a request as it is; an answer that changes the protocol has no body.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut tls = tls(self.address, config(&self.ca, Some(&self.client)));
        tls.write_all(request.as_ref()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let mut answer = Answer { head: String::from_utf8(head).unwrap(), body: String::new() };
        let mut body = Vec::new();
        if let Some(len) = answer.header("content-length") {
            body = vec![0; len.parse().unwrap()];
            tls.read_exact(&mut body).unwrap();
        } else if answer.header("transfer-encoding").is_some() {
            while !body.ends_with(b"0\r\n\r\n") {
                let mut block = [0; 4096];
                let n = tls.read(&mut block).unwrap();
                assert!(n > 0, "an unfinished body");
                body.extend_from_slice(&block[..n]);
            }
        }
        answer.body = String::from_utf8_lossy(&body).into_owned();
        answer
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }
}

pub(crate) fn connection(address: SocketAddr) -> TcpStream {
    let connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.set_write_timeout(Some(LIMIT)).unwrap();
    connection
}

pub(crate) fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::from(address.ip());
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), connection(address))
}

pub(crate) fn config(ca: &str, client: Option<&Signed>) -> Arc<ClientConfig> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    Arc::new(match client {
        None => builder.with_no_client_auth(),
        Some(Signed { certificate: chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate(chain)], key).unwrap()
        }
    })
}
