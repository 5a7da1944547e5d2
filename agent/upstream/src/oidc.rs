//! `auth-provider: oidc` of a kubeconfig: an id token, and how to get the next one.
//!
//! The rules are client-go's (`plugin/pkg/client/auth/oidc`): the id token is sent as a bearer token while it is valid;
//! then the refresh token gets another at the issuer's token endpoint, and both are written back into the kubeconfig
//! ([`store`]), where kubectl finds them too. kubectl may have done that meanwhile, so the file is read before the
//! issuer is asked.

mod provider;
mod store;
mod tokens;

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, alphabet, engine::GeneralPurpose, engine::general_purpose::NO_PAD};
use mykube_dial::{Trust, tls::Verifier};
use tokio::{sync::Mutex, task::AbortHandle};
use zeroize::Zeroizing;

use crate::{
    environment::Environment,
    error::{KubeconfigError, Place},
    expiry::{Expiry, REFRESH_MARGIN, checked_token},
    kubeconfig::types::AuthProvider,
    sourced::Sourced,
};
use provider::Provider;
use tokens::{Tokens, field};

/// An id token is used until this long before it expires (client-go `expiryDelta`).
const EXPIRY_DELTA: Duration = Duration::from_secs(10);
/// After tokens could not be written, the next attempt comes after this long: another program may have had the lock.
const STORE_AGAIN: Duration = Duration::from_secs(30);
/// How long the provider may take for an answer.
const LIMIT: Duration = Duration::from_secs(30);
/// JWTs are base64url without padding; Go ignores the last, unused bits.
const BASE64URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// A user's tokens, refreshed when needed.
pub(crate) struct Oidc(Arc<Shared>);

struct Shared {
    provider: Provider,
    place: Place,
    state: Mutex<State>,
}

struct State {
    /// The tokens in use.
    tokens: Tokens,
    /// The tokens last seen in the kubeconfig: older ones, if it cannot be written.
    stored: Tokens,
    /// A task that writes them into the kubeconfig later, after that failed.
    later: Option<AbortHandle>,
    /// The API server refused the id token: the kubeconfig may have a newer one.
    doubted: bool,
}

impl Oidc {
    /// Checks the settings. `trust` is for a provider without a CA of its own, and for https proxies on the way.
    pub(crate) fn new(
        provider: &AuthProvider,
        place: Place,
        env: &Environment,
        trust: Trust,
    ) -> Result<Self, KubeconfigError> {
        match provider.name.as_deref().unwrap_or_default() {
            "oidc" => {}
            "gcp" => return Err(KubeconfigError::AuthProvider(place, "gcp")),
            "azure" => return Err(KubeconfigError::AuthProvider(place, "azure")),
            _ => return Err(KubeconfigError::UnknownAuthProvider(place)),
        }
        let needed = |name: &'static str| {
            field(provider, name).cloned().ok_or_else(|| KubeconfigError::Field {
                field: name,
                place: place.clone(),
                problem: "is missing, and `auth-provider: oidc` needs it: log in to the cluster again",
            })
        };
        let issuer = needed("idp-issuer-url")?.to_string();
        if !issuer.starts_with("https://") && !is_here(&issuer) {
            return Err(KubeconfigError::Field {
                field: "idp-issuer-url",
                place,
                problem: "is no https:// address, and the refresh token must not cross the network unencrypted: write the issuer's https address",
            });
        }
        let client = (needed("client-id")?, field(provider, "client-secret").cloned().unwrap_or_default());
        let authority = authority(provider, &place)?;
        let provider_trust = authority.map_or_else(|| trust.clone(), Trust::by);
        let tokens = Tokens::of(provider);
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(State { stored: tokens.clone(), tokens, later: None, doubted: false }),
            provider: Provider::new(issuer, client, provider_trust, trust, env.clone(), LIMIT),
            place,
        })))
    }

    /// The API server refused the id token: another may be in the kubeconfig. Like client-go, this does not use the
    /// refresh token.
    pub(crate) async fn forget(&self) {
        self.0.state.lock().await.doubted = true;
    }

    /// A valid token.
    ///
    /// Runs to its end even if the future is dropped: a refresh token that was spent must not be lost.
    pub(crate) async fn current(&self) -> Result<(Zeroizing<String>, Expiry), KubeconfigError> {
        let shared = Arc::clone(&self.0);
        match tokio::spawn(async move { shared.current().await }).await {
            Ok(done) => done,
            Err(error) => Err(self.0.failed(format!("it was stopped ({error})"))),
        }
    }
}

