//! The click that gives a program on the person's own machine its sign-in: `GET /portal/confirm` asks, and its form gives the
//! program a code for `/auth/exchange`.
//!
//! Whatever sent a browser here has its port alone: the code goes to this machine, and one that came of a challenge is worth
//! something to whoever has the verifier alone.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::Response,
};
use http::StatusCode;
use mykube_protocol::account::CLIENT;
use mykube_relay_accounts::{device_code::Confirmation, login_code::LoginCode, pkce::Challenge, provider_state::Goal};
use mykube_relay_store::{Account, Actor};
use serde::Deserialize;
use tracing::info;
use url::Url;

use super::{
    confirm::Confirm,
    form::Submitted,
    page::{Frame, Page},
    visitor::Visitor,
};
use crate::{
    arrival::Arrival,
    auth::{goal, redirect::redirect},
    failure::Failure,
    shared::Shared,
};

/// What the form sends, beside what shows that it is the page's own.
#[derive(Deserialize)]
pub(super) struct Fields {
    cli_port: String,
    state: Option<String>,
    code_challenge: Option<String>,
}

/// A program that listens on a port of the person's machine.
struct Program {
    port: u16,
    state: Option<String>,
    challenge: Option<Challenge>,
}

/// `GET /portal/confirm`.
pub(super) async fn ask(
    State(portal): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
    visitor: Visitor,
) -> Result<Page, Failure> {
    let goal = goal::read(&portal, &query.unwrap_or_default())?;
    let query = goal::query(&goal);
    let program = Program::of(goal)?;
    let port = Some(("cli_port", program.port.to_string()));
    let state = program.state.clone().map(|state| ("state", state));
    let challenge = program.challenge.map(|challenge| ("code_challenge", challenge.encode()));
    let hidden: Vec<_> = port.into_iter().chain(state).chain(challenge).collect();
    let page = Page::new(&Confirm {
        frame: Frame::new(&portal, Some(&visitor)),
        program: program.name(),
        account: &visitor.account.identity,
        action: goal::CONFIRM,
        hidden: &hidden,
        other_account: &format!("/portal/sign-in?{query}"),
    })?;
    Ok(page.form_leads_to(program.origin()))
}

/// `POST /portal/confirm`: the person has clicked.
pub(super) async fn click(
    State(portal): State<Arc<Shared>>,
    Extension(Arrival { address, .. }): Extension<Arrival>,
    Submitted { visitor, fields }: Submitted<Fields>,
) -> Result<Response, Failure> {
    let Fields { cli_port, state, code_challenge } = &fields;
    let given = (Some(cli_port.as_str()), None, state.as_deref(), code_challenge.as_deref(), None);
    let program = Program::of(goal::of(&portal, given)?)?;
    let Visitor { session, account, .. } = visitor;
    let now = portal.now();
    let by = Confirmation { account: account.id, sid: session.sid, auth_time: session.created_at, from: address };
    let (row, code) = LoginCode::new(by, program.challenge, &portal.codes, now, &mut rand::rng());
    let mut transaction = portal.store.begin().await?;
    transaction.begin_login_code(&row).await?;
    let actor = Actor { account: account.id, sign_in: session.sid, address };
    transaction.record(account.organisation, actor, ("login_code.confirm", program.name()), now).await?;
    transaction.commit().await?;
    info!(account = %account.id, %address, "a program's sign-in was confirmed");
    redirect(StatusCode::SEE_OTHER, &program.callback(code.expose(), &account)?)
}

impl Program {
    fn of(goal: Goal) -> Result<Self, Failure> {
        match goal {
            Goal::Program { port, state, challenge } => Ok(Self { port, state, challenge }),
            Goal::Page(_) => Err(Failure::text(StatusCode::BAD_REQUEST, "cli_port is missing")),
        }
    }

    /// What people are told that signs in.
    fn name(&self) -> &'static str {
        if self.challenge.is_some() { CLIENT } else { "a program" }
    }

    /// Ours listens on an address, as names may be resolved to another machine (RFC 8252, section 8.3); published ones are
    /// sent to the name.
    fn origin(&self) -> String {
        let host = if self.challenge.is_some() { "127.0.0.1" } else { "localhost" };
        format!("http://{host}:{}", self.port)
    }

    /// Where it waits for the code.
    fn callback(&self, code: &str, account: &Account) -> Result<String, Failure> {
        let url = Url::parse(&format!("{}/callback", self.origin()));
        let mut url = url.map_err(|_| Failure::text(StatusCode::BAD_REQUEST, "cli_port is no port"))?;
        let mut query = url.query_pairs_mut();
        query.append_pair("code", code);
        query.extend_pairs(self.state.iter().map(|state| ("state", state)));
        query.append_pair("user_id", &account.id.to_string()).append_pair("email", &account.identity.email);
        drop(query);
        Ok(url.into())
    }
}
