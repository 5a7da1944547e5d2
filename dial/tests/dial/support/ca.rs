//! A certificate authority that lives as long as a test.

use std::{io::Write as _, sync::Arc};

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{self, sign::any_supported_type},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// What `--ca-file` takes.
    pub(crate) file: NamedTempFile,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(pem.as_bytes()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// TLS as `name`.
    pub(crate) fn server(&self, name: &str) -> TlsAcceptor {
        self.sign(CertificateParams::new(vec![name.to_owned()]).unwrap())
    }

    /// TLS as `name`, too late.
    pub(crate) fn expired_server(&self, name: &str) -> TlsAcceptor {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.sign(params)
    }

    /// TLS as `name`, over HTTP/2 only.
    pub(crate) fn http2_server(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        acceptor(&params.signed_by(&key, &self.issuer).unwrap(), &key, &[b"h2"])
    }

    fn sign(&self, params: CertificateParams) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        acceptor(&params.signed_by(&key, &self.issuer).unwrap(), &key, &[])
    }
}

/// A server's certificate that is its own authority, as `openssl req -x509` makes it: a `--ca-file` with it, TLS with it, and TLS by
/// a server that has the certificate and not its key.
pub(crate) fn own_authority(name: &str) -> (NamedTempFile, TlsAcceptor, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(certificate.pem().as_bytes()).unwrap();
    let thief = acceptor(&certificate, &KeyPair::generate().unwrap(), &[]);
    (file, acceptor(&certificate, &key, &[]), thief)
}

/// Whether or not the key is the certificate's.
fn acceptor(certificate: &Certificate, key: &KeyPair, alpn: &[&[u8]]) -> TlsAcceptor {
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))).unwrap();
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}
