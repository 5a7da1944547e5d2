//! What forms send, and where they come from.

use std::sync::Arc;

use axum::{
    Form,
    body::Body,
    extract::{FromRequest, FromRequestParts as _, Request},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use super::visitor::Visitor;
use crate::{failure::Failure, shared::Shared};

/// What the page of somebody who is signed in sends.
pub(crate) struct Submitted<T> {
    /// Who.
    pub(crate) visitor: Visitor,
    /// The form's fields.
    pub(crate) fields: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Submitted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, portal: &Arc<Shared>) -> Result<Self, Response> {
        check_page(portal, request.headers()).map_err(Failure::into_response)?;
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, portal).await?;
        let body = Bytes::from_request(Request::new(body), portal).await.map_err(|_| unreadable().into_response())?;
        let csrf = form_urlencoded::parse(&body).find(|(name, _)| name == "csrf").map(|(_, value)| value);
        if !csrf.is_some_and(|csrf| visitor.has_csrf(portal, &csrf)) {
            let text = "This form is of an earlier sign-in. Open its page again, then repeat what you did.";
            return Err(Failure::page(StatusCode::FORBIDDEN, text).into_response());
        }
        let fields = read(Request::from_parts(parts, Body::from(body))).await.map_err(Failure::into_response)?;
        Ok(Self { visitor, fields })
    }
}

/// What a page of this relay sends for somebody who need not be signed in.
pub(crate) struct OwnForm<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for OwnForm<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, portal: &Arc<Shared>) -> Result<Self, Failure> {
        check_page(portal, request.headers())?;
        read(request).await.map(Self)
    }
}

/// Whether it comes of a page of this relay. Every browser names the origin of a form (Fetch standard, section 3.2), and all
/// of today how near it is (`Sec-Fetch-Site`, Fetch Metadata section 2.4).
fn check_page(portal: &Shared, headers: &HeaderMap) -> Result<(), Failure> {
    let near = headers.get_all("sec-fetch-site").iter().all(|site| site == "same-origin");
    if near && portal.origins.is_own(headers) {
        return Ok(());
    }
    Err(Failure::page(StatusCode::FORBIDDEN, "This form is of another site's page. Nothing was done."))
}

async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Failure> {
    Form::from_request(request, &()).await.map(|Form(fields)| fields).map_err(|_| unreadable())
}

fn unreadable() -> Failure {
    Failure::page(StatusCode::BAD_REQUEST, "This form is not as its page sends it. Open the page again.")
}
