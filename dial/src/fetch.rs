//! One request to a web server that is not a relay, such as an identity provider. It is reached as a relay is: proxy, TLS,
//! HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use tokio::time::timeout;

use crate::{
    call::{BodyError, call},
    connect::{connect_tcp, connect_tcp_via_proxy},
    error::{DialError, Unreachable},
    proxy::{ProxyTarget, host_port},
    tls::Trust,
    transport::Transport,
};

/// How one server is reached.
pub struct Way<'a> {
    /// The authorities that may vouch for the server.
    pub trust: &'a Trust,
    /// The authorities that may vouch for an https proxy.
    pub proxy_trust: &'a Trust,
    /// The proxy, if any.
    pub proxy: Option<&'a ProxyTarget>,
    /// How long all of it may take, answer included.
    pub limit: Duration,
}

/// Asks an https server, or an http server on this machine, and gives its answer, which has at most
/// [`crate::call::RESPONSE_BODY_MAX`] bytes of body. Redirects are for the caller to follow.
///
/// # Errors
/// [`DialError::Unreachable`], [`DialError::Proxy`] and [`DialError::Tls`].
pub async fn fetch(request: Request<Bytes>, way: &Way<'_>) -> Result<Response<Bytes>, DialError> {
    let (host, port, tls) = target(request.uri())?;
    let address = host_port(&host, port);
    let failed = |reason| DialError::unreachable(address.as_str(), reason);
    let work = async {
        let stream = if tls {
            let stream = connect_tcp_via_proxy(&host, port, way.proxy, way.proxy_trust, way.limit).await?;
            way.trust.handshake(stream, &host, &address).await?
        } else {
            Transport::Tcp(connect_tcp(&host, port, true, &address, way.limit).await?)
        };
        let answer = call(stream, origin_form(request, authority(&address, tls)))
            .await
            .map_err(|_| failed(Unreachable::Closed("instead of answering, or does not speak HTTP/1.1")))?;
        let (status, headers) = (answer.response.status(), answer.response.headers().clone());
        let body = answer.body().await.map_err(|error| {
            failed(match error {
                BodyError::TooLong => Unreachable::Io("its answer is far too long".into()),
                BodyError::Broken => Unreachable::Closed("in the middle of its answer"),
            })
        })?;
        let mut response = Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    };
    timeout(way.limit, work).await.map_err(|_| failed(Unreachable::Timeout(way.limit)))?
}

/// Host, port and whether it is TLS.
///
/// # Errors
/// [`DialError::Unreachable`] where the address is not an http or https one.
pub fn target(uri: &Uri) -> Result<(String, u16, bool), DialError> {
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => {
            return Err(DialError::unreachable(
                "it",
                Unreachable::Io("its address does not begin with https://".into()),
            ));
        }
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(DialError::unreachable("it", Unreachable::Io("its address has no host".into())));
    }
    Ok((host, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls))
}

/// The `Host` header (RFC 9110 section 7.2): the port only where it is not the scheme's own.
fn authority(address: &str, tls: bool) -> &str {
    address.strip_suffix(if tls { ":443" } else { ":80" }).unwrap_or(address)
}

fn origin_form(request: Request<Bytes>, authority: &str) -> Request<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    parts.uri = path;
    let host = HeaderValue::from_str(authority).expect("host and port of a URI are a header value");
    parts.headers.insert(header::HOST, host);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if parts.method != Method::GET {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Request::from_parts(parts, Full::new(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_port_where_it_is_not_the_schemes_own() {
        for (uri, authority) in [
            ("https://id.example/x", "id.example"),
            ("https://id.example:443/x", "id.example"),
            ("https://id.example:80/x", "id.example:80"),
            ("https://[2001:db8::443]/x", "[2001:db8::443]"),
            ("http://127.0.0.1/x", "127.0.0.1"),
            ("http://127.0.0.1:443/x", "127.0.0.1:443"),
        ] {
            let (host, port, tls) = target(&uri.parse().unwrap()).unwrap();
            assert_eq!(super::authority(&host_port(&host, port), tls), authority, "{uri}");
        }
    }
}
