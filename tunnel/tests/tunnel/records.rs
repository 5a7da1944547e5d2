//! Records under attack: whatever the relay does to them delivers nothing and is an error.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Event, SessionError,
    protocol::{
        Role,
        channel::{Credentials, Mode, Welcome},
        frame::kind,
        limits::{PAD_BLOCK, RECORD_PLAINTEXT_MAX},
    },
    session::ReadState,
    test_api::{RecordError, Sealer},
};

use crate::{
    hostile::{Hostile, data, parse, text, upkeep},
    pair::{Line, MS, Pair, Relay},
};

const TAG: usize = 16;

/// Sends two chunks in two records through a relay that does something to the frames of the client; gives what the
/// agent's application saw of the stream.
fn through(relay: Relay) -> (Vec<u8>, Pair) {
    let mut pair = Pair::new(Line::new(MS, 0));
    pair.settle();
    let id = pair.open(Role::Client);
    pair.run(100 * MS);
    pair.relay = Some(relay);
    pair.write(Role::Client, id, b"first");
    pair.transmit();
    pair.write(Role::Client, id, b"second");
    pair.transmit();
    pair.run(Duration::from_millis(5));
    let (got, state) = pair.read(Role::Agent, id);
    assert_eq!(state, ReadState::Open, "a broken line is no end of a stream");
    (got, pair)
}

fn only_client(mut change: impl FnMut(BytesMut) -> Vec<BytesMut> + 'static) -> Relay {
    Box::new(move |from, frame| if from == Role::Client { change(frame) } else { vec![frame] })
}

fn assert_cut(pair: &Pair) {
    assert_eq!(pair.agent.error, Some(SessionError::Record(RecordError)));
}

#[test]
fn an_honest_relay_changes_nothing() {
    let (got, pair) = through(only_client(|frame| vec![frame]));
    assert_eq!(got, b"firstsecond");
    pair.ok();
}

#[test]
fn flipped_records_deliver_nothing() {
    for position in [0, 1, 5, 9, 40, 64, 70, 80] {
        for bit in [0x01, 0x80] {
            let (got, pair) = through(only_client(move |mut frame| {
                frame[position] ^= bit;
                vec![frame]
            }));
            assert_eq!(got, b"", "byte {position}");
            assert_cut(&pair);
        }
    }
}

#[test]
fn truncated_and_lengthened_records_deliver_nothing() {
    for cut in [0, 1, 16, 17, 40, 80] {
        let (got, pair) = through(only_client(move |mut frame| {
            frame.truncate(cut);
            vec![frame]
        }));
        assert_eq!(got, b"");
        assert_cut(&pair);
    }
    let (got, pair) = through(only_client(|mut frame| {
        frame.extend_from_slice(&[0]);
        vec![frame]
    }));
    assert_eq!(got, b"");
    assert_cut(&pair);
}

#[test]
fn replayed_reordered_and_dropped_records_are_noticed() {
    let (got, pair) = through(only_client(|frame| vec![frame.clone(), frame]));
    assert_eq!(got, b"first", "once, and nothing after the repetition");
    assert_cut(&pair);

    let held = RefCell::new(Vec::new());
    let (got, pair) = through(only_client(move |frame| {
        held.borrow_mut().push(frame);
        if held.borrow().len() < 2 { vec![] } else { held.borrow_mut().drain(..).rev().collect() }
    }));
    assert_eq!(got, b"");
    assert_cut(&pair);

    let mut seen = 0;
    let (got, pair) = through(only_client(move |frame| {
        seen += 1;
        if seen == 1 { vec![] } else { vec![frame] }
    }));
    assert_eq!(got, b"", "what follows a gap is not delivered");
    assert_cut(&pair);
}

