//! `/portal/sign-in`: the ways in that this relay has. Where a sign-in leads stands in the query, and goes along with each way.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{RawQuery, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{
    email::Email, identity::Person, provider_state::Goal, return_path::ReturnPath, sign_in::Method,
};
use serde::Deserialize;
use tracing::info;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{
    form::OwnForm,
    page::{Frame, Page},
    see_other::see_other,
    visitor::Visitor,
};
use crate::{
    arrival::Arrival,
    auth::{browser, dev::is_secret, goal},
    failure::Failure,
    shared::Shared,
};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    frame: Frame,
    visitor: Option<&'a Visitor>,
    is_signed_out: bool,
    /// A program on the person's own computer waits for it.
    is_for_program: bool,
    /// What each way hands on.
    query: String,
    /// Where whoever is signed in already goes on.
    next: String,
    providers: Vec<&'a str>,
    has_mail: bool,
    has_dev: bool,
    dev: DevForm<'a>,
}

/// What the form of dev mode shows.
#[derive(Default)]
struct DevForm<'a> {
    email: &'a str,
    error: Option<Wrong>,
}

/// What of it is wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Email,
    Secret,
}

impl DevForm<'_> {
    fn has(&self, wrong: Wrong) -> bool {
        self.error == Some(wrong)
    }
}

impl<'a> SignIn<'a> {
    fn new(portal: &'a Shared, visitor: Option<&'a Visitor>, goal: &Goal, dev: DevForm<'a>) -> Self {
        Self {
            frame: Frame::new(portal, visitor),
            visitor,
            is_signed_out: false,
            is_for_program: matches!(goal, Goal::Program { .. }),
            query: goal::query(goal),
            next: goal::page(goal),
            providers: portal.settings.providers.iter().map(|party| party.provider().name.as_str()).collect(),
            has_mail: portal.mailer.is_some(),
            has_dev: portal.settings.dev.is_some(),
            dev,
        }
    }
}

/// Where a sign-in on this page leads. What stands at the root is for published clients.
pub(super) fn read_goal(portal: &Shared, query: &str) -> Result<Goal, Failure> {
    let goal = goal::read(portal, query)?;
    let is_root = goal == Goal::Page(ReturnPath::default());
    Ok(if is_root { Goal::Page(ReturnPath::parse("/portal/")) } else { goal })
}

/// `GET /portal/sign-in`
pub(super) async fn ask(
    State(portal): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    visitor: Option<Visitor>,
) -> Result<Page, Failure> {
    let query = query.unwrap_or_default();
    let goal = read_goal(&portal, &query)?;
    let is_signed_out =
        visitor.is_none() && form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "signed_out");
    let page = SignIn::new(&portal, visitor.as_ref(), &goal, DevForm::default());
    Page::new(&SignIn { is_signed_out, ..page })
}

#[derive(Deserialize)]
pub(super) struct Dev {
    email: String,
    secret: Zeroizing<String>,
}

/// `POST /portal/sign-in/dev`: whoever knows the dev secret is whom they say.
pub(super) async fn dev(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    OwnForm(Dev { email, secret }): OwnForm<Dev>,
) -> Result<Response, Failure> {
    let Some(dev) = &portal.settings.dev else { return Err(Failure::not_found()) };
    let goal = read_goal(&portal, &query.unwrap_or_default())?;
    let wrong = |wrong| {
        let form = DevForm { email: &email, error: Some(wrong) };
        let page = Page::new(&SignIn::new(&portal, None, &goal, form))?;
        Ok(page.status(StatusCode::UNAUTHORIZED).into_response())
    };
    if !is_secret(&portal, dev, Some(&secret)) {
        info!(%address, "a wrong dev secret");
        return wrong(Wrong::Secret);
    }
    let Ok(named) = email.parse::<Email>() else { return wrong(Wrong::Email) };
    let person = Person::of_dev(named);
    let by = "dev mode, a page";
    let (_, cookies) = browser::sign_in(&portal, &headers, &person, address, Method::Dev, by).await?;
    Ok((cookies, see_other(&portal, goal::page(&goal))).into_response())
}
