//! mykube's cluster side: codes, clients, and what they reach; and the agent's name at a relay, where it has one.

pub mod announce;
mod backoff;
#[cfg(unix)]
pub mod control_socket;
pub mod registration;
pub mod serve;