#[test]
fn a_record_of_the_other_direction_or_of_another_session_does_not_open() {
    // Reflection: what the client sent comes back to it.
    let mut pair = Pair::new(Line::new(MS, 0));
    let kept: Rc<RefCell<Vec<BytesMut>>> = Rc::default();
    let keep = kept.clone();
    pair.relay = Some(Box::new(move |from, frame| {
        if from == Role::Client {
            keep.borrow_mut().push(frame);
            vec![]
        } else {
            keep.borrow_mut().drain(..).collect()
        }
    }));
    pair.open(Role::Client);
    pair.settle();
    assert_eq!(pair.client.error, Some(SessionError::Record(RecordError)));

    let (mut one, mut two) = (Hostile::against(Role::Agent), Hostile::against(Role::Agent));
    two.sealer = Sealer::from_secret([9; 32]);
    let foreign = two.seal(&[2, 0, 0, 0, 5, b'n', b'e', b'w', b':', b'1']);
    assert!(one.session.handle_frame(one.now, foreign).is_err());
    assert!(one.events().is_empty());
}

#[test]
fn injected_frames_of_any_type_deliver_nothing() {
    for kind in [0, 1, 2, 3, 4, 5, 6, 255] {
        let (got, pair) = through(only_client(move |frame| vec![BytesMut::from(&[kind; 100][..]), frame]));
        assert_eq!(got, b"");
        assert_cut(&pair);
    }
    // A genuine record under another type byte.
    let (got, pair) = through(only_client(|mut frame| {
        frame[0] = 4;
        vec![frame]
    }));
    assert_eq!(got, b"");
    assert_cut(&pair);
}

#[test]
fn a_peer_with_the_keys_is_held_to_the_form_of_messages() {
    let plaintexts: [(&str, Vec<u8>); 9] = [
        ("oversized", vec![0; RECORD_PLAINTEXT_MAX + 1]),
        ("unknown kind", vec![6, 0, 0, 0, 0]),
        ("cut head", vec![3, 0, 0]),
        ("longer than the record", vec![3, 0, 0, 0, 9, 0, 0, 0, 1]),
        ("empty data", vec![3, 0, 0, 0, 4, 0, 0, 0, 1]),
        ("something in the padding", vec![0, 0, 1]),
        ("control that is no text", vec![2, 0, 0, 0, 1, 0xff]),
        ("welcome without its flag", vec![5, 0, 0, 0, 0]),
        ("handshake message", vec![1, 0, 0, 0, 1, 7]),
    ];
    for (what, plaintext) in plaintexts {
        let mut peer = Hostile::against(Role::Agent);
        let frame = peer.seal(&plaintext);
        let result = peer.session.handle_frame(peer.now, frame);
        assert!(matches!(result, Err(SessionError::Misbehaved(_))), "{what}: {result:?}");
        assert!(peer.events().is_empty(), "{what}");
    }
    let mut peer = Hostile::against(Role::Agent);
    let frame = peer.seal(&[0; RECORD_PLAINTEXT_MAX]);
    assert_eq!(peer.session.handle_frame(peer.now, frame), Ok(()), "padding alone is allowed");
    assert!(matches!(peer.say(&[upkeep("rekey"), text("new:1")]), Err(SessionError::Misbehaved(_))));
}

#[test]
fn short_records_are_padded_and_bulk_is_not() {
    let mut pair = Pair::new(Line::new(MS, 0));
    let id = pair.open(Role::Client);
    pair.settle();
    for len in 1..1100 {
        pair.client.frame_lengths.clear();
        pair.write(Role::Client, id, &vec![7; len]);
        pair.transmit();
        let [frame] = pair.client.frame_lengths[..] else { panic!("one record") };
        let plaintext = frame - 1 - TAG;
        if plaintext <= 1024 {
            assert_eq!(plaintext % PAD_BLOCK, 0, "{len}");
        }
        assert!(plaintext >= len + 9 && plaintext < len + 9 + PAD_BLOCK + 32, "{len}: {plaintext}");
        pair.run(MS * 5);
        pair.read(Role::Agent, id);
    }
    assert!(pair.agent.frame_lengths.iter().all(|len| (len - 1 - TAG).is_multiple_of(PAD_BLOCK)), "control alone");
    pair.ok();
}

