//! `POST /auth/refresh`, in both forms: the published one takes a token of class `devices` and gives its successor; ours
//! takes a refresh token that the machine's key has signed for. And `POST /auth/refresh/received`, by which the machine says
//! that it has the successor.

use std::{net::IpAddr, sync::Arc};

use axum::{Extension, Json, extract::State};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use mykube_protocol::account::SignedIn;
use mykube_relay_accounts::{
    id::TokenId,
    jwt::{Class, RENEWABLE, Subject},
    refresh::{Family, RefreshToken, Refreshed, Refusal, Request},
    time::UnixTime,
};
use mykube_relay_store::{Actor, Transaction};
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use crate::{
    arrival::Arrival,
    failure::{Failure, TimeFailure},
    shared::Shared,
};

type Body = Map<String, Value>;

/// `POST /auth/refresh`.
pub(super) async fn refresh(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let body: Body = serde_json::from_slice(&body).unwrap_or_default();
    if body.contains_key("refresh_token") { ours(&portal, address, &body).await } else { published(&portal, &body) }
}

fn published(portal: &Shared, body: &Body) -> Result<Json<Value>, Failure> {
    let jwt = body.get("jwt").and_then(Value::as_str).filter(|jwt| !jwt.is_empty());
    let jwt = jwt.ok_or_else(|| Failure::json(StatusCode::BAD_REQUEST, "Missing jwt in request body"))?;
    let now = portal.now();
    let claims = portal.jwts.verify_to_renew(jwt, now, &portal.denied());
    let claims = claims.map_err(|error| unauthorised(error.to_string()))?;
    let issued = portal.issue(Class::Devices, &claims.into(), now);
    Ok(Json(json!({
        "jwt": issued.token.expose(),
        "expiresIn": issued.claims.expires_in(),
        "userId": issued.claims.user_id,
    })))
}

async fn ours(portal: &Shared, address: IpAddr, body: &Body) -> Result<Json<Value>, Failure> {
    let signed = Signed::read(body)?;
    let now = portal.now();
    let (mut transaction, before) = signed.family(portal).await?;
    let mut family = before.clone();
    let refreshed = {
        let names = portal.names();
        family.handle_refresh(signed.request(), &names, &portal.refresh, now, &mut rand::rng())
    };
    let Refreshed { token, access, denied } = match refreshed {
        Ok(refreshed) => refreshed,
        Err(refusal) => return Err(refuse(portal, transaction, (&before, &family), refusal, address).await?),
    };
    transaction.change_family(&before, &family).await?;
    // It ends within an hour by the clock that made it: a day more, for a clock that was set back since.
    let denied = denied.map(|id| (id, now + Class::Mykube.life() + RENEWABLE));
    if let Some((id, until)) = denied {
        transaction.deny_token(id, until).await?;
    }
    let account = transaction.account(family.account).await?;
    let account = account.ok_or_else(|| unauthorised(Refusal::Ended.to_string()))?;
    let auth_time = transaction.auth_time(family.sid).await?;
    let auth_time = auth_time.ok_or_else(|| unauthorised(Refusal::Ended.to_string()))?;
    transaction.commit().await?;
    if let Some((id, until)) = denied {
        portal.denied().restore_token(id, until);
    }
    info!(account = %account.id, %address, "token replaced");
    let subject = account.subject(family.sid, auth_time);
    Ok(Json(signed_in(portal, &subject, access, &token, now)))
}

/// `POST /auth/refresh/received`.
pub(super) async fn received(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    let signed = Signed::read(&serde_json::from_slice(&body).unwrap_or_default())?;
    let (mut transaction, before) = signed.family(&portal).await?;
    let mut family = before.clone();
    let taken = family.handle_received(signed.request(), &portal.names(), &portal.refresh, portal.now());
    if let Err(refusal) = taken {
        return Err(refuse(&portal, transaction, (&before, &family), refusal, address).await?);
    }
    transaction.change_family(&before, &family).await?;
    transaction.commit().await?;
    Ok(Json(json!({"ok": true})))
}

/// What a program of ours gets that signed in, or had its token replaced.
pub(super) fn signed_in(
    portal: &Shared,
    subject: &Subject,
    access: TokenId,
    token: &RefreshToken,
    now: UnixTime,
) -> Value {
    let issued = portal.jwts.issue(Class::Mykube, subject, access, now);
    let answer = SignedIn {
        token: issued.token.expose().to_owned(),
        expires_in: issued.claims.expires_in(),
        refresh_token: token.expose().to_owned(),
        relay: portal.names(),
    };
    serde_json::to_value(answer).expect("texts and numbers are JSON")
}

/// What a machine sends, with its signature.
struct Signed {
    token: RefreshToken,
    time: u64,
    signature: Vec<u8>,
}

impl Signed {
    fn read(body: &Body) -> Result<Self, Failure> {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let signature = text("sig").and_then(|sig| BASE64URL_NOPAD.decode(sig.as_bytes()).ok());
        match (text("refresh_token"), body.get("time").and_then(Value::as_u64), signature) {
            (Some(token), Some(time), Some(signature)) => {
                let token = RefreshToken::parse(token).ok_or_else(|| unauthorised(Refusal::Signature.to_string()))?;
                Ok(Self { token, time, signature })
            }
            _ => Err(Failure::json(StatusCode::BAD_REQUEST, "the body must have refresh_token, time and sig")),
        }
    }

    fn request(&self) -> Request<'_> {
        Request { token: &self.token, time: self.time, signature: &self.signature }
    }

    /// Where the database did not keep that a sign-in has ended, the deny list knows it.
    async fn family(&self, portal: &Shared) -> Result<(Transaction, Family), Failure> {
        if portal.denied().denies_sign_in(self.token.sid()) {
            return Err(unauthorised(Refusal::Ended.to_string()));
        }
        let mut transaction = portal.store.begin().await?;
        let family = transaction.family(self.token.sid()).await?;
        Ok((transaction, family.ok_or_else(|| unauthorised(Refusal::Signature.to_string()))?))
    }
}

/// Keeps what a refusal changed, and says why. A sign-in that was used in two places ends for both.
async fn refuse(
    portal: &Shared,
    mut transaction: Transaction,
    (before, family): (&Family, &Family),
    refusal: Refusal,
    address: IpAddr,
) -> Result<Failure, Failure> {
    match refusal {
        Refusal::Time { now, after } => return Ok(Failure::time(TimeFailure { now, after })),
        Refusal::Signature | Refusal::Ended => {}
        Refusal::Theft => {
            let now = portal.now();
            let until = portal.denied().deny_sign_in(family.sid, now, family.denied_until());
            transaction.change_family(before, family).await?;
            transaction.end_sign_in(family.sid, until, now).await?;
            if let Some(account) = transaction.account(family.account).await? {
                let actor = Actor { account: account.id, sign_in: family.sid, address };
                transaction.record(account.organisation, actor, ("sign_in.theft", ""), now).await?;
            }
            transaction.commit().await?;
            warn!(account = %family.account, %address, "a sign-in was used in two places, and is ended");
        }
    }
    Ok(unauthorised(refusal.to_string()))
}

fn unauthorised(text: String) -> Failure {
    Failure::json(StatusCode::UNAUTHORIZED, text)
}
