//! Trusted certificate authorities: the system's, and those of `--ca-file` (a TLS-intercepting proxy's, for example).

mod verifier;
mod words;

use std::{fmt, io, ops::DerefMut, path::Path, sync::Arc};

use rustls::{ClientConfig, ConnectionCommon, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

pub use verifier::{Unfit, Verifier, public_key, readable};

use crate::{
    error::{DialError, TlsProblem, Unreachable, clean},
    transport::Transport,
};

/// A TLS client configuration: trusted roots, ALPN `http/1.1`. Cheap to clone.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// The system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured) plus the certificates in `ca_file` (PEM).
    ///
    /// # Errors
    /// [`DialError::CaFile`] where the file has no readable certificate, [`DialError::NoRoots`] where nothing is trusted.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, DialError> {
        let native = rustls_native_certs::load_native_certs();
        let mut certificates = native.certs;
        if let Some(path) = ca_file {
            certificates.extend(read_file(path)?);
        }
        let Some(verifier) = Verifier::new(certificates) else {
            let reason = native.errors.first().map(|e| format!(" ({})", clean(&e.to_string())));
            return Err(DialError::NoRoots(reason.unwrap_or_default()));
        };
        Ok(Self::by(verifier))
    }

    /// Trusts what this verifier accepts, and nothing else.
    #[must_use]
    pub fn by(verifier: Verifier) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites of both versions of TLS")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config) }
    }

    /// Puts TLS for `host` on top of a connection. Errors name the target `address`.
    pub(crate) async fn handshake(&self, stream: Transport, host: &str, address: &str) -> Result<Transport, DialError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Tls {
            address: address.to_owned(),
            problem: TlsProblem::Other("its name cannot stand in a certificate. Use its DNS name".into()),
        })?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let failed = |error: io::Error| tls_error(address, &error);
        Ok(match stream {
            Transport::Tcp(tcp) => {
                Transport::Tls(Box::new(connector.connect_with(name, tcp, large_writes).await.map_err(failed)?))
            }
            Transport::Tls(tls) => {
                Transport::TlsInTls(Box::new(connector.connect_with(name, tls, large_writes).await.map_err(failed)?))
            }
            Transport::TlsInTls(_) => unreachable!("a proxy tunnel has at most one TLS layer"),
        })
    }
}

/// Bytes of plaintext that a TLS connection takes before it writes. rustls' own limit is 64 KiB: with the overhead of TLS that
/// is one segment of loopback and a sliver, and one system call for half of what one write has.
const WRITE_MAX: usize = 256 * 1024;

/// Makes a TLS connection take up to `WRITE_MAX` bytes before it writes.
pub fn large_writes<Side>(tls: &mut impl DerefMut<Target = ConnectionCommon<Side>>) {
    tls.set_buffer_limit(Some(WRITE_MAX));
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

fn read_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let failed = |reason: &str| DialError::CaFile { path: path.to_owned(), reason: reason.to_owned() };
    let (certificates, unreadable) = readable(&std::fs::read(path).map_err(|e| failed(&e.to_string()))?);
    match (certificates.is_empty(), unreadable) {
        (true, 0) => Err(failed("there is no PEM certificate (-----BEGIN CERTIFICATE-----) in it")),
        (true, _) => Err(failed("no certificate in it can be read")),
        (false, 0) => Ok(certificates),
        (false, _) => {
            tracing::warn!(file = %path.display(), unreadable, "of the certificates in --ca-file some cannot be read");
            Ok(certificates)
        }
    }
}

fn tls_error(address: &str, error: &io::Error) -> DialError {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        None => DialError::unreachable(address, Unreachable::from_io(error, "during the TLS handshake")),
        Some(error) => DialError::Tls { address: address.to_owned(), problem: TlsProblem::of(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca_file(content: &str) -> (Result<Trust, DialError>, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        (Trust::new(Some(file.path())), file)
    }

    #[test]
    fn what_is_written_is_taken_in_large_steps() {
        let pem = rcgen::generate_simple_self_signed(["relay".into()]).unwrap().cert.pem();
        let trust = ca_file(&pem).0.unwrap();
        let mut tls = rustls::ClientConnection::new(trust.config, ServerName::try_from("relay").unwrap()).unwrap();
        large_writes(&mut tls);
        assert_eq!(io::Write::write(&mut tls.writer(), &[0; 2 * WRITE_MAX]).unwrap(), WRITE_MAX);
    }

    #[test]
    fn a_ca_file_must_hold_certificates() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (content, what) in [("", "no PEM certificate"), (broken, "can be read"), (&key, "no PEM certificate")] {
            let (result, file) = ca_file(content);
            let message = result.unwrap_err().to_string();
            assert!(message.contains(what) && message.contains(file.path().to_str().unwrap()), "{message}");
        }
        let missing = Trust::new(Some(Path::new("/no/such/file"))).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file as --ca-file: No such file"), "{missing}");
    }
}
