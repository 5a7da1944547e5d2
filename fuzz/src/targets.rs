//! The fuzz targets, each a plain function of its bytes, so that `cargo test` replays the committed corpora on
//! stable Rust (tunnel/tests/tunnel/corpus.rs includes this file).

use bytes::{Bytes, BytesMut};
use mykube_tunnel::{
    Config, Session, SessionError, Time,
    handshake::{Agent, Client},
    protocol::{
        Attempt, Claims, FromAgent, FromRelay, Nameplate, PairingCode, Role, SessionId,
        channel::{Control, Upkeep},
        limits,
        text::{is_plain_name, is_plain_path, printable, to_plain_name},
    },
    test_api::{self, Sealer},
};
use rand::{SeedableRng, rngs::StdRng};

#[path = "mux.rs"]
mod mux;
#[path = "resume.rs"]
mod resume;

type Target = (&'static str, fn(&[u8]));

/// Every target by its name: that of its binary and of its corpus.
pub(crate) const TARGETS: &[Target] = &[
    ("agent_text", agent_text),
    ("attach_at_agent", resume::attach_at_agent),
    ("attach_at_client", resume::attach_at_client),
    ("channel_control", channel_control),
    ("channel_upkeep", channel_upkeep),
    ("hello_agent", hello_agent),
    ("hello_client", hello_client),
    ("ids", ids),
    ("mux", mux::run),
    ("pairing_code", pairing_code),
    ("plaintext", plaintext),
    ("records", records),
    ("relay_text", relay_text),
    ("session", session),
    ("text", text),
    ("ticket_claims", ticket_claims),
    ("transports", resume::transports),
];

/// The target of that name.
pub(crate) fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of that name");
    target(data);
}

fn pairing_code(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(code) = input.parse::<PairingCode>() {
        assert_eq!(code.to_display().parse(), Ok(code.clone()));
        let digits: Vec<u8> = data.iter().copied().filter(u8::is_ascii_digit).collect();
        assert_eq!(*code.digits(), digits);
        assert!((8..=10).contains(&digits.len()));
    }
}

fn ids(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(id) = input.parse::<SessionId>() {
        assert_eq!(id.to_string(), input);
    }
    if let Ok(id) = input.parse::<Attempt>() {
        assert_eq!(id.to_string(), input);
    }
    if let Ok(nameplate) = input.parse::<Nameplate>() {
        assert_eq!(nameplate.to_string(), input);
    }
}

fn relay_text(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = input.parse::<FromRelay>() {
        assert_eq!(frame.to_string(), input);
    }
}

fn agent_text(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = input.parse::<FromAgent>() {
        assert_eq!(frame.to_string(), input);
    }
}

fn channel_control(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(control) = input.parse::<Control>() {
        let written = control.to_string();
        assert!(written.len() <= limits::CONTROL_MAX);
        assert_eq!(written.parse(), Ok(control.clone()));
        // Only a reason may change, and only by losing characters that must not reach a terminal.
        if !matches!(control, Control::Done { reason: Some(_), .. } | Control::Bye { .. }) {
            assert_eq!(written, input);
        }
        assert!(matches!(control, Control::New { .. }) || written.chars().all(|c| !c.is_control()));
    }
}

fn channel_upkeep(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    if let Ok(upkeep) = input.parse::<Upkeep>() {
        assert_eq!(upkeep.to_string(), input);
    }
}

fn ticket_claims(data: &[u8]) {
    if let Ok(claims) = Claims::decode(data) {
        assert_eq!(claims.encode(), data);
    }
}

fn text(data: &[u8]) {
    let Ok(input) = std::str::from_utf8(data) else { return };
    let cleaned = printable(input, 256);
    assert!(cleaned.len() <= 256 && cleaned.chars().all(|c| !c.is_control()));
    assert_eq!(printable(&cleaned, 256), cleaned);
    assert!(is_plain_name(&to_plain_name(input, "cluster")));
    assert!(!is_plain_path(input) || input.split('/').all(|segment| !matches!(segment, "." | "..")));
}

fn plaintext(data: &[u8]) {
    let valid = test_api::is_valid_plaintext(data);
    assert!(!valid || data.len() <= limits::RECORD_PLAINTEXT_MAX);
}

