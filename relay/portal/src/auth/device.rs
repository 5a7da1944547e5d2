//! The device code flow, of published daemons and of ours: a program without a browser shows a code, which somebody who is
//! signed in confirms. `POST /auth/device`, `/auth/device/poll` and `/auth/device/verify`; the page is `/device`.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{
    device_code::{
        Client, ConfirmError, Confirmation, Credential, DeviceSignIn, INTERVAL, LIFE, NETWORK_MAX, PENDING_MAX, Poll,
        UserCode,
    },
    id::AccountId,
    jwt::{Class, JwtError},
    limits::Call,
    sign_in::Method,
    time::UnixTime,
};
use mykube_relay_store::{Account, Actor, Transaction};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::info;
use zeroize::Zeroizing;

use super::{
    begin::{begin, begin_as},
    daemon, dev, end, family,
    program::{client, program},
};
use crate::{arrival::Arrival, cookies, failure::Failure, shared::Shared};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    device_code: Zeroizing<String>,
    /// Of a program of ours: when it was signed by its clock, in milliseconds since 1970.
    time: Option<u64>,
    /// Of a program of ours: over that and the device code.
    sig: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Typed {
    user_code: String,
    email: Option<String>,
    secret: Option<Zeroizing<String>>,
}

/// The published text for a cookie that is not accepted.
const BROWSER_INVALID: &str = JwtError::Revoked.browser_text();

