//! Reaching the relay one step at a time, for `mykube doctor`: each step returns what it saw.

mod issuer;

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, header};
use mykube_protocol::{FromAgent, Role, http::SessionCreated};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{net::lookup_host, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    connect::{connect_tcp, connect_tcp_via_proxy},
    dialer::{DialOptions, Dialer},
    error::{DialError, Unreachable, clean},
    messages::SocketLost,
    proxy::ProxyTarget,
    tls::{Trust, Verifier},
    transport::Transport,
    url::RelayUrl,
};

/// The payload of the ping that must come back over the WebSocket.
const PING: &[u8] = b"mykube doctor";

/// The steps before HTTP.
#[derive(Debug)]
pub struct Probe {
    url: RelayUrl,
    proxy: Option<ProxyTarget>,
    /// Set where the relay is reached by TLS, or where there is a `--ca-file`.
    trust: Option<Trust>,
    limit: Duration,
}

/// The certificate a server showed, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// Its issuer, `Example CA, Example Inc`, cleaned; empty where it cannot be read.
    pub issuer: String,
    /// Whether the system's own authorities vouch for it, without `--ca-file`.
    pub by_system: bool,
}

/// Why no frame came back over a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketProblem {
    /// The WebSocket did not open.
    #[error(transparent)]
    Refused(#[from] DialError),
    /// It opened and was cut.
    #[error("the WebSocket opened and was cut before a frame came back: {0}")]
    Cut(SocketLost),
    /// It opened, and no frame came back.
    #[error("the WebSocket opened, but no frame came back within {} s", .0.as_secs_f32())]
    Silent(Duration),
}

impl Probe {
    /// Reads certificates and chooses the proxy as [`Dialer::new`] does; touches no network.
    ///
    /// # Errors
    /// [`DialError::CaFile`], [`DialError::NoRoots`] and [`DialError::ProxySetting`].
    pub fn new(url: RelayUrl, options: &DialOptions) -> Result<Self, DialError> {
        let trust = match (&options.ca_file, url.is_tls()) {
            (None, false) => None,
            (ca_file, _) => Some(Trust::new(ca_file.as_deref())?),
        };
        // Plain http never leaves this machine.
        let proxy = if url.is_tls() { options.proxies.select(true, &url.host(), url.port())? } else { None };
        Ok(Self { url, proxy, trust, limit: options.connect_timeout })
    }

    /// The proxy on the way, if any.
    #[must_use]
    pub fn proxy(&self) -> Option<&ProxyTarget> {
        self.proxy.as_ref()
    }

    /// Resolves the name that this machine dials, the proxy's or the relay's. Returns the name and its addresses; no addresses
    /// where the name is an address itself.
    ///
    /// # Errors
    /// [`DialError::Unreachable`].
    pub async fn resolve(&self) -> Result<(String, Vec<IpAddr>), DialError> {
        let (host, port) = match &self.proxy {
            Some(proxy) => (proxy.host.clone(), proxy.port),
            None => (self.url.host(), self.url.port()),
        };
        if host.parse::<IpAddr>().is_ok() {
            return Ok((host, Vec::new()));
        }
        let failed = |reason| DialError::unreachable(host.as_str(), reason);
        let found = timeout(self.limit, lookup_host((host.as_str(), port))).await;
        let found = found.map_err(|_| failed(Unreachable::Timeout(self.limit)))?;
        let mut addresses: Vec<_> =
            found.map_err(|e| failed(Unreachable::Dns(clean(&e.to_string()))))?.map(|address| address.ip()).collect();
        addresses.dedup();
        if addresses.is_empty() {
            Err(failed(Unreachable::Dns("it has no address".into())))
        } else {
            Ok((host, addresses))
        }
    }

    /// TCP to the relay, through the proxy where there is one.
    ///
    /// # Errors
    /// [`DialError::Unreachable`] and [`DialError::Proxy`].
    pub async fn connect(&self) -> Result<Transport, DialError> {
        let (host, port) = (self.url.host(), self.url.port());
        match &self.trust {
            Some(trust) if self.url.is_tls() => {
                connect_tcp_via_proxy(&host, port, self.proxy.as_ref(), trust, self.limit).await
            }
            _ => connect_tcp(&host, port, true, &self.url.address(), self.limit).await.map(Transport::Tcp),
        }
    }

