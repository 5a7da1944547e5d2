//! The written form of small values, and what just fits.

use mykube_protocol::{
    Claims, Class, CodeError, Nameplate, PairingCode, Role, SessionId, Ticket,
    channel::{Credentials, reason},
    limits::{REASON_MAX, TICKET_MAX},
    text::printable,
};

#[test]
fn roles_are_named_as_in_the_path() {
    for (role, name, peer) in [(Role::Agent, "agent", Role::Client), (Role::Client, "client", Role::Agent)] {
        assert_eq!((role.as_str(), role.to_string().as_str(), role.peer()), (name, name, peer));
    }
}

#[test]
fn a_text_is_cut_where_it_does_not_fit() {
    assert_eq!(printable("ab", 2), "ab");
    assert_eq!(printable("abc", 2), "ab");
    assert_eq!(printable("aä", 3), "aä");
    assert_eq!(reason("cut\n off"), "cut off");
    assert_eq!(reason(&"x".repeat(REASON_MAX + 1)), "x".repeat(REASON_MAX));
}

#[test]
fn a_nameplate_has_three_to_five_digits() {
    for good in ["483", "4831", "48312"] {
        let nameplate: Nameplate = good.parse().unwrap();
        assert_eq!((nameplate.to_string(), format!("{nameplate:?}")), (good.to_owned(), good.to_owned()));
        assert_eq!(serde_json::to_string(&nameplate).unwrap(), format!("\"{good}\""));
        assert_eq!(serde_json::from_str::<Nameplate>(&format!("\"{good}\"")).unwrap(), nameplate);
    }
    for bad in ["", "48", "483120", "48a", "٤٨٣"] {
        assert_eq!(bad.parse::<Nameplate>(), Err(CodeError::Nameplate), "{bad}");
    }
}

#[test]
fn secrets_are_named_and_not_shown() {
    let code: PairingCode = "483 20417".parse().unwrap();
    assert_eq!(format!("{code:?}"), "PairingCode(483 ...)");
    assert_eq!(format!("{:?}", code.secret), "Secret");
    let credentials = Credentials {
        token: Some("t".into()),
        certificate: None,
        key: None,
        username: None,
        password: None,
        expiring: false,
    };
    assert_eq!(format!("{credentials:?}"), "Credentials");
}

#[test]
fn a_ticket_is_text_of_a_bounded_length() {
    let ticket = Ticket::from_bytes(b"mykube");
    assert_eq!((ticket.expose(), ticket.to_bytes()), ("bXlrdWJl", b"mykube".to_vec()));
    assert_eq!(serde_json::to_string(&ticket).unwrap(), "\"bXlrdWJl\"");
    assert_eq!(serde_json::from_str::<Ticket>("\"bXlrdWJl\"").unwrap(), ticket);
    assert!("A".repeat(TICKET_MAX).parse::<Ticket>().is_ok());
    assert!("A".repeat(TICKET_MAX + 4).parse::<Ticket>().is_err());
}

#[test]
fn both_ends_have_claims() {
    for role in [Role::Agent, Role::Client] {
        let session = SessionId::from_bytes([7; 16]);
        let claims = Claims { session, role, class: Class::Session, confirmed: None, nameplate: None, expires_at: 1 };
        assert_eq!(Claims::decode(&claims.encode()), Ok(claims));
    }
}