/// `POST /auth/device`: a program asks for a code.
pub(super) async fn begin_code(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let body: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| body.get(name).map(|value| value.as_str().unwrap_or_default());
    let client = client(text("client"), text("key"))?;
    let now = portal.now();
    let program = program(&headers);
    let (row, device_code, user_code) =
        DeviceSignIn::begin(client, &program, address, &portal.codes, now, &mut rand::rng());
    // Anybody asks for one, and it is over in minutes.
    let mut transaction = portal.store.begin_passing().await?;
    if !transaction.has_room_for_device_code(&row.network(), (PENDING_MAX, NETWORK_MAX), now).await? {
        let failure = Failure::text(StatusCode::SERVICE_UNAVAILABLE, "too many codes wait at this relay");
        return Err(failure.retry_after(INTERVAL.as_secs()));
    }
    transaction.begin_device_code(&row).await?;
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
    let Json(asked) = body.map_err(|wrong| Failure::text(wrong.status(), wrong.body_text()))?;
    let Asked { device_code, time, sig } = asked;
    let signature = sig.and_then(|sig| BASE64URL_NOPAD.decode(sig.as_bytes()).ok());
    let expired = || Ok(Json(json!({"status": "expired"})));
    let mut transaction = portal.store.begin().await?;
    let mut found = None;
    for hash in DeviceSignIn::device_candidates(&device_code, &portal.codes) {
        found = found.or(transaction.device_code(hash).await?);
    }
    let Some(before) = found else { return expired() };
    if !before.may_poll(&device_code, time.zip(signature.as_deref()), &portal.names()) {
        let text = "this question is not signed with the key that asked for the code: run `mykube login` again";
        return Err(Failure::json(StatusCode::UNAUTHORIZED, text));
    }
    let mut row = before.clone();
    let now = portal.now();
    row.polled_at = portal.polled(row.device_code);
    match row.handle_poll(now) {
        Poll::TooSoon => Err(Failure::too_many(INTERVAL)),
        Poll::Expired => expired(),
        Poll::Refused if matches!(row.client, Client::Mykube(_)) => Ok(Json(json!({"status": "denied"}))),
        Poll::Refused => expired(),
        Poll::Pending => {
            portal.note_poll(row.device_code, now);
            Ok(Json(json!({"status": "pending"})))
        }
        Poll::Authorised(confirmation) => {
            transaction.change_device_code(&before, &row).await?;
            // Who has signed out since meant this too.
            let confirmed_by = transaction.sign_in(confirmation.sid).await?;
            if confirmed_by.is_none() || portal.denied().denies_sign_in(confirmation.sid) {
                return expired();
            }
            let Some(account) = transaction.account(confirmation.account).await? else { return expired() };
            let at = confirmation.auth_time;
            let how = (Method::DeviceCode, at);
            let by = if row.client == Client::Daemon { "a code, a daemon" } else { "a code, mykube" };
            let mut begun = begin_as(&portal, transaction, account, address, how, by).await?;
            begun.transaction.set_program(begun.subject.sign_in, &row.program).await?;
            let mut answer = match row.client {
                Client::Daemon => daemon::begin(&portal, begun).await?,
                Client::Mykube(key) => family::begin(&portal, begun, key).await?,
            };
            answer["status"] = json!("authorized");
            info!(account = %confirmation.account, %address, by, "signed in by a code");
            Ok(Json(answer))
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
    let Confirming { mut transaction, account, by } = confirming(&portal, &headers, &typed, address).await?;
    let now = portal.now();
    portal.limits.admit_account(Call::DeviceVerify, account.id, now).map_err(Failure::too_many)?;
    let found = find_typed(&portal, &mut transaction, &typed.user_code, address, account.id).await?;
    let invalid = || Failure::json(StatusCode::BAD_REQUEST, ConfirmError::Invalid.to_string());
    let before = found.ok_or_else(invalid)?;
    let mut row = before.clone();
    let confirmed = row.handle_confirm(by, Credential::Published, now);
    confirmed.map_err(|error| Failure::json(StatusCode::BAD_REQUEST, error.to_string()))?;
    transaction.change_device_code(&before, &row).await?;
    let actor = Actor { account: account.id, sign_in: by.sid, address };
    transaction.record(account.organisation, actor, ("device_code.confirm", &row.program), now).await?;
    transaction.commit().await?;
    info!(account = %account.id, %address, "a device code was confirmed");
    Ok(Json(json!({"ok": true})))
}

/// The code that somebody typed, if there is one. One that nobody has is counted as a guess, of its account and its address.
pub(crate) async fn find_typed(
    portal: &Shared,
    transaction: &mut Transaction,
    typed: &str,
    address: IpAddr,
    account: AccountId,
) -> Result<Option<DeviceSignIn>, Failure> {
    let now = portal.now();
    portal.limits.may_guess(address, account, now).map_err(Failure::too_many)?;
    if let Some(code) = UserCode::parse(typed) {
        for hash in DeviceSignIn::user_candidates(&code, &portal.codes) {
            if let Some(found) = transaction.device_code_of_user(hash).await? {
                return Ok(Some(found));
            }
        }
    }
    portal.limits.guessed(address, account, now);
    Ok(None)
}

/// Whoever confirms, in a transaction that waits to be kept.
struct Confirming {
    transaction: Transaction,
    account: Account,
    by: Confirmation,
}

/// Whose the cookie is; without one, whom the dev secret makes whoever sent it, by a sign-in of its own.
async fn confirming(
    portal: &Shared,
    headers: &HeaderMap,
    typed: &Typed,
    address: IpAddr,
) -> Result<Confirming, Failure> {
    let unauthorised = |text: &str| Failure::json(StatusCode::UNAUTHORIZED, text);
    let invalid = || unauthorised(BROWSER_INVALID);
    if let Some(cookie) = cookies::read(headers, cookies::PUBLISHED).map_err(|_| invalid())? {
        let claims = portal.verify(cookie, &[Class::Browser]).map_err(|error| unauthorised(error.browser_text()))?;
        let mut transaction = portal.store.begin().await?;
        // A neighbouring host can set the published cookie, but not the portal's own: a page of ours has both, of one
        // sign-in. Pages of other origins have the published one alone.
        if portal.origins.is_own(headers) {
            let own = cookies::read(headers, cookies::OWN).ok().flatten().ok_or_else(invalid)?;
            let session = end::browser_session(portal, &mut transaction, own).await?;
            if session.map(|session| session.sid) != Some(claims.sid) {
                return Err(invalid());
            }
        }
        let account = transaction.account(claims.sub).await?.ok_or_else(invalid)?;
        let auth_time = UnixTime::from_secs(claims.auth_time);
        let by = Confirmation { account: account.id, sid: claims.sid, auth_time, from: address };
        return Ok(Confirming { transaction, account, by });
    }
    let Some(dev) = &portal.settings.dev else { return Err(unauthorised("Not authenticated")) };
    if !dev::is_secret(portal, dev, typed.secret.as_ref()) {
        return Err(unauthorised(dev::WRONG_SECRET));
    }
    let person = dev::person(typed.email.as_deref())?;
    let begun = begin(portal, &person, address, Method::Dev, "dev mode, to confirm a code").await?;
    let (account, sid) = (begun.account, begun.subject.sign_in);
    let by = Confirmation { account: account.id, sid, auth_time: begun.now, from: address };
    Ok(Confirming { transaction: begun.transaction, account, by })
}
