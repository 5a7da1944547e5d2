//! Text frames between the relay and one end. They never touch keys or data.

use std::{fmt, str::FromStr};

use crate::{Attempt, Ticket, limits::RELAY_TEXT_MAX};

/// A text frame that is none of this module's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a text frame of this protocol")]
pub struct RelayTextError;

/// Whom a `peer:` frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A client that is trying to pair.
    Attempt(Attempt),
    /// The other end of a paired session.
    Session,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attempt(attempt) => attempt.fmt(f),
            Self::Session => f.write_str(Attempt::SESSION),
        }
    }
}

impl FromStr for Peer {
    type Err = RelayTextError;

    fn from_str(s: &str) -> Result<Self, RelayTextError> {
        if s == Attempt::SESSION {
            return Ok(Self::Session);
        }
        s.parse().map(Self::Attempt).map_err(|_| RelayTextError)
    }
}

/// Relay to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromRelay {
    /// `peer:here:{attempt}`: the other end's socket is open.
    PeerHere(Peer),
    /// `peer:gone:{attempt}`: it is closed.
    PeerGone(Peer),
    /// `ticket:{token}`: a session-class ticket for this end.
    Ticket(Ticket),
}

impl fmt::Display for FromRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerHere(peer) => write!(f, "peer:here:{peer}"),
            Self::PeerGone(peer) => write!(f, "peer:gone:{peer}"),
            Self::Ticket(ticket) => write!(f, "ticket:{}", ticket.expose()),
        }
    }
}

impl FromStr for FromRelay {
    type Err = RelayTextError;

    fn from_str(s: &str) -> Result<Self, RelayTextError> {
        if s.len() > RELAY_TEXT_MAX {
            return Err(RelayTextError);
        }
        if let Some(peer) = s.strip_prefix("peer:here:") {
            return peer.parse().map(Self::PeerHere);
        }
        if let Some(peer) = s.strip_prefix("peer:gone:") {
            return peer.parse().map(Self::PeerGone);
        }
        let token = s.strip_prefix("ticket:").ok_or(RelayTextError)?;
        token.parse().map(Self::Ticket).map_err(|_| RelayTextError)
    }
}

/// Agent to relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromAgent {
    /// `paired:{attempt}`: this client knew the secret.
    Paired(Attempt),
    /// `refused:{attempt}`: it did not.
    Refused(Attempt),
    /// `burned`: the code is spent; free the nameplate.
    Burned,
}

impl fmt::Display for FromAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paired(attempt) => write!(f, "paired:{attempt}"),
            Self::Refused(attempt) => write!(f, "refused:{attempt}"),
            Self::Burned => f.write_str("burned"),
        }
    }
}

impl FromStr for FromAgent {
    type Err = RelayTextError;

    fn from_str(s: &str) -> Result<Self, RelayTextError> {
        if s == "burned" {
            return Ok(Self::Burned);
        }
        let (verb, attempt) = s.split_once(':').ok_or(RelayTextError)?;
        let attempt = attempt.parse().map_err(|_| RelayTextError)?;
        match verb {
            "paired" => Ok(Self::Paired(attempt)),
            "refused" => Ok(Self::Refused(attempt)),
            _ => Err(RelayTextError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TICKET_MAX;

    #[test]
    fn text_frames_round_trip() {
        for text in ["peer:here:000102030405060708090a0b0c0d0e0f", "peer:gone:session", "ticket:AAAA"] {
            assert_eq!(text.parse::<FromRelay>().unwrap().to_string(), text);
        }
        for text in ["paired:000102030405060708090a0b0c0d0e0f", "refused:000102030405060708090a0b0c0d0e0f", "burned"] {
            assert_eq!(text.parse::<FromAgent>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_ticket_may_be_as_long_as_its_limit_and_no_longer() {
        // Of base64's lengths; no text has 257.
        let longest = format!("ticket:{}", "A".repeat(TICKET_MAX));
        assert_eq!(longest.parse::<FromRelay>().unwrap().to_string(), longest);
        assert_eq!(format!("{longest}AA").parse::<FromRelay>(), Err(RelayTextError));
        assert_eq!("A".repeat(RELAY_TEXT_MAX + 1).parse::<FromRelay>(), Err(RelayTextError));
        assert_eq!((TICKET_MAX, RELAY_TEXT_MAX), (256, 1024));
        assert!(longest.len() <= RELAY_TEXT_MAX, "the longest text has room");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "paired", "peer:here:", "peer:here:x", "ticket:", "ticket:a b", "PAIRED:session", "paired:session"]
        {
            assert!(text.parse::<FromRelay>().is_err(), "{text}");
            assert!(text.parse::<FromAgent>().is_err(), "{text}");
        }
    }
}
