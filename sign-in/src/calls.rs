//! What is asked of the relay.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use mykube_dial::{DialError, Dialer};
use mykube_protocol::{
    account::{
        DevToken, DeviceBegin, DeviceBegun, DevicePoll, DevicePolled, Exchange, Revoke, RevokeToken, Signed, SignedIn,
        UNKNOWN_TOKEN, WhoAmI, WrongTime,
    },
    text::printable,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::SignInError;

/// Longest message of a relay that is shown.
const MESSAGE_MAX: usize = 200;

pub(crate) async fn dev_token(dialer: &Dialer, body: &DevToken<'_>) -> Result<SignedIn, SignInError> {
    read(dialer, &post(dialer, "/auth/dev/token", body).await?)
}

/// Whether the relay has a page on which people sign in, before anybody is sent there. It is not read.
pub(crate) async fn sign_in_page(dialer: &Dialer) -> Result<(), SignInError> {
    let answer = dialer.call(Method::GET, "/portal/sign-in", None, None).await?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        StatusCode::NOT_FOUND => Err(lacks(dialer, "sign in with a browser").await),
        _ => Err(refusal(dialer, &answer)),
    }
}

/// Whether the relay knows people, before anybody is sent there.
pub(crate) async fn accounts(dialer: &Dialer) -> Result<(), SignInError> {
    let answer = dialer.call(Method::GET, "/v1/whoami", None, None).await?;
    if answer.status() == StatusCode::UNAUTHORIZED { Ok(()) } else { Err(refusal(dialer, &answer)) }
}

/// Redeems the code that a browser brought.
pub(crate) async fn exchange(dialer: &Dialer, body: &Exchange<'_>) -> Result<SignedIn, SignInError> {
    let answer = post(dialer, "/auth/exchange", body).await?;
    match read(dialer, &answer) {
        Err(SignInError::Refused { relay, reason }) if answer.status() == StatusCode::BAD_REQUEST => {
            Err(SignInError::NotExchanged { relay, reason })
        }
        given => given,
    }
}

pub(crate) async fn device_begin(dialer: &Dialer, body: &DeviceBegin<'_>) -> Result<DeviceBegun, SignInError> {
    let answer = post(dialer, "/auth/device", body).await?;
    match read(dialer, &answer) {
        Err(SignInError::NoAccounts(_)) => Err(lacks(dialer, "sign in with a code").await),
        begun => begun,
    }
}

pub(crate) async fn device_poll(dialer: &Dialer, body: &DevicePoll<'_>) -> Result<DevicePolled, SignInError> {
    read(dialer, &post(dialer, "/auth/device/poll", body).await?)
}

/// Why a call is not there: the relay has no accounts at all, or none of this way in.
async fn lacks(dialer: &Dialer, what: &'static str) -> SignInError {
    let relay = dialer.url().to_string();
    accounts(dialer).await.err().unwrap_or(SignInError::TooOld { relay, what })
}

/// What a refresh comes to.
pub(crate) enum Refreshed {
    Given(SignedIn),
    /// This machine's clock is wrong: sign again.
    WrongTime(WrongTime),
}

pub(crate) async fn refresh(dialer: &Dialer, body: &Signed<'_>) -> Result<Refreshed, SignInError> {
    let answer = post(dialer, "/auth/refresh", body).await?;
    if answer.status() == StatusCode::CONFLICT
        && let Ok(wrong) = serde_json::from_slice(answer.body())
    {
        return Ok(Refreshed::WrongTime(wrong));
    }
    read(dialer, &answer).map(Refreshed::Given).map_err(|error| ended(dialer, &answer, error))
}

pub(crate) async fn received(dialer: &Dialer, body: &Signed<'_>) -> Result<(), SignInError> {
    let answer = post(dialer, "/auth/refresh/received", body).await?;
    if answer.status().is_success() { Ok(()) } else { Err(refusal(dialer, &answer)) }
}

/// Ends a sign-in. One that the relay itself says it does not know has ended; what a proxy, or a relay that is another one
/// now, says in its place ends none.
pub(crate) async fn revoke(dialer: &Dialer, refresh_token: &str) -> Result<(), SignInError> {
    let answer = post(dialer, "/auth/revoke", &Revoke { refresh_token }).await?;
    if answer.status() == StatusCode::OK {
        return read::<Revoked>(dialer, &answer).map(drop);
    }
    match dialer.refusal(&answer) {
        DialError::Refused { status: 401, message } if message == UNKNOWN_TOKEN => Ok(()),
        _ => Err(refusal(dialer, &answer)),
    }
}

/// Ends one token. The relay says of one that is over, or that it never made, that it is none of its own.
pub(crate) async fn revoke_token(dialer: &Dialer, jwt: &str) -> Result<(), SignInError> {
    let answer = post(dialer, "/auth/revoke", &RevokeToken { jwt }).await?;
    read::<Revoked>(dialer, &answer).map(drop)
}

/// 200 to a revocation: a page that a proxy shows is none.
#[derive(serde::Deserialize)]
struct Revoked {
    #[serde(rename = "ok")]
    _ok: bool,
}

pub(crate) async fn who_am_i(dialer: &Dialer, token: &str) -> Result<WhoAmI, SignInError> {
    let bearer =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| SignInError::Ended(dialer.url().to_string()))?;
    let answer = dialer.call(Method::GET, "/v1/whoami", Some(bearer), None).await?;
    read(dialer, &answer).map_err(|error| ended(dialer, &answer, error))
}

async fn post(dialer: &Dialer, call: &str, body: &impl Serialize) -> Result<Response<Bytes>, SignInError> {
    let body = serde_json::to_vec(body).expect("texts and numbers are JSON");
    Ok(dialer.call(Method::POST, call, None, Some(body.into())).await?)
}

pub(crate) fn read<T: DeserializeOwned>(dialer: &Dialer, answer: &Response<Bytes>) -> Result<T, SignInError> {
    if answer.status() != StatusCode::OK {
        return Err(refusal(dialer, answer));
    }
    // What serde says may quote a token.
    let reason = "its answer is not the JSON that a relay sends".to_owned();
    serde_json::from_slice(answer.body())
        .map_err(|_| DialError::NotARelay { url: dialer.url().to_string(), reason }.into())
}

/// A token that is not taken any more.
pub(crate) fn ended(dialer: &Dialer, answer: &Response<Bytes>, error: SignInError) -> SignInError {
    match answer.status() {
        StatusCode::UNAUTHORIZED => SignInError::Ended(dialer.url().to_string()),
        _ => error,
    }
}

/// Published calls say in plain text why they refuse; all others in JSON.
pub(crate) fn refusal(dialer: &Dialer, answer: &Response<Bytes>) -> SignInError {
    let relay = dialer.url().to_string();
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let error = dialer.refusal(answer);
    match (answer.status(), error) {
        (_, error @ (DialError::Unreachable { .. } | DialError::RateLimited { .. })) => error.into(),
        (StatusCode::NOT_FOUND, DialError::Refused { message, .. }) if message == "not found" => {
            SignInError::NoAccounts(relay)
        }
        (_, DialError::Refused { message, .. }) => SignInError::Refused { relay, reason: message },
        (status, _) if status.is_client_error() && kind.starts_with("text/plain") => {
            let reason = printable(&String::from_utf8_lossy(answer.body()), MESSAGE_MAX);
            SignInError::Refused { relay, reason }
        }
        (_, error) => error.into(),
    }
}
