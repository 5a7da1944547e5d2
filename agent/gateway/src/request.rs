//! Requests of mykube's own, made through a gateway like a client's: the checks of `mykube doctor`, and Events.

use std::{error::Error, future::pending, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::{caller::Caller, gateway::Gateway};

/// Buffer between a request's sender and the gateway, both in this process.
const PIPE: usize = 64 * 1024;

impl Gateway {
    /// Makes one request, whose body is JSON or empty, on a connection of its own. `Host`, `Accept` and
    /// `Content-Type` are set here, whatever the request has. Of the answer's body at most `most` bytes are read. There is no
    /// time limit: the caller of this method sets one.
    ///
    /// # Errors
    /// The request broke off, or the answer's body is too long. A refusal, of the API server or this gateway, is an
    /// answer.
    pub async fn request(
        &self,
        caller: Caller,
        mut request: Request<String>,
        most: usize,
    ) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        for (name, value) in [
            (header::HOST, "kubernetes"),
            (header::ACCEPT, "application/json"),
            (header::CONTENT_TYPE, "application/json"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let (near, far) = tokio::io::duplex(PIPE);
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            Ok(Response::from_parts(parts, Limited::new(body, most).collect().await?.to_bytes()))
        };
        let served = async {
            let _ = tokio::join!(connection, self.serve(far, Arc::new(caller)));
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = served => unreachable!("it waits for the answer"),
        }
    }
}
