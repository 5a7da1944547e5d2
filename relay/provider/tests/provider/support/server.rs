//! A small HTTP server on loopback.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

/// What is asked.
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// What is answered.
#[derive(Clone)]
pub(crate) enum Reply {
    Json(Value),
    Status(u16, Value),
    Raw(Bytes),
    Redirect(String),
    /// Nothing, for ever.
    Hang,
}

/// It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    _serving: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request| respond(request, Arc::clone(&answer)));
                connections.spawn(async move {
                    // Who asks may hang up.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, _serving: serving }
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: Arc<impl Fn(Asked) -> Reply>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let mut response = Response::new(Full::default());
    match answer(asked) {
        Reply::Json(value) => *response.body_mut() = value.to_string().into(),
        Reply::Status(status, value) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.body_mut() = value.to_string().into();
        }
        Reply::Raw(bytes) => *response.body_mut() = bytes.into(),
        Reply::Redirect(to) => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&to).unwrap());
        }
        Reply::Hang => std::future::pending().await,
    }
    Ok(response)
}
