//! Connections to the API server: TCP or its proxy, then TLS, HTTP/1.1.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use mykube_link::{Filling, Transport, tls::large_writes};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::{ConnectError, Upstream};

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectFailed {
    /// Nobody there, or no way.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// Somebody else there, or nobody who takes our certificate.
    #[error(transparent)]
    Tls(ConnectError),
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    upstream: Arc<Upstream>,
    tls: TlsConnector,
    name: ServerName<'static>,
    handshake: Duration,
}

/// What TLS is made of.
pub(super) struct TlsInputs<'a> {
    pub(super) ca: Option<&'a str>,
    /// Chain and key, in PEM form.
    pub(super) certificate: Option<(&'a str, &'a str)>,
}

impl Connector {
    /// # Errors
    /// What is wrong with the certificates, in words for the operator.
    pub(super) fn new(upstream: Arc<Upstream>, inputs: &TlsInputs<'_>, handshake: Duration) -> Result<Self, String> {
        let name = ServerName::try_from(upstream.server_name.clone())
            .map_err(|_| format!("`{}` is not a name that a certificate can have", upstream.server_name))?;
        let config = config(inputs, upstream.insecure)?;
        Ok(Self { upstream, tls: TlsConnector::from(Arc::new(config)), name, handshake })
    }

    pub(super) async fn connect(self) -> Result<Io, ConnectFailed> {
        let transport = self.upstream.connect().await.map_err(ConnectFailed::Unreachable)?;
        let address = self.upstream.address();
        let failed = |why: &str| ConnectError::new(&format!("the API server {address} {why}"));
        match tokio::time::timeout(self.handshake, self.tls.connect_with(self.name, transport, large_writes)).await {
            Ok(Ok(stream)) => Ok(Io(TokioIo::new(Filling::new(stream)))),
            Ok(Err(error)) => {
                let problem = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                Err(match problem {
                    Some(rustls::Error::InvalidCertificate(problem)) => ConnectFailed::Tls(failed(&format!(
                        "has a certificate that cannot be verified ({problem:?}); check its CA and tls-server-name"
                    ))),
                    Some(problem) => ConnectFailed::Tls(failed(&format!("refused TLS: {problem}"))),
                    None => ConnectFailed::Unreachable(failed("closed the connection during the TLS handshake")),
                })
            }
            Err(_) => Err(ConnectFailed::Unreachable(failed("took the connection but did not answer in time"))),
        }
    }
}

impl Service<http::Uri> for Connector {
    type Response = Io;
    type Error = ConnectFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Io, ConnectFailed>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

fn config(inputs: &TlsInputs<'_>, insecure: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    } else {
        builder.with_root_certificates(roots(inputs.ca)?)
    };
    let mut config = match inputs.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let unusable = |error: &dyn std::fmt::Display| format!("the client certificate cannot be used: {error}");
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The cluster's CA, else the system's roots, as kubectl has it.
fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                certificate
                    .map_err(|error| error.to_string())
                    .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
                    .map_err(|error| format!("a certificate of the cluster's CA cannot be used: {error}"))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there is no CA to verify the API server with: add certificate-authority-data".into());
    }
    Ok(roots)
}

/// `insecure-skip-tls-verify`: whoever answers is believed, as the kubeconfig says.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection, for hyper.
pub(super) struct Io(TokioIo<Filling<TlsStream<Transport>>>);

impl Connection for Io {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
