//! `POST /auth/exchange`: a program fetches the sign-in that a person clicked for, with the code that its browser brought.
//! Ours shows the verifier of its challenge, and its machine's key; the published one shows the code alone, and gets a
//! daemon's token, where the configuration has `published_exchange`.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{
    device_code::Confirmation,
    jwt::Class,
    login_code::{Exchange, Granted, InvalidCode, LoginCode, Signed},
    sign_in::Method,
    statement::MachineKey,
};
use mykube_relay_store::Transaction;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use zeroize::Zeroizing;

use super::{
    begin::{Begun, begin_as},
    family,
    program::program,
};
use crate::{arrival::Arrival, failure::Failure, shared::Shared};

#[derive(Deserialize)]
pub(super) struct Body {
    code: Zeroizing<String>,
    verifier: Option<Zeroizing<String>>,
    /// The machine's public key, an uncompressed point in base64url.
    key: Option<String>,
    /// When it signed, in milliseconds since 1970.
    time: Option<u64>,
    /// Over the code, in base64url.
    sig: Option<String>,
}

/// `POST /auth/exchange`.
pub(super) async fn exchange(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Json(body) = body.map_err(|wrong| Failure::text(wrong.status(), wrong.body_text()))?;
    let signature = body.signature()?;
    let mut transaction = portal.store.begin().await?;
    let mut taken = None;
    for hash in LoginCode::candidates(&body.code, &portal.codes) {
        taken = taken.or(transaction.take_login_code(hash).await?);
    }
    let row = taken.ok_or_else(invalid)?;
    let by = row.by;
    let key = signature.as_ref().map(|(key, time, signature)| Signed { key: *key, time: *time, signature });
    let shown = Exchange { code: &body.code, verifier: body.verifier.as_ref().map(|text| text.as_str()), key };
    let granted = row.redeem(shown, portal.settings.published_exchange, &portal.names(), portal.now());
    // Who has signed out since meant this too.
    let is_over = transaction.sign_in(by.sid).await?.is_none() || portal.denied().denies_sign_in(by.sid);
    let Some(granted) = granted.ok().filter(|_| !is_over) else {
        // A code is shown once, whatever comes of it.
        transaction.commit().await?;
        return Err(invalid());
    };
    let program = program(&headers);
    match granted {
        Granted::Mykube(key) => ours(&portal, transaction, by, key, (address, &program)).await,
        Granted::Daemon => published(&portal, transaction, by, (address, &program)).await,
    }
}

async fn ours(
    portal: &Shared,
    transaction: Transaction,
    by: Confirmation,
    key: MachineKey,
    (address, program): (IpAddr, &str),
) -> Result<Json<Value>, Failure> {
    let mut begun = sign_in(portal, transaction, by, address, "a click in a browser, mykube").await?;
    begun.transaction.set_program(begun.subject.sign_in, program).await?;
    info!(account = %begun.account.id, %address, "signed in by a click in a browser");
    Ok(Json(family::begin(portal, begun, key).await?))
}

async fn published(
    portal: &Shared,
    transaction: Transaction,
    by: Confirmation,
    (address, program): (IpAddr, &str),
) -> Result<Json<Value>, Failure> {
    let mut begun = sign_in(portal, transaction, by, address, "a click in a browser, a daemon").await?;
    begun.transaction.set_program(begun.subject.sign_in, program).await?;
    begun.transaction.commit().await?;
    info!(account = %begun.account.id, %address, "signed in by a click in a browser as a daemon");
    let issued = portal.issue(Class::Daemon, &begun.subject, begun.now);
    Ok(Json(json!({
        "token": issued.token.expose(),
        "userId": begun.account.id.to_string(),
        "email": begun.account.identity.email,
    })))
}

async fn sign_in(
    portal: &Shared,
    mut transaction: Transaction,
    by: Confirmation,
    address: IpAddr,
    how: &str,
) -> Result<Begun, Failure> {
    let account = transaction.account(by.account).await?.ok_or_else(invalid)?;
    Ok(begin_as(portal, transaction, account, address, (Method::Program, by.auth_time), how).await?)
}

impl Body {
    /// Key, time and signature come together, or none of them does.
    fn signature(&self) -> Result<Option<(MachineKey, u64, Vec<u8>)>, Failure> {
        let wrong = |text: &str| Failure::text(StatusCode::UNPROCESSABLE_ENTITY, text);
        let (key, time, sig) = match (&self.key, self.time, &self.sig) {
            (None, None, None) => return Ok(None),
            (Some(key), Some(time), Some(sig)) => (key, time, sig),
            _ => return Err(wrong("`key`, `time` and `sig` come together")),
        };
        let key = BASE64URL_NOPAD.decode(key.as_bytes()).ok().and_then(|key| MachineKey::from_bytes(&key).ok());
        let key = key.ok_or_else(|| wrong("`key` is no uncompressed point of P-256 in base64url"))?;
        let sig = BASE64URL_NOPAD.decode(sig.as_bytes()).map_err(|_| wrong("`sig` is not base64url"))?;
        Ok(Some((key, time, sig)))
    }
}

fn invalid() -> Failure {
    Failure::json(StatusCode::BAD_REQUEST, InvalidCode.to_string())
}
