//! To another page of the relay's own.

use std::fmt::Display;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use crate::{failure::Failure, shared::Shared};

/// After a form: the browser gets another page of this relay. `path` begins with a slash.
pub(crate) fn see_other(portal: &Shared, path: impl Display) -> Response {
    let to = format!("{}{path}", portal.settings.public_url.prefix());
    match HeaderValue::try_from(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
        Err(_) => Failure::page(StatusCode::BAD_REQUEST, "This address is none of this relay's.").into_response(),
    }
}
