//! How much bulk may be under way: `max(64 KiB, g x minimum RTT x delivery rate + record + slack)`, and how soon after
//! one another it leaves, so that nothing piles up below the scheduler and a keystroke never waits behind megabytes
//! (docs/protocol.md, "Fair, and quick").
//!
//! The delivery rate is sampled as in draft-cheng-iccrg-delivery-rate-estimation: per acknowledgement, what was
//! delivered since the acknowledged message left, over the longer of the time it took to send and to acknowledge.
//!
//! Over 500 lines because its tests stand below.

use std::time::Duration;

use mykube_protocol::limits::{ACK_BYTES_MAX, ACK_DELAY, RECORD_PLAINTEXT_MAX, SESSION_WINDOW};

use crate::time::Time;

/// For whom there is room on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Nobody.
    None,
    /// Streams with little to say.
    Sparse,
    /// Everybody.
    Bulk,
}

/// The cap never falls below this, so that a line always has a full acknowledgement's worth under way.
const FLOOR: u64 = 64 * 1024;
/// Where bytes are quick, turns of the processor are the slow part: the cap leaves room for what comes in this time, or
/// a sender that waits for a slower turn than its best one would measure its own waiting, and go on waiting. It is also
/// room for the longer steps in which quick bytes are acknowledged.
const SLACK_TIME: Duration = Duration::from_millis(4);
const SLACK: u64 = ACK_BYTES_MAX;
/// So much of it where bulk is alone: with less one end, or the relay, has nothing to do while the other works. What it
/// costs is a wait of as much as [`SLACK_TIME`] for the first word of a stream with little to say.
const SLACK_ALONE: u64 = 2 * 1024 * 1024;
/// ... which it is when no such stream has spoken for so long.
pub(crate) const ALONE: Duration = Duration::from_millis(250);
/// A record counts when all of it is there.
const RECORD: u64 = RECORD_PLAINTEXT_MAX as u64;
/// The part of the bandwidth-delay product that is asked for beyond it: what shows that a line has become quicker.
const BEYOND: u64 = 32;
/// Bulk finds out what a line takes by doubling, until acknowledgements take longer than the best round trip, and by this
/// much of it beside what they may wait for. By then twice of what the line holds may be under way, more than queues
/// hold: so when one does, which a burst can do, less is added, and when all of a round trip do, no more.
const QUEUE_SHARE: u32 = 8;
/// On longer paths than this a cap's worth of bulk is spread over a round trip, less this part of it to catch up (over a
/// third of it while bulk finds out what the line takes), but for a burst of [`SLACK_TIME`]. All of it at once, when a
/// lost packet's gap is closed and everything acknowledged, is more than queues hold, and the next packet is lost.
const PACED_RTT: Duration = Duration::from_millis(4);
const PACE_BEYOND: u64 = 5;
/// On such paths an acknowledgement comes at most so often in a round trip, and the cap has room for what comes meanwhile. More
/// small packets under way make the window of a TCP that sends nothing else grow, and from sixteen on cubic leaves slow start when
/// round trips become longer (`HyStart`), as they do by the queue of what comes the other way: what it sends later then begins at a
/// hundred packets and grows by the second.
const ACKS_A_ROUND_TRIP: u32 = 5;
/// Bytes a stream may send in its turn, and ahead of the others in a round trip.
pub(crate) const QUANTUM: usize = 16 * 1024;
/// A turn may be as long as this, but has at least [`QUANTUM`] and at most this much.
const QUANTUM_TIME: Duration = Duration::from_micros(500);
const QUANTUM_MAX: usize = 256 * 1024;
const RTT_HALF_LIFE: Duration = Duration::from_secs(10);
/// Bulk keeps a short queue on the line at all times, and a round trip that waits in it is no minimum. So when none
/// near the minimum was seen for this long, bulk pauses until the queue is gone and a ping has left on the empty line.
const MIN_RTT_AGE: Duration = Duration::from_secs(8);
/// Where bulk goes both ways, both queues must be gone at the same time: an end whose own minimum is this old pauses when
/// it hears the other's ping, and both wait for up to two answers.
const MIN_RTT_AGE_FOLLOW: Duration = Duration::from_secs(6);
/// A pause that has not emptied the line by then, or four round trips, is given up.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What streams with little to say may have under way beyond bulk's cap, in caps.
const SPARSE_CAPS: u64 = 2;
/// Never more than this, whatever credit the peer gives: it bounds what is kept for a peer that acknowledges nothing. A
/// message counts with what it takes beside its payload (its place in a queue, an allocation), or of the smallest ones a
/// hundred times as much would be kept.
const UNACKED_MAX: u64 = SESSION_WINDOW;
pub(crate) const MESSAGE: u64 = 128;
const RATE_HALF_ROUNDS: u64 = 5;
/// A rate that has not grown by a quarter for so many round trips is what the line gives.
const FLAT_ROUNDS: u32 = 3;