fn welcome(ca: usize) -> Welcome {
    Welcome {
        mode: Mode::Shared,
        cluster: "prod".into(),
        server_name: None,
        path: None,
        ca: Some("x".repeat(ca)),
        insecure_skip_tls_verify: false,
        namespace: None,
        recorded: false,
        credentials: Some(Credentials {
            token: Some("t".into()),
            certificate: None,
            key: None,
            username: None,
            password: None,
            expiring: true,
        }),
    }
}

#[test]
fn a_welcome_arrives_whole_in_records_that_tell_nothing_of_its_length() {
    for ca in [0, 10, 16 * 1024, 100_000, 255 * 1024] {
        let mut pair = Pair::new(Line::new(MS, 0));
        pair.settle();
        pair.agent.frame_lengths.clear();
        // Among other things to say.
        let id = pair.open(Role::Agent);
        pair.write(Role::Agent, id, b"beside it");
        pair.agent.session.welcome(&welcome(ca)).unwrap();
        pair.transmit();
        let parts = serde_json::to_vec(&welcome(ca)).unwrap().len().div_ceil(RECORD_PLAINTEXT_MAX - 256);
        let full = RECORD_PLAINTEXT_MAX + 1 + TAG;
        assert_eq!(pair.agent.frame_lengths.iter().filter(|len| **len == full).count(), parts);
        pair.run(100 * MS);
        assert!(pair.client.events.contains(&Event::Welcome(Box::new(welcome(ca)))));
        assert_eq!(pair.read(Role::Client, id).0, b"beside it");
        pair.ok();
    }
    // A later welcome replaces those of which no part was sent; one that was begun is sent to its end.
    let mut pair = Pair::new(Line::new(MS, 0));
    pair.settle();
    pair.agent.session.welcome(&welcome(40_000)).unwrap();
    let begun = pair.agent.session.poll_transmit(pair.now).unwrap().unwrap();
    pair.client.session.handle_frame(pair.now, begun).unwrap();
    for ca in [5, 100_000, 7] {
        pair.agent.session.welcome(&welcome(ca)).unwrap();
    }
    pair.settle();
    let came: Vec<_> = pair.client.events.iter().filter(|event| matches!(event, Event::Welcome(_))).cloned().collect();
    assert_eq!(came, [40_000, 7].map(|ca| Event::Welcome(Box::new(welcome(ca)))));
}

#[test]
fn no_payload_travels_beside_credentials_or_what_measures() {
    let mut peer = Hostile::against(Role::Agent);
    let id = peer.session.open(peer.now, None).unwrap();
    peer.hear();
    for (n, beside) in [kind::WELCOME, kind::UPKEEP, kind::UPKEEP].into_iter().enumerate() {
        peer.session.write(peer.now, id, vec![7; 1000].into());
        match n {
            0 => peer.session.welcome(&welcome(10)).unwrap(),
            1 => peer.say(&[upkeep("ping:7")]).unwrap(),
            _ => peer.session.probe(peer.now),
        }
        let mut records = Vec::new();
        while let Some(mut frame) = peer.session.poll_transmit(peer.now).unwrap() {
            let messages = parse(peer.opener.open(&mut frame).unwrap());
            records.push(messages.into_iter().map(|(kind, _)| kind).collect::<Vec<_>>());
        }
        assert_eq!(records, [[beside], [kind::DATA]], "{n}");
    }
}

#[test]
fn an_acknowledgement_that_could_wait_travels_with_what_is_said() {
    let mut peer = Hostile::against(Role::Agent);
    peer.hear();
    peer.say(&[text("new:1:"), data(1, b"x")]).unwrap();
    assert_eq!(peer.hear(), []);
    peer.session.write(peer.now, 1, "y".into());
    assert_eq!(peer.hear(), [upkeep("ack:2"), data(1, b"y")]);
}

