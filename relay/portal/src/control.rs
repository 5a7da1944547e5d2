//! The control channel of agents: who may open one (`accept`), who has one, and what ends it. One channel is `channel`.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use mykube_protocol::{
    agent::Presence as Shown,
    control::{PATH, TOKEN_REFUSED},
    http::REFUSAL,
};
use mykube_relay_accounts::{
    id::AgentId,
    token::{Kind, Token, TokenRow},
};
use mykube_relay_bus::{Bus, Presence};
use mykube_relay_store::Agent;
use tokio::sync::oneshot;
use tracing::debug;

use crate::{arrival::Arrival, failure::Failure, shared::Shared, socket::Serve, v1};

mod channel;

/// Channels of one agent that have not said hello: who holds its token can open no more.
const GREETING_MAX: u8 = 4;

/// Whether this path is a WebSocket's.
#[must_use]
pub fn is_socket(path: &str) -> bool {
    path == PATH
}

/// Why a channel ends that has done nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A newer one of the agent took over.
    Replaced,
    /// Its token was revoked, or has ended; or the agent was removed.
    Token,
    /// The relay stops.
    Restart,
}

type Handle = oneshot::Sender<End>;

/// The agents that have a channel, or are about to.
pub(crate) struct Control {
    bus: Mutex<Bus<Handle>>,
    greeting: Mutex<HashMap<AgentId, u8>>,
}

/// One channel that has not said hello.
struct Greeting {
    portal: Arc<Shared>,
    agent: AgentId,
}

/// Who has opened a channel, by which token, and from where.
struct Admitted {
    agent: Agent,
    /// The token's number.
    token: u32,
    address: IpAddr,
}

impl Control {
    pub(crate) fn new(now: Instant) -> Self {
        Self { bus: Mutex::new(Bus::new(now)), greeting: Mutex::default() }
    }

    fn bus(&self) -> MutexGuard<'_, Bus<Handle>> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn greeting(&self) -> MutexGuard<'_, HashMap<AgentId, u8>> {
        self.greeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent was made: until it comes, it is away.
    pub(crate) fn add(&self, now: Instant, id: AgentId) {
        self.bus().add(now, id);
    }

    /// What is known of an agent, and for how long it has been so.
    pub(crate) fn presence(&self, now: Instant, id: AgentId) -> (Shown, Duration) {
        let (shown, since) = match self.bus().presence(id) {
            Presence::Live(since) => (Shown::Live, since),
            Presence::Away(since) => (Shown::Away, since),
            Presence::Unknown(since) => (Shown::Unknown, since),
        };
        (shown, now.saturating_duration_since(since))
    }

    /// A token's ends have changed: the channel that it has opened ends with it, or at once.
    pub(crate) fn token_changed(&self, portal: &Shared, id: AgentId, row: &TokenRow) {
        let (now, instant) = (portal.now(), portal.instant());
        let Some(ends_at) = row.ends_at() else { return };
        if ends_at <= now {
            let ended = self.bus().revoke(instant, id, row.generation);
            end(ended, End::Token);
        } else {
            self.bus().set_end(id, row.generation, instant + ends_at.since(now));
        }
    }

    /// An agent was removed.
    pub(crate) fn forget(&self, id: AgentId) {
        let ended = self.bus().forget(id);
        end(ended, End::Token);
    }

    /// Ends the channels whose tokens have.
    pub(crate) fn tick(&self, now: Instant) {
        let ended = self.bus().handle_tick(now);
        end(ended, End::Token);
    }

    /// The relay stops.
    pub(crate) fn drain(&self, now: Instant) {
        let all = self.bus().drain(now);
        end(all, End::Restart);
    }

    /// How many agents are connected.
    #[cfg(test)]
    pub(crate) fn live(&self) -> usize {
        self.bus().live()
    }
}

/// Tells channels that they are over. Who is gone already needs not hear it.
fn end(handles: impl IntoIterator<Item = Handle>, why: End) {
    for handle in handles {
        let _ = handle.send(why);
    }
}

impl Greeting {
    fn begin(portal: &Arc<Shared>, agent: AgentId) -> Option<Self> {
        let mut greeting = portal.control.greeting();
        let count = greeting.entry(agent).or_default();
        if *count >= GREETING_MAX {
            return None;
        }
        *count += 1;
        Some(Self { portal: portal.clone(), agent })
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        let mut greeting = self.portal.control.greeting();
        if let Some(count) = greeting.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                greeting.remove(&self.agent);
            }
        }
    }
}

/// Whether the agent whose token this shows may open a channel, and what serves it then.
pub(crate) async fn accept(portal: &Arc<Shared>, headers: &HeaderMap, arrival: Arrival) -> Result<Serve, Refused> {
    let address = arrival.address;
    // Only pages name an origin, and no page is an agent.
    if headers.contains_key(header::ORIGIN) {
        return Err(Failure::json(StatusCode::FORBIDDEN, "this origin is not allowed").into());
    }
    let now = portal.now();
    portal.limits.may_try_token(address, now).map_err(Failure::too_many)?;
    let shown = v1::bearer(headers).and_then(Token::parse).filter(|token| token.kind() == Kind::Agent);
    let found = match &shown {
        Some(token) => portal.tokens.find(&portal.store, token).await.map_err(Failure::from)?,
        None => None,
    };
    let found = found.filter(|(_, row)| row.judge(Kind::Agent, now).is_ok());
    let (Some(token), Some((agent, row))) = (shown, found) else {
        portal.limits.tried_token(address, now);
        debug!(%address, "a channel was refused: its token is none");
        return Err(Refused::Token);
    };
    let greeting = Greeting::begin(portal, agent.id).ok_or_else(|| {
        let text = "too many channels of this agent have not said hello: try again in a moment";
        Failure::json(StatusCode::TOO_MANY_REQUESTS, text).retry_after(1)
    })?;
    let anew = portal.tokens.kept_anew(&token, &row, now);
    match portal.tokens.is_of(token, &row).await {
        Ok(true) => {}
        Ok(false) => return Err(Refused::Token),
        Err(_) => {
            let text = "too many agents come back at once: try again in a moment";
            return Err(Failure::json(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(5).into());
        }
    }
    if let Some(anew) = anew {
        let mut transaction = portal.store.begin().await.map_err(Failure::from)?;
        transaction.change_agent_token(&anew).await.map_err(Failure::from)?;
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

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> axum::response::Response {
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
