//! A sign-in ends: by whoever has it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::State,
    response::{AppendHeaders, IntoResponse},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::SET_COOKIE};
use mykube_relay_accounts::{
    id::SignInId,
    jwt::Class,
    refresh::{End, RefreshToken, Refusal},
};
use mykube_relay_store::{Actor, Transaction};
use serde_json::{Map, Value, json};
use tracing::info;

use crate::{arrival::Arrival, cookies, failure::Failure, shared::Shared};

/// `POST /auth/logout`: a browser forgets its cookies, and what they were good for is over.
pub(super) async fn log_out(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Failure> {
    end_browsers(&portal, &headers, address).await?;
    let cleared = cookies::set("", "", portal.origins.has_foreign()).map(|cookie| (SET_COOKIE, cookie));
    Ok((AppendHeaders(cleared), Json(json!({"ok": true}))))
}

/// Ends whatever sign-in a browser's cookies are of.
pub(super) async fn end_browsers(portal: &Shared, headers: &HeaderMap, address: IpAddr) -> Result<(), Failure> {
    let (own, published) = (cookies::read(headers, cookies::OWN), cookies::read(headers, cookies::PUBLISHED));
    if own.is_none() && published.is_none() {
        return Ok(());
    }
    let mut transaction = portal.store.begin().await?;
    let mut sign_ins = Vec::new();
    for (_, hash) in own.map(|own| portal.cookies.candidates(&[own.as_bytes()])).unwrap_or_default() {
        sign_ins.extend(transaction.browser_session(hash).await?);
    }
    let claims = published.and_then(|token| portal.verify(token, &[Class::Browser]).ok());
    sign_ins.extend(claims.map(|claims| claims.sid).filter(|sid| !sign_ins.contains(sid)));
    for sign_in in sign_ins {
        end(portal, &mut transaction, sign_in, address).await?;
    }
    Ok(transaction.commit().await?)
}

/// `POST /auth/revoke`: `{jwt}` ends one token, `{refresh_token}` the whole sign-in. What was ended before, or was never
/// there, is over too.
pub(super) async fn revoke(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let body: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut transaction = portal.store.begin().await?;
    if let Some(token) = text("refresh_token") {
        let token = RefreshToken::parse(token).ok_or_else(unknown)?;
        let family = transaction.family(token.sid()).await?.ok_or_else(unknown)?;
        // Who ends it need not sign, but must have a token that counts: others have had older ones.
        let shown = [token.expose().as_bytes()];
        let counts = |kept| portal.refresh.verify(kept, &shown);
        if !counts(family.current) && !family.successor.is_some_and(|successor| counts(successor.token)) {
            return Err(unknown());
        }
        end(&portal, &mut transaction, family.sid, address).await?;
    } else {
        let jwt = text("jwt").ok_or_else(|| Failure::json(StatusCode::BAD_REQUEST, "Missing jwt in request body"))?;
        let claims = portal.jwts.verify_to_revoke(jwt);
        let claims = claims.map_err(|error| Failure::json(StatusCode::UNAUTHORIZED, error.devices_text()))?;
        let until = portal.denied().deny_token(&claims);
        transaction.deny_token(claims.jti, until).await?;
        if let Some(account) = transaction.account(claims.sub).await? {
            let actor = Actor { account: account.id, sign_in: claims.sid, address };
            let what = ("token.revoke", claims.aud.as_str());
            transaction.record(account.organisation, actor, what, portal.now()).await?;
        }
        info!(account = %claims.sub, %address, "token revoked");
    }
    transaction.commit().await?;
    Ok(Json(json!({"ok": true})))
}

/// Ends a sign-in and all that came of it, if it has not ended.
pub(super) async fn end(
    portal: &Shared,
    transaction: &mut Transaction,
    id: SignInId,
    address: IpAddr,
) -> Result<(), Failure> {
    let now = portal.now();
    let Some(sign_in) = transaction.sign_in(id).await? else { return Ok(()) };
    let ends_at = match transaction.family(id).await? {
        Some(mut family) => {
            family.end(now, End::Revoked);
            transaction.keep_family(&family).await?;
            family.denied_until()
        }
        None => now + Class::Daemon.life().max(Class::Browser.life()),
    };
    // In memory at once: should the database fail, its tokens are refused until the next start at least.
    let until = {
        let mut denied = portal.denied();
        denied.handle_tick(now);
        denied.deny_sign_in(id, now, ends_at)
    };
    transaction.end_sign_in(id, until, now).await?;
    if let Some(account) = transaction.account(sign_in.account).await? {
        let actor = Actor { account: account.id, sign_in: id, address };
        transaction.record(account.organisation, actor, ("sign_in.end", ""), now).await?;
    }
    info!(account = %sign_in.account, %address, "sign-in ended");
    Ok(())
}

fn unknown() -> Failure {
    Failure::json(StatusCode::UNAUTHORIZED, Refusal::Signature.to_string())
}
