//! Which dials are under way, and what became of those that were given up.

use std::time::Duration;

use super::types::{ConnectionId, Order};
use crate::time::Time;

/// Between changes of the network that each begin another dial: at least this, doubled each time, up to the most.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// A dial that this end gave up may still reach the relay this much later.
const ECHO: Duration = Duration::from_secs(30);

/// The dials of an endpoint: the oldest, and the newest beside it.
#[derive(Debug, Default)]
pub(super) struct Dials {
    last: u64,
    under_way: Vec<ConnectionId>,
    pause: Duration,
    pause_until: Time,
    /// The network changed within the pause, and whether the connection was still routed after it.
    changed: Option<bool>,
    /// When a dial was last given up, or failed, that the relay may have admitted.
    unsure: Option<Time>,
}

impl Dials {
    /// `unsure`: when a dial last failed before there was an endpoint.
    pub(super) fn after(unsure: Option<Time>) -> Self {
        Self { unsure, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The first of several.
    pub(super) fn begin(&mut self, now: Time) -> Order {
        (self.pause, self.pause_until) = (Duration::ZERO, now);
        self.one_more()
    }

    fn one_more(&mut self) -> Order {
        self.last += 1;
        let id = ConnectionId(self.last);
        self.under_way.push(id);
        Order::Dial(id)
    }

    /// Whether a change of the network leads to another dial now; else it is kept in mind.
    pub(super) fn changes(&mut self, now: Time, routed: bool) -> bool {
        let waits = now < self.pause_until;
        self.changed = waits.then_some(routed);
        !waits
    }

    /// When a change that was kept in mind is looked at.
    pub(super) fn due(&self) -> Option<Time> {
        (self.changed.is_some() && !self.is_empty()).then_some(self.pause_until)
    }

    /// The network changed, and nothing can be done about it yet.
    pub(super) fn keep_change(&mut self, routed: bool) {
        self.changed = Some(routed);
    }

    pub(super) fn take_change(&mut self) -> Option<bool> {
        self.changed.take()
    }

    /// Packets of the first dial may be lost, and TCP's next try seconds away. The oldest goes on beside the newest, as
    /// on some machines routes change all the time.
    pub(super) fn beside(&mut self, now: Time, orders: &mut impl Extend<Order>) {
        self.changed = None;
        self.give_up_after(1, now, orders);
        orders.extend([self.one_more()]);
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.pause_until = now + self.pause;
    }

    /// That dial has led to a connection; the others are given up. A change of the network is still to be looked at: the
    /// connection may be of before it.
    pub(super) fn stands(&mut self, now: Time, id: ConnectionId, orders: &mut impl Extend<Order>) -> bool {
        if !self.remove(id) {
            return false;
        }
        self.give_up(now, orders);
        true
    }

    /// That dial failed; the relay may have admitted it all the same.
    pub(super) fn failed(&mut self, now: Time, id: ConnectionId) -> bool {
        let known = self.remove(id);
        if known {
            self.unsure = Some(now);
        }
        known
    }

    fn remove(&mut self, id: ConnectionId) -> bool {
        let before = self.under_way.len();
        self.under_way.retain(|other| *other != id);
        self.under_way.len() < before
    }

    /// No dial is wanted any more.
    pub(super) fn give_up(&mut self, now: Time, orders: &mut impl Extend<Order>) {
        self.give_up_after(0, now, orders);
    }

    fn give_up_after(&mut self, kept: usize, now: Time, orders: &mut impl Extend<Order>) {
        if self.under_way.len() > kept {
            self.unsure = Some(now);
            orders.extend(self.under_way.drain(kept..).map(Order::GiveUp));
        }
    }

    /// Whether a connection may have been closed for a dial that this end has given up. Once for each: another holder of
    /// the ticket is not answered in kind for ever.
    pub(super) fn explain(&mut self, now: Time) -> bool {
        self.unsure.take().is_some_and(|at| now.since(at) < ECHO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_given_up_explains_one_replacement_and_not_for_ever() {
        let (mut dials, now, mut orders) = (Dials::default(), Time::from_micros(1), Vec::new());
        assert!(!dials.explain(now), "nothing was given up");
        dials.begin(now);
        dials.give_up(now, &mut orders);
        assert_eq!(orders, [Order::GiveUp(ConnectionId(1))]);
        assert!(dials.explain(now));
        assert!(!dials.explain(now), "once");
        dials.begin(now);
        dials.failed(now, ConnectionId(2));
        assert!(!dials.explain(now + ECHO), "too late");
        dials.begin(now);
        assert!(!dials.failed(now, ConnectionId(9)) && !dials.stands(now, ConnectionId(9), &mut orders), "never begun");
        assert!(!dials.explain(now) && !dials.is_empty());
    }

    #[test]
    fn the_oldest_dial_goes_on_beside_the_newest_however_often_routes_change() {
        let (mut dials, mut now, mut orders) = (Dials::default(), Time::from_micros(1), Vec::new());
        orders.push(dials.begin(now));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(dials.changes(now, true));
            dials.beside(now, &mut orders);
            assert!(!dials.changes(now, true), "not twice at once");
            pauses.push(dials.due().unwrap().since(now).as_millis());
            now = dials.due().unwrap();
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 4000]);
        assert_eq!(dials.under_way, [ConnectionId(1), ConnectionId(7)]);
        assert_eq!(orders.iter().filter(|order| matches!(order, Order::GiveUp(_))).count(), 5);
    }
}
