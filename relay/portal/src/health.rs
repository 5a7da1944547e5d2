//! `GET /health`: both published forms in one.

use axum::{Json, extract::State};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::shared::Shared;

pub(crate) async fn health(State(portal): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"status": "ok", "ok": true, "timestamp": portal.now().millis()}))
}
