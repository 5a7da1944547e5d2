//! The device code flow of published daemons: a program without a browser shows a code, which somebody who is signed in
//! confirms. `POST /auth/device`, `/auth/device/poll` and `/auth/device/verify`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mykube_relay_accounts::{
    device_code::{Client, ConfirmError, Credential, DeviceSignIn, INTERVAL, LIFE, PENDING_MAX, Poll, UserCode},
    id::AccountId,
    jwt::Class,
    sign_in::Method,
};
use mykube_relay_store::Transaction;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::info;
use zeroize::Zeroizing;

use super::{begin::begin_as, dev};
use crate::{arrival::Arrival, cookies, failure::Failure, shared::Shared};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    device_code: Zeroizing<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Typed {
    user_code: String,
    email: Option<String>,
    secret: Option<Zeroizing<String>>,
}

/// `POST /auth/device`: a program asks for a code.
pub(super) async fn begin(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let body: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    if body.contains_key("client") {
        let text = "a sign-in of mykube by a code is not built yet: there is no page to confirm it on";
        return Err(Failure::text(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    if transaction.device_codes(now).await? >= PENDING_MAX {
        let failure = Failure::text(StatusCode::SERVICE_UNAVAILABLE, "too many codes wait at this relay");
        return Err(failure.retry_after(INTERVAL.as_secs()));
    }
    let program = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let program = String::from_utf8_lossy(program);
    let (row, device_code, user_code) =
        DeviceSignIn::begin(Client::Daemon, &program, address, &portal.codes, now, &mut rand::rng());
    transaction.keep_device_code(&row).await?;
    transaction.commit().await?;
    Ok(Json(json!({
        "deviceCode": device_code.expose(),
        "userCode": user_code.expose(),
        "verificationUrl": format!("{}/device", portal.settings.public_url.as_str()),
        "expiresIn": LIFE.as_secs(),
        "interval": INTERVAL.as_secs(),
    })))
}

/// `POST /auth/device/poll`: the program asks whether somebody has confirmed.
pub(super) async fn poll(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    body: Result<Json<Asked>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(Asked { device_code }) = body.map_err(|wrong| Failure::text(wrong.status(), wrong.body_text()))?;
    let expired = || Ok(Json(json!({"status": "expired"})));
    let mut transaction = portal.store.begin().await?;
    let mut found = None;
    for hash in DeviceSignIn::device_candidates(&device_code, &portal.codes) {
        found = found.or(transaction.device_code(hash).await?);
    }
    let Some(mut row) = found else { return expired() };
    let polled = row.handle_poll(portal.now());
    transaction.keep_device_code(&row).await?;
    match polled {
        Poll::TooSoon => Err(Failure::too_many(INTERVAL)),
        Poll::Expired => expired(),
        Poll::Pending => {
            transaction.commit().await?;
            Ok(Json(json!({"status": "pending"})))
        }
        Poll::Authorised(account, at) => {
            let account = transaction.account(account).await?;
            let Some(account) = account else { return expired() };
            let by = "a code, a daemon";
            let begun = begin_as(&portal, transaction, account, address, (Method::DeviceCode, at), by).await?;
            begun.transaction.commit().await?;
            info!(account = %begun.account.id, %address, "signed in by a code as a daemon");
            let issued = portal.issue(Class::Daemon, &begun.subject, begun.now);
            Ok(Json(json!({
                "status": "authorized",
                "token": issued.token.expose(),
                "userId": begun.account.id.to_string(),
                "email": begun.account.identity.email,
            })))
        }
    }
}

/// `POST /auth/device/verify`: somebody who is signed in confirms.
pub(super) async fn verify(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<Typed>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(typed) = body.map_err(|wrong| Failure::text(wrong.status(), wrong.body_text()))?;
    let mut transaction = portal.store.begin().await?;
    let account = confirming(&portal, &mut transaction, &headers, &typed).await?;
    let now = portal.now();
    portal.limits.may_guess(address, account, now).map_err(Failure::too_many)?;
    let invalid = || {
        portal.limits.guessed(address, account, now);
        Failure::json(StatusCode::BAD_REQUEST, ConfirmError::Invalid.to_string())
    };
    let code = UserCode::parse(&typed.user_code).ok_or_else(invalid)?;
    let mut found = None;
    for hash in DeviceSignIn::user_candidates(&code, &portal.codes) {
        found = found.or(transaction.device_code_of_user(hash).await?);
    }
    let mut row = found.ok_or_else(invalid)?;
    let confirmed = row.handle_confirm(account, Credential::Published, now);
    confirmed.map_err(|error| Failure::json(StatusCode::BAD_REQUEST, error.to_string()))?;
    transaction.keep_device_code(&row).await?;
    transaction.commit().await?;
    info!(%account, "a device code was confirmed");
    Ok(Json(json!({"ok": true})))
}

/// Whose the cookie is; without one, whom the dev secret makes whoever sent it.
async fn confirming(
    portal: &Shared,
    transaction: &mut Transaction,
    headers: &HeaderMap,
    typed: &Typed,
) -> Result<AccountId, Failure> {
    let unauthorised = |text: &str| Failure::json(StatusCode::UNAUTHORIZED, text);
    if let Some(cookie) = cookies::read(headers, cookies::PUBLISHED) {
        let claims = portal.verify(cookie, &[Class::Browser]);
        return claims.map(|claims| claims.sub).map_err(|error| unauthorised(error.browser_text()));
    }
    let Some(dev) = &portal.settings.dev else { return Err(unauthorised("Not authenticated")) };
    if !dev::is_secret(dev, typed.secret.as_ref()) {
        return Err(unauthorised(dev::WRONG_SECRET));
    }
    let identity = dev::identity(typed.email.as_deref())?;
    Ok(transaction.account_of(&identity, portal.now()).await?.id)
}
