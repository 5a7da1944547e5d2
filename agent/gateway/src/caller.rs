//! Who makes the requests of a stream, and what they may do.

use std::sync::Arc;

use crate::{policy::Policy, room::HeadRoom};

/// Who makes requests: a client, or mykube itself (`mykube doctor`, Events).
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name, for the audit log.
    pub name: String,
    /// Its number in `mykube sessions`, if it is a client that is listed there: several may have one name.
    pub id: Option<u64>,
    /// What it may do. [`Policy::check`] has passed.
    pub policy: Arc<Policy>,
    /// What the heads of its requests may hold.
    pub heads: HeadRoom,
}
