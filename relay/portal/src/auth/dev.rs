//! Dev mode: whoever knows one secret is whom they say, on a relay of this machine alone. Its published calls, and ours.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{device_code::Client, email::Email, identity::Person, sign_in::Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;
use zeroize::Zeroizing;

use super::{
    begin::begin,
    browser, daemon, family,
    program::{client, program},
};
use crate::{arrival::Arrival, failure::Failure, settings::Dev, shared::Shared};

/// The published text.
pub(super) const WRONG_SECRET: &str = "Invalid or missing secret";
/// Who signs in where nobody is named.
const NOBODY: &str = "dev@localhost";

#[derive(Deserialize)]
pub(super) struct Body {
    email: Option<String>,
    secret: Option<Zeroizing<String>>,
    /// Ours: [`CLIENT`](mykube_protocol::account::CLIENT).
    client: Option<String>,
    /// Ours: the machine's key.
    key: Option<String>,
}

/// `GET /auth/dev`.
pub(super) async fn is_on(State(portal): State<Arc<Shared>>) -> Result<Json<Value>, Failure> {
    let dev = portal.settings.dev.as_ref();
    let answer = dev.map(|_| Json(json!({"devMode": true, "requiresSecret": true})));
    answer.ok_or_else(|| Failure::text(StatusCode::NOT_FOUND, "Dev login not enabled"))
}

/// `POST /auth/dev`: a browser signs in, and whoever was signed in there is out.
pub(super) async fn sign_in_browser(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<impl IntoResponse, Failure> {
    let (person, _) = prove(&portal, body, "Dev login not enabled")?;
    let how = "dev mode, a browser";
    let (account, cookies) = browser::sign_in(&portal, &headers, &person, address, Method::Dev, how).await?;
    Ok((cookies, Json(json!({"ok": true, "email": account.identity.email}))))
}

/// `POST /auth/dev/token`: a program signs in. A published daemon gets one token; a program of ours one for an hour, and
/// another that replaces it.
pub(super) async fn sign_in_program(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<Body>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let (person, body) = prove(&portal, body, "Dev mode not enabled")?;
    let client = client(body.client.as_deref(), body.key.as_deref())?;
    let by = if client == Client::Daemon { "dev mode, a daemon" } else { "dev mode, mykube" };
    let mut begun = begin(&portal, &person, address, Method::Dev, by).await?;
    begun.transaction.set_program(begun.subject.sign_in, &program(&headers)).await?;
    let account = begun.account.id;
    let given = match client {
        Client::Daemon => daemon::begin(&portal, begun).await?,
        Client::Mykube(key) => family::begin(&portal, begun, key).await?,
    };
    info!(%account, %address, by, "signed in by dev mode");
    Ok(Json(given))
}

/// Whom the secret makes whoever sent it.
fn prove(
    portal: &Shared,
    body: Result<Json<Body>, JsonRejection>,
    off: &'static str,
) -> Result<(Person, Body), Failure> {
    let dev = portal.settings.dev.as_ref().ok_or_else(|| Failure::text(StatusCode::NOT_FOUND, off))?;
    let Json(body) = body.map_err(|wrong| Failure::text(wrong.status(), wrong.body_text()))?;
    if !is_secret(portal, dev, body.secret.as_ref()) {
        return Err(Failure::text(StatusCode::UNAUTHORIZED, WRONG_SECRET));
    }
    Ok((person(body.email.as_deref())?, body))
}

/// Whether this is the dev secret. Their hashes are compared, so that how long it takes tells nothing, nor how long it is.
pub(crate) fn is_secret(portal: &Shared, dev: &Dev, shown: Option<&Zeroizing<String>>) -> bool {
    let shown = shown.map(|secret| secret.as_bytes()).unwrap_or_default();
    let (_, kept) = portal.codes.hash(portal.now(), &[b"dev", dev.secret()]);
    portal.codes.verify(kept, &[b"dev", shown])
}

/// Who is named; each address is a person of its own.
pub(super) fn person(email: Option<&str>) -> Result<Person, Failure> {
    let email: Email = email.unwrap_or(NOBODY).parse().map_err(|_| Failure::unprocessable("`email` is no address"))?;
    Ok(Person::of_dev(email))
}
