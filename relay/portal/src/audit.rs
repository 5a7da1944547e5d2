//! `GET /v1/audit`: an organisation's audit log, for its owners, a page at a time and the oldest line first.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use mykube_relay_accounts::sign_in::Act;
use mykube_relay_store::AuditLine;
use serde::{Deserialize, Serialize};

use crate::{
    arrival::Arrival,
    failure::Failure,
    shared::Shared,
    v1::{Allowed, allow},
    when,
};

/// Lines of a page at most, and where none are asked for: a line is under 1 KiB, and others wait for the database meanwhile.
const MOST: u32 = 1000;
const USUAL: u32 = 100;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/v1/audit", get(read))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// The number of the last line that is known already.
    #[serde(default)]
    after: i64,
    limit: Option<u32>,
}

#[derive(Serialize)]
struct Log {
    lines: Vec<Line>,
    /// Whether there are lines after the last one here.
    more: bool,
}

#[derive(Serialize)]
struct Line {
    number: i64,
    at: String,
    account: String,
    address: String,
    action: String,
    detail: String,
}

async fn read(
    State(portal): State<Arc<Shared>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Log>, Failure> {
    let wrong = |text: &str| Failure::json(StatusCode::BAD_REQUEST, text);
    let Query(Page { after, limit }) = page.map_err(|_| wrong("this call takes `after` and `limit`, both numbers"))?;
    let limit = limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(wrong("`limit` is from 1 to 1000"));
    }
    let Allowed { mut transaction, account, .. } = allow(&portal, &headers, arrival, Act::Manage).await?;
    let mut lines = transaction.audit_after(account.organisation, after, limit + 1).await?;
    let more = lines.len() > limit as usize;
    lines.truncate(limit as usize);
    Ok(Json(Log { lines: lines.into_iter().map(Line::from).collect(), more }))
}

impl From<AuditLine> for Line {
    fn from(line: AuditLine) -> Self {
        let AuditLine { number, at, account, address, action, detail } = line;
        Self { number, at: when::rfc3339(at), account, address, action, detail }
    }
}
