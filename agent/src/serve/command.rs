//! What the operator asks for, and what a list shows.

use std::{sync::Arc, time::SystemTime};

use mykube_agent_gateway::Policy;
use tokio::sync::oneshot;

/// Whom a code is for.
#[derive(Clone, Debug, Default)]
pub struct Invitation {
    /// A name for lists and the audit log; `client-1` and so on without one.
    pub name: Option<String>,
    /// What the client may do, in guarded mode.
    pub policy: Arc<Policy>,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its code waits to be typed.
    Waiting,
    /// It is in.
    Connected,
    /// It is in, and the connection to it is lost.
    Lost,
}

/// One line of `mykube sessions`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number, for `mykube sessions kill`.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Waiting or connected.
    pub state: State,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// What it may do.
    pub policy: Arc<Policy>,
}

/// What the operator asks for.
pub enum Command {
    /// Who is here.
    List(oneshot::Sender<Vec<Listed>>),
    /// Ends a client, or the waiting for one. Answers whether there was such a number.
    Kill(u64, oneshot::Sender<bool>),
    /// Another code. Answers its number and, once it is there, the code; an error if there is no place.
    Invite(Invitation, oneshot::Sender<Result<(u64, String), String>>),
}
