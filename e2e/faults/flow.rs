//! The progress of an operation while it runs: when something arrived, and whether it was what must come next.

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

/// Arrivals of one operation.
#[derive(Debug, Default)]
pub(super) struct Flow {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    /// Arrivals in all.
    pub(super) count: u64,
    last: Option<Instant>,
    /// The longest time without an arrival.
    pub(super) gap: Duration,
    mark: Option<Instant>,
    /// Time from the mark to the first arrival after it.
    pub(super) again: Option<Duration>,
    /// Arrivals after the mark.
    pub(super) since: u64,
    /// The operation is over.
    pub(super) over: bool,
}

impl Flow {
    pub(super) fn arrived(&self) {
        let now = Instant::now();
        self.update(|seen| {
            seen.gap = seen.gap.max(seen.last.map_or(Duration::ZERO, |last| now - last));
            seen.last = Some(now);
            seen.count += 1;
            if let Some(mark) = seen.mark.filter(|mark| *mark <= now) {
                seen.again.get_or_insert(now - mark);
                seen.since += 1;
            }
        });
    }

    /// Sets the mark: from now on the network is whole again.
    pub(super) fn mark(&self, moment: Instant) {
        self.update(|seen| seen.mark = Some(moment));
    }

    pub(super) fn over(&self) {
        self.update(|seen| seen.over = true);
    }

    pub(super) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap()
    }

    /// Waits until `enough`, or the operation is over; false after the limit.
    pub(super) fn wait(&self, until: Instant, enough: impl Fn(&Seen) -> bool) -> bool {
        let mut seen = self.seen.lock().unwrap();
        while !enough(&seen) && !seen.over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            seen = self.changed.wait_timeout(seen, left).unwrap().0;
        }
        true
    }

    fn update(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Lines with ascending numbers of a fixed width; the last one may be `end`.
#[derive(Debug, Default)]
pub(super) struct Lines {
    read: usize,
    next: Option<u64>,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// The number after `end`.
    pub(super) end: Option<u64>,
}

impl Lines {
    /// Reads the new part of the output so far. True if there is one.
    pub(super) fn take(&mut self, all: &[u8]) -> bool {
        let before = self.read;
        while let Some(len) = all[self.read..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&all[self.read..self.read + len]).into_owned();
            self.read += len + 1;
            self.line(&line);
        }
        self.read > before
    }

    fn line(&mut self, line: &str) {
        let bytes = line.len() as u64 + 1;
        let (number, is_end) = match line.strip_prefix("end ") {
            Some(number) => (number, true),
            None => (line, false),
        };
        let number: u64 = number.trim().parse().unwrap_or_else(|_| panic!("not a numbered line: {line:?}"));
        let expected = *self.next.get_or_insert(number);
        self.lost += number.saturating_sub(expected) * bytes;
        self.doubled += expected.saturating_sub(number) * bytes;
        self.next = Some(number + 1);
        if is_end {
            self.end = Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_repeated_lines_are_counted() {
        let lines = |text: &str| {
            let mut lines = Lines::default();
            lines.take(text.as_bytes());
            (lines.lost, lines.doubled, lines.end)
        };
        assert_eq!(lines("03\n04\n05\nend 06\n"), (0, 0, Some(6)));
        assert_eq!(lines("03\n04\n07\n08"), (6, 0, None), "two lines of three bytes");
        assert_eq!(lines("03\n04\n04\n05\n"), (0, 3, None));
    }
}
