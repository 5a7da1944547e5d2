//! Certificates for a relay and an API server of the lab.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::LabError;

/// A certificate authority that exists as long as this value.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate that it signed, with the key, in PEM.
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// Makes one with a key of its own.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(refused)?;
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(refused)
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for these names and addresses.
    pub fn sign(&self, names: &[String]) -> Result<Signed, LabError> {
        let key = KeyPair::generate().map_err(refused)?;
        let params = CertificateParams::new(names).map_err(refused)?;
        let certificate = params.signed_by(&key, &self.0).map_err(refused)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn refused(error: rcgen::Error) -> LabError {
    LabError::Words(format!("cannot make a certificate: {error}"))
}

/// TLS with a certificate and its key, from files.
pub(super) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, LabError> {
    let unreadable = |path: &Path| LabError::Words(format!("{} is no PEM file of the right kind", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| unreadable(certificate))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable(key))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let config = builder.and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    config.map(Arc::new).map_err(|error| LabError::Words(format!("{} cannot be used: {error}", certificate.display())))
}
