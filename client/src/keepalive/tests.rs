//! The machine, compared with a reader of frames that has all bytes at once.

use bytes::BytesMut;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::machine::{FRAME_MAX, Keepalive};

const REQUEST: &[u8] = b"GET /api/v1/namespaces/n/pods/p/exec?command=sh HTTP/1.1\r\nHost: 127.0.0.1\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n";

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// A frame as RFC 6455, section 5.2, draws it.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let flag = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => bytes.push(flag | u8::try_from(len).unwrap()),
        len @ 126..0x1_0000 => {
            bytes.push(flag | 126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(flag | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    bytes
}

fn of_client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | first, Some([7, 0, 0xff, 0x5a]), payload)
}

fn of_server(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(FIN | first, None, payload)
}

/// Whole frames: first byte, and payload unmasked.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (len, at) = match bytes[1] & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes[2..4].try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()), 10),
            len => (u64::from(len), 2),
        };
        let (mask, at) = match bytes[1] & 0x80 {
            0 => ([0; 4], at),
            _ => (bytes[at..at + 4].try_into().unwrap(), at + 4),
        };
        let end = at + usize::try_from(len).unwrap();
        let payload = bytes[at..end].iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        frames.push((bytes[0], payload));
        bytes = &bytes[end..];
    }
    frames
}

/// A machine, and the bytes that it gave to either side.
struct Watched {
    machine: Keepalive,
    away: bool,
    stream: BytesMut,
    kubectl: BytesMut,
}

impl Watched {
    fn new() -> Self {
        Self { machine: Keepalive::new(), away: false, stream: BytesMut::new(), kubectl: BytesMut::new() }
    }

    /// A machine after the upgrade, without the upgrade's bytes.
    fn websocket() -> Self {
        let mut watched = Self::new();
        watched.outward(REQUEST);
        watched.inward(RESPONSE);
        assert!(watched.machine.is_websocket());
        assert_eq!((&watched.stream[..], &watched.kubectl[..]), (REQUEST, RESPONSE));
        watched.stream.clear();
        watched.kubectl.clear();
        watched
    }

    fn outward(&mut self, bytes: &[u8]) {
        self.machine.handle_outward(bytes, self.away, &mut self.stream);
        self.machine.poll_own(&mut self.kubectl);
    }

    fn inward(&mut self, bytes: &[u8]) {
        self.machine.handle_inward(bytes, &mut self.kubectl);
        self.machine.poll_own(&mut self.kubectl);
    }

    fn turn(&mut self, away: bool) {
        if away && !self.away {
            self.machine.handle_away();
        }
        self.away = away;
        self.machine.poll_own(&mut self.kubectl);
    }
}

#[test]
fn a_ping_while_away_is_answered_here_and_only_then() {
    for len in 0..=125u8 {
        let payload: Vec<u8> = (0..len).collect();
        let mut watched = Watched::websocket();
        watched.outward(&of_client(PING, &payload));
        assert_eq!(watched.stream, of_client(PING, &payload), "{len}");
        assert!(watched.kubectl.is_empty());
        watched.inward(&of_server(PONG, &payload));
        assert_eq!(watched.kubectl, of_server(PONG, &payload));

        watched.turn(true);
        assert_eq!(watched.kubectl, of_server(PONG, &payload), "it was answered");
        watched.stream.clear();
        watched.kubectl.clear();
        watched.outward(&of_client(PING, &payload));
        watched.outward(&of_client(BINARY, b"\0typed"));
        assert_eq!(watched.kubectl, of_server(PONG, &payload));
        assert_eq!(watched.stream, of_client(BINARY, b"\0typed"), "the ping is not kept for hours");

        watched.turn(false);
        watched.outward(&of_client(PING, &payload));
        assert_eq!(watched.stream, [of_client(BINARY, b"\0typed"), of_client(PING, &payload)].concat());
        assert_eq!(watched.kubectl, of_server(PONG, &payload));
    }
}

#[test]
fn a_ping_on_its_way_is_answered_when_the_channel_goes_away() {
    let mut watched = Watched::websocket();
    for payload in [b"1", b"2", b"3"] {
        watched.outward(&of_client(PING, payload));
    }
    watched.inward(&of_server(PONG, b"1"));
    watched.inward(&of_server(PONG, b"unasked"));
    watched.kubectl.clear();
    watched.turn(true);
    assert_eq!(watched.kubectl, of_server(PONG, b"3"), "the newest is enough");
    watched.turn(false);
    watched.turn(true);
    assert_eq!(watched.kubectl, of_server(PONG, b"3"), "once");
}

