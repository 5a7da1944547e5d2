//! TLS from certificate files, which are read again while the relay runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::{certificate::Certificate, config::TlsFiles};

/// How often the operator is warned that the certificate ends.
const COMPLAINT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check --tls-cert and --tls-key", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM of the right kind.
    #[error("{} holds no {what} in PEM form; check --tls-cert and --tls-key", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
    },
    /// Certificate and key do not work (together).
    #[error("the certificate in {} cannot be used with the key in {}: {}", cert.display(), key.display(), why(source))]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Accepts TLS with the certificate that the files held when they were last read.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    /// Notified to have the files read now.
    asked: Notify,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (key, _) = read(&files, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let tls = Self { files, current, acceptor, asked: Notify::new() };
        tls.complain();
        Ok(tls)
    }

    /// Names and validity of the certificate that is shown; `None` if it cannot be read as X.509.
    pub(crate) fn certificate(&self) -> Option<Certificate> {
        let current = self.current.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        Certificate::read(current.cert.first()?)
    }

    /// Makes [`Tls::keep_fresh`] read the files now and log the result.
    pub(crate) fn look_now(&self) {
        self.asked.notify_one();
    }

    fn complain(&self) {
        let complaint = self.certificate().and_then(|certificate| certificate.complaint(OffsetDateTime::now_utc()));
        if let Some(complaint) = complaint {
            warn!("the TLS certificate in {} {complaint}", self.files.cert.display());
        }
    }

    /// A connection that takes a batch of `batch` bytes at once, encrypts it and gives it to the kernel, and holds a quarter more
    /// than that while its reader is slow. rustls' own limit of 64 KiB is, with the overhead of TLS, a segment of loopback and a
    /// sliver.
    pub(crate) async fn accept<S>(&self, stream: S, batch: usize) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(batch + batch / 4))).await
    }

    /// Reads the files at intervals and when asked. If they cannot be used, the old certificate stays.
    pub(crate) async fn keep_fresh(&self) {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut last = self.contents();
        let mut complained = Instant::now();
        loop {
            let asked = tokio::select! {
                () = self.asked.notified() => true,
                () = tokio::time::sleep(self.files.reload_interval) => false,
            };
            if complained.elapsed() >= COMPLAINT_EVERY {
                self.complain();
                complained = Instant::now();
            }
            let contents = self.contents();
            if contents == last && !asked {
                continue;
            }
            match read(&self.files, &provider) {
                Ok((key, read)) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                    last = Some(read);
                    info!(cert = %self.files.cert.display(), "TLS certificate reloaded");
                    self.complain();
                }
                Err(error) => {
                    warn!(%error, "the TLS files cannot be used: the old certificate stays");
                    last = contents;
                }
            }
        }
    }

    fn contents(&self) -> Option<Contents> {
        Some((fs::read(&self.files.cert).ok()?, Zeroizing::new(fs::read(&self.files.key).ok()?)))
    }
}

type Contents = (Vec<u8>, Zeroizing<Vec<u8>>);

fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<(CertifiedKey, Contents), TlsError> {
    let bytes = |path: &Path| fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
    let (cert, key) = (bytes(&files.cert)?, Zeroizing::new(bytes(&files.key)?));
    let not_pem = |path: &Path, what| TlsError::NotPem { path: path.to_owned(), what };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&cert)
        .collect::<Result<_, _>>()
        .map_err(|_| not_pem(&files.cert, "certificate"))?;
    if chain.is_empty() {
        return Err(not_pem(&files.cert, "certificate"));
    }
    let der = PrivateKeyDer::from_pem_slice(&key).map_err(|_| not_pem(&files.key, "private key"))?;
    let certified = CertifiedKey::from_der(chain, der, provider).map_err(|source| TlsError::Mismatch {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })?;
    Ok((certified, (cert, key)))
}

/// A text for a person; rustls prints the first two by their names in its source.
fn why(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "they do not belong together".into(),
        rustls::Error::InvalidCertificate(_) => "the certificate cannot be read (it must be X.509, version 3)".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::*;

    const PIPE: usize = 32 * 1024;

    fn certificate(dir: &Path) -> (TlsFiles, TlsConnector) {
        let made = rcgen::generate_simple_self_signed(vec!["relay.test".to_owned()]).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (TlsFiles { cert, key, reload_interval: Duration::from_secs(10) }, TlsConnector::from(Arc::new(client)))
    }

    #[tokio::test]
    async fn a_batch_is_taken_at_once_and_a_slow_reader_holds_a_quarter_more() {
        let dir = tempfile::tempdir().unwrap();
        let (files, connector) = certificate(dir.path());
        let tls = Tls::load(files).unwrap();
        for batch in [16 * 1024, 128 * 1024, 1024 * 1024] {
            let (near, far) = tokio::io::duplex(PIPE);
            let name = "relay.test".try_into().unwrap();
            let (near, far) = join(tls.accept(near, batch), connector.connect(name, far)).await;
            let (mut near, mut far) = (near.unwrap(), far.unwrap());

            let data = vec![7; batch];
            let mut taken = near.write(&data).now_or_never().expect("nothing waits yet").unwrap();
            assert_eq!(taken, batch, "of a batch at once");
            while let Some(more) = near.write(&data).now_or_never() {
                taken += more.unwrap();
            }
            let most = batch + batch / 4;
            assert!((most - batch / 8..=most + PIPE).contains(&taken), "{taken} bytes are held, the batch is {batch}");

            let mut got = vec![0; taken];
            let (flushed, read) = join(near.flush(), far.read_exact(&mut got)).await;
            assert!(flushed.is_ok() && read.is_ok() && got.iter().all(|b| *b == 7));
        }
    }
}
