//! One HTTP/1.1 request on one fresh connection, and its result: an answer, or an upgraded stream.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::{error::clean, transport::Transport};

/// Longest body that is read: the relay's have a few hundred bytes, and an error page of something else need not be whole.
pub const RESPONSE_BODY_MAX: usize = 64 * 1024;
/// Longest answer head, status line and headers; an unfinished one ends with the read that passes this.
pub const RESPONSE_HEAD_MAX: usize = 32 * 1024;

/// An answer whose body is still on the connection. Dropping it drops the connection.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    connection: JoinSet<()>,
}

/// Why a body was not read.
pub(crate) enum BodyError {
    TooLong,
    Broken,
}

/// Sends the request and waits for the head of the answer.
pub(crate) async fn call(stream: Transport, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let (mut sender, driver) =
        http1::Builder::new().max_buf_size(RESPONSE_HEAD_MAX).handshake(TokioIo::new(stream)).await?;
    let mut connection = JoinSet::new();
    connection.spawn(async move {
        // A broken connection reaches the caller through the response or its body.
        let _ = driver.with_upgrades().await;
    });
    let response = sender.send_request(request).await?;
    Ok(Answer { response, connection })
}

impl Answer {
    /// The whole body, up to [`RESPONSE_BODY_MAX`].
    pub(crate) async fn body(self) -> Result<Bytes, BodyError> {
        let body = Limited::new(self.response.into_body(), RESPONSE_BODY_MAX).collect().await;
        drop(self.connection);
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(BodyError::TooLong),
            Err(_) => Err(BodyError::Broken),
        }
    }

    /// The stream after 101, or after a 2xx to CONNECT, and the bytes of it that were read with the answer's head.
    pub(crate) async fn upgraded(self) -> Result<(Transport, Bytes), hyper::Error> {
        let upgraded = hyper::upgrade::on(self.response).await?;
        drop(self.connection);
        let parts = upgraded.downcast::<TokioIo<Transport>>().expect("the connection was made over this type");
        Ok((parts.io.into_inner(), parts.read_buf))
    }

    /// `200 OK, text/html`: for a message.
    pub(crate) fn describe(&self) -> String {
        let kind = self.header(header::CONTENT_TYPE).map(|kind| format!(" with {kind}")).unwrap_or_default();
        format!("it answered {}{kind}", self.response.status().as_u16())
    }

    /// A header's value, cleaned for a message.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<String> {
        self.response.headers().get(name).map(|value| clean(&String::from_utf8_lossy(value.as_bytes())))
    }
}
