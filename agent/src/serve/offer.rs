//! What a server offers, and to whom.

use std::sync::Arc;

use mykube_agent_gateway::Gateway;
use mykube_agent_upstream::Upstream;

use super::command::Invitation;

/// What clients get.
#[derive(Clone)]
pub enum Access {
    /// The kubeconfig's credentials, and TCP to the API server.
    Shared,
    /// Requests that the agent makes for them, each under its own policy.
    Guarded(Gateway),
}

/// What a server offers, and whom its own codes are for.
pub struct Offer {
    /// The API server.
    pub upstream: Arc<Upstream>,
    /// How clients use it.
    pub access: Access,
    /// Whom a code is for that the server shows by itself.
    pub standing: Invitation,
}
