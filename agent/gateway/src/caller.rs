//! Whom a stream belongs to, and what that client may do.

use std::sync::Arc;

use crate::{policy::Policy, room::HeadRoom};

/// Whom a stream belongs to.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client's name, for the audit log.
    pub name: String,
    /// Its number in `mykube sessions`, where it is there: several may have one name.
    pub id: Option<u64>,
    /// What it may do. [`Policy::check`] has passed.
    pub policy: Arc<Policy>,
    /// What the heads of its requests may hold.
    pub heads: HeadRoom,
}