/// What is known of the path when a message leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    sent: Time,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    limited_by_application: bool,
}

/// A filter that keeps the best of two half-windows.
#[derive(Debug, Default, Clone, Copy)]
struct Halves<T> {
    old: Option<T>,
    new: Option<T>,
    turned: u64,
}

impl<T: Copy> Halves<T> {
    fn add(&mut self, at: u64, half: u64, value: T, better: impl Fn(T, T) -> bool) {
        if at >= self.turned + half {
            self.old = if at >= self.turned + 2 * half { None } else { self.new };
            self.new = None;
            self.turned = at;
        }
        if self.new.is_none_or(|best| better(value, best)) {
            self.new = Some(value);
        }
    }

    fn best(&self, better: impl Fn(T, T) -> bool) -> Option<T> {
        match (self.old, self.new) {
            (Some(old), Some(new)) => Some(if better(old, new) { old } else { new }),
            (old, new) => new.or(old),
        }
    }
}

/// The path's estimates of one direction.
#[derive(Debug)]
pub(crate) struct Congestion {
    smoothed_rtt: Option<Duration>,
    min_rtt: Halves<Duration>,
    /// Bytes a second.
    rate: Halves<u64>,
    delivered: u64,
    delivered_at: Time,
    first_sent: Time,
    in_flight: u64,
    /// Messages of `in_flight`.
    messages: u64,
    round: u64,
    round_ends: u64,
    plateau: u64,
    flat_rounds: u32,
    min_rtt_seen: Time,
    pause: Option<Pause>,
    /// When a stream with little to say last spoke, and whether that is long enough ago.
    little_said: Time,
    alone: bool,
    /// The newest acknowledgement took longer than the path does, and all of the round trip's did.
    queued: bool,
    queue_stands: bool,
    /// By then what was sent is on the line at the pace; see [`PACED_RTT`].
    paced_until: Time,
}

/// Bulk waits for the line to be empty.
#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Time,
    /// Pings that left, and whether the newest is still to be answered.
    pings: u32,
    waits: bool,
}

