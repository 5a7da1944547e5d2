//! Whose turn it is: streams with little to say first, the others by deficit round robin with a quantum of 16 KiB, or
//! more where that takes no time.
//!
//! Deficit round robin is Shreedhar and Varghese 1996; the list of streams with little to say is that of FQ-CoDel
//! (RFC 8290), with what such a stream may send ahead of the others renewed once a round trip.

use std::{collections::VecDeque, time::Duration};

use mykube_protocol::channel::StreamId;

use crate::{
    congestion::{ALONE, QUANTUM, Room},
    time::Time,
};

/// A round trip that is not known yet, or too short to matter.
const RENEWAL_MIN: Duration = Duration::from_millis(5);

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Place {
    #[default]
    Idle,
    Sparse,
    Bulk,
}

/// What the scheduler keeps in a stream.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) place: Place,
    deficit: usize,
    renewed: Option<Time>,
    ahead: usize,
    /// When it last sent among the others.
    bulk_at: Option<Time>,
}

/// The two lists.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    sparse: VecDeque<StreamId>,
    bulk: VecDeque<StreamId>,
}

impl Scheduler {
    /// A stream has something to send that may be sent.
    /// `backlogged` says that it has waited for credit: such a stream has more to say than a little.
    pub(crate) fn activate(
        &mut self,
        now: Time,
        id: StreamId,
        turn: &mut Turn,
        rtt: Option<Duration>,
        backlogged: bool,
    ) {
        if turn.place != Place::Idle {
            return;
        }
        let renewal = rtt.unwrap_or(RENEWAL_MIN).max(RENEWAL_MIN);
        if turn.renewed.is_none_or(|at| now.since(at) >= renewal) {
            turn.renewed = Some(now);
            turn.ahead = QUANTUM;
        }
        if turn.ahead > 0 && !backlogged {
            turn.place = Place::Sparse;
            self.sparse.push_back(id);
        } else {
            turn.place = Place::Bulk;
            turn.deficit = 0;
            self.bulk.push_back(id);
        }
    }

    /// The stream whose turn it is, and as what.
    pub(crate) fn next(&self, room: Room) -> Option<(StreamId, Place)> {
        let sparse = self.sparse.front().filter(|_| room >= Room::Sparse).map(|id| (*id, Place::Sparse));
        sparse.or_else(|| self.bulk.front().filter(|_| room >= Room::Bulk).map(|id| (*id, Place::Bulk)))
    }

    /// How many bytes a stream may send in this turn.
    pub(crate) fn allowance(turn: &mut Turn, quantum: usize) -> usize {
        match turn.place {
            Place::Sparse => turn.ahead,
            Place::Bulk => {
                if turn.deficit == 0 {
                    turn.deficit = quantum;
                }
                turn.deficit
            }
            Place::Idle => 0,
        }
    }

    /// The stream at the head sent `bytes`; `more` says that it has more that may be sent. Gives whether it is a stream
    /// with little to say that has said all of it: not one with much, whose source is slow for a moment.
    pub(crate) fn handle_sent(&mut self, now: Time, id: StreamId, turn: &mut Turn, bytes: usize, more: bool) -> bool {
        let little = turn.place == Place::Sparse && !more && turn.bulk_at.is_none_or(|at| now.since(at) >= ALONE);
        if turn.place == Place::Bulk {
            // More than a little within this round trip: it does not go ahead of the others when its source is slower.
            (turn.bulk_at, turn.renewed, turn.ahead) = (Some(now), Some(now), 0);
        }
        let (list, left) = match turn.place {
            Place::Sparse => (&mut self.sparse, &mut turn.ahead),
            Place::Bulk => (&mut self.bulk, &mut turn.deficit),
            Place::Idle => return false,
        };
        debug_assert_eq!(list.front(), Some(&id));
        *left = left.saturating_sub(bytes);
        if more && *left > 0 {
            return false;
        }
        list.pop_front();
        turn.place = if more { Place::Bulk } else { Place::Idle };
        if more {
            turn.deficit = 0;
            self.bulk.push_back(id);
        }
        little
    }

