//! In the API server's place: each request is a connection to the target.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Empty, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, UPGRADE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use super::{TLS_WRITE_MAX, blocks, certificates, join, serve, target};
use crate::{LabError, socket::tune_load};

/// An HTTPS server. The last byte of a request's query says what is asked of the target.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    address: SocketAddr,
}

impl Api {
    /// Serves until the process ends.
    pub fn start(listener: TcpListener, to: SocketAddr, certificate: &Path, key: &Path) -> Result<Self, LabError> {
        let address = listener.local_addr().map_err(LabError::io("read the address of a socket"))?;
        let tls = TlsAcceptor::from(certificates::server(certificate, key)?);
        serve(listener, move |stream| {
            let tls = tls.clone();
            async move {
                tune_load(&stream)?;
                let stream =
                    TokioIo::new(tls.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_WRITE_MAX))).await?);
                let connection = http1::Builder::new().serve_connection(stream, service_fn(move |it| answer(it, to)));
                // An unused connection ends with an error of hyper's, which is fine.
                let _ = connection.with_upgrades().await;
                Ok(())
            }
        })?;
        Ok(Self { address })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

type Body = Either<Empty<Bytes>, http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>>;

async fn answer(request: Request<Incoming>, to: SocketAddr) -> Result<Response<Body>, Infallible> {
    Ok(forward(request, to).await.unwrap_or_else(|error| {
        eprintln!("the target cannot be reached: {error}");
        empty(StatusCode::BAD_GATEWAY)
    }))
}

async fn forward(mut request: Request<Incoming>, to: SocketAddr) -> io::Result<Response<Body>> {
    let Some(service) = request.uri().query().and_then(|query| query.bytes().last()) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let connection = target(to, service).await?;
    if let Some(protocol) = request.headers().get(UPGRADE).cloned() {
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.map_err(io::Error::other)?;
            join(TokioIo::new(upgraded), connection).await
        });
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        response.headers_mut().insert(UPGRADE, protocol);
        response.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
        return Ok(response);
    }
    let (read, mut write) = connection.into_split();
    if request.method() != Method::GET {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                write.write_all(&data).await?;
            }
        }
    }
    write.shutdown().await?;
    Ok(Response::new(Either::Right(StreamBody::new(blocks(read)).boxed_unsync())))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Either::Left(Empty::new()));
    *response.status_mut() = status;
    response
}
