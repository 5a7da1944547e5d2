//! Guarded mode's loopback port: mutual TLS with certificates that exist only in this process and the temporary
//! kubeconfig, so that no other user of the laptop can use the port.
//!
//! ALPN offers `http/1.1` alone: every request of kubectl has a connection, and so a stream, of its own.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use mykube_dial::tls::large_writes;
use mykube_protocol::channel::{Credentials, Mode, Welcome};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a connection has for its handshake: one without the certificate takes up a connection for no longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificates of the port could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the certificates of the loopback port cannot be made: {0}")]
pub struct GuardError(String);

impl From<rcgen::Error> for GuardError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustls::Error> for GuardError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

/// The port's side of TLS, and the client's certificate for the kubeconfig.
pub struct Guard {
    acceptor: TlsAcceptor,
    ca: String,
    credentials: Credentials,
}

impl Guard {
    /// Draws keys (P-256) for a CA, a server and a client, for a port of `host` and of 127.0.0.1. The CA's key is
    /// dropped at once, so that nobody can make another certificate with it.
    ///
    /// # Errors
    /// The crypto provider failed.
    pub fn new(host: Ipv4Addr) -> Result<Self, GuardError> {
        let ca_key = KeyPair::generate()?;
        let mut params = named("mykube session CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::new(params, ca_key);

        let server_key = KeyPair::generate()?;
        let mut params = named("mykube loopback port");
        params.subject_alt_names = [Ipv4Addr::LOCALHOST, host].map(|host| SanType::IpAddress(host.into())).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = params.signed_by(&server_key, &issuer)?;

        let client_key = KeyPair::generate()?;
        let mut params = named("mykube client");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = params.signed_by(&client_key, &issuer)?;

        Ok(Self {
            acceptor: acceptor(ca.der(), server.der(), &server_key)?,
            ca: ca.pem(),
            credentials: Credentials {
                token: None,
                certificate: Some(client.pem()),
                key: Some(client_key.serialize_pem()),
                username: None,
                password: None,
                expiring: false,
            },
        })
    }

    /// What goes into the kubeconfig: the cluster's and namespace's names from the agent's welcome, and this port's
    /// address and keys.
    #[must_use]
    pub fn localise(&self, welcome: &Welcome) -> Welcome {
        Welcome {
            mode: Mode::Guarded,
            cluster: welcome.cluster.clone(),
            server_name: None,
            ca: Some(self.ca.clone()),
            path: None,
            insecure_skip_tls_verify: false,
            namespace: welcome.namespace.clone(),
            recorded: welcome.recorded,
            credentials: Some(self.credentials.clone()),
        }
    }

    /// Makes the TLS handshake of one connection.
    ///
    /// # Errors
    /// There was no certificate, a wrong one, or no handshake in time.
    pub async fn accept(&self, connection: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept_with(connection, large_writes)).await?
    }
}

/// Valid at any time: the keys end with the process, and a laptop's clock may be wrong.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn acceptor(ca: &CertificateDer<'_>, server: &CertificateDer<'_>, key: &KeyPair) -> Result<TlsAcceptor, GuardError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| GuardError(error.to_string()))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.clone().into_owned()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, pki_types::ServerName};
    use rustls_pki_types::pem::PemObject as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::TlsConnector;

    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(127, 1, 2, 3);

    /// What a client with `credentials` can read from a port of `guard`.
    async fn dial(guard: &Guard, credentials: Option<&Credentials>) -> std::io::Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(guard.ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credentials {
            None => builder.with_no_client_auth(),
            Some(credentials) => {
                let certificate = credentials.certificate.as_deref().unwrap().as_bytes();
                let key = credentials.key.as_deref().unwrap().as_bytes();
                builder
                    .with_client_auth_cert(
                        vec![CertificateDer::from_pem_slice(certificate).unwrap()],
                        PrivateKeyDer::from_pem_slice(key).unwrap(),
                    )
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = async {
            let tcp = TcpStream::connect(address).await?;
            let mut tls =
                TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await?;
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut read = Vec::new();
            tls.read_to_end(&mut read).await?;
            Ok(read)
        };
        let server = async {
            let mut tls = guard.accept(listener.accept().await?.0).await?;
            tls.write_all(b"in").await?;
            tls.shutdown().await
        };
        let (read, served) = tokio::join!(client, server);
        served.and(read)
    }

    #[tokio::test]
    async fn only_the_kubeconfigs_certificate_opens_the_port() {
        let (guard, other) = (Guard::new(Ipv4Addr::LOCALHOST).unwrap(), Guard::new(OWN).unwrap());
        assert_eq!(dial(&guard, Some(&guard.credentials)).await.unwrap(), b"in");
        assert!(dial(&guard, None).await.is_err());
        assert!(dial(&guard, Some(&other.credentials)).await.is_err());
    }

    #[test]
    fn nothing_of_the_agents_word_but_names_reaches_the_kubeconfig() {
        let guard = Guard::new(OWN).unwrap();
        let hostile = Welcome {
            mode: Mode::Guarded,
            cluster: "prod".into(),
            server_name: Some("evil.example".into()),
            ca: Some("evil".into()),
            path: Some("/evil".into()),
            insecure_skip_tls_verify: true,
            namespace: Some("team".into()),
            recorded: true,
            credentials: None,
        };
        let local = guard.localise(&hostile);
        assert_eq!((local.cluster.as_str(), local.namespace.as_deref()), ("prod", Some("team")));
        assert_eq!((local.server_name, local.path, local.insecure_skip_tls_verify), (None, None, false));
        assert_eq!(local.ca.as_deref(), Some(guard.ca.as_str()));
    }
}
