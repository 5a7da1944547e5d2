//! `/v1/agents`: an organisation's agents and their tokens, for those who are in it. What changes them is for its owners, and
//! is in its audit log.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, State, rejection::JsonRejection},
    routing::{delete, get, post},
};
use http::{HeaderMap, StatusCode};
use mykube_protocol::agent::{AgentToken, Agents, ListedAgent, NewAgent, PAGE, Rotate};
use mykube_relay_accounts::{
    id::AgentId,
    limits::Call,
    name::Name,
    sign_in::Act,
    time::UnixTime,
    token::{Kind, Token, TokenRow},
};
use mykube_relay_store::{Account, Agent, Transaction};
use serde_json::{Value, json};
use tracing::info;

use crate::{
    arrival::Arrival,
    failure::Failure,
    shared::Shared,
    tokens::Busy,
    v1::{Allowed, allow},
    when,
};

/// Agents of one organisation: a company's clusters, with room. Each may hold one channel, so that this bounds those too.
const AGENTS_MAX: i64 = 1000;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/agents", get(list).post(make))
        .route("/v1/agents/{name}", delete(remove))
        .route("/v1/agents/{name}/token", post(rotate).delete(revoke))
}

/// `GET /v1/agents[?after=NAME]`: by name, a page.
async fn list(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Agents>, Failure> {
    let Allowed { transaction, account, .. } = allow(&portal, &headers, arrival, Act::Use).await?;
    drop(transaction);
    let query = query.unwrap_or_default();
    let after = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "after");
    let after = after.map(|(_, name)| name.into_owned()).unwrap_or_default();
    let mut agents = portal.store.organisation(account.organisation).agents(&after, PAGE + 1).await?;
    let more = agents.len() > PAGE as usize;
    agents.truncate(PAGE as usize);
    let (now, instant) = (portal.now(), portal.instant());
    let listed = |agent: Agent| {
        let (state, for_so_long) = portal.control.presence(instant, agent.id);
        let new_key = agent.relay_key.filter(|key| key.count > 1);
        ListedAgent {
            name: agent.name.to_string(),
            state,
            since: when::rfc3339(now - for_so_long),
            created_at: when::rfc3339(agent.created_at),
            relay_key: agent.relay_key.map(|key| key.id.to_string()),
            new_key_since: new_key.map(|key| when::rfc3339(key.since)),
        }
    };
    Ok(Json(Agents { agents: agents.into_iter().map(listed).collect(), more }))
}

/// `POST /v1/agents {name}`: an agent, and its first token.
async fn make(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    body: Result<Json<NewAgent>, JsonRejection>,
) -> Result<(StatusCode, Json<AgentToken>), Failure> {
    let Json(NewAgent { name }) = body.map_err(|wrong| Failure::json(wrong.status(), wrong.body_text()))?;
    let name = name.parse().map_err(|wrong| Failure::json(StatusCode::UNPROCESSABLE_ENTITY, format!("{wrong}")))?;
    let name: Name = name;
    // Asked before the slow hash is computed, and again where it is written.
    let Allowed { mut transaction, account, now, .. } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    if transaction.agent(account.organisation, &name).await?.is_some() {
        return Err(taken(&name));
    }
    drop(transaction);
    let id = AgentId::random(&mut rand::rng());
    let agent = Agent { organisation: account.organisation, name, id, created_at: now, generation: 1, relay_key: None };
    let (token, row) = new_token(&portal, &account, &agent, now).await?;
    let Allowed { mut transaction, actor, .. } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    if transaction.count_agents(agent.organisation).await? >= AGENTS_MAX {
        let text =
            format!("an organisation has at most {AGENTS_MAX} agents: remove some (`mykube agents remove NAME`)");
        return Err(Failure::json(StatusCode::CONFLICT, text));
    }
    if !transaction.add_agent(&agent).await? {
        return Err(taken(&agent.name));
    }
    transaction.add_agent_token(&row).await?;
    transaction.record(agent.organisation, actor, ("agent.add", agent.name.as_str()), now).await?;
    transaction.commit().await?;
    portal.control.add(portal.instant(), agent.id);
    info!(agent = %agent.id, name = %agent.name, organisation = %agent.organisation, "agent made");
    Ok((StatusCode::CREATED, shown(&token, &row)))
}