#[test]
fn payload_waits_for_the_next_record_rather_than_travel_in_slivers() {
    // What goes of `waiting` bytes into a record that has room for `room` of them.
    let goes = |(room, waiting): (usize, usize)| {
        let mut peer = Hostile::against(Role::Agent);
        let [one, two] = [(); 2].map(|()| peer.session.open(peer.now, None).unwrap());
        peer.hear();
        // Beside both heads, and room for `rekey`.
        let before = RECORD_PLAINTEXT_MAX - 2 * 9 - 16 - room;
        peer.session.write(peer.now, one, vec![1; before].into());
        peer.session.write(peer.now, two, vec![2; waiting].into());
        let mut frame = peer.session.poll_transmit(peer.now).unwrap().unwrap();
        let messages = parse(peer.opener.open(&mut frame).unwrap());
        assert_eq!(messages[0], data(one, &vec![1; before]));
        messages[1..].iter().map(|(_, body)| body.len() - 4).sum::<usize>()
    };
    let cases = [(255, 1000), (256, 1000), (257, 1000), (255, 255), (255, 256), (100, 99)];
    assert_eq!(cases.map(goes), [0, 256, 257, 255, 0, 99]);
}

#[test]
fn welcomes_that_are_never_acknowledged_end_the_session_before_they_fill_memory() {
    let mut peer = Hostile::against(Role::Agent);
    let ended = (0..100).find_map(|n| {
        peer.session.welcome(&welcome(200_000)).unwrap();
        peer.now = peer.now + MS;
        peer.say(&[upkeep("ping:1")]).unwrap();
        peer.try_hear().err().map(|error| (n, error))
    });
    assert_eq!(ended, Some((5, SessionError::Unacknowledged)));
    // Acknowledged they count nothing.
    let mut peer = Hostile::against(Role::Agent);
    let mut heard = 0;
    for _ in 0..20 {
        peer.session.welcome(&welcome(200_000)).unwrap();
        heard += peer.hear().iter().filter(|(kind, _)| *kind == 5).count();
        peer.say(&[upkeep(&format!("ack:{heard}"))]).unwrap();
    }
    assert_eq!(peer.session.audit().control, 0);
}

#[test]
fn welcomes_that_wait_for_a_client_to_come_back_are_one() {
    let mut peer = Hostile::against(Role::Agent);
    for _ in 0..100 {
        peer.session.welcome(&welcome(200_000)).unwrap();
    }
    let parts = serde_json::to_vec(&welcome(200_000)).unwrap().len().div_ceil(RECORD_PLAINTEXT_MAX - 256);
    assert_eq!(peer.hear().iter().filter(|(kind, _)| *kind == 5).count(), parts);
}

#[test]
fn of_many_welcomes_in_a_record_the_newest_is_told() {
    let mut peer = Hostile::against(Role::Client);
    let said = |ca: usize| (kind::WELCOME, [&[1][..], &serde_json::to_vec(&welcome(ca)).unwrap()].concat());
    peer.say(&(0..60).map(said).collect::<Vec<_>>()).unwrap();
    assert_eq!(peer.events(), [Event::Welcome(Box::new(welcome(59)))]);
    peer.say(&[said(60), said(1)]).unwrap();
    assert_eq!(peer.events(), [Event::Welcome(Box::new(welcome(1)))], "those heard are behind it");
}

#[test]
fn a_welcome_is_bounded_and_the_agents_alone() {
    let mut pair = Pair::new(Line::new(MS, 0));
    let rest = serde_json::to_vec(&welcome(0)).unwrap().len();
    assert!(pair.agent.session.welcome(&welcome(256 * 1024 - rest + 1)).is_err());
    pair.agent.session.welcome(&welcome(256 * 1024 - rest)).unwrap();
    pair.settle();
    assert!(pair.client.events.contains(&Event::Welcome(Box::new(welcome(256 * 1024 - rest)))));
    let mut peer = Hostile::against(Role::Client);
    let part = |last: u8, body: &[u8]| (5, [&[last][..], body].concat());
    for _ in 0..16 {
        peer.say(&[part(0, &[b' '; 16_000])]).unwrap();
    }
    assert!(peer.say(&[part(0, &[b' '; 16_000])]).is_err(), "more than 256 KiB before it ends");
    for bad in [&b"{}"[..], b"[]", b"{\"mode\":\"shared\",\"cluster\":\"c\",\"exec\":\"rm\"}", b"\xff"] {
        let mut peer = Hostile::against(Role::Client);
        assert!(matches!(peer.say(&[part(1, bad)]), Err(SessionError::Misbehaved(_))), "{bad:?}");
        assert!(peer.events().is_empty());
    }
    let mut peer = Hostile::against(Role::Agent);
    assert!(peer.say(&[part(1, b"{\"mode\":\"shared\",\"cluster\":\"c\"}")]).is_err(), "a client has none to give");
}

