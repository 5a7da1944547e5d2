//! What failed, for people.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use super::page::{Frame, Page};
use crate::{failure::Failure, shared::Shared};

#[derive(Template)]
#[template(path = "error.html")]
struct Problem<'a> {
    frame: Frame,
    title: &'a str,
    text: &'a str,
}

/// A failure as a page. It shows nobody's name: whoever it is may not have been looked up.
pub(crate) fn show(portal: &Shared, failure: &Failure) -> Response {
    let status = failure.status();
    let title = match status {
        StatusCode::NOT_FOUND => "There is no such page",
        StatusCode::TOO_MANY_REQUESTS => "Too many tries",
        StatusCode::UNAUTHORIZED => "You are not signed in",
        _ if status.is_server_error() => "This does not work now",
        _ => "This was not done",
    };
    let text = failure.sentence();
    let page = Page::new(&Problem { frame: Frame::new(portal, None), title, text: &text });
    let mut answer = match page {
        Ok(page) => page.status(status).into_response(),
        Err(_) => (status, text).into_response(),
    };
    let retry_after = failure.retry_after_seconds().map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds)));
    answer.headers_mut().extend(retry_after);
    answer
}
