//! Whom to trust: the system's certificate authorities, and those of `--ca-file` (a TLS-intercepting proxy's, say).

use std::{fmt, io, ops::DerefMut, path::Path, sync::Arc};

use rustls::{CertificateError, ClientConfig, ConnectionCommon, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::TlsConnector;

use crate::{
    Transport,
    error::{DialError, TlsProblem, Unreachable, clean},
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
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if let Some(path) = ca_file {
            add_file(&mut roots, path)?;
        }
        if roots.is_empty() {
            let reason = native.errors.first().map(|e| format!(" ({})", clean(&e.to_string())));
            return Err(DialError::NoRoots(reason.unwrap_or_default()));
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| DialError::NoRoots(format!(" ({e})")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Puts TLS for `host` on top of a connection; `address` is what an error calls it.
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

/// Encrypted and given to the kernel at once; rustls by itself takes 64 KiB, which with what TLS adds is a segment of loopback
/// and a sliver, and a system call for half of what one write has.
const WRITE_MAX: usize = 256 * 1024;

/// Has a connection of TLS take what is written in large steps.
pub fn large_writes<Side>(tls: &mut impl DerefMut<Target = ConnectionCommon<Side>>) {
    tls.set_buffer_limit(Some(WRITE_MAX));
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), DialError> {
    let failed = |reason: String| DialError::CaFile { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| failed(format!("it is not valid PEM ({e})")))?;
        roots.add(certificate).map_err(|e| failed(format!("a certificate in it cannot be read ({e})")))?;
        found = true;
    }
    if found { Ok(()) } else { Err(failed("there is no PEM certificate (-----BEGIN CERTIFICATE-----) in it".into())) }
}

fn tls_error(address: &str, error: &io::Error) -> DialError {
    let problem = match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        None => return DialError::unreachable(address, Unreachable::from_io(error, "during the TLS handshake")),
        Some(rustls::Error::InvalidCertificate(e)) => certificate_problem(e),
        Some(rustls::Error::InvalidMessage(_)) => TlsProblem::NotTls,
        Some(e) => TlsProblem::Other(clean(&e.to_string())),
    };
    DialError::Tls { address: address.to_owned(), problem }
}

fn certificate_problem(error: &CertificateError) -> TlsProblem {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::Untrusted,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsProblem::NotYetValid,
        CertificateError::NotValidForName => TlsProblem::WrongName { presented: "another name".into() },
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names = if presented.is_empty() { "no name at all".into() } else { clean(&presented.join(", ")) };
            TlsProblem::WrongName { presented: names }
        }
        other => TlsProblem::Other(format!("its certificate is not acceptable ({})", clean(&other.to_string()))),
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
        for (content, what) in [("", "no PEM certificate"), (broken, "cannot be read"), (&key, "no PEM certificate")] {
            let (result, file) = ca_file(content);
            let message = result.unwrap_err().to_string();
            assert!(message.contains(what) && message.contains(file.path().to_str().unwrap()), "{message}");
        }
        let missing = Trust::new(Some(Path::new("/no/such/file"))).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file as --ca-file: No such file"), "{missing}");
    }
}
