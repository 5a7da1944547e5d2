//! What a program and a relay say to each other about an organisation's agents: bodies of calls under `/v1/agents`.

use serde::{Deserialize, Serialize};

/// `POST /v1/agents`: an agent is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAgent {
    /// In its organisation: `[a-z0-9][a-z0-9_-]{0,62}` with at least one letter.
    pub name: String,
}

/// `POST /v1/agents/{name}/token`: another token takes the place of the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotate {
    /// The old one opens nothing from now on; what it has opened lives for the hour.
    pub strict: bool,
    /// The old one, and what it has opened, are over at once.
    pub now: bool,
}

/// 201 to both. It holds a secret, which is shown this once: it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub struct AgentToken {
    /// The agent's.
    pub name: String,
    /// `rla_...`
    pub token: String,
    /// Rises with each token of the agent.
    pub generation: u32,
}

/// 200 to `GET /v1/agents`: agents by name, [`PAGE`] at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agents {
    /// Those of this page.
    pub agents: Vec<ListedAgent>,
    /// Whether there are more: `?after=` with the last name asks for them.
    pub more: bool,
}

/// Agents of one page: as many as an answer has room for that a program of ours reads whole.
pub const PAGE: u32 = 100;

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedAgent {
    /// In its organisation.
    pub name: String,
    /// Whether it is there.
    pub state: Presence,
    /// Since when, RFC 3339.
    pub since: String,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// The hash of the key that it had last, hex: none until it has connected once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_key: Option<String>,
    /// Since when it has had that key, where it had another before, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_key_since: Option<String>,
}

/// What a relay knows of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is connected, and answered of late.
    Live,
    /// It was, or was never.
    Away,
    /// It has not connected since the relay started.
    Unknown,
}
