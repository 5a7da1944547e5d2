//! Our own calls, for tokens of class `mykube`.

use std::sync::Arc;

use axum::{Json, Router, extract::State, routing::get};
use http::{HeaderMap, StatusCode, header};
use mykube_protocol::account::WhoAmI;
use mykube_relay_accounts::{
    jwt::{Claims, Class},
    time::UnixTime,
};

use crate::{failure::Failure, shared::Shared, when};

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
fn authorised(portal: &Shared, headers: &HeaderMap) -> Result<Claims, Failure> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let unauthorised = |text: String| Failure::json(StatusCode::UNAUTHORIZED, text);
    let token = token.ok_or_else(|| unauthorised("this call takes `Authorization: Bearer` with a token".to_owned()))?;
    portal.verify(token, &[Class::Mykube]).map_err(|error| unauthorised(error.to_string()))
}
