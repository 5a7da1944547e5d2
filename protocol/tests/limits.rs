//! The limits in plain numbers: both ends, the relay and `docs/protocol.md` must agree on them.

use mykube_protocol::limits::*;

#[test]
fn sizes() {
    for (limit, bytes) in [
        (HELLO_MAX, 8_192),
        (RECORD_PLAINTEXT_MAX, 16_384),
        (FRAME_MAX, 65_536),
        (LEGACY_FRAME_MAX, 16_777_216),
        (RELAY_TEXT_MAX, 1_024),
        (CONTROL_MAX, 4_096),
        (REASON_MAX, 256),
        (WELCOME_MAX, 262_144),
        (CONTROL_UNACKED_MAX, 1_048_576),
        (REQUEST_BODY_MAX, 16_384),
        (TICKET_MAX, 256),
    ] {
        assert_eq!(limit, bytes);
    }
}

#[test]
fn windows_keys_and_acknowledgements() {
    for (limit, number) in [
        (FIRST_WINDOWS, 67_108_864),
        (STREAM_WINDOW, 262_144),
        (NARROW_WINDOW, 16_384),
        (STREAM_WINDOW_MAX, 33_554_432),
        (SESSION_WINDOW, 134_217_728),
        (SESSION_CREDIT_STEP, 524_288),
        (GROWTH_MAX, 66_584_576),
        (ACK_BYTES, 65_536),
        (ACK_BYTES_MAX, 131_072),
        (ACK_BYTES_MIN, 8_192),
        (REKEY_RECORDS, 16_777_216),
        (REKEY_BYTES, 68_719_476_736),
    ] {
        assert_eq!(limit, number);
    }
    assert_eq!(SESSION_TICKET_TTL.as_secs(), 172_800);
}
