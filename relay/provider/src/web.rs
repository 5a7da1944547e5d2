//! One call to a provider: over a connection of its own, through the proxy that the environment names, bounded in time
//! and size, and never redirected.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use mykube_dial::{
    DialError, ProxyEnv, Trust,
    fetch::{Way, fetch, target},
};

use crate::error::{Call, ProviderError};

/// How long a call may take: name, connection, TLS and answer together. A sign-in makes four at most.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("mykube-relay/", env!("CARGO_PKG_VERSION"));

/// The way to all providers. Cheap to clone.
#[derive(Clone)]
pub struct Web {
    shared: Arc<Shared>,
}

struct Shared {
    trust: Trust,
    proxies: ProxyEnv,
    limit: Duration,
}

/// An answer of at most [`mykube_dial::RESPONSE_BODY_MAX`] bytes that is no redirect.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Web {
    /// Reads the certificates that are trusted: the system's and those of `ca_file`. Touches no network.
    ///
    /// # Errors
    /// [`DialError::CaFile`] and [`DialError::NoRoots`].
    pub fn new(ca_file: Option<&Path>, proxies: ProxyEnv) -> Result<Self, DialError> {
        Ok(Self::with_limit(Trust::new(ca_file)?, proxies, CALL_LIMIT))
    }

    /// The same, through the proxies that the environment names.
    ///
    /// # Errors
    /// [`DialError::CaFile`] and [`DialError::NoRoots`].
    pub fn from_env(ca_file: Option<&Path>) -> Result<Self, DialError> {
        Self::new(ca_file, ProxyEnv::from_env())
    }

    /// With other roots and another limit than [`CALL_LIMIT`].
    #[must_use]
    pub fn with_limit(trust: Trust, proxies: ProxyEnv, limit: Duration) -> Self {
        Self { shared: Arc::new(Shared { trust, proxies, limit }) }
    }

    /// # Errors
    /// [`ProviderError::Unreachable`] and [`ProviderError::Redirected`].
    pub(crate) async fn ask(&self, call: Call, mut request: Request<Bytes>) -> Result<Answer, ProviderError> {
        let failed = |error| ProviderError::Unreachable { call, error };
        let Shared { trust, proxies, limit } = &*self.shared;
        let (host, port, tls) = target(request.uri()).map_err(failed)?;
        let proxy = if tls { proxies.select(tls, &host, port).map_err(failed)? } else { None };
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        request.headers_mut().entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        let way = Way { trust, proxy_trust: trust, proxy: proxy.as_ref(), limit: *limit };
        let answer = fetch(request, &way).await.map_err(failed)?;
        if answer.status().is_redirection() {
            return Err(ProviderError::Redirected(call));
        }
        Ok(Answer { status: answer.status(), body: answer.into_body() })
    }

    /// The body of a 200.
    ///
    /// # Errors
    /// As of [`Web::ask`], and [`ProviderError::Status`].
    pub(crate) async fn ask_for(&self, call: Call, request: Request<Bytes>) -> Result<Bytes, ProviderError> {
        let answer = self.ask(call, request).await?;
        if answer.status != StatusCode::OK {
            return Err(ProviderError::Status { call, status: answer.status.as_u16() });
        }
        Ok(answer.body)
    }
}

/// A request for a document that anybody may read.
pub(crate) fn get(uri: http::Uri) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = uri;
    request
}

/// A request that shows an access token (RFC 6750, section 2.1), if it can stand in a header.
pub(crate) fn get_with(uri: http::Uri, access_token: &str) -> Option<Request<Bytes>> {
    let mut request = get(uri);
    let text = zeroize::Zeroizing::new(format!("Bearer {access_token}"));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Some(request)
}
