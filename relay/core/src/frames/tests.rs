//! Single frames: what goes to the peer, what is the relay's own, and what ends the socket.

use super::*;

fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; HEADER_MAX];
    let size = codec::put_header(&mut wire, fin, opcode, payload.len());
    wire.truncate(size);
    wire[1] |= 0x80;
    // A key that changes nothing.
    wire.extend([0; 4]);
    wire.extend_from_slice(payload);
    wire
}

/// The step that the input leads to, and how many bytes for the peer.
fn look(frames: &mut Frames, peer: bool, input: &[u8]) -> (Result<Step, Stop>, u64) {
    let mut batch = Batch::new(vec![0; frames.buffer() + HEADER_MAX]);
    let step = frames.next(peer, &mut batch, input);
    (step, batch.payload)
}

/// Of a socket of version 2 whose limit is 100 bytes and which has a peer.
fn ask(role: Role, input: &[u8]) -> (Result<Step, Stop>, u64) {
    look(&mut Frames::new(role, false, 100, 16), true, input)
}

fn violation(step: Result<Step, Stop>) -> u16 {
    match step {
        Err(Stop::Violation(code, _)) => code,
        other => panic!("no violation: {other:?}"),
    }
}

#[test]
fn a_frame_as_large_as_the_limit_is_forwarded_whole_and_no_larger_one() {
    for max in [100, 1000, 70_000] {
        // The longest header of an end is a server's and the mask.
        assert_eq!((batch_max(max, 16), batch_max(max, 1 << 20)), (max + 14, 1 << 20));
        let mut frames = Frames::new(Role::Client, false, max, 16);
        let fits = frame(true, BINARY, &vec![7; max]);
        assert!(frames.buffer() >= fits.len());
        assert_eq!(look(&mut frames, true, &fits), (Ok(Step::Taken(fits.len())), max as u64));
        let (step, sent) = look(&mut frames, true, &frame(true, BINARY, &vec![7; max + 1]));
        assert_eq!((violation(step), sent), (close::TOO_BIG, 0));
    }
}

#[test]
fn without_a_peer_data_is_taken_and_goes_nowhere() {
    let data = frame(true, BINARY, b"data");
    let mut frames = Frames::new(Role::Agent, false, 100, 16);
    assert_eq!(look(&mut frames, false, &data), (Ok(Step::Taken(data.len())), 0));
    assert_eq!(look(&mut frames, true, &data), (Ok(Step::Taken(data.len())), 4));
}

#[test]
fn only_an_agent_speaks_to_the_relay_and_only_in_whole_known_texts() {
    let text = frame(true, TEXT, b"burned");
    assert_eq!(ask(Role::Agent, &text), (Ok(Step::Text(FromAgent::Burned, text.len())), 0));
    assert_eq!(violation(ask(Role::Client, &text).0), close::POLICY);
    assert_eq!(violation(ask(Role::Agent, &frame(true, TEXT, b"spent")).0), close::POLICY);
    assert_eq!(violation(ask(Role::Agent, &frame(true, TEXT, b"\xff")).0), NOT_UTF_8);
    for (role, fin, opcode) in [
        (Role::Agent, false, TEXT),
        (Role::Agent, false, BINARY),
        (Role::Client, false, BINARY),
        (Role::Client, true, CONTINUATION),
    ] {
        assert_eq!(violation(ask(role, &frame(fin, opcode, b"burned")).0), PROTOCOL_ERROR, "{fin} {opcode}");
    }
}

#[test]
fn a_text_over_its_limit_is_refused_for_its_length() {
    let mut frames = Frames::new(Role::Agent, false, 1 << 16, 16);
    let too_long = Err(Stop::Violation(close::POLICY, "a text frame is too long"));
    for (len, is_too_long) in [(RELAY_TEXT_MAX, false), (RELAY_TEXT_MAX + 1, true)] {
        let (step, _) = look(&mut frames, true, &frame(true, TEXT, &vec![b'x'; len]));
        assert_eq!(step == too_long, is_too_long, "{step:?}");
        assert_eq!(violation(step), close::POLICY);
    }
}

#[test]
fn the_fragments_of_a_message_are_counted_together() {
    for (rest, fits) in [(40, true), (41, false)] {
        let mut frames = Frames::new(Role::Client, true, 100, 256);
        let first = frame(false, BINARY, &[7; 30]);
        let second = frame(false, CONTINUATION, &[7; 30]);
        assert_eq!(look(&mut frames, true, &first).0, Ok(Step::Taken(first.len())));
        assert_eq!(look(&mut frames, true, &second).0, Ok(Step::Taken(second.len())));
        let (step, sent) = look(&mut frames, true, &frame(true, CONTINUATION, &vec![7; rest]));
        match step {
            Ok(_) => assert_eq!((fits, sent), (true, rest as u64)),
            Err(_) => assert_eq!((fits, violation(step)), (false, close::TOO_BIG)),
        }
    }
}

/// RFC 6455 section 7.4: which codes an end may send.
#[test]
fn a_close_is_answered_with_its_code_if_it_has_a_good_one() {
    let closed = |payload: &[u8]| ask(Role::Client, &frame(true, CLOSE, payload)).0;
    assert_eq!(closed(&[]), Err(Stop::Closed(NORMAL)));
    assert_eq!(violation(closed(&[3])), PROTOCOL_ERROR);
    for code in [1000, 1003, 1007, 1014, 3000, 4401, 4999_u16] {
        let [high, low] = code.to_be_bytes();
        assert_eq!(closed(&[high, low]), Err(Stop::Closed(code)));
        assert_eq!(closed(&[high, low, b'n', b'o']), Err(Stop::Closed(code)));
        assert_eq!(violation(closed(&[high, low, 0xff])), NOT_UTF_8);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000_u16] {
        assert_eq!(violation(closed(&code.to_be_bytes())), PROTOCOL_ERROR, "{code}");
    }
}
