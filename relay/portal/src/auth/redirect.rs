//! To another page, or to a program.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use crate::failure::Failure;

/// An answer that sends a browser on. What stands in this page's address goes nowhere with it.
pub(crate) fn redirect(status: StatusCode, to: &str) -> Result<Response, Failure> {
    let to = HeaderValue::try_from(to);
    let to = to.map_err(|_| Failure::text(StatusCode::BAD_REQUEST, "this leads nowhere"))?;
    let headers = [(header::LOCATION, to), (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"))];
    Ok((status, headers).into_response())
}
