//! The relay's work for each frame. `cargo bench -p mykube-relay-core` takes its time; `scripts/instructions` counts what
//! it executes (`list`, `count NAME TIMES`).

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mykube_protocol::{Role, limits::FRAME_MAX};
use mykube_relay_core::frames::{Batch, Frames, Step, codec::HEADER_MAX};

/// Name, payload of each frame, and frames an operation, as one read of a socket may give them.
const OPERATIONS: [(&str, usize, usize); 2] =
    [("relay_64_frames_of_64", 64, 64), ("relay_7_frames_of_16384", 16384, 7)];
const BUFFER: usize = 128 * 1024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["count", name, times] => {
            let (_, payload, frames) = OPERATIONS.iter().find(|(known, ..)| known == name).unwrap();
            let mut operation = forward(*payload, *frames);
            for _ in 0..times.parse::<u32>().unwrap() {
                operation();
            }
        }
        ["list"] => OPERATIONS.iter().for_each(|(name, ..)| println!("{name}")),
        _ => measure(),
    }
}

fn measure() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, payload, frames) in OPERATIONS {
        let mut group = criterion.benchmark_group("relay");
        group.throughput(Throughput::Bytes((payload * frames) as u64));
        let mut operation = forward(payload, frames);
        group.bench_function(name, |bencher| bencher.iter(&mut operation));
        group.finish();
    }
    criterion.final_summary();
}

/// Puts the frames of a client into a batch for its agent, which is here.
fn forward(payload: usize, frames: usize) -> impl FnMut() {
    let input: Vec<u8> = (0..frames).flat_map(|_| masked(payload)).collect();
    let mut client = Frames::new(Role::Client, false, FRAME_MAX, BUFFER);
    let mut batch = Batch::new(vec![0; client.buffer() + HEADER_MAX]);
    move || {
        (batch.len, batch.payload) = (0, 0);
        let (input, mut at) = (black_box(input.as_slice()), 0);
        while let Ok(Step::Taken(count)) = client.next(true, &mut batch, &input[at..]) {
            at += count;
        }
        assert_eq!(batch.payload, (payload * frames) as u64);
    }
}

/// A binary frame as an end sends it (RFC 6455 section 5.2).
fn masked(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u16::try_from(payload).unwrap() {
        short @ 0..126 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.resize(frame.len() + payload, 0x42);
    frame
}
