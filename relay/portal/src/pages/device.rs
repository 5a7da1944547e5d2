//! `/device`: somebody types the code that a program shows, sees who asks, and says yes or no.
//!
//! A code is typed, and no link fills it in: who sends somebody a link would sign in as them with one click.

use std::{net::IpAddr, sync::Arc};

use askama::Template;
use axum::{Extension, extract::State};
use http::StatusCode;
use mykube_relay_accounts::{
    device_code::{Client, Confirmation, Credential},
    limits::Call,
};
use mykube_relay_store::Actor;
use serde::Deserialize;
use tracing::info;

use super::{
    form::Submitted,
    page::{Frame, Page},
    visitor::Visitor,
};
use crate::{arrival::Arrival, auth::find_typed, failure::Failure, shared::Shared, when};

#[derive(Template)]
#[template(path = "device.html")]
struct Ask<'a> {
    frame: Frame,
    visitor: &'a Visitor,
    is_wrong: bool,
}

#[derive(Template)]
#[template(path = "device_confirm.html")]
struct Confirm<'a> {
    frame: Frame,
    visitor: &'a Visitor,
    /// As it was typed: the next form brings it back.
    code: &'a str,
    /// As it calls itself, or empty.
    program: &'a str,
    is_ours: bool,
    asked_from: IpAddr,
    /// Where this browser asks from.
    here: IpAddr,
    at: String,
}

#[derive(Template)]
#[template(path = "device_done.html")]
struct Done<'a> {
    frame: Frame,
    visitor: &'a Visitor,
    is_confirmed: bool,
}

/// `GET /device`
pub(super) async fn ask(State(portal): State<Arc<Shared>>, visitor: Visitor) -> Result<Page, Failure> {
    Page::new(&Ask { frame: Frame::new(&portal, Some(&visitor)), visitor: &visitor, is_wrong: false })
}

#[derive(Deserialize)]
pub(super) struct Typed {
    code: String,
}

/// `POST /device`: shows who asks.
pub(super) async fn typed(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Submitted { visitor, fields: Typed { code } }: Submitted<Typed>,
) -> Result<Page, Failure> {
    let account = visitor.account.id;
    portal.limits.admit_account(Call::DeviceVerify, account, portal.now()).map_err(Failure::too_many)?;
    let mut transaction = portal.store.begin().await?;
    let found = find_typed(&portal, &mut transaction, &code, address, account).await?;
    drop(transaction);
    let Some(row) = found.filter(|row| row.is_pending(portal.now())) else { return wrong(&portal, &visitor) };
    Page::new(&Confirm {
        frame: Frame::new(&portal, Some(&visitor)),
        visitor: &visitor,
        code: &code,
        program: &row.program,
        is_ours: matches!(row.client, Client::Mykube(_)),
        asked_from: row.asked_from.to_canonical(),
        here: address.to_canonical(),
        at: when::for_people(row.created_at),
    })
}

#[derive(Deserialize)]
pub(super) struct Answer {
    code: String,
    answer: Said,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Said {
    Confirm,
    Refuse,
}

/// `POST /device/answer`: what the person said. A code is answered once, by one account.
pub(super) async fn answered(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Submitted { visitor, fields: Answer { code, answer } }: Submitted<Answer>,
) -> Result<Page, Failure> {
    let account = &visitor.account;
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    let Some(before) = find_typed(&portal, &mut transaction, &code, address, account.id).await? else {
        return wrong(&portal, &visitor);
    };
    let mut row = before.clone();
    let session = &visitor.session;
    let judged = match answer {
        Said::Confirm => {
            let by =
                Confirmation { account: account.id, sid: session.sid, auth_time: session.created_at, from: address };
            row.handle_confirm(by, Credential::Portal, now)
        }
        Said::Refuse => row.handle_refuse(now),
    };
    if judged.is_err() {
        return wrong(&portal, &visitor);
    }
    transaction.change_device_code(&before, &row).await?;
    let is_confirmed = answer == Said::Confirm;
    let action = if is_confirmed { "device_code.confirm" } else { "device_code.refuse" };
    let actor = Actor { account: account.id, sign_in: session.sid, address };
    transaction.record(account.organisation, actor, (action, &row.program), now).await?;
    transaction.commit().await?;
    info!(account = %account.id, %address, is_confirmed, "a device code was answered");
    Page::new(&Done { frame: Frame::new(&portal, Some(&visitor)), visitor: &visitor, is_confirmed })
}

/// The form again, saying that the code is none: whether it is over, confirmed or unknown is nobody's business.
fn wrong(portal: &Shared, visitor: &Visitor) -> Result<Page, Failure> {
    let page = Page::new(&Ask { frame: Frame::new(portal, Some(visitor)), visitor, is_wrong: true })?;
    Ok(page.status(StatusCode::BAD_REQUEST))
}
