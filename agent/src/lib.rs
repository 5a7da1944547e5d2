//! mykube's cluster side: codes, clients, and what they reach.

pub mod announce;
#[cfg(unix)]
pub mod control_socket;
pub mod serve;