#[test]
fn a_pong_waits_for_the_end_of_a_large_frame_and_never_for_that_of_a_smaller_one() {
    for payload in [0, 1, 125, 126, 40_000, FRAME_MAX - 4, FRAME_MAX - 10, FRAME_MAX, FRAME_MAX + 1, 3 * FRAME_MAX] {
        let whole = of_server(BINARY, &vec![3; payload]);
        let pong = of_server(PONG, b"x");
        for cut in [1, 2, 3, 4, 9, 10, 11, whole.len() / 2, whole.len() - 1] {
            let Some((first, second)) = whole.split_at_checked(cut).filter(|parts| !parts.1.is_empty()) else {
                continue;
            };
            let mut watched = Watched::websocket();
            watched.inward(first);
            watched.turn(true);
            watched.outward(&of_client(PING, b"x"));
            let passes = whole.len() > FRAME_MAX && cut >= 10;
            assert_eq!(watched.kubectl, if passes { first } else { &pong }, "{payload} cut at {cut}");
            watched.inward(second);
            let expected = if passes { [&whole[..], &pong].concat() } else { [&pong[..], &whole].concat() };
            assert!(watched.kubectl == expected, "{payload} cut at {cut}");
        }
    }
}

/// `a` goes up and `b` comes down, in any pieces; then the channel goes away and a ping comes, in any pieces too.
#[test]
fn splits_change_nothing() {
    let up: Vec<u8> = [
        of_client(BINARY, &[1; 130]),
        of_client(PING, b"before"),
        frame(BINARY, Some([1, 2, 3, 4]), b"half"),
        of_client(PING, b""),
        frame(FIN, Some([1, 2, 3, 4]), b"the rest"),
        of_client(PONG, b"to a ping of the server's"),
    ]
    .concat();
    let down: Vec<u8> = [
        of_server(BINARY, &[2; 200]),
        of_server(PONG, b"before"),
        frame(TEXT, None, b"half"),
        of_server(PING, b"of the server"),
        of_server(PONG, b""),
        frame(FIN, None, b"the rest"),
    ]
    .concat();
    let ping = of_client(PING, b"away");
    for cut in 0..REQUEST.len() {
        let mut watched = Watched::new();
        watched.outward(&REQUEST[..cut]);
        watched.outward(&REQUEST[cut..]);
        for byte in RESPONSE.iter().chain(&of_server(BINARY, b"greeting")) {
            watched.inward(&[*byte]);
        }
        assert!(watched.machine.is_websocket(), "{cut}");
        assert_eq!(watched.stream, REQUEST);
        assert_eq!(watched.kubectl, [RESPONSE, &of_server(BINARY, b"greeting")].concat());
    }
    for cut in 0..down.len() {
        let mut watched = Watched::websocket();
        let at = cut.min(up.len());
        watched.outward(&up[..at]);
        watched.inward(&down[..cut]);
        watched.outward(&up[at..]);
        watched.inward(&down[cut..]);
        assert_eq!((&watched.stream[..], &watched.kubectl[..]), (&up[..], &down[..]), "{cut}");
        watched.turn(true);
        for byte in &ping {
            watched.outward(&[*byte]);
        }
        assert_eq!(watched.stream, up);
        assert_eq!(watched.kubectl, [&down[..], &of_server(PONG, b"away")].concat());
    }
}

/// The frame's length written with more bytes than needed.
#[test]
fn a_length_may_be_written_long() {
    let long = [&[FIN | BINARY, 127, 0, 0, 0, 0, 0, 0, 0, 3][..], b"abc"].concat();
    let ping = [&[FIN | PING, 0x80 | 126, 0, 2, 9, 9, 9, 9][..], &[b'h' ^ 9, b'i' ^ 9]].concat();
    let mut watched = Watched::websocket();
    watched.turn(true);
    for byte in &long {
        watched.inward(&[*byte]);
    }
    watched.inward(&long);
    watched.outward(&ping);
    watched.outward(&of_client(TEXT, b"on"));
    assert_eq!(watched.kubectl, [&long[..], &long, &of_server(PONG, b"hi")].concat());
    assert_eq!(watched.stream, of_client(TEXT, b"on"));
}

