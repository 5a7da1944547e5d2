//! Signing in and out: calls that other relays have published, with their texts and statuses, and what ours have besides.

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderValue, StatusCode, header};

use crate::{failure::Failure, shared::Shared};

pub(crate) mod begin;
mod browser;
mod confirm;
mod dev;
mod device;
mod end;
mod exchange;
mod goal;
mod id_token;
mod provider;
mod refresh;
mod status;

pub(crate) use end::{browser_session, end_browsers};

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/auth", post(id_token::sign_in))
        .route("/auth/{provider}", get(provider::begin))
        .route("/auth/callback", get(provider::google_callback))
        .route("/auth/callback/{provider}", get(provider::callback))
        .route(goal::CONFIRM, get(confirm::ask).post(confirm::click))
        .route("/auth/exchange", post(exchange::exchange))
        .route("/auth/dev", get(dev::is_on).post(dev::sign_in_browser))
        .route("/auth/dev/token", post(dev::sign_in_program))
        .route("/auth/device", post(device::begin_code))
        .route("/auth/device/poll", post(device::poll))
        .route("/auth/device/verify", post(device::verify))
        .route("/auth/status", get(status::status))
        .route("/auth/logout", post(end::log_out))
        .route("/auth/refresh", post(refresh::refresh))
        .route("/auth/refresh/received", post(refresh::received))
        .route("/auth/revoke", post(end::revoke))
}

/// To another page, or to a program: what stands in this page's address goes nowhere with it.
fn redirect(status: StatusCode, to: &str) -> Result<Response, Failure> {
    let to = HeaderValue::try_from(to);
    let to = to.map_err(|_| Failure::text(StatusCode::BAD_REQUEST, "this leads nowhere"))?;
    let headers = [(header::LOCATION, to), (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"))];
    Ok((status, headers).into_response())
}