fn code() -> PairingCode {
    "483 20417".parse().expect("a code")
}

fn hello_agent(data: &[u8]) {
    let id = SessionId::from_bytes(std::array::from_fn(|n| n as u8));
    if let Ok((_, hello, record)) = Client::start(&mut StdRng::seed_from_u64(1), id, &code(), false, data) {
        assert!(data.len() <= limits::HELLO_MAX + 1 && hello.len() <= limits::HELLO_MAX && !record.is_empty());
    }
}

fn hello_client(data: &[u8]) {
    let id = SessionId::from_bytes(std::array::from_fn(|n| n as u8));
    let (agent, _) = Agent::start(&mut StdRng::seed_from_u64(1), id, &code(), false);
    if let Ok(waits) = agent.handle_hello(data) {
        assert!(data.len() <= limits::HELLO_MAX + 1);
        // The sender does not know the keys, so no bytes it sends are the right tag.
        assert!(waits.handle_tag(&mut data.to_vec()).is_err());
    }
}

const SECRETS: ([u8; 32], [u8; 32]) = ([1; 32], [2; 32]);

/// Frames of somebody without the keys: none opens, whatever it is.
fn records(data: &[u8]) {
    let established = test_api::established(Role::Agent, SECRETS.0, SECRETS.1);
    let mut session = Session::new(Time::default(), established, Config::default());
    let result = session.handle_frame(Time::default(), BytesMut::from(data));
    assert!(matches!(result, Err(SessionError::Record(_))));
    assert!(session.poll_event().is_none() && session.streams() == 0);
}

/// Plaintexts of a peer that has the keys: `len:u16be || plaintext`, repeated; then the application reads and releases.
fn session(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let role = if first & 1 == 0 { Role::Agent } else { Role::Client };
    let mut sealer = Sealer::from_secret(if role == Role::Agent { SECRETS.0 } else { SECRETS.1 });
    let mut now = Time::default();
    let mut session = Session::new(
        now,
        test_api::established(role, SECRETS.0, SECRETS.1),
        Config { rekey_records: 7, ..Config::default() },
    );
    // This end has data under way as well.
    for _ in 0..first >> 6 {
        if let Ok(id) = session.open(now, None) {
            session.write(now, id, Bytes::from_static(&[7; 20_000]));
        }
    }
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (plaintext, tail) = tail.split_at(tail.len().min(usize::from(u16::from_be_bytes(*len))));
        rest = tail;
        now = now + std::time::Duration::from_millis(7);
        let mut frame = BytesMut::from(&[5][..]);
        frame.extend_from_slice(plaintext);
        sealer.seal(&mut frame);
        if session.handle_frame(now, frame).is_err() {
            return;
        }
        // The sealer changes its key when the session has: after an accepted record that ended with rekey.
        if ends_with_rekey(plaintext) {
            sealer.rekey();
        }
        while session.poll_event().is_some() {}
        for id in 0..8 {
            let mut chunks = Vec::new();
            session.read(now, id, 4096, &mut chunks);
            if chunks.len() > 3 {
                session.release(now, id, Some("enough"));
            }
        }
        session.handle_timeout(now);
        while let Ok(Some(frame)) = session.poll_transmit(now) {
            assert!(frame.len() <= 1 + limits::RECORD_PLAINTEXT_MAX + 16);
        }
        assert!(session.streams() <= limits::STREAMS_MAX_ASKED);
        let audit = session.audit();
        assert!(
            audit.session_allowance <= limits::SESSION_WINDOW && audit.control <= limits::CONTROL_UNACKED_MAX + 32_768
        );
    }
}

/// Whether an accepted plaintext ends, before its padding, with `rekey`.
fn ends_with_rekey(mut plaintext: &[u8]) -> bool {
    let mut last: &[u8] = &[];
    while let Some((head, rest)) = plaintext.split_first_chunk::<5>() {
        if head[0] == 0 {
            break;
        }
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some((body, rest)) = rest.split_at_checked(len) else { break };
        (last, plaintext) = (if head[0] == 4 { body } else { &[] }, rest);
    }
    last == b"rekey"
}