impl Congestion {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            smoothed_rtt: None,
            min_rtt: Halves::default(),
            rate: Halves::default(),
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            in_flight: 0,
            messages: 0,
            round: 0,
            round_ends: 0,
            plateau: 0,
            flat_rounds: 0,
            min_rtt_seen: now,
            pause: None,
            little_said: now,
            alone: false,
            queued: false,
            queue_stands: true,
            paced_until: now,
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.smoothed_rtt
    }

    /// A round trip was measured.
    pub(crate) fn handle_rtt(&mut self, now: Time, rtt: Duration) {
        self.smoothed_rtt = Some(self.smoothed_rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
        if self.best_rtt().is_none_or(|best| rtt <= best + best / 8) {
            self.min_rtt_seen = now;
        }
        self.min_rtt.add(now.as_micros(), micros(RTT_HALF_LIFE), rtt, |a, b| a < b);
        if let Some(pause) = &mut self.pause {
            pause.waits = false;
            if pause.pings >= 2 || (pause.pings == 1 && self.min_rtt_seen == now) {
                self.resume(now);
            }
        }
    }

    /// A stream has said all it had to say, and that was little.
    pub(crate) fn handle_little_said(&mut self, now: Time) {
        self.little_said = now;
        self.alone = false;
    }

    /// Payload leaves. `limited_by_application`: there was no more to send.
    pub(crate) fn handle_sent(&mut self, now: Time, bytes: u64, limited_by_application: bool) -> Stamp {
        if self.in_flight == 0 {
            self.delivered_at = now;
            self.first_sent = now;
        }
        self.in_flight += bytes;
        self.messages += 1;
        if let Some(rtt) = self.paced_rtt() {
            let takes = u128::from(micros(rtt)) * u128::from(bytes) / u128::from(self.on_the_line().max(1));
            let takes = u64::try_from(takes).unwrap_or(u64::MAX);
            let takes = if self.flat_rounds < FLAT_ROUNDS { takes / 3 } else { takes - takes / PACE_BEYOND };
            let burst = Time::from_micros(now.as_micros().saturating_sub(micros(SLACK_TIME)));
            self.paced_until = self.paced_until.max(burst) + Duration::from_micros(takes);
        }
        Stamp {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            limited_by_application,
        }
    }

    /// Payload was acknowledged; called for every message, the newest last.
    pub(crate) fn handle_acked(&mut self, now: Time, bytes: u64, stamp: &Stamp) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.messages = self.messages.saturating_sub(1);
        self.delivered += bytes;
        self.delivered_at = now;
        self.first_sent = stamp.sent;
    }

    /// After the last [`Congestion::handle_acked`] of one acknowledgement.
    pub(crate) fn sample(&mut self, now: Time, newest: &Stamp) {
        let took = now.since(newest.delivered_at).max(newest.sent.since(newest.first_sent));
        let bytes = self.delivered - newest.delivered;
        let rate = u64::try_from(u128::from(bytes) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX);
        let new_round = newest.delivered >= self.round_ends;
        if new_round {
            self.round += 1;
            self.round_ends = self.delivered;
        }
        if !newest.limited_by_application || self.best_rate().is_none_or(|best| rate > best) {
            self.rate.add(self.round, RATE_HALF_ROUNDS, rate, |a, b| a > b);
        }
        self.alone = now.since(self.little_said) >= ALONE;
        let best = self.best_rate().unwrap_or(0);
        let waited = now.since(newest.sent);
        self.queued =
            self.best_rtt().is_some_and(|rtt| waited > rtt + rtt / QUEUE_SHARE + self.ack_delay() + SLACK_TIME);
        self.queue_stands &= self.queued;
        let stood = new_round && std::mem::replace(&mut self.queue_stands, true);
        if best >= self.plateau.saturating_add(self.plateau / 4) {
            self.plateau = best;
            self.flat_rounds = 0;
        } else if stood {
            // Where the rate still grows it is TCP that is not yet as quick as the line.
            self.plateau = best;
            self.flat_rounds = self.flat_rounds.max(FLAT_ROUNDS);
        } else if new_round && !newest.limited_by_application {
            self.flat_rounds = self.flat_rounds.saturating_add(1);
            self.plateau = if self.flat_rounds > FLAT_ROUNDS { best } else { self.plateau };
        }
        self.pause_if_older(now, MIN_RTT_AGE);
        let most = PAUSE_MAX.max(self.best_rtt().unwrap_or_default() * 4);
        if self.pause.is_some_and(|pause| now.since(pause.since) >= most) {
            self.resume(now);
        }
    }

    /// The peer measures, perhaps on a line it has let run dry.
    pub(crate) fn handle_peer_ping(&mut self, now: Time) {
        if self.in_flight > FLOOR / 2 {
            self.pause_if_older(now, MIN_RTT_AGE_FOLLOW);
        }
    }

    fn pause_if_older(&mut self, now: Time, age: Duration) {
        if self.pause.is_none() && now.since(self.min_rtt_seen) >= age {
            self.pause = Some(Pause { since: now, pings: 0, waits: false });
        }
    }

    fn resume(&mut self, now: Time) {
        self.pause = None;
        self.min_rtt_seen = now;
    }

    /// Whether the line is as empty as it gets, and a ping should leave alone.
    pub(crate) fn wants_probe(&self) -> bool {
        self.pause.is_some_and(|pause| !pause.waits)
            && self.in_flight <= self.product().map_or(0, |product| product / 2)
    }

    /// [`Congestion::wants_probe`]; bulk goes on after that ping, or after its answer where the peer sends bulk as well.
    pub(crate) fn take_probe(&mut self, now: Time, peer_sends_bulk: bool) -> bool {
        let probe = self.wants_probe();
        match &mut self.pause {
            Some(pause) if probe && (peer_sends_bulk || pause.pings > 0) => {
                pause.pings += 1;
                pause.waits = true;
            }
            Some(_) if probe => self.resume(now),
            _ => {}
        }
        probe
    }

    pub(crate) fn best_rate(&self) -> Option<u64> {
        self.rate.best(|a, b| a > b)
    }

    /// How much a stream may send in its turn: what each end does once for a turn is most of the work where many streams
    /// share a quick line.
    pub(crate) fn quantum(&self) -> usize {
        let quick = bytes_in(self.best_rate().unwrap_or(0), QUANTUM_TIME);
        usize::try_from(quick).unwrap_or(QUANTUM_MAX).clamp(QUANTUM, QUANTUM_MAX)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(crate) fn best_rtt(&self) -> Option<Duration> {
        self.min_rtt.best(|a, b| a < b)
    }

    /// Between two acknowledgements of what comes in at least this much time passes, on this end as on the other.
    pub(crate) fn ack_interval(&self) -> Duration {
        self.paced_rtt().map_or(Duration::ZERO, |rtt| rtt / ACKS_A_ROUND_TRIP)
    }

    /// What comes in is acknowledged after this much time at the latest.
    pub(crate) fn ack_delay(&self) -> Duration {
        ACK_DELAY.max(self.ack_interval())
    }

    fn paced_rtt(&self) -> Option<Duration> {
        self.best_rtt().filter(|rtt| *rtt >= PACED_RTT)
    }

    /// Who may send now.
    pub(crate) fn room(&self, now: Time) -> Room {
        let cap = self.cap();
        match self.in_flight {
            _ if self.is_full() => Room::None,
            _ if self.has_room_for_bulk(cap) && self.paced_until <= now => Room::Bulk,
            under_way if under_way < cap.saturating_mul(SPARSE_CAPS) => Room::Sparse,
            _ => Room::None,
        }
    }

    fn has_room_for_bulk(&self, cap: u64) -> bool {
        self.in_flight < cap && self.pause.is_none() && !self.is_full()
    }

    /// As much is kept as may be.
    fn is_full(&self) -> bool {
        self.in_flight + self.messages * MESSAGE >= UNACKED_MAX
    }

    /// When bulk may go on, where only its pace holds it back.
    pub(crate) fn paced_until(&self) -> Option<Time> {
        Some(self.paced_until).filter(|_| self.has_room_for_bulk(self.cap()))
    }

    /// What the line itself holds: the bandwidth-delay product.
    fn product(&self) -> Option<u64> {
        self.best_rtt().zip(self.best_rate()).map(|(rtt, rate)| bytes_in(rate, rtt))
    }

    pub(crate) fn cap(&self) -> u64 {
        let unheard = bytes_in(self.best_rate().unwrap_or(0), self.ack_interval());
        self.on_the_line().saturating_add(unheard.saturating_sub(RECORD)).min(UNACKED_MAX)
    }

    /// The cap, but for what has come and is not yet acknowledged.
    fn on_the_line(&self) -> u64 {
        let Some((product, rate)) = self.product().zip(self.best_rate()) else { return FLOOR };
        let beyond = match self.queued {
            _ if self.flat_rounds >= FLAT_ROUNDS => product / BEYOND,
            true => product / 2,
            false => product,
        };
        let most = if self.alone { SLACK_ALONE } else { SLACK };
        let slack = bytes_in(rate, SLACK_TIME).min(most);
        product.saturating_add(beyond).saturating_add(slack + RECORD).clamp(FLOOR, UNACKED_MAX)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn bytes_in(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const CHUNK: u64 = 16 * 1024;

    #[test]
    fn of_the_smallest_messages_no_more_is_under_way_than_a_window_takes() {
        // A peer that answers pings late and acknowledges at once, until it stops.
        let mut now = Time::from_micros(1_000_000);
        let mut congestion = Congestion::new(now);
        congestion.handle_rtt(now, Duration::from_secs(10));
        let stamp = congestion.handle_sent(now, 1 << 20, false);
        now = now + Duration::from_millis(1);
        congestion.handle_acked(now, 1 << 20, &stamp);
        congestion.sample(now, &stamp);
        assert_eq!(congestion.cap(), UNACKED_MAX, "it shows a path that holds as much as there may be");
        let mut messages = 0;
        while congestion.room(now) > Room::None {
            congestion.handle_sent(now, 1, true);
            messages += 1;
        }
        assert_eq!(messages, UNACKED_MAX.div_ceil(1 + MESSAGE));
        // One more goes when one is acknowledged.
        congestion.handle_acked(now, 1, &stamp);
        assert!(congestion.room(now) > Room::None);
    }

    /// A line of `rate` bytes a second and `rtt`; the application always has more.
    fn run(rate: u64, rtt: Duration, seconds: u64) -> (u64, u64) {
        let mut now = Time::default();
        let mut congestion = Congestion::new(now);
        congestion.handle_rtt(now, rtt);
        let mut under_way: VecDeque<(Time, Stamp)> = VecDeque::new();
        let (mut line_free, mut acked, mut worst) = (now, 0, 0);
        let end = now + Duration::from_secs(seconds);
        while now < end {
            congestion.take_probe(now, false);
            while congestion.room(now) == Room::Bulk {
                let stamp = congestion.handle_sent(now, CHUNK, false);
                line_free = line_free.max(now) + Duration::from_micros(CHUNK * 1_000_000 / rate);
                under_way.push_back((line_free + rtt, stamp));
            }
            if end.since(now) < Duration::from_secs(1) {
                worst = worst.max(congestion.in_flight);
            }
            // What arrived is acknowledged: on a slow line at once, on a fast one after 64 KiB.
            let step = if rate < 10_000_000 { 1 } else { 4 };
            let Some((last, _)) = under_way.get(step - 1).or(under_way.back()) else { break };
            if let Some(due) = congestion.paced_until().filter(|due| due < last) {
                now = due;
                continue;
            }
            now = *last;
            let mut newest = None;
            while let Some((_, stamp)) = under_way.front().copied().filter(|(at, _)| *at <= now) {
                under_way.pop_front();
                congestion.handle_acked(now, CHUNK, &stamp);
                acked += CHUNK;
                newest = Some(stamp);
            }
            if let Some(newest) = newest {
                congestion.sample(now, &newest);
            }
        }
        (acked / seconds, worst)
    }

    #[test]
    fn a_slow_line_is_full_and_nothing_piles_up() {
        let (rate, rtt) = (1_250_000, Duration::from_millis(50));
        let (got, in_flight) = run(rate, rtt, 20);
        assert!(got > rate * 9 / 10, "{got}");
        let product = rate / 20;
        assert!(in_flight < product + rate * 60 / 1000, "{in_flight} under way, the line holds {product}");
    }

    #[test]
    fn a_fat_line_is_filled() {
        let (got, _) = run(62_500_000, Duration::from_millis(200), 20);
        assert!(got > 62_500_000 * 8 / 10, "{got}");
    }

    #[test]
    fn turns_that_take_longer_than_the_best_one_do_not_slow_a_quick_line_down() {
        // Best round trip 0.1 ms; with the processors busy, an acknowledgement takes 3 ms.
        let (mut now, mut congestion) = (Time::default(), Congestion::new(Time::default()));
        congestion.handle_rtt(now, Duration::from_micros(100));
        for _ in 0..200 {
            let mut sent = Vec::new();
            while congestion.room(now) == Room::Bulk {
                sent.push(congestion.handle_sent(now, CHUNK, false));
            }
            now = now + Duration::from_millis(3);
            for stamp in &sent {
                congestion.handle_acked(now, CHUNK, stamp);
            }
            congestion.sample(now, sent.last().unwrap());
        }
        assert!(congestion.cap() > SLACK, "{} under way at most", congestion.cap());
    }

    /// All that may leave at once.
    fn at_once(congestion: &mut Congestion, now: Time) -> u64 {
        let before = congestion.in_flight;
        while congestion.room(now) == Room::Bulk {
            congestion.handle_sent(now, CHUNK, false);
        }
        congestion.in_flight - before
    }

    #[test]
    fn what_a_stall_has_held_back_is_spread_over_the_round_trip() {
        // 60 MB/s and 200 ms, known and settled; a gap has closed, and everything is acknowledged.
        let (rate, rtt, now) = (60_000_000, Duration::from_millis(200), Time::from_micros(1_000_000));
        let mut congestion = Congestion::new(Time::default());
        congestion.handle_rtt(now, rtt);
        congestion.rate.add(0, RATE_HALF_ROUNDS, rate, |a, b| a > b);
        congestion.flat_rounds = FLAT_ROUNDS;
        let sent = at_once(&mut congestion, now);
        assert!(sent <= bytes_in(rate, SLACK_TIME) * 5 / 4 + 2 * CHUNK, "{sent} of {} in one burst", congestion.cap());
        let mut at = now;
        while let Some(due) = congestion.paced_until() {
            assert!(due > at, "it is told when to go on");
            at = due;
            at_once(&mut congestion, at);
        }
        let took = at.since(now);
        assert!(congestion.in_flight >= congestion.cap() && took <= rtt, "all of it within {took:?}");
        assert!(took >= rtt / 2, "not within {took:?}");
    }

    #[test]
    fn a_short_path_is_not_paced() {
        let now = Time::from_micros(1_000_000);
        let mut congestion = Congestion::new(Time::default());
        congestion.handle_rtt(now, Duration::from_micros(200));
        congestion.rate.add(0, RATE_HALF_ROUNDS, 800_000_000, |a, b| a > b);
        at_once(&mut congestion, now);
        assert!(congestion.in_flight >= congestion.cap());
        assert_eq!(congestion.paced_until, Time::default(), "nor does it count against what follows");
    }

    /// The cap on a quick path on which the newest word of a stream with little to say is so old.
    fn cap_after(silence: Duration) -> u64 {
        let now = Time::from_micros(10_000_000);
        let mut congestion = Congestion::new(Time::default());
        congestion.handle_rtt(now, Duration::from_micros(100));
        congestion.rate.add(0, RATE_HALF_ROUNDS, 800_000_000, |a, b| a > b);
        congestion.handle_little_said(now);
        let stamp = congestion.handle_sent(now, CHUNK, false);
        congestion.handle_acked(now + silence, CHUNK, &stamp);
        congestion.sample(now + silence, &stamp);
        congestion.cap()
    }

    #[test]
    fn bulk_has_more_under_way_where_nobody_waits_behind_it() {
        let (beside, alone) = (cap_after(ALONE / 2), cap_after(ALONE));
        assert!(beside < 3 * SLACK, "{beside}");
        assert!(alone > beside + SLACK, "{alone}, {beside} beside one");
        // The first word of a stream that has little to say waits for no more than this, and ends it.
        assert!(alone - beside <= bytes_in(800_000_000, SLACK_TIME), "{alone}");
        let mut congestion = Congestion::new(Time::default());
        congestion.alone = true;
        congestion.handle_little_said(Time::default());
        assert!(!congestion.alone);
    }

    #[test]
    fn turns_are_longer_where_bytes_are_quick() {
        let quantum = |rate: u64| {
            let mut congestion = Congestion::new(Time::default());
            congestion.rate.add(0, RATE_HALF_ROUNDS, rate, |a, b| a > b);
            congestion.quantum()
        };
        assert_eq!([0, 30_000_000, 60_000_000, 800_000_000].map(quantum), [QUANTUM, QUANTUM, 30_000, QUANTUM_MAX]);
    }

    #[test]
    fn nothing_known_means_the_floor() {
        let now = Time::default();
        let mut congestion = Congestion::new(now);
        assert_eq!(congestion.room(now), Room::Bulk);
        congestion.handle_sent(now, FLOOR, false);
        assert_eq!(congestion.room(now), Room::Sparse);
        congestion.handle_sent(now, FLOOR, false);
        assert_eq!(congestion.room(now), Room::None);
    }
}
