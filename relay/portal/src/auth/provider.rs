//! Signing in at an identity provider: `GET /auth/{provider}` sends the browser there, and it comes back to `/auth/callback`
//! (Google's published redirect URI) or `/auth/callback/{provider}`.
//!
//! What comes back counts once, from the browser that was sent, on the callback of the provider that it was sent to.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension,
    extract::{Path, RawQuery, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use mykube_relay_accounts::{
    identity::Kind,
    limits::network,
    provider_state::{Goal, InvalidState, NETWORK_MAX, PENDING_MAX, Pending, Sent},
    secret::Secret,
    sign_in::Method,
};
use mykube_relay_provider::{Callback, Fault, ProviderError, RelyingParty};
use tracing::{info, warn};
use url::form_urlencoded;

use super::{begin::BeginError, browser, goal, redirect::redirect};
use crate::{arrival::Arrival, cookies, failure::Failure, origin::is_from_elsewhere, shared::Shared};

/// What the broker's peers send. With one of these, `/auth/{provider}` is the broker's call.
const BROKERS: [&str; 7] = ["relay_uuid", "session", "session_id", "sig", "challenge", "timestamp", "ts"];
/// Seconds after which somebody tries again where too many sign-ins are under way.
const RETRY: u64 = 60;

/// `GET /auth/{provider}`.
pub(super) async fn begin(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = query.unwrap_or_default();
    if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| BROKERS.contains(&&*name)) {
        return Err(Failure::json(StatusCode::NOT_IMPLEMENTED, "the broker of this relay is not built yet"));
    }
    let party = portal.settings.providers.get(&name);
    let party = party.ok_or_else(|| Failure::text(StatusCode::NOT_FOUND, "unknown provider"))?;
    if is_from_elsewhere(&headers) {
        // Another site's page would change who is signed in here, where the provider asks nobody: a click of theirs is wanted.
        let page = format!("{}/portal/sign-in?{query}", portal.settings.public_url.as_str());
        return redirect(StatusCode::SEE_OTHER, &page);
    }
    let goal = goal::read(&portal, &query)?;
    let shown = cookies::read(&headers, cookies::STATE).ok().flatten().and_then(Secret::parse);
    let cookie = shown.unwrap_or_else(|| Secret::random(&mut rand::rng()));
    let now = portal.now();
    let (row, sent) = Pending::begin(&name, goal, &cookie, &portal.codes, now, &mut rand::rng());
    // The provider is asked first: nothing else waits for that.
    let url = party.authorization_url(&redirect_uri(&portal, party), &sent, now).await;
    let url = url.map_err(|error| failed(party, &error, address))?;
    let network = network(address);
    let mut transaction = portal.store.begin_passing().await?;
    if !transaction.has_room_for_provider_state(&network, (PENDING_MAX, NETWORK_MAX), now).await? {
        let text = "too many sign-ins are under way at this relay";
        return Err(Failure::text(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(RETRY));
    }
    transaction.begin_provider_state(&row, &network).await?;
    transaction.commit().await?;
    let mut answer = redirect(StatusCode::TEMPORARY_REDIRECT, &url)?;
    answer.headers_mut().append(header::SET_COOKIE, cookies::state(&cookie));
    Ok(answer)
}

/// `GET /auth/callback`.
pub(super) async fn google_callback(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let party = portal.settings.providers.iter().find(|party| party.provider().kind == Kind::Google);
    come_back(&portal, party, &query.unwrap_or_default(), &headers, address).await
}

/// `GET /auth/callback/{provider}`.
pub(super) async fn callback(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let party = portal.settings.providers.get(&name).filter(|party| party.provider().kind != Kind::Google);
    come_back(&portal, party, &query.unwrap_or_default(), &headers, address).await
}

/// Somebody is back from this provider, or says so.
async fn come_back(
    portal: &Shared,
    party: Option<&RelyingParty>,
    query: &str,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Response, Failure> {
    let party = party.ok_or_else(|| Failure::text(StatusCode::NOT_FOUND, "unknown provider"))?;
    let provider = &party.provider().name;
    let Callback { state, outcome } = Callback::parse(query).map_err(|error| refused(&error.to_string()))?;
    let (goal, sent) = take(portal, party, state, headers).await?;
    let person = party.redeem(outcome, &redirect_uri(portal, party), &sent, portal.now()).await;
    let person = person.map_err(|error| failed(party, &error, address))?;
    let by = format!("{provider}, in a browser");
    let signed_in = browser::sign_in(portal, headers, &person, address, Method::Browser, &by).await;
    let (_, cookies) = signed_in.map_err(|error| match error {
        BeginError::NotAdmitted(error) => Failure::text(StatusCode::FORBIDDEN, text(&error.to_string())),
        BeginError::Store(error) => error.into(),
    })?;
    let base = portal.settings.public_url.as_str();
    let to = format!("{base}{}", goal::page(&goal));
    Ok((cookies, redirect(StatusCode::TEMPORARY_REDIRECT, &to)?).into_response())
}

/// Takes the sign-in of this state. It is gone whatever comes of it: what was tried once is not tried again.
async fn take(
    portal: &Shared,
    party: &RelyingParty,
    state: Secret,
    headers: &HeaderMap,
) -> Result<(Goal, Sent), Failure> {
    let mut transaction = portal.store.begin().await?;
    let mut taken = None;
    for hash in Pending::candidates(&state, &portal.codes) {
        taken = taken.or(transaction.take_provider_state(hash).await?);
    }
    transaction.commit().await?;
    let invalid = |error: InvalidState| refused(&error.to_string());
    let row = taken.ok_or_else(|| invalid(InvalidState))?;
    let cookie = cookies::read(headers, cookies::STATE).ok().flatten().and_then(Secret::parse);
    let provider = party.provider().name.as_str();
    let sent = row.resume(state, provider, cookie.as_ref(), &portal.codes, portal.now()).map_err(invalid)?;
    Ok((row.goal, sent))
}

/// Where this provider sends the browser back to: what the relay is registered with there.
fn redirect_uri(portal: &Shared, party: &RelyingParty) -> String {
    let base = portal.settings.public_url.as_str();
    match party.provider().kind {
        Kind::Google => format!("{base}/auth/callback"),
        _ => format!("{base}/auth/callback/{}", party.provider().name),
    }
}

/// What a provider's failure is to whoever signs in. The operator's log has the whole of it.
fn failed(party: &RelyingParty, error: &ProviderError, address: IpAddr) -> Failure {
    let provider = &party.provider().name;
    let status = match error.fault() {
        Fault::Person => StatusCode::BAD_REQUEST,
        Fault::Provider => StatusCode::BAD_GATEWAY,
        Fault::Setting => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status == StatusCode::BAD_REQUEST {
        info!(%provider, %error, %address, "nobody signed in");
    } else {
        warn!(%provider, %error, %address, "nobody can sign in there");
    }
    Failure::text(status, text(&error.for_stranger()))
}

fn refused(reason: &str) -> Failure {
    Failure::text(StatusCode::BAD_REQUEST, text(reason))
}

/// The published text.
fn text(reason: &str) -> String {
    format!("Authentication failed: {reason}")
}
