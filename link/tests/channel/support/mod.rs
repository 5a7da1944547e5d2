//! A relay, the way to it, and a server's certificate.

pub(crate) mod relay;

use std::sync::Arc;

use mykube_dial::{DialOptions, Dialer};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Over plain http, which stays on this machine.
pub(crate) fn dialer(url: impl AsRef<str>) -> Dialer {
    Dialer::new(url.as_ref().parse().unwrap(), DialOptions::default()).unwrap()
}

/// TLS as `name`, and what its client trusts.
pub(crate) fn tls_server(name: &str) -> (TlsAcceptor, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let certificate = cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate)
}