#[test]
fn only_the_first_requests_websocket_is_followed() {
    let upgrade = std::str::from_utf8(REQUEST).unwrap();
    let granted = std::str::from_utf8(RESPONSE).unwrap();
    let post = format!("POST /x HTTP/1.1\r\nContent-Length: {}\r\n\r\n{upgrade}", upgrade.len());
    let spdy = upgrade.replace("websocket", "SPDY/3.1");
    let two = upgrade.replace("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket");
    let long = upgrade.replace("?command=sh", &format!("?command={}", "x".repeat(100_000)));
    let many = upgrade.replace("\r\n\r\n", &format!("\r\n{}\r\n", "Impersonate-Group: g\r\n".repeat(300)));
    let too_long = upgrade.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(1_060_000)));
    let get = format!("GET / HTTP/1.1\r\n\r\n{upgrade}");
    let early = format!("{upgrade}early");
    let not_granted = granted.replace("WebSocket", "h2c");
    let long_answer = granted.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(20_000)));
    let hints = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{granted}");
    for (request, answer, followed) in [
        (upgrade, granted, true),
        (upgrade, &*hints, true),
        (&*post, granted, false),
        (&*get, granted, false),
        (&*spdy, granted, false),
        (&*two, granted, false),
        (&*long, granted, true),
        (&*many, granted, true),
        (&*too_long, granted, false),
        (&*early, granted, false),
        ("\u{16}\u{3}\u{1}", granted, false),
        (upgrade, &*not_granted, false),
        (upgrade, &*long_answer, false),
        (upgrade, "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n", false),
        (upgrade, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        for step in [1, 7, 100_000] {
            let mut watched = Watched::new();
            for part in request.as_bytes().chunks(step) {
                watched.outward(part);
            }
            for part in answer.as_bytes().chunks(step) {
                watched.inward(part);
            }
            assert_eq!(watched.machine.is_websocket(), followed, "{request} {answer}");
            assert_eq!(watched.machine.is_plain(), !followed, "{request} {answer}");
            watched.turn(true);
            watched.outward(&of_client(PING, b""));
            let kept: &[u8] = if followed { b"" } else { &of_client(PING, b"") };
            assert_eq!(watched.stream, [request.as_bytes(), kept].concat());
            let pong: &[u8] = if followed { &of_server(PONG, b"") } else { b"" };
            assert_eq!(watched.kubectl, [answer.as_bytes(), pong].concat());
        }
    }
}

#[test]
fn an_answer_to_half_a_request_is_not_looked_at() {
    let mut watched = Watched::new();
    watched.outward(&REQUEST[..20]);
    watched.inward(RESPONSE);
    watched.outward(&REQUEST[20..]);
    assert!(watched.machine.is_plain());
}

#[test]
fn nothing_is_said_after_a_close() {
    for from_server in [true, false] {
        let mut watched = Watched::websocket();
        watched.outward(&of_client(PING, b"1"));
        let (up, down) = if from_server {
            watched.inward(&of_server(CLOSE, b"\x03\xe8"));
            (vec![], of_server(CLOSE, b"\x03\xe8"))
        } else {
            watched.outward(&of_client(CLOSE, b"\x03\xe8"));
            (of_client(CLOSE, b"\x03\xe8"), vec![])
        };
        watched.turn(true);
        watched.outward(&of_client(PING, b"2"));
        assert_eq!(watched.stream, [of_client(PING, b"1"), up, of_client(PING, b"2")].concat());
        assert_eq!(watched.kubectl, down);
    }
}

#[test]
fn what_is_no_frame_passes_as_it_is() {
    let reserved = [FIN | 0x3, 0x80, 0, 0, 0, 0];
    let long_ping = frame(FIN | PING, Some([0; 4]), &[0; 126]);
    let cut_ping = frame(PING, Some([0; 4]), b"x");
    let endless = [FIN | BINARY, 127, 0xff, 0, 0, 0, 0, 0, 0, 0];
    for bad in [&reserved[..], &long_ping, &cut_ping, &endless] {
        for step in [1, 3, bad.len()] {
            let mut watched = Watched::websocket();
            let held = &of_server(BINARY, b"held")[..4];
            watched.inward(held);
            for part in bad.chunks(step) {
                watched.outward(part);
            }
            assert_eq!(watched.stream, bad);
            assert_eq!(watched.kubectl, held, "nothing is held any more");
            assert!(watched.machine.is_plain());

            let mut watched = Watched::websocket();
            let held = &of_client(PING, b"held")[..7];
            watched.outward(held);
            for part in bad.chunks(step) {
                watched.inward(part);
            }
            assert_eq!(watched.kubectl, bad);
            watched.outward(b"rest");
            assert_eq!(watched.stream, [held, b"rest"].concat());
            assert!(watched.machine.is_plain());
        }
    }
}

