//! Signing and checking tickets: HMAC-SHA256 over the claims.
//!
//! A relay that is started again with the same key admits both ends of a session, although it has kept nothing of it.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use mykube_protocol::{Claims, Role, SessionId, Ticket, ticket::MAC_LEN};
use sha2::Sha256;
use zeroize::Zeroizing;

const DOMAIN: &[u8] = b"mykube/2 ticket";
/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// Why a ticket does not admit its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not signed with this relay's key, or not a ticket.
    #[error("this ticket was not given out by this relay: a new code is needed")]
    Forged,
    /// Its time is over.
    #[error("this ticket has expired: a new code is needed")]
    Expired,
    /// It admits somebody else.
    #[error("this ticket is for another session or end")]
    Other,
}

/// The relay's ticket key. Wiped on drop, prints nothing.
pub struct TicketKey(Zeroizing<[u8; KEY_LEN]>);

impl TicketKey {
    /// A key from its bytes, which must be random and known to this relay only.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(bytes)
    }

    /// Signs claims.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> Ticket {
        let mut bytes = claims.encode();
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&mac);
        Ticket::from_bytes(&bytes)
    }

    /// Checks the signature in constant time, then the time. `unix` is seconds since the epoch.
    ///
    /// # Errors
    /// Forged or expired.
    pub fn verify(&self, ticket: &Ticket, unix: u64) -> Result<Claims, TicketError> {
        let bytes = ticket.to_bytes();
        let at = bytes.len().checked_sub(MAC_LEN).ok_or(TicketError::Forged)?;
        let (claims, mac) = bytes.split_at(at);
        self.mac(claims).verify_slice(mac).map_err(|_| TicketError::Forged)?;
        let claims = Claims::decode(claims).map_err(|_| TicketError::Forged)?;
        if claims.expires_at <= unix { Err(TicketError::Expired) } else { Ok(claims) }
    }

    /// The same, for a socket that asks to be that end of that session: the claims must name both.
    ///
    /// # Errors
    /// Forged, expired, or for another session or end.
    pub fn admit(&self, ticket: &Ticket, unix: u64, session: SessionId, role: Role) -> Result<Claims, TicketError> {
        let claims = self.verify(ticket, unix)?;
        if claims.session == session && claims.role == role { Ok(claims) } else { Err(TicketError::Other) }
    }

    fn mac(&self, claims: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_ref()).expect("HMAC takes a key of any length");
        mac.update(DOMAIN);
        mac.update(claims);
        mac
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

#[cfg(test)]
mod tests {
    use mykube_protocol::Class;

    use super::*;

    fn claims() -> Claims {
        Claims {
            session: SessionId::from_bytes([1; 16]),
            role: Role::Agent,
            class: Class::Session,
            confirmed: None,
            nameplate: Some("483".parse().unwrap()),
            expires_at: 1000,
        }
    }

    #[test]
    fn a_ticket_admits_until_it_expires() {
        let key = TicketKey::new([7; 32].into());
        let ticket = key.sign(&claims());
        assert_eq!(key.verify(&ticket, 999), Ok(claims()));
        assert_eq!(key.verify(&ticket, 1000), Err(TicketError::Expired));
    }

    #[test]
    fn a_ticket_admits_one_end_of_one_session() {
        let key = TicketKey::new([7; 32].into());
        let ticket = key.sign(&claims());
        let (ours, other) = (claims().session, SessionId::from_bytes([2; 16]));
        assert_eq!(key.admit(&ticket, 999, ours, Role::Agent), Ok(claims()));
        assert_eq!(key.admit(&ticket, 999, ours, Role::Client), Err(TicketError::Other));
        assert_eq!(key.admit(&ticket, 999, other, Role::Agent), Err(TicketError::Other));
        assert_eq!(key.admit(&ticket, 1000, ours, Role::Agent), Err(TicketError::Expired));
    }

    #[test]
    fn no_bit_of_a_ticket_can_be_changed() {
        let key = TicketKey::new([7; 32].into());
        let bytes = key.sign(&claims()).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&Ticket::from_bytes(&forged), 0), Err(TicketError::Forged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(key.verify(&Ticket::from_bytes(&bytes[..len]), 0), Err(TicketError::Forged));
        }
        assert_eq!(TicketKey::new([8; 32].into()).verify(&Ticket::from_bytes(&bytes), 0), Err(TicketError::Forged));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", TicketKey::new([7; 32].into())), "TicketKey");
    }
}
