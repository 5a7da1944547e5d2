//! Pages for people in browsers: plain HTML, made here, with no script at all.
//!
//! A page is an [`askama`] template that extends `layout.html` and has a [`Frame`](page::Frame) in its field `frame`; what is put into it is
//! escaped. A handler answers a [`Page`](page::Page), which has the headers of every page, or a [`Failure`], which [`Portal::answer`]
//! shows as a page under `/portal` and `/device`, and anywhere if it is [`Failure::page`].
//!
//! A handler takes a [`Visitor`](visitor::Visitor) where somebody must be signed in: whoever is not is sent to sign in, and comes back. What a
//! form sends is taken as [`Submitted`](form::Submitted): its visitor is signed in, and it comes of a page of this relay (`Origin`,
//! `Sec-Fetch-Site`) that was made for this browser's cookie (the hidden field `csrf`, which the template takes from
//! `frame.csrf()`). A form of somebody who is not signed in yet is an [`OwnForm`](form::OwnForm): there is nobody's session to misuse, so it
//! must come of a page of this relay and no more.
//!
//! [`Failure`]: crate::failure::Failure
//! [`Failure::page`]: crate::failure::Failure::page
//! [`Portal::answer`]: crate::portal::Portal::answer

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

use crate::{auth::goal, shared::Shared};

mod confirm;
mod device;
mod email;
mod form;
mod home;
mod page;
pub(crate) mod paths;
mod problem;
mod program;
mod see_other;
mod sessions;
mod sign_in;
mod visitor;

/// For the layout.
pub(crate) use page::STYLE;
pub(crate) use problem::show;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(home::lead))
        .route("/portal", get(home::lead))
        .route("/portal/", get(home::home))
        .route(goal::CONFIRM, get(program::ask).post(program::click))
        .route("/portal/sign-in", get(sign_in::ask))
        .route("/portal/sign-in/dev", post(sign_in::dev))
        .route("/portal/sign-in/email", post(email::ask))
        .route("/portal/sign-in/code", post(email::show))
        .route("/portal/invitation", get(email::invitation))
        .route("/portal/sign-out", post(home::sign_out))
        .route("/portal/sessions", get(sessions::list))
        .route("/portal/sessions/end", post(sessions::end_one))
        .route("/portal/sessions/end-others", post(sessions::end_others))
        .route("/device", get(device::ask).post(device::typed))
        .route("/device/answer", post(device::answered))
}
