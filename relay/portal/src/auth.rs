//! Signing in and out: calls that other relays have published, with their texts and statuses, and what ours have besides.

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use crate::shared::Shared;

pub(crate) mod begin;
pub(crate) mod browser;
mod daemon;
pub(crate) mod dev;
mod device;
mod end;
mod exchange;
mod family;
pub(crate) mod goal;
mod id_token;
pub(crate) mod otp;
mod program;
mod provider;
pub(crate) mod redirect;
mod refresh;
mod status;

pub(crate) use device::find_typed;
pub(crate) use end::{browser_session, end, end_browsers};

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/auth", post(id_token::sign_in))
        .route("/auth/{provider}", get(provider::begin))
        .route("/auth/callback", get(provider::google_callback))
        .route("/auth/callback/{provider}", get(provider::callback))
        .route("/auth/exchange", post(exchange::exchange))
        .route("/auth/dev", get(dev::is_on).post(dev::sign_in_browser))
        .route("/auth/dev/token", post(dev::sign_in_program))
        .route("/auth/device", post(device::begin_code))
        .route("/auth/device/poll", post(device::poll))
        .route("/auth/device/verify", post(device::verify))
        .route("/auth/otp/request", post(otp::ask))
        .route("/auth/otp/verify", post(otp::show))
        .route("/auth/status", get(status::status))
        .route("/auth/logout", post(end::log_out))
        .route("/auth/refresh", post(refresh::refresh))
        .route("/auth/refresh/received", post(refresh::received))
        .route("/auth/revoke", post(end::revoke))
}
