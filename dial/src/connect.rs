//! TCP to a host, directly or through a proxy.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_socks::{Error as SocksError, tcp::Socks5Stream};
use tracing::debug;

use crate::{
    call::{Answer, call},
    error::{DialError, ProxyProblem, Unreachable, clean},
    proxy::{ProxyScheme, ProxyTarget, host_port},
    tls::Trust,
    transport::{Transport, tune},
};

/// How long to wait for one address before the next is tried at the same time (RFC 8305 section 5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A connection to `host:port`: plain TCP, or a tunnel through `proxy` (CONNECT or SOCKS 5), within `limit`.
///
/// The caller begins TLS with the target itself, if it wants any; `trust` is for https proxies.
///
/// # Errors
/// [`DialError::Unreachable`], [`DialError::Proxy`], and [`DialError::Tls`] for an https proxy.
pub async fn connect_tcp_via_proxy(
    host: &str,
    port: u16,
    proxy: Option<&ProxyTarget>,
    trust: &Trust,
    limit: Duration,
) -> Result<Transport, DialError> {
    let target = host_port(host, port);
    let Some(proxy) = proxy else {
        let tcp = connect_tcp(host, port, false, &target, limit).await?;
        return Ok(Transport::Tcp(tcp));
    };
    debug!(host, port, proxy = %proxy, "connecting through a proxy");
    let work = async {
        let tcp = connect_tcp(&proxy.host, proxy.port, false, &proxy.address(), limit).await?;
        let stream = Transport::Tcp(tcp);
        match proxy.scheme {
            ProxyScheme::Http => http_connect(stream, proxy, &target).await,
            ProxyScheme::Https => {
                let stream = trust.handshake(stream, &proxy.host, &proxy.address()).await?;
                http_connect(stream, proxy, &target).await
            }
            ProxyScheme::Socks5 => socks5(stream, proxy, host, port, &target).await,
        }
    };
    let late = || DialError::unreachable(format!("{target} through {}", proxy.address()), Unreachable::Timeout(limit));
    timeout(limit, work).await.map_err(|_| late())?
}

/// Plain TCP to the first address of `host` that answers. Errors name the target `address`.
pub(crate) async fn connect_tcp(
    host: &str,
    port: u16,
    loopback_only: bool,
    address: &str,
    limit: Duration,
) -> Result<TcpStream, DialError> {
    let failed = |reason| DialError::unreachable(address, reason);
    let work = async {
        let resolved = lookup_host((host, port)).await.map_err(|e| failed(Unreachable::Dns(clean(&e.to_string()))))?;
        let addresses: Vec<_> = resolved.filter(|a| !loopback_only || a.ip().to_canonical().is_loopback()).collect();
        if addresses.is_empty() {
            let reason = if loopback_only { "it has no loopback address" } else { "it has no address" };
            return Err(failed(Unreachable::Dns(reason.into())));
        }
        debug!(host, port, addresses = addresses.len(), "connecting");
        let tcp = first_of(addresses).await.map_err(|e| failed(Unreachable::from_io(&e, "at once")))?;
        tune(&tcp).map_err(|e| failed(Unreachable::from_io(&e, "at once")))?;
        Ok(tcp)
    };
    timeout(limit, work).await.map_err(|_| failed(Unreachable::Timeout(limit)))?
}

/// The first connection that is established. Addresses are tried in order: the next one starts when another fails or is slow.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        attempts.extend(waiting.next().map(TcpStream::connect));
        let more = !waiting.as_slice().is_empty();
        tokio::select! {
            result = attempts.next() => match result {
                Some(Ok(tcp)) => return Ok(tcp),
                Some(Err(e)) => drop(first_error.get_or_insert(e)),
                None => return Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
            },
            () = sleep(NEXT_ADDRESS_AFTER), if more => {}
        }
    }
}

/// CONNECT (RFC 9110 section 9.3.6).
async fn http_connect(stream: Transport, proxy: &ProxyTarget, target: &str) -> Result<Transport, DialError> {
    let failed = |problem| DialError::Proxy { proxy: proxy.to_string(), problem };
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse().map_err(|_| {
        failed(ProxyProblem::NotAllowed { target: clean(target), reason: "that is not a host and a port".into() })
    })?;
    let host = HeaderValue::from_str(target).expect("what is a URI authority is a header value");
    request.headers_mut().insert(header::HOST, host);
    if let Some(authorization) = proxy.authorization() {
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
    }
    let answer = call(stream, request).await.map_err(|e| {
        if e.is_parse() {
            failed(ProxyProblem::NotAProxy("not an HTTP answer".into()))
        } else {
            DialError::unreachable(proxy.address(), Unreachable::Closed("instead of answering CONNECT"))
        }
    })?;
    if !answer.response.status().is_success() {
        return Err(failed(refusal(&answer, proxy, target)));
    }
    let (stream, early) = answer
        .upgraded()
        .await
        .map_err(|_| DialError::unreachable(proxy.address(), Unreachable::Closed("after CONNECT")))?;
    if early.is_empty() {
        Ok(stream)
    } else {
        Err(failed(ProxyProblem::NotAProxy("it sent something before the target was asked".into())))
    }
}

