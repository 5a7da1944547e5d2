//! Answers that are errors: `{"error": "..."}`, plain text where a published call has that, a page where
//! people ask.

use std::time::Duration;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use mykube_relay_accounts::limits::TOO_MANY;
use mykube_relay_store::StoreError;
use serde_json::json;
use tracing::error;

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    text: String,
    time: Option<TimeFailure>,
    form: Form,
    /// Seconds.
    retry_after: Option<u64>,
    is_changed: bool,
}

/// Stands in an answer where somebody else changed what it was about: nothing is kept, and the call is to be made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Changed;

/// What a statement's time must be: near `now`, later than `after`, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeFailure {
    pub(crate) now: u64,
    pub(crate) after: u64,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Json,
    Text,
    Page,
}

impl Failure {
    /// Ours.
    pub(crate) fn json(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), time: None, form: Form::Json, retry_after: None, is_changed: false }
    }

    /// A published call's.
    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), time: None, form: Form::Text, retry_after: None, is_changed: false }
    }

    /// Shown to a person, wherever it is: whole sentences that say what to do.
    pub(crate) fn page(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), time: None, form: Form::Page, retry_after: None, is_changed: false }
    }

    /// A machine's clock is wrong: it may sign again with the time that it is told.
    pub(crate) fn time(time: TimeFailure) -> Self {
        let text = "the statement's time is not the relay's: sign again";
        Self { time: Some(time), ..Self::json(StatusCode::CONFLICT, text) }
    }

    /// Over a limit, as published.
    pub(crate) fn too_many(wait: Duration) -> Self {
        let failure = Self::text(StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
        failure.retry_after(wait.as_secs() + 1)
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether it is shown to a person wherever it is.
    pub(crate) fn is_page(&self) -> bool {
        matches!(self.form, Form::Page)
    }

    /// Its text for people.
    pub(crate) fn sentence(&self) -> String {
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = self.retry_after.unwrap_or(60);
            return format!("This was tried too often of late. Try again in {seconds} seconds.");
        }
        sentence(&self.text)
    }

    /// When it may be asked again, in seconds.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after
    }

    /// A body that means nothing, as published calls say it.
    pub(crate) fn unprocessable(text: &str) -> Self {
        Self::text(StatusCode::UNPROCESSABLE_ENTITY, text)
    }

    pub(crate) fn not_found() -> Self {
        Self::json(StatusCode::NOT_FOUND, "not found")
    }
}

/// What a program is told, as people read it: that has no capital letter and no full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut signs = text.chars();
    let first = signs.next().map(|sign| sign.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", signs.as_str())
}

impl From<StoreError> for Failure {
    /// What cannot be read or written now is said, and once logged; the rest of the relay goes on.
    fn from(error: StoreError) -> Self {
        let unavailable = |text: &str| Self::json(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(1);
        if let StoreError::Changed = error {
            return Self { is_changed: true, ..unavailable("too many change this at once: try again in a moment") };
        }
        error!(%error, "no answer could be made");
        unavailable("this relay's database gives no answer: try again in a moment")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let shown = self.clone();
        let Self { status, text, time, form, retry_after, is_changed } = self;
        let mut answer = match (form, time) {
            (Form::Json, Some(TimeFailure { now, after })) => {
                (status, Json(json!({"error": text, "now": now, "after": after}))).into_response()
            }
            (Form::Json, None) => (status, Json(json!({"error": text}))).into_response(),
            (Form::Text | Form::Page, _) => (status, text).into_response(),
        };
        if is_changed {
            answer.extensions_mut().insert(Changed);
        }
        answer.headers_mut().extend(retry_after.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
        // For whoever shows it to a person instead.
        answer.extensions_mut().insert(shown);
        answer
    }
}