impl Shared {
    async fn current(self: &Arc<Self>) -> Result<(Zeroizing<String>, Expiry), KubeconfigError> {
        let mut state = self.state.lock().await;
        let fresh = self.good(&state.tokens, REFRESH_MARGIN);
        if !state.doubted && matches!(fresh, Ok(Some(_))) {
            return self.given(fresh);
        }
        if let Some(stored) = store::read(&self.place).await.filter(|stored| *stored != state.stored) {
            tracing::debug!("the kubeconfig has other tokens now");
            (state.tokens, state.stored) = (stored.clone(), stored);
        }
        state.doubted = false;
        let now = self.good(&state.tokens, EXPIRY_DELTA)?;
        let lasts = state.tokens.refresh.is_none() || self.good(&state.tokens, REFRESH_MARGIN)?.is_some();
        if now.is_some() && lasts {
            return self.given(Ok(now));
        }
        match (self.renew(&mut state).await, now) {
            (Ok(()), _) => self.given(self.good(&state.tokens, Duration::ZERO)),
            (Err(error), Some(now)) => {
                tracing::warn!(%error, "the id token cannot be renewed; the last one is used");
                self.given(Ok(Some(now)))
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Gets an id token with the refresh token, and writes the new tokens into the kubeconfig.
    async fn renew(self: &Arc<Self>, state: &mut State) -> Result<(), KubeconfigError> {
        let refresh = state.tokens.refresh.clone().ok_or_else(|| {
            self.failed("its id-token has expired and there is no refresh-token; log in to the cluster again".into())
        })?;
        let bought = self.provider.refresh(&refresh).await.map_err(|problem| self.failed(problem))?;
        let rotated = bought.refresh.as_ref().is_some_and(|new| *new != refresh);
        state.tokens = Tokens { id: Some(bought.id), refresh: bought.refresh.or(Some(refresh)) };
        // An earlier task that waits to write has older tokens.
        if let Some(later) = state.later.take() {
            later.abort();
        }
        match store::replace(&self.place, &state.stored, &state.tokens).await {
            Ok(written) => state.stored = written,
            Err(problem) => {
                match rotated {
                    true => tracing::warn!(
                        "a new refresh token could not be written to the kubeconfig ({problem}): mykube goes on with it and tries again, but \
                         the one in {} may be spent, and kubectl would have to log in again",
                        self.place
                    ),
                    false => tracing::debug!(problem, "a new id token was not written to the kubeconfig"),
                }
                state.later = Some(tokio::spawn(store_later(Arc::downgrade(self))).abort_handle());
            }
        }
        Ok(())
    }

    /// The id token and when it expires, if that is further away than `margin`.
    fn good(
        &self,
        tokens: &Tokens,
        margin: Duration,
    ) -> Result<Option<(Zeroizing<String>, SystemTime)>, KubeconfigError> {
        let Some(id) = &tokens.id else { return Ok(None) };
        let expires =
            expires(id).ok_or_else(|| self.failed("its id-token is no JWT; log in to the cluster again".into()))?;
        let token =
            checked_token(id).ok_or_else(|| self.failed("its id-token has spaces or line ends in it".into()))?;
        Ok(Some((token, expires)).filter(|_| SystemTime::now() + margin < expires))
    }

    fn given(
        &self,
        good: Result<Option<(Zeroizing<String>, SystemTime)>, KubeconfigError>,
    ) -> Result<(Zeroizing<String>, Expiry), KubeconfigError> {
        let (token, expires) = good?
            .ok_or_else(|| self.failed("the provider gave an id token that has expired; is the clock right?".into()))?;
        Ok((token, Expiry::until(expires)))
    }

    fn failed(&self, problem: String) -> KubeconfigError {
        KubeconfigError::Oidc { place: self.place.clone(), problem }
    }
}

/// Tries again to write the tokens into the kubeconfig, until they are there or somebody else has written others.
async fn store_later(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(STORE_AGAIN).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state.lock().await;
        if store::read(&shared.place).await.is_some_and(|stored| stored != state.stored) {
            return;
        }
        match store::replace(&shared.place, &state.stored, &state.tokens).await {
            Ok(written) => {
                tracing::info!("the new tokens stand in the kubeconfig now");
                state.stored = written;
                return;
            }
            Err(problem) => tracing::debug!(problem, "the new tokens still cannot be written to the kubeconfig"),
        }
    }
}

/// Whether an address is on this machine: http is for development there.
fn is_here(address: &str) -> bool {
    url::Url::parse(address).is_ok_and(|url| {
        url.scheme() == "http"
            && match url.host() {
                Some(url::Host::Domain(name)) => name == "localhost",
                Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
                Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
                None => false,
            }
    })
}

/// The provider's own CA, from data or from a file. A relative path starts at the working directory, as for kubectl.
fn authority(provider: &AuthProvider, place: &Place) -> Result<Option<Verifier>, KubeconfigError> {
    let names = ("idp-certificate-authority-data", "idp-certificate-authority");
    let data = field(provider, names.0).map(|data| data.as_str());
    let file = field(provider, names.1).and_then(|file| std::path::absolute(file.as_str()).ok());
    let sourced = Sourced::new(data, file.as_deref().and_then(|file| file.to_str()), names, place)?;
    let Some(sourced) = sourced else { return Ok(None) };
    let (readable, _) = mykube_dial::tls::readable(&sourced.read_now()?);
    let verifier = Verifier::new(readable);
    verifier.map(Some).ok_or_else(|| sourced.error("has no certificate that can be read: fetch it again"))
}

/// The `exp` of a JWT (RFC 7519 section 4.1.4). Only the API server verifies the JWT. One without `exp` counts as
/// expired.
fn expires(token: &str) -> Option<SystemTime> {
    let mut parts = token.split('.');
    let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let claims: serde_json::Value = serde_json::from_slice(&Zeroizing::new(BASE64URL.decode(payload).ok()?)).ok()?;
    let seconds = match claims.as_object()?.get("exp") {
        None | Some(serde_json::Value::Null) => 0.0,
        Some(serde_json::Value::String(text)) => text.parse().ok()?,
        Some(number) => number.as_f64()?,
    };
    let since = Duration::try_from_secs_f64(seconds.clamp(0.0, 1e11).trunc()).ok()?;
    UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token() {
        let jwt = |claims: &str| format!("e30.{}.c2ln", BASE64URL.encode(claims));
        let seconds = |token: &str| expires(token).map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_secs());
        for (claims, expected) in [
            (r#"{"exp": 4070908800}"#, Some(4_070_908_800)),
            (r#"{"exp": 4070908800.9}"#, Some(4_070_908_800)),
            (r#"{"exp": 4.0709088e9}"#, Some(4_070_908_800)),
            (r#"{"exp": "4070908800"}"#, Some(4_070_908_800)),
            ("{}", Some(0)),
            (r#"{"exp": -5}"#, Some(0)),
            (r#"{"exp": true}"#, None),
            (r#"{"exp": "soon"}"#, None),
            ("[]", None),
            ("x", None),
        ] {
            assert_eq!(seconds(&jwt(claims)), expected, "{claims}");
        }
        for token in ["", "a.b", "e30.e30", "e30.e30.c2ln.c2ln", "e30.%%%.c2ln", "e30.e30=.c2ln"] {
            assert_eq!(seconds(token), None, "{token}");
        }
    }
}
