//! In kubectl's place: each connection is a request, with the kubeconfig's certificate.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{CONNECTION, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_rustls::TlsConnector;

use super::{TLS_WRITE_MAX, blocks, join, serve, service};
use crate::{LabError, socket::tune_load};

/// What a connection becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// An upgraded stream, as `exec` is.
    Upgrade,
    /// A body: a source is the answer to a GET, as `logs -f` is; a sink is fed by a PUT. An echo needs both ways at once
    /// and stays an upgraded stream.
    Bodies,
}

/// A TCP port whose connections are requests to the server of a kubeconfig.
#[derive(Debug, Clone, Copy)]
pub struct User {
    address: SocketAddr,
}

impl User {
    /// Serves until the process ends.
    pub fn start(listener: TcpListener, kubeconfig: &Path, how: How) -> Result<Self, LabError> {
        let address = listener.local_addr().map_err(LabError::io("read the address of a socket"))?;
        let access = Arc::new(Access::read(kubeconfig)?);
        serve(listener, move |stream| {
            let access = Arc::clone(&access);
            async move { request(stream, &access, how).await }
        })?;
        Ok(Self { address })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn request(mut local: TcpStream, access: &Access, how: How) -> io::Result<()> {
    let service = service(&mut local).await?;
    let mut sender = access.connect().await?;
    match (how, service) {
        (How::Bodies, b'd') => {
            let asked = access.request(Method::GET, "log", service, nothing())?;
            let (read, write) = local.into_split();
            tokio::select! {
                done = receive(asked, &mut sender, write) => done,
                // The reader drops a body that never ends.
                () = closed(read) => Ok(()),
            }
        }
        (How::Bodies, b'u' | b'x') => {
            let (read, write) = local.into_split();
            let body = StreamBody::new(blocks(read)).boxed_unsync();
            receive(access.request(Method::PUT, "status", service, body)?, &mut sender, write).await
        }
        _ => {
            let mut asked = access.request(Method::POST, "exec", service, nothing())?;
            asked.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("Upgrade"));
            asked.headers_mut().insert(UPGRADE, hyper::header::HeaderValue::from_static("SPDY/3.1"));
            let mut response = sender.send_request(asked).await.map_err(io::Error::other)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refused(response).await);
            }
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(io::Error::other)?;
            join(TokioIo::new(upgraded), local).await
        }
    }
}

async fn receive(asked: Request<Body>, sender: &mut SendRequest<Body>, mut to: OwnedWriteHalf) -> io::Result<()> {
    let response = sender.send_request(asked).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            to.write_all(&data).await?;
        }
    }
    to.shutdown().await
}

/// Returns when the other side has closed.
async fn closed(mut read: OwnedReadHalf) {
    let mut sink = [0; 1024];
    while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

async fn refused(response: hyper::Response<Incoming>) -> io::Error {
    let status = response.status();
    let said = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    io::Error::other(format!("answered {status}: {}", String::from_utf8_lossy(&said)))
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// How to reach the server of a kubeconfig.
struct Access {
    authority: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Access {
    fn read(path: &Path) -> Result<Self, LabError> {
        let text = std::fs::read_to_string(path).map_err(LabError::io(format!("read {}", path.display())))?;
        Self::parse(&text).map_err(|what| LabError::Words(format!("{}: {what}", path.display())))
    }

    /// Reads a kubeconfig with one cluster and one user, who has a certificate.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let cluster = &config.clusters.first().ok_or("no cluster")?.cluster;
        let user = &config.users.first().ok_or("no user")?.user;
        let decode = |what: &str, data: &str| BASE64_STANDARD.decode(data).map_err(|_| format!("{what} is no base64"));
        let ca = decode("the CA", &cluster.certificate_authority_data)?;
        let certificate = decode("the certificate", &user.client_certificate_data)?;
        let key = decode("the key", &user.client_key_data)?;
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(&ca) {
            roots.add(ca.map_err(|_| "the CA is no PEM")?).map_err(|error| error.to_string())?;
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "the key is no PEM")?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let config = builder.with_client_auth_cert(chain.map_err(|_| "the certificate is no PEM")?, key);
        let authority = cluster.server.strip_prefix("https://").ok_or("the server is no https:// URL")?;
        let authority = authority.trim_end_matches('/').to_owned();
        let host = cluster
            .tls_server_name
            .clone()
            .unwrap_or_else(|| authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host).to_owned());
        Ok(Self {
            name: host.try_into().map_err(|_| "the server has no name that TLS knows")?,
            authority,
            tls: TlsConnector::from(Arc::new(config.map_err(|error| error.to_string())?)),
        })
    }

    async fn connect(&self) -> io::Result<SendRequest<Body>> {
        let stream = TcpStream::connect(&self.authority).await?;
        tune_load(&stream)?;
        let stream =
            self.tls.connect_with(self.name.clone(), stream, |tls| tls.set_buffer_limit(Some(TLS_WRITE_MAX))).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    fn request(&self, method: Method, what: &str, service: u8, body: Body) -> io::Result<Request<Body>> {
        let path = format!("/api/v1/namespaces/default/pods/load/{what}?command={}", char::from(service));
        Request::builder().method(method).uri(path).header(HOST, &self.authority).body(body).map_err(io::Error::other)
    }
}

#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    user: Certificate,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Certificate {
    client_certificate_data: String,
    client_key_data: String,
}
