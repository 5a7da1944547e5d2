//! The operator's commands, and what a list of clients shows.

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

/// State of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its code waits to be typed.
    Waiting,
    /// It has paired.
    Connected,
    /// It has paired, and its connection is lost.
    Lost,
}

/// One line of `mykube sessions`.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its number, for `mykube sessions kill`.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// What it may do.
    pub policy: Arc<Policy>,
}

/// A command of the operator.
pub enum Command {
    /// Lists clients and waiting codes.
    List(oneshot::Sender<Vec<Listed>>),
    /// Ends a client, or the waiting for one. Answers whether there was such a number.
    Kill(u64, oneshot::Sender<bool>),
    /// Makes another code. Answers with the client's number and, once it waits at the relay, the code; an error if all slots
    /// are taken.
    Invite(Invitation, oneshot::Sender<Result<(u64, String), String>>),
}
