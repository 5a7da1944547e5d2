//! What `mykube relay` and its two peers say to each other. No I/O, no cryptography: types, parsing, limits.
//!
//! # The whole protocol, on one screen
//!
//! ```text
//! agent                              relay                              client
//!   | POST /api/sessions {"version":2} |                                   |
//!   |--------------------------------->|                                   |
//!   | 201 {session_id, nameplate,      |                                   |
//!   |      ticket, expires_at}         |                                   |
//!   |<---------------------------------|                                   |
//!   | GET /ws/agent/{session_id}       |                                   |
//!   |   Authorization: Bearer <ticket> |    POST /api/pair {"nameplate"}   |
//!   |=================================>|<----------------------------------|
//!   |                                  |   200 {session_id, ticket,        |
//!   |   code = nameplate + 5 digits    |        attempt}                   |
//!   |   of the agent's own drawing     |---------------------------------->|
//!   |                                  |   GET /ws/client/{session_id}     |
//!   | text peer:here:{attempt}         |<==================================|
//!   |<---------------------------------|   text peer:here:{attempt}        |
//!   |                                  |---------------------------------->|
//!   |  binary 0x01 hello_agent  ------------------------------------------>|
//!   |<------------------------ binary 0x02 hello_client, 0x05 record{tag}  |
//!   | text paired:{attempt}            |   (or refused:{attempt}, burned)  |
//!   |--------------------------------->|                                   |
//!   |  binary 0x05 record{r, tag} ---------------------------------------->|
//!   | text ticket:{token}              |   text ticket:{token}             |
//!   |<---------------------------------|---------------------------------->|
//!   |<======= binary 0x05 records, end to end, unreadable here ===========>|
//! ```
//!
//! Text frames are between the relay and one end ([`relay_text`]); binary frames pass end to end ([`frame`]). Inside
//! the records run streams: `new:{id}`, payload, `credit:`, `eof:`, `done:` ([`channel`]). `docs/protocol.md` has
//! the bytes, the key schedule and the reasons.

#![warn(clippy::pedantic)]

pub mod account;
pub mod agent;
pub mod channel;
pub mod close;
pub mod code;
pub mod control;
pub mod frame;
pub mod http;
pub mod id;
pub mod limits;
pub mod relay_text;
pub mod text;
pub mod ticket;
pub mod units;

pub use code::{CodeError, Nameplate, PairingCode, Secret};
pub use id::{Attempt, SessionId};
pub use relay_text::{FromAgent, FromRelay};
pub use ticket::{Claims, Class, Ticket};

/// The protocol version both ends of this build speak.
pub const VERSION: u32 = 2;

/// Which end of a session a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Beside the cluster: `mykube server`.
    Agent,
    /// On the laptop: `mykube client`.
    Client,
}

impl Role {
    /// `agent` or `client`, as in `/ws/{role}/{session_id}`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Client => "client",
        }
    }

    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Agent => Self::Client,
            Self::Client => Self::Agent,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
