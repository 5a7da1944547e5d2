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
    jwt::{Claims, Class, DenyList},
    limits::Call,
    portal_session::PortalSession,
    refresh::{End, RefreshToken, Refusal},
    secret::Secret,
};
use mykube_relay_store::{Actor, StoreError, Transaction};
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

/// Cookies of one name of which the sign-in is ended: a browser has one, and one more if a neighbouring host has set it.
const COOKIES_MAX: usize = 4;

/// Ends whatever sign-in a browser's cookies are of.
pub(crate) async fn end_browsers(portal: &Shared, headers: &HeaderMap, address: IpAddr) -> Result<(), StoreError> {
    if !cookies::has_any(headers) {
        return Ok(());
    }
    let mut transaction = portal.store.begin().await?;
    end_browsers_in(portal, &mut transaction, headers, address).await?;
    transaction.commit().await
}

/// The same with what else is done.
pub(super) async fn end_browsers_in(
    portal: &Shared,
    transaction: &mut Transaction,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<(), StoreError> {
    let [own, published] = [cookies::OWN, cookies::PUBLISHED].map(|name| cookies::read_all(headers, name));
    let claims = published.into_iter().filter_map(|token| portal.verify(token, &[Class::Browser]).ok());
    let claims: Vec<_> = claims.take(COOKIES_MAX).collect();
    let mut sign_ins = Vec::new();
    for own in own.into_iter().take(COOKIES_MAX) {
        sign_ins.extend(browser_session(portal, transaction, own).await?.map(|session| session.sid));
    }
    sign_ins.extend(claims.into_iter().map(|claims| claims.sid));
    for sign_in in sign_ins {
        end(portal, transaction, sign_in, address).await?;
    }
    Ok(())
}

/// The session of the browser that shows this cookie of the portal's own, if it is neither idle nor old, nor has its sign-in
/// ended. That it is used is kept with the transaction.
pub(crate) async fn browser_session(
    portal: &Shared,
    transaction: &mut Transaction,
    cookie: &str,
) -> Result<Option<PortalSession>, StoreError> {
    let Some(cookie) = Secret::parse(cookie) else { return Ok(None) };
    let now = portal.now();
    for hash in PortalSession::candidates(&cookie, &portal.cookies) {
        let Some(mut session) = transaction.browser_session(hash).await?.filter(|session| session.is_live(now)) else {
            continue;
        };
        // Where the database did not keep that it has ended.
        if portal.denied().denies_sign_in(session.sid) {
            continue;
        }
        if session.handle_use(now) {
            transaction.note_browser_session(&session).await?;
        }
        return Ok(Some(session));
    }
    Ok(None)
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
    if let Some(token) = text("refresh_token") {
        let token = RefreshToken::parse(token).ok_or_else(unknown)?;
        let mut transaction = portal.store.begin().await?;
        let family = transaction.family(token.sid()).await?.ok_or_else(unknown)?;
        // Who ends it need not sign, but must have a token that counts: others have had older ones.
        let shown = [token.expose().as_bytes()];
        let counts = |kept| portal.refresh.verify(kept, &shown);
        if !counts(family.current) && !family.successor.is_some_and(|successor| counts(successor.token)) {
            return Err(unknown());
        }
        end(&portal, &mut transaction, family.sid, address).await?;
        transaction.commit().await?;
    } else {
        let jwt = text("jwt").ok_or_else(|| Failure::json(StatusCode::BAD_REQUEST, "Missing jwt in request body"))?;
        let claims = portal.jwts.verify_to_revoke(jwt);
        let claims = claims.map_err(|error| Failure::json(StatusCode::UNAUTHORIZED, error.devices_text()))?;
        end_token(&portal, &claims, address).await?;
    }
    Ok(Json(json!({"ok": true})))
}

/// Ends one token; of class `devices`, from which others may have been renewed since, the sign-in. What is over already
/// writes nothing: whoever once had a token could fill its owner's audit log with it for ever.
async fn end_token(portal: &Shared, claims: &Claims, address: IpAddr) -> Result<(), Failure> {
    let (now, until) = (portal.now(), DenyList::token_until(claims));
    if until <= now {
        return Ok(());
    }
    let mut transaction = portal.store.begin().await?;
    if transaction.sign_in(claims.sid).await?.is_none() {
        return Ok(());
    }
    if claims.class() == Some(Class::Devices) {
        end(portal, &mut transaction, claims.sid, address).await?;
        return Ok(transaction.commit().await?);
    }
    // In memory at once: should the database fail, it is refused until the next start at least.
    portal.denied().restore_token(claims.jti, until);
    if !transaction.deny_token(claims.jti, until).await? {
        return Ok(());
    }
    portal.limits.admit_account(Call::Revoke, claims.sub, now).map_err(Failure::too_many)?;
    if let Some(account) = transaction.account(claims.sub).await? {
        let actor = Actor { account: account.id, sign_in: claims.sid, address };
        transaction.record(account.organisation, actor, ("token.revoke", &claims.aud), now).await?;
    }
    info!(account = %claims.sub, %address, "token revoked");
    Ok(transaction.commit().await?)
}

/// Ends a sign-in and all that came of it, if it has not ended.
pub(crate) async fn end(
    portal: &Shared,
    transaction: &mut Transaction,
    id: SignInId,
    address: IpAddr,
) -> Result<(), StoreError> {
    let now = portal.now();
    let Some(sign_in) = transaction.sign_in(id).await? else { return Ok(()) };
    let ends_at = match transaction.family(id).await? {
        Some(before) => {
            let mut family = before.clone();
            family.end(now, End::Revoked);
            if before.ended.is_none() {
                transaction.change_family(&before, &family).await?;
            }
            family.denied_until()
        }
        None => now + Class::Daemon.life().max(Class::Browser.life()),
    };
    // In memory at once: should the database fail, its tokens are refused until the next start at least.
    let until = portal.denied().deny_sign_in(id, now, ends_at);
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
