//! Whoever has the portal's session in this browser.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use mykube_relay_accounts::{
    portal_session::{PortalSession, csrf_token, verify_csrf_token},
    secret::Secret,
};
use mykube_relay_store::Account;
use url::form_urlencoded::byte_serialize;

use super::see_other::see_other;
use crate::{auth::browser_session, cookies, failure::Failure, shared::Shared};

/// Somebody who is signed in in this browser, by the cookie `__Host-mykube`.
pub(crate) struct Visitor {
    cookie: Secret,
    /// The session, which is live: its use is noted.
    pub(crate) session: PortalSession,
    /// Whose it is.
    pub(crate) account: Account,
}

impl Visitor {
    /// The visitor of this request, if there is one.
    pub(crate) async fn find(portal: &Shared, headers: &HeaderMap) -> Result<Option<Self>, Failure> {
        // Two cookies of this name are none: which is whose, nobody knows.
        let Some(shown) = cookies::read(headers, cookies::OWN).ok().flatten() else { return Ok(None) };
        let Some(cookie) = Secret::parse(shown) else { return Ok(None) };
        let mut transaction = portal.store.begin().await?;
        let Some(session) = browser_session(portal, &mut transaction, shown).await? else { return Ok(None) };
        let Some(account) = transaction.account(session.account).await? else { return Ok(None) };
        transaction.commit().await?;
        Ok(Some(Self { cookie, session, account }))
    }

    /// What forms of a page that is made for this visitor have in their hidden field `csrf`.
    pub(crate) fn csrf(&self, portal: &Shared) -> String {
        csrf_token(&self.cookie, &portal.csrf, portal.now())
    }

    /// Whether a form is of a page that was made for this visitor.
    pub(super) fn has_csrf(&self, portal: &Shared, shown: &str) -> bool {
        verify_csrf_token(shown, &self.cookie, &portal.csrf)
    }
}

/// Whoever is not signed in is sent to sign in and comes back; where something was sent, is told so.
impl FromRequestParts<Arc<Shared>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, portal: &Arc<Shared>) -> Result<Self, Response> {
        match Self::find(portal, &parts.headers).await {
            Ok(Some(visitor)) => Ok(visitor),
            Ok(None) if [Method::GET, Method::HEAD].contains(&parts.method) => {
                let here = parts.uri.path_and_query().map_or(parts.uri.path(), |here| here.as_str());
                let back: String = byte_serialize(here.as_bytes()).collect();
                Err(see_other(portal, format_args!("/portal/sign-in?redirect={back}")))
            }
            Ok(None) => {
                let text = "Your sign-in in this browser has ended. Sign in, then do it again.";
                Err(Failure::page(StatusCode::UNAUTHORIZED, text).into_response())
            }
            Err(failure) => Err(failure.into_response()),
        }
    }
}

/// For pages that everybody sees: whoever it is, if it is anybody.
impl OptionalFromRequestParts<Arc<Shared>> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, portal: &Arc<Shared>) -> Result<Option<Self>, Failure> {
        Self::find(portal, &parts.headers).await
    }
}
