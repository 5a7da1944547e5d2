//! The fuzz target `relay_frames`: any bytes at all, and frames that a real end could send.
//! The test below replays its committed corpus on stable Rust.

use mykube_protocol::Role;

use super::{
    Batch, Frames, Step, Stop,
    codec::{self, BINARY, CONTINUATION, Header, PONG, TEXT},
};

const MAX: usize = 1 << 12;
const BUFFER: usize = 256;

/// The first byte chooses the kind of socket and how its input is cut; the second, whether the other bytes are raw input or a
/// recipe of frames.
pub fn run(data: &[u8]) {
    let [setting, kind, data @ ..] = data else { return };
    if kind & 1 == 0 { bytes(*setting, data) } else { recipe(*setting, data) }
}

/// All results of one socket's input.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Texts for the relay and pings.
    said: Vec<String>,
    /// Payload for the peer, by message.
    messages: Vec<Vec<u8>>,
    open: bool,
    stop: Option<Stop>,
    payload: u64,
}

fn socket(setting: u8) -> Frames {
    let role = if setting & 1 == 0 { Role::Agent } else { Role::Client };
    Frames::new(role, setting & 2 != 0, MAX, BUFFER)
}

/// However the bytes are cut, the results are the same, and the codec does not stall.
fn bytes(setting: u8, data: &[u8]) {
    let whole = feed(setting, data, usize::MAX);
    for cut in [1, usize::from(setting >> 2) + 1] {
        assert_eq!(feed(setting, data, cut), whole, "cut at every {cut}");
    }
}

fn feed(setting: u8, data: &[u8], cut: usize) -> Seen {
    let mut frames = socket(setting);
    let size = frames.buffer();
    let (mut held, mut rest, mut seen) = (Vec::new(), data, Seen::default());
    // As in the relay: the frames of one read go out in one batch.
    let mut batch = Batch::new(vec![0; size + codec::HEADER_MAX]);
    loop {
        let more = rest.len().min(cut).min(size - held.len());
        held.extend_from_slice(&rest[..more]);
        rest = &rest[more..];
        (batch.len, batch.payload) = (0, 0);
        let mut at = 0;
        loop {
            match frames.next(true, &mut batch, &held[at..]) {
                Ok(Step::Partial) => break,
                Ok(Step::Taken(n)) => at += n,
                Ok(Step::Text(text, n)) => {
                    seen.said.push(text.to_string());
                    at += n;
                }
                Ok(Step::Ping(payload, n)) => {
                    seen.said.push(format!("ping {payload:?}"));
                    at += n;
                }
                Err(stop) => {
                    seen.stop = Some(stop);
                    break;
                }
            }
        }
        seen.read(&batch);
        if seen.stop.is_some() {
            return seen;
        }
        assert!(at > 0 || held.len() < size, "a full buffer without a step stalls for ever");
        held.drain(..at);
        if rest.is_empty() {
            return seen;
        }
    }
}

impl Seen {
    /// Reads a batch as the peer would.
    fn read(&mut self, batch: &Batch) {
        let mut out = &batch.buf[..batch.len];
        self.payload += batch.payload;
        while let [first, second, rest @ ..] = out {
            let (len, rest) = match (second, rest) {
                (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
                (127, _) => panic!("no frame here is that long"),
                (len, rest) => (usize::from(*len), rest),
            };
            let (payload, rest) = rest.split_at(len);
            let continued = first & 0x0f == CONTINUATION;
            assert_eq!(continued, self.open, "fragments follow their start, and nothing else does");
            if continued {
                self.messages.last_mut().expect("it has begun").extend_from_slice(payload);
            } else {
                self.messages.push(payload.to_vec());
            }
            self.open = first & 0x80 == 0;
            out = rest;
        }
        assert!(out.is_empty(), "a batch has whole frames");
        let sum: usize = self.messages.iter().map(Vec::len).sum();
        assert_eq!(sum as u64, self.payload, "the payload is what was counted");
    }
}

/// Frames by recipe (what, how long, mask; three bytes each) arrive as they were sent, pongs and pings beside them.
fn recipe(setting: u8, data: &[u8]) {
    let legacy = setting & 2 != 0;
    let (mut wire, mut expected, mut pings) = (Vec::new(), Vec::<Vec<u8>>::new(), 0);
    let mut open = false;
    for (i, op) in data.chunks_exact(3).take(60).enumerate() {
        let len = usize::from(op[1]) * if legacy { 8 } else { 16 };
        let payload: Vec<u8> = (0..=250).cycle().skip(i).take(len).collect();
        let key = [op[2], op[2].rotate_left(3), !op[2], 0x5a];
        match op[0] % 5 {
            0 => {
                pings += 1;
                put(&mut wire, true, codec::PING, key, &payload[..len.min(125)]);
            }
            1 => put(&mut wire, true, PONG, key, &payload[..len.min(125)]),
            // Another message's fragments: in the legacy form only, and only as far as its limit.
            2 if legacy && open && expected.last().is_some_and(|message| message.len() + len <= MAX) => {
                open = op[2] & 1 == 0;
                put(&mut wire, !open, CONTINUATION, key, &payload);
                expected.last_mut().expect("one is open").extend(payload);
            }
            _ if open => {}
            _ => {
                open = legacy && op[2] & 2 == 0;
                put(&mut wire, !open, if legacy && op[0] & 8 == 0 { TEXT } else { BINARY }, key, &payload);
                expected.push(payload);
            }
        }
    }
    for cut in [usize::MAX, usize::from(setting >> 2) + 1] {
        let seen = feed(setting, &wire, cut);
        assert_eq!((seen.stop, &seen.messages), (None, &expected));
        assert_eq!(seen.said.len(), pings);
    }
}

fn put(wire: &mut Vec<u8>, fin: bool, opcode: u8, key: [u8; 4], payload: &[u8]) {
    let mut header = [0; codec::HEADER_MAX];
    let size = codec::put_header(&mut header, fin, opcode, payload.len());
    header[1] |= 0x80;
    let start = wire.len();
    wire.extend_from_slice(&header[..size]);
    wire.extend_from_slice(&key);
    let parsed = Header { fin, opcode, len: payload.len() as u64, key, size: size + 4 };
    assert_eq!(codec::parse(&wire[start..]), Ok(Some(parsed)));
    let masked = wire.len();
    wire.resize(masked + payload.len(), 0);
    codec::unmask(payload, &mut wire[masked..], key);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_committed_corpus_passes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/relay_frames");
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut replayed = 0;
        for file in files {
            let path = file.unwrap().path();
            eprintln!("{}", path.display());
            super::run(&fs::read(path).unwrap());
            replayed += 1;
        }
        assert!((1..=60).contains(&replayed), "{replayed} files");
    }

    #[test]
    fn random_frames_arrive_however_they_are_cut() {
        use rand::{Rng as _, SeedableRng as _};
        for seed in 0..200 {
            let mut data = vec![0; 2 + 3 * 40];
            rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut data);
            super::run(&data);
        }
    }
}
