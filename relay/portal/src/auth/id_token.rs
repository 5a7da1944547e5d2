//! `POST /auth`: a program that has signed somebody in at a provider by itself hands in the ID token, and gets a token of
//! class `devices`. It may do so again for as long as the ID token lives: published ones do at every start.

use std::{net::IpAddr, sync::Arc};

use axum::{Extension, Json, extract::State};
use bytes::Bytes;
use http::StatusCode;
use mykube_relay_accounts::{jwt::Class, sign_in::Method};
use mykube_relay_provider::{Fault, ProviderError};
use serde_json::{Map, Value, json};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::begin::begin;
use crate::{arrival::Arrival, failure::Failure, shared::Shared};

/// `POST /auth`.
pub(super) async fn sign_in(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    if !portal.settings.providers.takes_id_tokens() {
        let text = "this relay takes no ID tokens: no provider in its configuration has id_token_audiences";
        return Err(Failure::json(StatusCode::NOT_FOUND, text));
    }
    let body: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    let token = body.get("token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Failure::json(StatusCode::BAD_REQUEST, "Missing token in request body"))?;
    let token = Zeroizing::new(token.to_owned());
    let person = portal.settings.providers.verify_id_token(&token, portal.now()).await;
    let person = person.map_err(|error| failed(&error, address))?;
    let begun = begin(&portal, &person, address, Method::IdToken, "an ID token, a device").await?;
    begun.transaction.commit().await?;
    info!(account = %begun.account.id, %address, "signed in by an ID token");
    let issued = portal.issue(Class::Devices, &begun.subject, begun.now);
    Ok(Json(json!({
        "jwt": issued.token.expose(),
        "expiresIn": issued.claims.expires_in(),
        "userId": issued.claims.user_id,
    })))
}

fn failed(error: &ProviderError, address: IpAddr) -> Failure {
    let text = error.for_stranger();
    match error.fault() {
        Fault::Person => {
            info!(%error, %address, "an ID token is not believed");
            // The published text.
            Failure::json(StatusCode::UNAUTHORIZED, format!("Token verification failed: {text}"))
        }
        Fault::Provider | Fault::Setting => {
            warn!(%error, %address, "an ID token cannot be judged");
            let is_provider = error.fault() == Fault::Provider;
            let status = if is_provider { StatusCode::BAD_GATEWAY } else { StatusCode::INTERNAL_SERVER_ERROR };
            Failure::json(status, text)
        }
    }
}
