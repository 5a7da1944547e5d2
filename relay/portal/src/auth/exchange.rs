//! `POST /auth/exchange`: a program fetches the sign-in that a person clicked for, with the code that its browser brought.
//! Ours shows the verifier of its challenge, and its machine's key; the published one shows the code alone, and gets a
//! daemon's token, where the configuration has `published_exchange`.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{
    login_code::{Exchange, Granted, InvalidCode, LoginCode, Signed},
    sign_in::Method,
    statement::MachineKey,
};
use serde::Deserialize;
use serde_json::Value;
use tracing::info;
use zeroize::Zeroizing;

use super::{begin::begin_as, daemon, family, program::program};
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
    let account = transaction.account(by.account).await?.ok_or_else(invalid)?;
    let how =
        if granted == Granted::Daemon { "a click in a browser, a daemon" } else { "a click in a browser, mykube" };
    let mut begun = begin_as(&portal, transaction, account, address, (Method::Program, by.auth_time), how).await?;
    begun.transaction.set_program(begun.subject.sign_in, &program(&headers)).await?;
    let given = match granted {
        Granted::Daemon => daemon::begin(&portal, begun).await?,
        Granted::Mykube(key) => family::begin(&portal, begun, key).await?,
    };
    info!(account = %by.account, %address, by = how, "signed in by a click in a browser");
    Ok(Json(given))
}

impl Body {
    /// Key, time and signature come together, or none of them does.
    fn signature(&self) -> Result<Option<(MachineKey, u64, Vec<u8>)>, Failure> {
        let (key, time, sig) = match (&self.key, self.time, &self.sig) {
            (None, None, None) => return Ok(None),
            (Some(key), Some(time), Some(sig)) => (key, time, sig),
            _ => return Err(Failure::unprocessable("`key`, `time` and `sig` come together")),
        };
        let sig = BASE64URL_NOPAD.decode(sig.as_bytes());
        let sig = sig.map_err(|_| Failure::unprocessable("`sig` is not base64url"))?;
        Ok(Some((family::key(key)?, time, sig)))
    }
}

fn invalid() -> Failure {
    Failure::json(StatusCode::BAD_REQUEST, InvalidCode.to_string())
}
