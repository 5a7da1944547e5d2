//! Connections to the API server: TCP or its proxy, then TLS, HTTP/1.1.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use mykube_agent_upstream::{ConnectError, Upstream};
use mykube_dial::{
    Coalescing, Transport, cut,
    error::TlsProblem,
    tls::{Verifier, large_writes, readable},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, sign::any_supported_type},
        verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use crate::flushes::Flushes;

/// A read that has so much takes no more: hyper makes its buffer larger for whoever fills it, up to what the longest head takes.
const READ: usize = 64 * 1024;

/// Why there is no connection. Shown, it is what the operator may know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectFailed {
    /// Nobody there, or no way.
    #[error(transparent)]
    Unreachable(ConnectError),
    /// Somebody else there, or nobody who takes our certificate.
    #[error(transparent)]
    Tls(ConnectError),
}

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Connector {
    upstream: Arc<Upstream>,
    tls: TlsConnector,
    name: ServerName<'static>,
    handshake: Duration,
}

/// What TLS is made of.
pub(crate) struct TlsInputs<'a> {
    pub(crate) ca: Option<&'a str>,
    /// Chain and key, in PEM form.
    pub(crate) certificate: Option<(&'a str, &'a str)>,
}

impl Connector {
    /// # Errors
    /// What is wrong with the certificates, in words for the operator.
    pub(crate) fn new(upstream: Arc<Upstream>, inputs: &TlsInputs<'_>, handshake: Duration) -> Result<Self, String> {
        let name = ServerName::try_from(upstream.server_name.clone())
            .map_err(|_| format!("`{}` is not a name that a certificate can have", upstream.server_name))?;
        let config = config(inputs, upstream.insecure)?;
        Ok(Self { upstream, tls: TlsConnector::from(Arc::new(config)), name, handshake })
    }

    pub(crate) async fn connect(self) -> Result<Io, ConnectFailed> {
        let transport = self.upstream.connect().await.map_err(ConnectFailed::Unreachable)?;
        let address = self.upstream.address();
        let failed = |why: &str, told: &str| {
            ConnectError::new(&format!("the API server {address} {why}"), &format!("the API server {told}"))
        };
        match tokio::time::timeout(self.handshake, self.tls.connect_with(self.name, transport, large_writes)).await {
            Ok(Ok(stream)) => Ok(Io::new(Coalescing::until(stream, READ))),
            Ok(Err(error)) => {
                let problem = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                Err(match problem {
                    Some(problem) => {
                        let told = match problem {
                            rustls::Error::InvalidCertificate(_) => "has a certificate that cannot be verified",
                            _ => "refused TLS",
                        };
                        let told = format!("{told}, the log of mykube server says why");
                        ConnectFailed::Tls(failed(&why(&TlsProblem::of(problem)), &told))
                    }
                    None => {
                        let why = "closed the connection during the TLS handshake";
                        ConnectFailed::Unreachable(failed(why, why))
                    }
                })
            }
            Err(_) => {
                let why = "took the connection but did not answer in time";
                Err(ConnectFailed::Unreachable(failed(why, why)))
            }
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
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier(inputs.ca)?))
    };
    let mut config = match inputs.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let unusable = |error: &dyn std::fmt::Display| format!("the client certificate cannot be used: {error}");
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| unusable(&error))?;
            let key = any_supported_type(&key).map_err(|error| unusable(&error))?;
            // Not `with_client_auth_cert`, which reads the certificate and knows version 3 only. That the two belong together was seen
            // when they were read.
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What the operator can do. The names in the certificate are for the log alone: clients do not learn where the API server is.
fn why(problem: &TlsProblem) -> String {
    let unverified = |why: &str| format!("has a certificate that cannot be verified: {why}");
    match problem {
        TlsProblem::Untrusted => unverified("the kubeconfig's CA did not sign it; fetch the kubeconfig again"),
        TlsProblem::WrongName { presented } => {
            tracing::warn!(%presented, "the API server's certificate is for other names");
            unverified("it is for other names; check `server` and tls-server-name")
        }
        TlsProblem::Expired => unverified("it has expired; have it renewed, or check this machine's clock"),
        TlsProblem::NotYetValid => unverified("it is not valid yet; check this machine's clock"),
        TlsProblem::Certificate(problem) => unverified(problem),
        TlsProblem::NotTls => "does not speak TLS: check the port in `server`".into(),
        TlsProblem::NoHttp1 => "takes HTTP/2 only: let what stands before it offer http/1.1 too (ALPN)".into(),
        TlsProblem::Alert(alert) => {
            format!(
                "refused TLS ({alert}): check the host in `server`, and whether the client certificate is still good"
            )
        }
        TlsProblem::Other(problem) => format!("failed in TLS: {problem}"),
    }
}

/// By the cluster's CA, else the system's, as kubectl has it.
fn verifier(ca: Option<&str>) -> Result<Verifier, String> {
    let certificates = match ca {
        Some(pem) => readable(pem.as_bytes()).0,
        None => rustls_native_certs::load_native_certs().certs,
    };
    Verifier::new(certificates)
        .ok_or_else(|| "there is no CA to verify the API server with: add certificate-authority-data".into())
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

/// A connection, for hyper, that tells when it was flushed.
pub(crate) struct Io {
    inner: TokioIo<Coalescing<TlsStream<Transport>>>,
    flushes: Flushes,
}

impl Io {
    fn new(inner: Coalescing<TlsStream<Transport>>) -> Self {
        Self { inner: TokioIo::new(inner), flushes: Flushes::default() }
    }

    pub(crate) fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Ends it without looking complete, once its other end has everything.
    pub(crate) async fn cut(self) {
        cut(self.inner.into_inner()).await;
    }
}

impl Connection for Io {
    /// Whoever sends on it can wait for its flushes.
    fn connected(&self) -> Connected {
        Connected::new().extra(self.flushes().clone())
    }
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.flushes.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_does_not_say_where_the_api_server_is() {
        let problems = [
            (TlsProblem::Untrusted, "the kubeconfig's CA did not sign it"),
            (TlsProblem::WrongName { presented: "master.internal, 10.1.2.3".into() }, "tls-server-name"),
            (TlsProblem::Expired, "it has expired"),
            (TlsProblem::NotTls, "check the port in `server`"),
            (TlsProblem::NoHttp1, "offer http/1.1 too"),
            (TlsProblem::Alert("unknown CA".into()), "refused TLS (unknown CA)"),
        ];
        for (problem, expected) in problems {
            let said = why(&problem);
            assert!(said.contains(expected) && !said.contains("internal") && !said.contains("10.1"), "{said}");
        }
    }
}