    /// A stream is no more.
    pub(crate) fn remove(&mut self, id: StreamId, turn: &mut Turn) {
        match turn.place {
            Place::Sparse => self.sparse.retain(|other| *other != id),
            Place::Bulk => self.bulk.retain(|other| *other != id),
            Place::Idle => {}
        }
        turn.place = Place::Idle;
    }

    /// Whether only bulk waits.
    pub(crate) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: StreamId = 1;

    /// One message of `bytes`; gives the place that the stream had, and whether the message counted as little.
    fn say(scheduler: &mut Scheduler, turn: &mut Turn, now: Time, bytes: usize) -> (Place, bool) {
        scheduler.activate(now, ID, turn, None, false);
        let (place, mut left) = (turn.place, bytes);
        loop {
            let sent = Scheduler::allowance(turn, QUANTUM).min(left);
            left -= sent;
            let little = scheduler.handle_sent(now, ID, turn, sent, left > 0);
            if left == 0 {
                return (place, little);
            }
        }
    }

    #[test]
    fn a_stream_that_says_little_is_told_from_one_that_says_much_slowly() {
        let (mut scheduler, mut turn, mut now) = (Scheduler::default(), Turn::default(), Time::from_micros(1_000_000));
        assert_eq!(say(&mut scheduler, &mut turn, now, 100), (Place::Sparse, true), "a keystroke");
        assert_eq!(say(&mut scheduler, &mut turn, now, 3 * QUANTUM), (Place::Sparse, false), "a download");
        assert_eq!(say(&mut scheduler, &mut turn, now, 100).0, Place::Bulk, "its next block, though nothing waits");
        now = now + RENEWAL_MIN;
        assert_eq!(say(&mut scheduler, &mut turn, now, 100), (Place::Sparse, false), "a round trip later");
        now = now + ALONE;
        assert_eq!(say(&mut scheduler, &mut turn, now, 100), (Place::Sparse, true), "a prompt after it");

        let mut turn = Turn::default();
        scheduler.activate(now, ID, &mut turn, None, true);
        assert!(!scheduler.handle_sent(now, ID, &mut turn, 100, false), "what waited behind others is bulk");
        let mut turn = Turn::default();
        scheduler.activate(now, ID, &mut turn, None, false);
        assert!(!scheduler.handle_sent(now, ID, &mut turn, QUANTUM, true), "nor has it said all");
    }

    #[test]
    fn streams_with_little_to_say_go_first_and_bulk_takes_turns() {
        let (mut scheduler, now) = (Scheduler::default(), Time::from_micros(1_000_000));
        let [mut one, mut two, mut little] = [(); 3].map(|()| Turn::default());
        let next = |scheduler: &Scheduler| {
            [Room::None, Room::Sparse, Room::Bulk].map(|room| scheduler.next(room).map(|(id, _)| id))
        };
        assert!(!scheduler.has_bulk());
        scheduler.activate(now, 1, &mut one, None, true);
        scheduler.activate(now, 3, &mut two, None, true);
        assert!(scheduler.has_bulk());
        assert_eq!(next(&scheduler), [None, None, Some(1)]);
        scheduler.activate(now, 5, &mut little, None, false);
        assert_eq!(next(&scheduler), [None, Some(5), Some(5)]);
        scheduler.remove(5, &mut little);
        assert_eq!(next(&scheduler), [None, None, Some(1)]);
        assert_eq!(Scheduler::allowance(&mut one, QUANTUM), QUANTUM);
        scheduler.handle_sent(now, 1, &mut one, QUANTUM - 1, true);
        assert_eq!(
            (next(&scheduler)[2], Scheduler::allowance(&mut one, QUANTUM)),
            (Some(1), 1),
            "the rest of its turn"
        );
        scheduler.handle_sent(now, 1, &mut one, 1, true);
        assert_eq!(next(&scheduler)[2], Some(3));
        scheduler.remove(3, &mut two);
        assert_eq!(next(&scheduler)[2], Some(1));
        scheduler.handle_sent(now, 1, &mut one, 1, false);
        assert!(!scheduler.has_bulk() && next(&scheduler) == [None; 3]);
    }
}
