//! Guarded mode: credentials never leave the cluster side.
//!
//! A client's stream carries one HTTP/1.1 connection. The [`Gateway`] reads its requests, decides on each by its
//! [`Policy`], forwards it with the agent's own credentials through the [`Forwarder`], and writes a line of the
//! [`Audit`] log. Bodies and upgraded connections stream both ways; nothing is gathered.
//!
//! ```text
//! stream -> intake (heads, and where bodies end) -> hyper (bodies, answers) -> request_info (path as the API server reads it)
//!        -> headers (hop by hop, who somebody is) -> policy -> audit (room for a line) -> forwarder -> API server
//! ```
//!
//! The real fence is RBAC on the agent's identity; the policy is in front of it.

pub mod audit;
mod body;
mod caller;
mod connection;
mod connection_slot;
mod connector;
mod endings;
mod exchange;
mod flushes;
mod forwarder;
mod framing;
mod gateway;
mod head;
mod headers;
mod hints;
mod identity;
mod inner;
mod intake;
mod policy;
mod progress;
mod record;
mod request;
mod request_info;
mod retarget;
mod room;
mod rule;
mod rules;
mod scope;
mod serve;
mod settings;
mod status;
mod upgrade;

pub use audit::{Audit, AuditFull, AuditSettings, ClientEvent, Promise};
pub use caller::Caller;
pub use forwarder::Forwarder;
pub use gateway::Gateway;
pub use identity::IdentityError;
pub use inner::Wanted;
pub use policy::{Asked, Policy, PolicyError, Refusal};
pub use record::{Recorder, RecorderError};
pub use request_info::{PathError, RequestInfo};
pub use room::HeadRoom;
pub use rule::Rule;
pub use rules::{RULES_FILE_MAX, RulesError, read_rules};
pub use settings::Settings;
