//! `GET /auth/status`: whether a browser is signed in, as published.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::jwt::Class;
use serde_json::{Value, json};

use crate::{cookies, shared::Shared};

/// Published daemons are not served yet, so none is ever connected.
pub(super) async fn status(State(portal): State<Arc<Shared>>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let cookie = cookies::read(&headers, cookies::PUBLISHED);
    if cookie.is_ok_and(|token| token.is_some_and(|token| portal.verify(token, &[Class::Browser]).is_ok())) {
        (StatusCode::OK, Json(json!({"authenticated": true, "daemonConnected": false, "devices": []})))
    } else {
        (StatusCode::UNAUTHORIZED, Json(json!({"authenticated": false, "daemonConnected": false})))
    }
}
