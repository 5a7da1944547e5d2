//! The control channel of agents: who may open one. Who has one is `state`, and what is said on it `channel`.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mykube_protocol::{control::TOKEN_REFUSED, http::REFUSAL};
use mykube_relay_accounts::token::{Kind, Token};
use tracing::debug;

use crate::{arrival::Arrival, failure::Failure, shared::Shared, socket::Serve, v1};

mod channel;
pub(crate) mod state;

use channel::Admitted;
use state::Greeting;

/// Whether the agent whose token this shows may open a channel, and what serves it then.
pub(crate) async fn accept(portal: &Arc<Shared>, headers: &HeaderMap, arrival: Arrival) -> Result<Serve, Refused> {
    let address = arrival.address;
    // Only pages name an origin, and no page is an agent.
    if headers.contains_key(header::ORIGIN) {
        return Err(Failure::json(StatusCode::FORBIDDEN, "this origin is not allowed").into());
    }
    let now = portal.now();
    let shown = v1::bearer(headers).and_then(Token::parse).filter(|token| token.kind() == Kind::Agent);
    let found = match &shown {
        Some(token) => portal.tokens.find(&portal.store, token).await.map_err(Failure::from)?,
        None => None,
    };
    let found = found.filter(|(_, row)| row.judge(Kind::Agent, now).is_ok());
    let (Some(token), Some((agent, row))) = (shown, found) else {
        // What others try from the same address keeps no good one out.
        portal.limits.may_try_token(address, now).map_err(Failure::too_many)?;
        portal.limits.tried_token(address, now);
        debug!(%address, "a channel was refused: its token is none");
        return Err(Refused::Token);
    };
    let greeting = Greeting::begin(&portal.control, agent.id).ok_or_else(|| {
        let text = "too many channels of this agent have not said hello: try again in a moment";
        Failure::json(StatusCode::TOO_MANY_REQUESTS, text).retry_after(1)
    })?;
    match portal.tokens.is_of(&token, &row).await {
        Ok(true) => {}
        Ok(false) => return Err(Refused::Token),
        Err(_) => {
            let text = "too many agents come back at once: try again in a moment";
            return Err(Failure::json(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(5).into());
        }
    }
    if let Some(anew) = portal.tokens.kept_anew(&token, &row, now) {
        let mut transaction = portal.store.begin().await.map_err(Failure::from)?;
        transaction.rehash_agent_token(&anew).await.map_err(Failure::from)?;
        transaction.commit().await.map_err(Failure::from)?;
    }
    let (portal, admitted) = (portal.clone(), Admitted { agent, token: row.generation, address });
    Ok(Box::new(move |stream| Box::pin(channel::serve(portal, admitted, greeting, stream))))
}

/// Why no channel is opened.
pub(crate) enum Refused {
    /// The token is not known, or opens nothing any more: which of them, only its owner is told.
    Token,
    /// Anything else.
    Other(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Other(failure) => failure.into_response(),
            Self::Token => {
                let text = "this is no token of an agent that opens a channel here: it is mistyped, was revoked or replaced, \
                    or has expired. It is shown as `Authorization: Bearer rla_...`";
                let mut answer = Failure::json(StatusCode::UNAUTHORIZED, text).into_response();
                answer.headers_mut().insert(REFUSAL, HeaderValue::from_static(TOKEN_REFUSED));
                answer
            }
        }
    }
}
