//! Our own calls, for tokens of class `mykube`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use http::{HeaderMap, StatusCode, header};
use mykube_protocol::account::WhoAmI;
use mykube_relay_accounts::{
    jwt::{Claims, Class},
    sign_in::{Act, may},
    time::UnixTime,
};
use mykube_relay_store::{Account, Actor, Transaction};

use crate::{arrival::Arrival, failure::Failure, shared::Shared, when};

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/v1/whoami", get(who_am_i))
}

async fn who_am_i(State(portal): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<WhoAmI>, Failure> {
    let claims = authorised(&portal, &headers)?;
    let account = portal.store.account(claims.sub).await?;
    let account = account.ok_or_else(|| Failure::json(StatusCode::UNAUTHORIZED, "this account is gone"))?;
    Ok(Json(WhoAmI {
        account: account.id.to_string(),
        user_id: account.identity.user_id,
        email: account.identity.email,
        organisation: account.organisation.to_string(),
        signed_in_at: when::rfc3339(UnixTime::from_secs(claims.auth_time)),
    }))
}

/// The claims of the token in `Authorization: Bearer`.
pub(crate) fn authorised(portal: &Shared, headers: &HeaderMap) -> Result<Claims, Failure> {
    let unauthorised = |text: String| Failure::json(StatusCode::UNAUTHORIZED, text);
    let token = bearer(headers)
        .ok_or_else(|| unauthorised("this call takes `Authorization: Bearer` with a token".to_owned()))?;
    portal.verify(token, &[Class::Mykube]).map_err(|error| unauthorised(error.to_string()))
}

/// Somebody who may do what they ask for, in an organisation.
pub(crate) struct Allowed {
    pub(crate) transaction: Transaction,
    pub(crate) account: Account,
    pub(crate) actor: Actor,
    pub(crate) now: UnixTime,
}

/// Whose token it is, if its sign-in may do this.
pub(crate) async fn allow(
    portal: &Shared,
    headers: &HeaderMap,
    arrival: Arrival,
    act: Act,
) -> Result<Allowed, Failure> {
    let claims = authorised(portal, headers)?;
    let now = portal.now();
    let gone = || Failure::json(StatusCode::UNAUTHORIZED, "this sign-in is over");
    let forbidden = |text: String| Failure::json(StatusCode::FORBIDDEN, text);
    let mut transaction = portal.store.begin().await?;
    let account = transaction.account(claims.sub).await?.ok_or_else(gone)?;
    let sign_in = transaction.sign_in(claims.sid).await?.filter(|it| it.account == account.id).ok_or_else(gone)?;
    let role = transaction.role(account.organisation, account.id).await?;
    let role = role.ok_or_else(|| forbidden("you are not a member of this organisation".to_owned()))?;
    let browser_at = transaction.signed_in_by_browser_at(account.id).await?;
    may(role, (sign_in.method, sign_in.signed_in_at), act, browser_at, now)
        .map_err(|error| forbidden(error.to_string()))?;
    let actor = Actor { account: account.id, sign_in: sign_in.id, address: arrival.address };
    Ok(Allowed { transaction, account, actor, now })
}

/// What `Authorization: Bearer` holds.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
