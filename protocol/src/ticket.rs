//! Tickets: what admits an end to its session. Signed by the relay, opaque to the ends.
//!
//! Wire form: base64url without padding of `claims || HMAC-SHA256(key, "mykube/2 ticket" || claims)`. The relay's key
//! stays in its data directory; this module knows the claims only.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Attempt, Nameplate, Role, SessionId, limits::TICKET_MAX};

/// Length of the signature at the end of a ticket.
pub const MAC_LEN: usize = 32;
/// The WebSocket subprotocol that carries a ticket where a header cannot be set (browsers).
pub const SUBPROTOCOL_PREFIX: &str = "mykube.ticket.";

/// A text that is not a ticket. The error holds nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("that is not a ticket of this protocol version")]
pub struct TicketError;

/// A bearer ticket in its wire form. Wiped on drop; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Ticket(String);

impl Ticket {
    /// From signed bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(BASE64URL_NOPAD.encode(bytes))
    }

    /// The signed bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        BASE64URL_NOPAD.decode(self.0.as_bytes()).unwrap_or_default()
    }

    /// The token itself, for a header or a frame; never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(s: &str) -> Result<Self, TicketError> {
        if s.is_empty() || s.len() > TICKET_MAX || BASE64URL_NOPAD.decode(s.as_bytes()).is_err() {
            return Err(TicketError);
        }
        Ok(Self(s.to_owned()))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Serialize for Ticket {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Ticket {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// How much a ticket may do. A newer socket replaces an older one of the same or a lower class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// One try at pairing, 30 s.
    Pair(Attempt),
    /// The session itself.
    Session,
}

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Which session it admits to.
    pub session: SessionId,
    /// As which end.
    pub role: Role,
    /// With which right.
    pub class: Class,
    /// Session class, once paired: the attempt that was confirmed, so that a relay that was restarted knows it.
    pub confirmed: Option<Attempt>,
    /// The nameplate of a session that still waits: only in the ticket that created it.
    pub nameplate: Option<Nameplate>,
    /// Seconds since the Unix epoch.
    pub expires_at: u64,
}

const FORM: u8 = 1;

impl Claims {
    /// `1 || role || class || session(16) || attempt(16) || expires_at:u64be || nameplate digits`. The attempt is that of
    /// a pair ticket, or the confirmed one, or zero.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (class, attempt) = match &self.class {
            Class::Session => (0, self.confirmed.map_or([0; 16], |attempt| *attempt.as_bytes())),
            Class::Pair(attempt) => (1, *attempt.as_bytes()),
        };
        let role = match self.role {
            Role::Agent => b'a',
            Role::Client => b'c',
        };
        let mut out = vec![FORM, role, class];
        out.extend_from_slice(self.session.as_bytes());
        out.extend_from_slice(&attempt);
        out.extend_from_slice(&self.expires_at.to_be_bytes());
        if let Some(nameplate) = &self.nameplate {
            out.extend_from_slice(nameplate.as_str().as_bytes());
        }
        out
    }

    /// Reads what [`Claims::encode`] wrote.
    ///
    /// # Errors
    /// Any other bytes. The caller has checked the signature before this.
    pub fn decode(bytes: &[u8]) -> Result<Self, TicketError> {
        let (head, rest) = bytes.split_first_chunk::<3>().ok_or(TicketError)?;
        let (session, rest) = rest.split_first_chunk::<16>().ok_or(TicketError)?;
        let (attempt, rest) = rest.split_first_chunk::<16>().ok_or(TicketError)?;
        let (expires_at, nameplate) = rest.split_first_chunk::<8>().ok_or(TicketError)?;
        let role = match head {
            [FORM, b'a', _] => Role::Agent,
            [FORM, b'c', _] => Role::Client,
            _ => return Err(TicketError),
        };
        let (class, confirmed) = match (head[2], attempt) {
            (0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) => (Class::Session, None),
            (0, attempt) => (Class::Session, Some(Attempt::from_bytes(*attempt))),
            (1, attempt) => (Class::Pair(Attempt::from_bytes(*attempt)), None),
            _ => return Err(TicketError),
        };
        let nameplate = match nameplate {
            [] => None,
            digits => Some(std::str::from_utf8(digits).map_err(|_| TicketError)?.parse().map_err(|_| TicketError)?),
        };
        Ok(Self {
            session: SessionId::from_bytes(*session),
            role,
            class,
            confirmed,
            nameplate,
            expires_at: u64::from_be_bytes(*expires_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            session: SessionId::from_bytes([7; 16]),
            role: Role::Client,
            class: Class::Pair(Attempt::from_bytes([9; 16])),
            confirmed: None,
            nameplate: Some("483".parse().unwrap()),
            expires_at: 1_700_000_000,
        }
    }

    #[test]
    fn claims_have_one_form() {
        let bytes = claims().encode();
        assert_eq!(
            data_encoding::HEXLOWER.encode(&bytes),
            "016301070707070707070707070707070707070909090909090909090909090909090900000000\
             6553f100343833"
        );
        assert_eq!(Claims::decode(&bytes), Ok(claims()));
        for cut in 0..bytes.len() - 3 {
            assert!(Claims::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_session_ticket_may_name_the_confirmed_attempt() {
        for confirmed in [None, Some(Attempt::from_bytes([9; 16]))] {
            let claims = Claims { class: Class::Session, confirmed, nameplate: None, ..claims() };
            assert_eq!(Claims::decode(&claims.encode()), Ok(claims));
        }
    }

    #[test]
    fn debug_shows_no_ticket() {
        assert_eq!(format!("{:?}", Ticket::from_bytes(b"secret")), "Ticket");
    }
}