fn refusal(answer: &Answer, proxy: &ProxyTarget, target: &str) -> ProxyProblem {
    let status = answer.response.status();
    let reason = format!("status {}", status.as_u16());
    let target = target.to_owned();
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            let setting = proxy.setting.clone();
            let offers = other_schemes(answer);
            if proxy.credentials.is_some() {
                ProxyProblem::CredentialsWrong { setting, offers }
            } else {
                ProxyProblem::CredentialsMissing { setting, offers }
            }
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            ProxyProblem::CannotReach { target, reason }
        }
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => {
            ProxyProblem::NotAProxy(format!("{} to CONNECT", answer.describe()))
        }
        _ => ProxyProblem::NotAllowed { target, reason },
    }
}

/// A remark for the error where the proxy offers no Basic authentication, the only kind mykube speaks.
fn other_schemes(answer: &Answer) -> String {
    let offered = answer.response.headers().get_all(header::PROXY_AUTHENTICATE).iter();
    let schemes: Vec<_> = offered
        .filter_map(|value| Some(clean(value.to_str().ok()?.split([' ', ',']).next()?)))
        .filter(|scheme| !scheme.is_empty())
        .collect();
    if schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return String::new();
    }
    format!(
        ". It offers {} only, and mykube speaks Basic: a local helper such as cntlm can translate",
        schemes.join(", ")
    )
}

async fn socks5(
    stream: Transport,
    proxy: &ProxyTarget,
    host: &str,
    port: u16,
    target: &str,
) -> Result<Transport, DialError> {
    let result = match &proxy.credentials {
        None => Socks5Stream::connect_with_socket(stream, (host, port)).await,
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(stream, (host, port), user, password).await
        }
    };
    let setting = proxy.setting.clone();
    let target = target.to_owned();
    let problem = match result {
        Ok(connected) => return Ok(connected.into_inner()),
        Err(SocksError::Io(e)) => {
            return Err(DialError::unreachable(
                proxy.address(),
                Unreachable::from_io(&e, "during the SOCKS handshake"),
            ));
        }
        Err(
            SocksError::PasswordAuthFailure(_)
            | SocksError::AuthorizationRequired
            | SocksError::NoAcceptableAuthMethods,
        ) => match proxy.credentials {
            Some(_) => ProxyProblem::CredentialsWrong { setting, offers: String::new() },
            None => ProxyProblem::CredentialsMissing { setting, offers: String::new() },
        },
        Err(SocksError::InvalidAuthValues(_)) => ProxyProblem::CredentialsWrong { setting, offers: String::new() },
        Err(e @ SocksError::ConnectionNotAllowedByRuleset) => {
            ProxyProblem::NotAllowed { target, reason: e.to_string() }
        }
        Err(
            e @ (SocksError::GeneralSocksServerFailure
            | SocksError::NetworkUnreachable
            | SocksError::HostUnreachable
            | SocksError::ConnectionRefused
            | SocksError::TtlExpired),
        ) => ProxyProblem::CannotReach { target, reason: e.to_string() },
        Err(e) => ProxyProblem::NotAProxy(clean(&e.to_string())),
    };
    Err(DialError::Proxy { proxy: proxy.to_string(), problem })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let holder = TcpStream::connect(closed.local_addr().unwrap()).await.unwrap();
        drop(closed);
        let nobody = holder.local_addr().unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let somebody = open.local_addr().unwrap();

        for addresses in [vec![nobody, somebody], vec![somebody, nobody], vec![nobody, nobody, somebody]] {
            assert_eq!(first_of(addresses).await.unwrap().peer_addr().unwrap(), somebody);
        }
        let error = first_of(vec![nobody, nobody]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn plain_http_goes_to_loopback_addresses_only() {
        let limit = Duration::from_secs(10);
        // 192.0.2.0/24 is for documentation (RFC 5737); it is never dialed.
        let error = connect_tcp("192.0.2.1", 1, true, "192.0.2.1:1", limit).await.unwrap_err();
        assert!(matches!(&error, DialError::Unreachable { reason: Unreachable::Dns(_), .. }), "{error}");
    }
}