#[test]
fn keys_change_under_load_in_both_directions() {
    let config = || Config { rekey_records: 3, ..Config::default() };
    let mut pair = Pair::with(Line::new(5 * MS, 12_500_000), config(), config());
    let id = pair.open(Role::Client);
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut at_agent, mut at_client) = (Vec::new(), Vec::new());
    pair.run(50 * MS);
    pair.write(Role::Client, id, &body);
    pair.write(Role::Agent, id, &body);
    pair.agent.session.welcome(&welcome(200_000)).unwrap();
    for _ in 0..1000 {
        pair.run(5 * MS);
        at_agent.extend(pair.read(Role::Agent, id).0);
        at_client.extend(pair.read(Role::Client, id).0);
    }
    pair.ok();
    assert!(at_agent == body && at_client == body);
    assert!(pair.agent.sent_frames > 180 && pair.client.sent_frames > 180, "many keys were used");
    // A limit in bytes does the same, and a limit of one makes every record the last of its key.
    for config in [
        Config { rekey_bytes: 200_000, ..Config::default() },
        Config { rekey_records: 1, ..Config::default() },
        Config { rekey_records: 0, rekey_bytes: 0, ..Config::default() },
    ] {
        let mut pair = Pair::with(Line::new(MS, 0), config, config);
        let id = pair.open(Role::Client);
        pair.write(Role::Client, id, &body[..200_000]);
        pair.settle();
        assert_eq!(pair.read(Role::Agent, id).0, body[..200_000]);
        pair.ok();
    }
}

#[test]
fn rekey_is_the_last_message_of_exactly_the_last_record() {
    let mut peer = Hostile::against(Role::Agent);
    let established = mykube_tunnel::test_api::established(Role::Agent, [1; 32], [2; 32]);
    let config = Config { rekey_records: 3, ..Config::default() };
    peer.session = mykube_tunnel::Session::new(peer.now, established, config);
    let mut rekeys = Vec::new();
    for n in 0..9 {
        peer.say(&[upkeep(&format!("ping:{n}"))]).unwrap();
        let mut frame = peer.session.poll_transmit(peer.now).unwrap().unwrap();
        let messages = parse(peer.opener.open(&mut frame).unwrap());
        let rekey = messages.iter().position(|message| *message == upkeep("rekey"));
        assert!(rekey.is_none_or(|at| at + 1 == messages.len()));
        if rekey.is_some() {
            peer.opener.rekey();
        }
        rekeys.push(rekey.is_some());
    }
    assert_eq!(rekeys, [false, false, true].repeat(3));
    // The peer's rekey moves its own direction and no other.
    peer.say(&[text("new:1"), upkeep("rekey")]).unwrap();
    peer.sealer.rekey();
    peer.say(&[data(1, b"under the next key")]).unwrap();
    assert_eq!(peer.events(), [Event::Opened { id: 1, target: None }]);
}

/// That a `Sealer` cannot be cloned and its sequence number not be set are compile-fail tests beside the type.
#[test]
fn the_same_plaintext_never_gives_the_same_record() {
    let mut peer = Hostile::against(Role::Agent);
    let mut seen = std::collections::HashSet::new();
    for n in 0..1000 {
        if n % 100 == 99 {
            peer.sealer.rekey();
        }
        assert!(seen.insert(peer.seal(&[0; 32])), "record {n} repeats one");
    }
}
