//! Who one is, and the way out.

use std::{net::IpAddr, sync::Arc};

use askama::Template;
use axum::{
    Extension,
    extract::State,
    response::{AppendHeaders, IntoResponse, Response},
};
use http::{HeaderMap, header::SET_COOKIE};
use mykube_relay_accounts::sign_in::Method;
use mykube_relay_store::Account;
use serde::Deserialize;

use super::{
    form::Submitted,
    page::{Frame, Page},
    see_other::see_other,
    visitor::Visitor,
};
use crate::{arrival::Arrival, auth::end_browsers, cookies, failure::Failure, shared::Shared, when};

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    frame: Frame,
    account: &'a Account,
    method: &'static str,
    since: String,
}

/// `GET /` and `GET /portal`: where a sign-in ends that leads nowhere else.
pub(super) async fn lead(State(portal): State<Arc<Shared>>) -> Response {
    see_other(&portal, "/portal/")
}

/// `GET /portal/`: who one is.
pub(super) async fn home(State(portal): State<Arc<Shared>>, visitor: Visitor) -> Result<Page, Failure> {
    Page::new(&Home {
        frame: Frame::new(&portal, Some(&visitor)),
        account: &visitor.account,
        method: method(visitor.session.method, true),
        since: when::for_people(visitor.session.created_at),
    })
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// `POST /portal/sign-out`: this browser's sign-in ends.
pub(super) async fn sign_out(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    Submitted { .. }: Submitted<Nothing>,
) -> Result<Response, Failure> {
    leave(&portal, &headers, address).await
}

/// Ends this browser's sign-in, and has it forget its cookies.
pub(super) async fn leave(portal: &Shared, headers: &HeaderMap, address: IpAddr) -> Result<Response, Failure> {
    end_browsers(portal, headers, address).await?;
    let cleared = cookies::set("", "", portal.origins.has_foreign()).map(|cookie| (SET_COOKIE, cookie));
    Ok((AppendHeaders(cleared), see_other(portal, "/portal/sign-in?signed_out=1")).into_response())
}

/// How somebody has signed in, in words.
pub(super) const fn method(method: Method, is_browser: bool) -> &'static str {
    match method {
        Method::Browser => "in a browser",
        Method::Program => "a program, by a click in a browser",
        Method::DeviceCode => "a program, by a code",
        Method::IdToken => "by a provider's token",
        Method::Dev if is_browser => "in a browser, by dev mode",
        Method::Dev => "a program, by dev mode",
    }
}
