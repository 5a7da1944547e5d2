//! An API server that answers every request, and notes how each was authenticated.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject as _};

use crate::support::{LIMIT, certs::Signed, sha256};

/// The first request for the version: what a program sends with a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    path: String,
    /// `Authorization` and `Impersonate-*`, sorted.
    who: Vec<(String, String)>,
    /// SHA-256 of the client's certificate.
    certificate: Option<String>,
    /// TLS's server name.
    name: Option<String>,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (name, value) in &self.who {
            write!(f, " {name}: {value}")?;
        }
        if self.certificate.is_some() {
            f.write_str(" with a certificate")?;
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " at {name}"))
    }
}

pub(super) struct Api {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Option<Seen>>>,
}

impl Api {
    pub(super) fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<_>>::default();
        let to = seen.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, to) = (config.clone(), to.clone());
                std::thread::spawn(move || serve(stream, config, &to));
            }
        });
        Self { address, seen }
    }

    /// The requests since the last call.
    pub(super) fn take(&self) -> Option<Seen> {
        self.seen.lock().unwrap().take()
    }
}

/// Answers until the client closes, or something is wrong with it.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, seen: &Mutex<Option<Seen>>) -> Option<()> {
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let tls = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
    let mut reader = BufReader::new(tls);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let path = line.split(' ').nth(1)?.split('?').next()?.to_owned();
        let (mut who, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
            if name == "content-length" {
                length = value.parse().ok()?;
            }
            if name == "authorization" || name.starts_with("impersonate-") {
                who.push((name, value));
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        who.sort();
        if path.ends_with("/version") {
            let tls = &reader.get_ref().conn;
            let certificate = tls.peer_certificates().and_then(|chain| chain.first()).map(|own| sha256(own));
            let name = tls.server_name().map(str::to_owned);
            seen.lock().unwrap().get_or_insert(Seen { path, who, certificate, name });
        }
        let body = r#"{"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}"#;
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        reader.get_mut().write_all((head + body).as_bytes()).ok()?;
    }
}

impl Signed {
    /// Shows this certificate, and accepts any certificate of a client, or none.
    pub(super) fn server_for_all(&self) -> Arc<ServerConfig> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from_pem_slice(self.key.as_bytes()).unwrap());
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_client_cert_verifier(Arc::new(Anybody)).with_single_cert(chain, key).unwrap())
    }
}

/// Asks for a certificate and accepts any.
#[derive(Debug)]
struct Anybody;

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