#[test]
fn an_end_leaves_nothing_held() {
    let (ping, data) = (of_client(PING, b"cut"), of_server(BINARY, b"cut"));
    for cut in 1..ping.len() {
        let mut watched = Watched::websocket();
        watched.outward(&ping[..cut]);
        assert!(watched.stream.is_empty());
        watched.machine.finish_outward(&mut watched.stream);
        assert_eq!(watched.stream, ping[..cut]);
    }
    for cut in 1..data.len() {
        let mut watched = Watched::websocket();
        watched.inward(&data[..cut]);
        assert!(watched.kubectl.is_empty());
        watched.machine.finish_inward(&mut watched.kubectl);
        watched.turn(true);
        watched.outward(&of_client(PING, b""));
        assert_eq!(watched.kubectl, data[..cut], "nothing comes after the end");
    }
}

/// Frames, cuts and outages at random, compared with what each side sent.
#[test]
fn any_schedule_keeps_all_frames_and_answers_every_ping_of_an_outage() {
    let seeds = std::env::var("SEED").ok().map_or(0..300, |seed| {
        let seed = seed.parse().unwrap();
        seed..seed + 1
    });
    let mut answered = 0;
    for seed in seeds {
        println!("SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        answered += schedule(&mut rng);
    }
    assert!(answered > 0);
}

/// A server's frames never begin with this payload; our pongs always do.
const OURS: &[u8] = b"ping ";

fn schedule(rng: &mut StdRng) -> usize {
    let mut up = Vec::new();
    let mut down = Vec::new();
    for i in 0..rng.random_range(1..40u32) {
        let mut payload = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut payload);
        match rng.random_range(0..8) {
            0..4 => {
                let payload = [OURS, &i.to_be_bytes()].concat();
                up.push(frame(FIN | PING, Some(rng.random()), &payload));
            }
            4 => up.push(frame(rng.random_range(0..3), Some(rng.random()), &payload)),
            5 => down.push(frame(
                FIN | BINARY,
                None,
                &vec![1; rng.random_range(0..2 * FRAME_MAX) >> rng.random_range(0..16)],
            )),
            6 => down.push(frame(FIN | if rng.random() { PING } else { PONG }, None, &payload[..payload.len().min(9)])),
            _ => down.push(frame(rng.random_range(0..3), None, &payload)),
        }
    }
    let (sent_up, sent_down) = (up.concat(), down.concat());
    let (mut rest_up, mut rest_down) = (&sent_up[..], &sent_down[..]);
    let mut watched = Watched::websocket();
    while !rest_up.is_empty() || !rest_down.is_empty() {
        let most = *[1, 10, 300, 100_000].get(rng.random_range(0..4)).unwrap();
        match rng.random_range(0..4) {
            0 => watched.turn(!watched.away),
            1 => {
                let (part, rest) = rest_up.split_at(rest_up.len().min(most));
                watched.outward(part);
                rest_up = rest;
            }
            _ => {
                let (part, rest) = rest_down.split_at(rest_down.len().min(most));
                watched.inward(part);
                rest_down = rest;
            }
        }
    }
    let (stream, kubectl) = (frames(&watched.stream), frames(&watched.kubectl));
    // Down: all of the server's frames in order, and our pongs.
    let is_ours = |frame: &(u8, Vec<u8>)| frame.0 == FIN | PONG && frame.1.starts_with(OURS);
    let (ours, servers): (Vec<_>, Vec<_>) = kubectl.into_iter().partition(is_ours);
    assert!(servers == frames(&sent_down));
    // Up: all of kubectl's frames in order but for pings; each of those is answered, or a newer one is.
    let mut passed = stream.into_iter().peekable();
    let mut dropped = Vec::new();
    for frame in frames(&sent_up) {
        if passed.next_if_eq(&frame).is_none() {
            assert_eq!(frame.0, FIN | PING);
            dropped.push(frame.1);
        }
    }
    assert_eq!(passed.next(), None);
    assert!(ours.is_sorted_by(|a, b| a.1 < b.1), "the order of the pings, none twice");
    if let Some(newest) = dropped.last() {
        assert!(ours.last().is_some_and(|pong| pong.1 >= *newest));
    }
    ours.len()
}