    /// TLS on a connection to an https relay, and the certificate that it showed, accepted or not.
    pub async fn tls(&self, stream: Transport) -> (Result<(), DialError>, Option<Presented>) {
        let late = || DialError::unreachable(self.url.address(), Unreachable::Timeout(self.limit));
        let (host, address) = (self.url.host(), self.url.address());
        let handshake = async {
            let trust = self.trust.as_ref().expect("a probe of a TLS relay has authorities to trust");
            trust.handshake(stream, &host, &address).await
        };
        let (result, chain) = match timeout(self.limit, handshake).await.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => (Ok(()), chain(&stream)),
            Err(error @ DialError::Tls { .. }) => (Err(error), self.look().await),
            Err(error) => (Err(error), Vec::new()),
        };
        let presented = chain.first().map(|first| Presented {
            issuer: issuer::name(first).map(|name| clean(&name)).unwrap_or_default(),
            by_system: self.by_system(&chain),
        });
        (result, presented)
    }

    /// The certificates of a server that is not trusted, by a handshake that ends once the server has shown them.
    async fn look(&self) -> Vec<CertificateDer<'static>> {
        let seen = Arc::new(Onlooker::default());
        let name = ServerName::try_from(self.url.host());
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|builder| builder.dangerous().with_custom_certificate_verifier(seen.clone()).with_no_client_auth());
        let (Ok(name), Ok(config), Ok(stream)) = (name, config, self.connect().await) else { return Vec::new() };
        let connector = TlsConnector::from(Arc::new(config));
        let handshake = async {
            match stream {
                Transport::Tcp(tcp) => connector.connect(name, tcp).await.map(drop),
                Transport::Tls(tls) => connector.connect(name, tls).await.map(drop),
                Transport::TlsInTls(_) => Err(io::ErrorKind::Unsupported.into()),
            }
        };
        // It fails always: the verifier accepts no certificate.
        let _ = timeout(self.limit, handshake).await;
        std::mem::take(&mut seen.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn by_system(&self, chain: &[CertificateDer<'_>]) -> bool {
        let verifier = Verifier::new(rustls_native_certs::load_native_certs().certs);
        let (Some(verifier), Ok(name), Some((first, more))) =
            (verifier, ServerName::try_from(self.url.host()), chain.split_first())
        else {
            return false;
        };
        verifier.verify_server_cert(first, more, &name, &[], UnixTime::now()).is_ok()
    }
}

impl Dialer {
    /// The `Date` header of the relay's answer to `GET /healthz`, unparsed.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn date(&self) -> Result<Option<String>, DialError> {
        let mut request = self.request(Method::GET, "/healthz", Bytes::new());
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(self.send(request).await?.header(header::DATE))
    }

    /// Opens the agent's WebSocket of a session that no client will join, waits for a ping to be answered, and frees the
    /// nameplate.
    ///
    /// # Errors
    /// See [`WebSocketProblem`].
    pub async fn try_websocket(&self, session: &SessionCreated) -> Result<(), WebSocketProblem> {
        let mut socket = self.websocket(Role::Agent, &session.session_id, &session.ticket).await?;
        let cut = |error| WebSocketProblem::Cut(SocketLost::from_error(&error));
        let round_trip = async {
            socket.send(Message::Ping(Bytes::from_static(PING))).await.map_err(cut)?;
            loop {
                match socket.next().await {
                    Some(Ok(Message::Pong(payload))) if payload == PING => return Ok(()),
                    Some(Ok(Message::Close(_))) | None => {
                        return Err(WebSocketProblem::Cut(SocketLost::Broken("closed".into())));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(cut(error)),
                }
            }
        };
        let limit = self.answer_timeout();
        timeout(limit, round_trip).await.map_err(|_| WebSocketProblem::Silent(limit))??;
        let farewell = async {
            socket.send(Message::text(FromAgent::Burned.to_string())).await?;
            socket.close(None).await?;
            while let Some(Ok(_)) = socket.next().await {}
            Ok::<_, tokio_tungstenite::tungstenite::Error>(())
        };
        // The ping was answered, so the probe has succeeded; the relay lets the code expire where this fails.
        let _ = timeout(limit, farewell).await;
        Ok(())
    }
}

fn chain(stream: &Transport) -> Vec<CertificateDer<'static>> {
    let certificates = match stream {
        Transport::Tcp(_) => None,
        Transport::Tls(tls) => tls.get_ref().1.peer_certificates(),
        Transport::TlsInTls(tls) => tls.get_ref().1.peer_certificates(),
    };
    certificates.unwrap_or_default().iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// Keeps the certificates that a server shows, and accepts none.
#[derive(Debug, Default)]
struct Onlooker {
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(first).chain(more).map(|certificate| certificate.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
