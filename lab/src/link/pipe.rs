//! One direction of a line, without sockets or a clock: packets go in, and come out when they are due.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Most bytes under way at once, whatever the delay: bounds the emulator's memory.
const UNDER_WAY: u64 = 512 << 20;
/// How many buffers of packets that left are kept for the next ones.
const SPARE: usize = 4096;

/// One of the two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In the first namespace.
    A,
    /// In the second.
    B,
}

/// What a link carried and dropped, by direction.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct LinkStats {
    /// What `A` sent.
    pub from_a: DirectionStats,
    /// What `B` sent.
    pub from_b: DirectionStats,
}

/// How a line treats packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// From end to end, one way.
    pub delay: Duration,
    /// Bits a second; `None` for as fast as the machine.
    pub rate: Option<u64>,
    /// Bytes that may wait for the line before packets are dropped; `None` for 100 ms of the rate. Without a rate nothing waits.
    pub queue: Option<u64>,
    /// The part of packets that gets lost, 0 to 1.
    pub loss: f64,
    /// The losses are the same in every run with the same seed and packets.
    pub seed: u64,
    /// Drops everything, silently.
    pub blackhole: bool,
    /// Bytes of the largest packet; read when the link is made.
    pub mtu: u16,
}

impl Default for Shape {
    fn default() -> Self {
        Self { delay: Duration::ZERO, rate: None, queue: None, loss: 0.0, seed: 1, blackhole: false, mtu: 1500 }
    }
}

impl Shape {
    /// How many bytes may wait.
    fn queue_limit(&self) -> u64 {
        let least = 4 * u64::from(self.mtu);
        self.queue.unwrap_or_else(|| self.rate.map_or(u64::MAX, |rate| rate / 8 / 10)).max(least)
    }
}

/// The counts of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DirectionStats {
    /// Packets that came out.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Dropped by chance.
    pub lost: u64,
    /// Dropped by the black hole.
    pub swallowed: u64,
    /// Dropped because the other end's device was down.
    pub undeliverable: u64,
}

/// One direction: give packets to `handle_packet`, take those that are due from `poll_packet`, again at `next_due`.
#[derive(Debug)]
pub struct Pipe {
    shape: Shape,
    chance: StdRng,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    under_way_bytes: u64,
    /// When the line will have sent all of its packets.
    line_free: Option<Instant>,
    spare: Vec<Vec<u8>>,
    pub(super) stats: DirectionStats,
}

impl Pipe {
    /// Makes an empty line.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            chance: StdRng::seed_from_u64(shape.seed),
            shape,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            line_free: None,
            spare: Vec::new(),
            stats: DirectionStats::default(),
        }
    }

    /// Applies from the next packet on; a black hole also drops those under way.
    pub fn set_shape(&mut self, shape: Shape) {
        if shape.seed != self.shape.seed {
            self.chance = StdRng::seed_from_u64(shape.seed);
        }
        if shape.rate != self.shape.rate {
            self.line_free = None;
        }
        if shape.blackhole {
            self.stats.swallowed += self.under_way.len() as u64;
            self.under_way.clear();
            self.under_way_bytes = 0;
            self.line_free = None;
        }
        self.shape = shape;
    }

    /// The counts of packets so far.
    #[must_use]
    pub fn stats(&self) -> DirectionStats {
        self.stats
    }

    /// A packet enters the line.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let size = packet.len() as u64;
        if self.shape.blackhole {
            self.stats.swallowed += 1;
            return;
        }
        if self.shape.loss > 0.0 && self.chance.random_bool(self.shape.loss.min(1.0)) {
            self.stats.lost += 1;
            return;
        }
        let mut leaves = now;
        if let Some(rate) = self.shape.rate {
            let free = self.line_free.map_or(now, |free| free.max(now));
            let waiting = transmitted_in(free - now, rate);
            if waiting.saturating_add(size) > self.shape.queue_limit() {
                self.stats.queue_full += 1;
                return;
            }
            leaves = free + time_for(size, rate);
            self.line_free = Some(leaves);
        }
        if self.under_way_bytes + size > UNDER_WAY {
            self.stats.queue_full += 1;
            return;
        }
        // A shorter delay does not let packets overtake others.
        let due = self.under_way.back().map_or(leaves, |(last, _)| *last).max(leaves + self.shape.delay);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.under_way.push_back((due, buffer));
        self.under_way_bytes += size;
    }

    /// The next packet that is due now.
    pub fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.under_way.front().filter(|(due, _)| *due <= now)?;
        let (_, packet) = self.under_way.pop_front()?;
        self.under_way_bytes -= packet.len() as u64;
        self.stats.packets += 1;
        self.stats.bytes += packet.len() as u64;
        Some(packet)
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.front().map(|(due, _)| *due)
    }

    /// Takes back the buffer of a packet, for the next one.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(packet);
        }
    }
}

fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn transmitted_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(rate) / 8 / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// When each of `count` packets of 1000 bytes, sent at once, comes out.
    fn arrivals(pipe: &mut Pipe, start: Instant, count: u8) -> Vec<(Duration, u8)> {
        for n in 0..count {
            pipe.handle_packet(start, &[n; 1000]);
        }
        let mut out = Vec::new();
        while let Some(due) = pipe.next_due() {
            assert_eq!(pipe.poll_packet(due - Duration::from_nanos(1)), None, "nothing comes early");
            out.push((due - start, pipe.poll_packet(due).unwrap()[0]));
        }
        out
    }

    #[test]
    fn delay_and_rate_add_up_in_order() {
        let start = Instant::now();
        let mut pipe = Pipe::new(Shape { delay: ms(100), rate: Some(8_000_000), ..Shape::default() });
        // A kilobyte takes a millisecond.
        assert_eq!(arrivals(&mut pipe, start, 3), [(ms(101), 0), (ms(102), 1), (ms(103), 2)]);
        // The line is free as soon as it has sent them, before they arrive.
        assert_eq!(arrivals(&mut pipe, start + ms(50), 1), [(ms(101), 0)]);
        assert_eq!(pipe.stats(), DirectionStats { packets: 4, bytes: 4000, ..DirectionStats::default() });
    }

    #[test]
    fn a_full_queue_drops_the_last() {
        let mut pipe = Pipe::new(Shape { rate: Some(8_000_000), queue: Some(6000), ..Shape::default() });
        let out = arrivals(&mut pipe, Instant::now(), 10);
        assert_eq!(out.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        let stats = DirectionStats { packets: 6, bytes: 6000, queue_full: 4, ..DirectionStats::default() };
        assert_eq!(pipe.stats(), stats);
    }

    #[test]
    fn losses_repeat_with_the_seed() {
        let survivors = |seed| {
            let mut pipe = Pipe::new(Shape { loss: 0.3, seed, ..Shape::default() });
            let survivors: Vec<_> = arrivals(&mut pipe, Instant::now(), 200).into_iter().map(|(_, n)| n).collect();
            let (packets, lost) = (survivors.len() as u64, 200 - survivors.len() as u64);
            let stats = DirectionStats { packets, bytes: packets * 1000, lost, ..DirectionStats::default() };
            assert_eq!(pipe.stats(), stats);
            survivors
        };
        assert_eq!(survivors(7), survivors(7));
        assert_ne!(survivors(7), survivors(8));
        let count = survivors(7).len();
        assert!((100..180).contains(&count), "{count} of 200 survive 30 % loss");
    }

    #[test]
    fn a_black_hole_takes_what_is_under_way() {
        let start = Instant::now();
        let mut pipe = Pipe::new(Shape { delay: ms(100), ..Shape::default() });
        pipe.handle_packet(start, b"under way");
        pipe.set_shape(Shape { blackhole: true, ..Shape::default() });
        pipe.handle_packet(start, b"new");
        assert_eq!(pipe.poll_packet(start + ms(1000)), None);
        assert_eq!(pipe.stats().swallowed, 2);
        pipe.set_shape(Shape::default());
        pipe.handle_packet(start, b"after");
        assert_eq!(pipe.poll_packet(start).unwrap(), b"after");
    }

    #[test]
    fn a_shorter_delay_lets_nothing_overtake() {
        let start = Instant::now();
        let mut pipe = Pipe::new(Shape { delay: ms(100), ..Shape::default() });
        pipe.handle_packet(start, b"first");
        pipe.set_shape(Shape { delay: ms(10), ..Shape::default() });
        pipe.handle_packet(start, b"second");
        assert_eq!(pipe.poll_packet(start + ms(99)), None);
        assert_eq!(pipe.poll_packet(start + ms(100)).unwrap(), b"first");
        assert_eq!(pipe.poll_packet(start + ms(100)).unwrap(), b"second");
    }
}
