//! The way to the relay: TCP, a proxy where the environment names one, TLS.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::debug;

use crate::{
    connect::{connect_tcp, connect_tcp_via_proxy},
    error::{DialError, Unreachable},
    proxy::{ProxyEnv, ProxyTarget},
    tls::Trust,
    transport::{Transport, tune_for_relay},
    url::RelayUrl,
};

/// How long a connection may take: name, TCP, proxy and TLS together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the relay may take to answer a request once connected.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a [`Dialer`] is made of beside the relay's address.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// `--ca-file`: PEM certificates trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The proxy variables.
    pub proxies: ProxyEnv,
    /// See [`CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// See [`ANSWER_TIMEOUT`].
    pub answer_timeout: Duration,
}

impl Default for DialOptions {
    /// No CA file, no proxy, the default timeouts. The command line sets `proxies` to [`ProxyEnv::from_env`].
    fn default() -> Self {
        Self {
            ca_file: None,
            proxies: ProxyEnv::default(),
            connect_timeout: CONNECT_TIMEOUT,
            answer_timeout: ANSWER_TIMEOUT,
        }
    }
}

/// Connects to one relay, any number of times. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    way: Arc<Way>,
}

#[derive(Debug)]
struct Way {
    url: RelayUrl,
    /// `None` for plain http, which never leaves this machine.
    tls: Option<Trust>,
    proxy: Option<ProxyTarget>,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl Dialer {
    /// Reads certificates and chooses the proxy; touches no network.
    ///
    /// # Errors
    /// [`DialError::CaFile`], [`DialError::NoRoots`] and [`DialError::ProxySetting`].
    pub fn new(url: RelayUrl, options: DialOptions) -> Result<Self, DialError> {
        let trust = match (&options.ca_file, url.is_tls()) {
            (None, false) => None,
            (ca_file, _) => Some(Trust::new(ca_file.as_deref())?),
        };
        let tls = trust.filter(|_| url.is_tls());
        let proxy = options.proxies.select(url.is_tls(), &url.host(), url.port())?;
        let DialOptions { connect_timeout, answer_timeout, .. } = options;
        Ok(Self { way: Arc::new(Way { url, tls, proxy, connect_timeout, answer_timeout }) })
    }

    /// The relay's address.
    #[must_use]
    pub fn url(&self) -> &RelayUrl {
        &self.way.url
    }

    /// The proxy on the way, if any.
    #[must_use]
    pub fn proxy(&self) -> Option<&ProxyTarget> {
        self.way.proxy.as_ref()
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        self.way.answer_timeout
    }

    /// A fresh connection to the relay, ready for HTTP/1.1.
    ///
    /// # Errors
    /// [`DialError::Unreachable`], [`DialError::Proxy`] and [`DialError::Tls`].
    pub async fn connect(&self) -> Result<Transport, DialError> {
        let Way { url, tls, proxy, connect_timeout: limit, .. } = &*self.way;
        let address = url.address();
        let tuned = |stream: Transport| match tune_for_relay(stream.tcp()) {
            Ok(()) => Ok(stream),
            Err(error) => Err(DialError::unreachable(address.as_str(), Unreachable::from_io(&error, "at once"))),
        };
        let work = async {
            let Some(trust) = tls else {
                let tcp = connect_tcp(&url.host(), url.port(), true, &address, *limit).await?;
                return tuned(Transport::Tcp(tcp));
            };
            let stream = connect_tcp_via_proxy(&url.host(), url.port(), proxy.as_ref(), trust, *limit).await?;
            trust.handshake(tuned(stream)?, &url.host(), &address).await
        };
        let late = || DialError::unreachable(address.as_str(), Unreachable::Timeout(*limit));
        let stream = timeout(*limit, work).await.map_err(|_| late())??;
        debug!(host = url.host(), port = url.port(), tls = url.is_tls(), proxied = proxy.is_some(), "connected");
        Ok(stream)
    }
}
