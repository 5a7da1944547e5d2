//! Bodies of the relay's HTTP interface.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Nameplate, SessionId, Ticket};

/// A header by which the relay marks a refusal as its own, so that an end does not take a proxy's answer (the 401 of one
/// that asks for a login, say) for the relay's. [`TICKET_REFUSED`] with a 401, [`VERSION_REFUSED`] with a 400.
pub const REFUSAL: &str = "mykube-refusal";
/// The ticket is not valid, and never will be.
pub const TICKET_REFUSED: &str = "ticket";
/// This relay does not speak the version that the end asked for.
pub const VERSION_REFUSED: &str = "version";

/// `POST /api/sessions`. A body without a version is a legacy end's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CreateSession {
    /// 2; legacy ends send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// 201 to a version 2 [`CreateSession`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionCreated {
    /// The session.
    pub session_id: SessionId,
    /// The public part of the code.
    pub nameplate: Nameplate,
    /// Agent, session class.
    pub ticket: Ticket,
    /// RFC 3339. Display only.
    pub expires_at: String,
}

/// `POST /api/pair`: `nameplate` in version 2, `code` in the legacy form.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct PairRequest {
    /// Version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nameplate: Option<String>,
    /// The whole legacy code. Never logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// 200 to a version 2 [`PairRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairAnswer {
    /// The session.
    pub session_id: SessionId,
    /// Client, pair class.
    pub ticket: Ticket,
    /// This claim.
    pub attempt: Attempt,
}

/// 200 to a legacy [`CreateSession`]: the relay draws all eight digits.
#[derive(Clone, Serialize, Deserialize)]
pub struct LegacyCreated {
    /// The session.
    pub session_id: SessionId,
    /// All eight digits.
    pub code: String,
}

/// 200 to a legacy [`PairRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegacyPaired {
    /// The session.
    pub session_id: SessionId,
}

/// Every error answer: `{"error": "..."}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened, for a person.
    pub error: String,
}