/// `POST /v1/agents/{name}/token [{strict}]`: another token, and an hour in which both work.
async fn rotate(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<(StatusCode, Json<AgentToken>), Failure> {
    let Rotate { strict, now: at_once } = match body.is_empty() {
        true => Rotate::default(),
        false => serde_json::from_slice(&body).map_err(|_| {
            Failure::json(StatusCode::BAD_REQUEST, "the body is nothing, or {\"strict\": true} or {\"now\": true}")
        })?,
    };
    let Allowed { mut transaction, account, now, .. } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    let agent = find(&mut transaction, &account, &name).await?;
    drop(transaction);
    let agent = Agent { generation: agent.generation.saturating_add(1), ..agent };
    let (token, row) = new_token(&portal, &account, &agent, now).await?;
    let Allowed { mut transaction, actor, .. } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    // It may have been removed meanwhile, or another token made: then this one is none.
    if find(&mut transaction, &account, &name).await?.id != agent.id {
        return Err(unknown(&name));
    }
    let mut changed = Vec::new();
    for mut before in transaction.agent_tokens(agent.organisation, &agent.name).await? {
        if before.ends_at().is_some_and(|end| end <= now) {
            transaction.forget_agent_token(&before).await?;
            continue;
        }
        before.handle_replaced(strict, now);
        if at_once {
            before.handle_revoke(now);
        }
        transaction.change_agent_token(&before).await?;
        changed.push(before);
    }
    transaction.add_agent_token(&row).await.map_err(changed_meanwhile)?;
    let how = if at_once {
        ", now"
    } else if strict {
        ", strict"
    } else {
        ""
    };
    transaction.record(agent.organisation, actor, ("agent.rotate", &format!("{}{how}", agent.name)), now).await?;
    transaction.commit().await?;
    tell(&portal, agent.id, &changed);
    info!(agent = %agent.id, name = %agent.name, strict, at_once, "agent's token replaced");
    Ok((StatusCode::CREATED, shown(&token, &row)))
}

/// `DELETE /v1/agents/{name}/token`: its tokens are worth nothing from now on, and its channel ends.
async fn revoke(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let Allowed { mut transaction, account, actor, now } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    let agent = find(&mut transaction, &account, &name).await?;
    let mut rows = transaction.agent_tokens(agent.organisation, &agent.name).await?;
    for row in &mut rows {
        row.handle_revoke(now);
        transaction.change_agent_token(row).await?;
    }
    transaction.record(agent.organisation, actor, ("agent.revoke", agent.name.as_str()), now).await?;
    transaction.commit().await?;
    tell(&portal, agent.id, &rows);
    info!(agent = %agent.id, name = %agent.name, "agent's tokens revoked");
    Ok(Json(json!({"ok": true})))
}

/// `DELETE /v1/agents/{name}`: the agent and its tokens are gone, and its channel ends. Its name is free.
async fn remove(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let Allowed { mut transaction, account, actor, now } = allow(&portal, &headers, arrival, Act::Tokens).await?;
    let agent = find(&mut transaction, &account, &name).await?;
    transaction.remove_agent(agent.organisation, &agent.name).await?;
    transaction.record(agent.organisation, actor, ("agent.remove", agent.name.as_str()), now).await?;
    transaction.commit().await?;
    portal.control.forget(agent.id);
    info!(agent = %agent.id, name = %agent.name, "agent removed");
    Ok(Json(json!({"ok": true})))
}

async fn new_token(
    portal: &Shared,
    account: &Account,
    of: &Agent,
    now: UnixTime,
) -> Result<(Token, TokenRow), Failure> {
    portal.limits.admit_account(Call::AgentToken, account.id, now).map_err(Failure::too_many)?;
    let token = Token::random(Kind::Agent, of.name.clone(), &mut rand::rng());
    portal.tokens.row(token, of, now).await.map_err(|Busy| {
        let text = "too many tokens are being checked: try again in a moment";
        Failure::json(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(5)
    })
}

async fn find(transaction: &mut Transaction, account: &Account, name: &str) -> Result<Agent, Failure> {
    let parsed: Name = name.parse().map_err(|_| unknown(name))?;
    transaction.agent(account.organisation, &parsed).await?.ok_or_else(|| unknown(name))
}

/// Channels that these tokens have opened end when they do.
fn tell(portal: &Shared, id: AgentId, rows: &[TokenRow]) {
    for row in rows {
        portal.control.token_changed((portal.now(), portal.instant()), id, row);
    }
}

fn shown(token: &Token, row: &TokenRow) -> Json<AgentToken> {
    let (name, token) = (row.name.to_string(), token.expose().to_owned());
    Json(AgentToken { name, token, generation: row.generation })
}

fn taken(name: &Name) -> Failure {
    let text = format!("there is an agent {name} already: `mykube agents rotate {name}` makes it another token");
    Failure::json(StatusCode::CONFLICT, text)
}

/// The name is somebody's word: it is not repeated unless it is one.
fn unknown(name: &str) -> Failure {
    let name = name.parse::<Name>().map(|name| format!(" {name}")).unwrap_or_default();
    Failure::json(StatusCode::NOT_FOUND, format!("this organisation has no agent{name}"))
}

fn changed_meanwhile(error: mykube_relay_store::StoreError) -> Failure {
    match error {
        mykube_relay_store::StoreError::Changed => Failure::json(StatusCode::CONFLICT, error.to_string()),
        error => error.into(),
    }
}
