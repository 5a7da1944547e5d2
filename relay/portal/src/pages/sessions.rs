//! Where one is signed in, and ending it.

use std::{net::IpAddr, sync::Arc};

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::{
    id::SignInId,
    jwt::{Class, Policy},
    refresh,
    sign_in::Method,
    time::UnixTime,
};
use mykube_relay_store::Session;
use serde::Deserialize;

use super::{
    form::Submitted,
    home,
    page::{Frame, Page},
    see_other::see_other,
    visitor::Visitor,
};
use crate::{arrival::Arrival, auth, failure::Failure, shared::Shared, when};

/// Sign-ins that a page shows, and that are ended in one go: others wait for the database meanwhile.
const AT_ONCE: u32 = 200;

#[derive(Template)]
#[template(path = "sessions.html")]
struct List {
    frame: Frame,
    all: Vec<Shown>,
    most: u32,
    is_cut: bool,
}

/// One sign-in, in words.
struct Shown {
    id: String,
    is_this: bool,
    program: String,
    how: &'static str,
    since: String,
    address: String,
    used: Option<String>,
}

/// `GET /portal/sessions`
pub(super) async fn list(State(portal): State<Arc<Shared>>, visitor: Visitor) -> Result<Page, Failure> {
    let mut transaction = portal.store.begin().await?;
    let all = transaction.sign_ins_of(visitor.account.id, AT_ONCE).await?;
    drop(transaction);
    let is_cut = all.len() >= AT_ONCE as usize;
    let now = portal.now();
    let is_live = |session: &Session| {
        let is_this = session.sign_in.id == visitor.session.sid;
        is_this || now < ends_at(session) && !portal.denied().denies_sign_in(session.sign_in.id)
    };
    let all = all.into_iter().filter(is_live).map(|session| Shown::new(session, visitor.session.sid)).collect();
    Page::new(&List { frame: Frame::new(&portal, Some(&visitor)), all, most: AT_ONCE, is_cut })
}

/// When nothing that came of it is good any more.
fn ends_at(session: &Session) -> UnixTime {
    let begun = session.sign_in.signed_in_at;
    match session.renewed_at {
        Some(renewed_at) => (renewed_at + refresh::IDLE).min(begun + refresh::LIFE),
        None if session.sign_in.method == Method::IdToken => begun + Policy::DEVICES_SESSION,
        None => begun + Class::Daemon.life().max(Class::Browser.life()),
    }
}

impl Shown {
    fn new(session: Session, this: SignInId) -> Self {
        let Session { sign_in, address, program, browser_at, renewed_at } = session;
        let is_this = sign_in.id == this;
        Self {
            id: sign_in.id.to_string(),
            is_this,
            program: if program.is_empty() { "A program that does not say its name".to_owned() } else { program },
            how: home::method(sign_in.method, browser_at.is_some()),
            since: when::for_people(sign_in.signed_in_at),
            address,
            used: if is_this { Some("now".to_owned()) } else { browser_at.or(renewed_at).map(when::for_people) },
        }
    }
}

#[derive(Deserialize)]
pub(super) struct One {
    sid: String,
}

/// `POST /portal/sessions/end`: ends one of one's own. This one is signed out of.
pub(super) async fn end_one(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    headers: HeaderMap,
    Submitted { visitor, fields: One { sid } }: Submitted<One>,
) -> Result<Response, Failure> {
    let unknown =
        || Failure::page(StatusCode::NOT_FOUND, "There is no such sign-in of yours: it may have ended before.");
    let sid: SignInId = sid.parse().map_err(|_| unknown())?;
    if sid == visitor.session.sid {
        return home::leave(&portal, &headers, address).await;
    }
    let mut transaction = portal.store.begin().await?;
    let is_own = transaction.sign_in(sid).await?.is_some_and(|it| it.account == visitor.account.id);
    if !is_own {
        return Err(unknown());
    }
    auth::end(&portal, &mut transaction, sid, address).await?;
    transaction.commit().await?;
    Ok(see_other(&portal, "/portal/sessions"))
}

#[derive(Deserialize)]
pub(super) struct Others {}

/// `POST /portal/sessions/end-others`: ends all but this one.
pub(super) async fn end_others(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Submitted { visitor, .. }: Submitted<Others>,
) -> Result<Response, Failure> {
    while end_some(&portal, &visitor, address).await? {}
    Ok(see_other(&portal, "/portal/sessions"))
}

/// Ends some of them. Says whether there may be more.
async fn end_some(portal: &Shared, visitor: &Visitor, address: IpAddr) -> Result<bool, Failure> {
    let mut transaction = portal.store.begin().await?;
    let all = transaction.sign_ins_of(visitor.account.id, AT_ONCE).await?;
    let others: Vec<_> = all.iter().map(|it| it.sign_in.id).filter(|id| *id != visitor.session.sid).collect();
    for id in &others {
        auth::end(portal, &mut transaction, *id, address).await?;
    }
    transaction.commit().await?;
    // With this one among them, a whole page is one more than was ended.
    Ok(!others.is_empty() && all.len() >= AT_ONCE as usize)
}
