//! Signing in by a code that is sent to an address: a form for the address, which stands on the sign-in page, and one for the
//! code. And what an invitation's link shows.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::provider_state::Goal;

use super::{
    form::OwnForm,
    page::{Frame, Page},
    see_other::see_other,
    sign_in::read_goal,
};
use crate::{
    arrival::Arrival,
    auth::{
        goal,
        otp::{self, Asked, OtpError, Shown},
    },
    failure::{Failure, sentence},
    shared::Shared,
};

#[derive(Template)]
#[template(path = "email_code.html")]
struct EnterCode<'a> {
    frame: Frame,
    /// Where the sign-in leads.
    query: String,
    email: &'a str,
    /// What is wrong, as a sentence.
    problem: Option<String>,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct Invited {
    frame: Frame,
}

/// `GET /portal/invitation`: what an invitation's link shows, which is the same for everybody.
pub(super) async fn invitation(State(portal): State<Arc<Shared>>) -> Result<Page, Failure> {
    Page::new(&Invited { frame: Frame::new(&portal, None) })
}

/// `POST /portal/sign-in/email`: has a code sent, and asks for it.
pub(super) async fn ask(
    State(portal): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    OwnForm(Asked { email }): OwnForm<Asked>,
) -> Result<Page, Failure> {
    let goal = read_goal(&portal, &query.unwrap_or_default())?;
    match otp::request(&portal, &email).await {
        Ok(()) => enter(&portal, &goal, &email, None),
        // One may have been sent a moment ago.
        Err(error @ OtpError::TooMany(_)) => enter(&portal, &goal, &email, Some(error)),
        Err(error) => Err(refused(error)),
    }
}

/// `POST /portal/sign-in/code`: whoever shows the code is signed in.
pub(super) async fn show(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    OwnForm(Shown { email, code }): OwnForm<Shown>,
) -> Result<Response, Failure> {
    let goal = read_goal(&portal, &query.unwrap_or_default())?;
    match otp::verify(&portal, &headers, &email, &code, address).await {
        Ok((_, cookies)) => Ok((cookies, see_other(&portal, goal::page(&goal))).into_response()),
        Err(error @ (OtpError::Code(_) | OtpError::NoCode)) => {
            Ok(enter(&portal, &goal, &email, Some(error))?.into_response())
        }
        Err(error) => Err(refused(error)),
    }
}

fn enter(portal: &Shared, goal: &Goal, email: &str, error: Option<OtpError>) -> Result<Page, Failure> {
    let status = error.as_ref().map_or(StatusCode::OK, OtpError::status);
    let problem = error.map(|error| sentence(&error.to_string()));
    let page = EnterCode { frame: Frame::new(portal, None), query: goal::query(goal), email, problem };
    Ok(Page::new(&page)?.status(status))
}

fn refused(error: OtpError) -> Failure {
    match error {
        OtpError::Store(error) => error.into(),
        error => Failure::page(error.status(), error.to_string()),
    }
}
