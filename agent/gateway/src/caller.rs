//! The client that a stream belongs to, and what it may do.

use std::sync::Arc;

use crate::{policy::Policy, room::HeadRoom};

/// The client that a stream belongs to.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client's name, for the audit log.
    pub name: String,
    /// Its number in `mykube sessions`, if it is listed there: several clients may have one name.
    pub id: Option<u64>,
    /// What it may do. [`Policy::check`] has passed.
    pub policy: Arc<Policy>,
    /// What the heads of its requests may hold.
    pub heads: HeadRoom,
}
