//! Which clients have a slot (there are `--max-clients`), when a code is offered for a free one, and which client another
//! may replace. Pure: the time is an argument.

use std::{collections::BTreeMap, time::Duration};

use mykube_link::clock::Time;

/// A code that should be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// For a free slot.
    Free,
    /// No slot is free, and this client has been away for too long to keep its own.
    InsteadOf(u64),
}

/// All slots are taken, by clients or by codes that the operator asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    /// Its code waits. Codes that nobody asked for are `standing`. A code `instead_of` a client takes no slot until it is
    /// typed.
    Waiting { standing: bool, instead_of: Option<u64> },
    /// It has paired.
    Connected,
    /// It has paired, and its connection is lost.
    Away { since: Time },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    most: usize,
    /// A free slot wants a code.
    stay: bool,
    /// How long a client may be away before another may replace it.
    replace_after: Option<Duration>,
    clients: BTreeMap<u64, ClientState>,
    closed: bool,
}

impl Slots {
    pub(super) fn new(most: usize, stay: bool, replace_after: Option<Duration>) -> Self {
        Self { most, stay, replace_after, clients: BTreeMap::new(), closed: false }
    }

    /// The code that should be offered now, if any. The caller makes it and then calls [`Slots::handle_code`].
    pub(super) fn poll_code(&self, now: Time) -> Option<Wanted> {
        if self.closed || self.waits() {
            return None;
        }
        if self.taken() < self.most {
            return self.stay.then_some(Wanted::Free);
        }
        let (since, client) = self.longest_away()?;
        (now.since(since) >= self.replace_after?).then_some(Wanted::InsteadOf(client))
    }

    /// When to call [`Slots::poll_code`] again, should nothing happen before.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        if self.closed || self.waits() || self.taken() < self.most {
            return None;
        }
        Some(self.longest_away()?.0 + self.replace_after?)
    }

    /// No further codes.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// A code is being made for this client. `standing`: nobody asked for it.
    pub(super) fn handle_code(&mut self, client: u64, standing: bool, wanted: Wanted) {
        let instead_of = match wanted {
            Wanted::Free => None,
            Wanted::InsteadOf(other) => Some(other),
        };
        self.clients.insert(client, ClientState::Waiting { standing, instead_of });
    }

    /// Makes room for a code that the operator asks for; returns the standing code that must go for it, if one must.
    pub(super) fn make_room(&mut self) -> Result<Option<u64>, Full> {
        if self.taken() < self.most {
            return Ok(None);
        }
        let gives_way = ClientState::Waiting { standing: true, instead_of: None };
        let client = self.clients.iter().find(|(_, state)| **state == gives_way).map(|(client, _)| *client);
        let client = client.ok_or(Full)?;
        self.clients.remove(&client);
        Ok(Some(client))
    }

    /// The client has paired with its code. Returns the client that it replaces, if it does.
    pub(super) fn handle_paired(&mut self, client: u64) -> Option<u64> {
        let before = self.clients.insert(client, ClientState::Connected);
        let Some(ClientState::Waiting { instead_of: Some(replaced), .. }) = before else { return None };
        if self.taken() <= self.most {
            return None;
        }
        self.clients.remove(&replaced).map(|_| replaced)
    }

    /// The connection to the client is lost.
    pub(super) fn handle_lost(&mut self, client: u64, now: Time) {
        if let Some(state @ ClientState::Connected) = self.clients.get_mut(&client) {
            *state = ClientState::Away { since: now };
        }
    }

    /// The client is back. Returns the code that was to replace it, which must be withdrawn.
    pub(super) fn handle_back(&mut self, client: u64) -> Option<u64> {
        if let Some(state @ ClientState::Away { .. }) = self.clients.get_mut(&client) {
            *state = ClientState::Connected;
        }
        let code = self.clients.iter().find(|(_, state)| state.instead_of() == Some(client)).map(|(code, _)| *code)?;
        self.clients.remove(&code);
        Some(code)
    }

    /// The client has left, or its code is given up. A code that was to replace it is now one for a free slot.
    pub(super) fn handle_gone(&mut self, client: u64) {
        self.clients.remove(&client);
        for state in self.clients.values_mut() {
            if let ClientState::Waiting { instead_of, .. } = state {
                instead_of.take_if(|of| *of == client);
            }
        }
    }

    /// Which client this code is to replace.
    pub(super) fn instead_of(&self, client: u64) -> Option<u64> {
        self.clients.get(&client)?.instead_of()
    }

    /// Since when a client has been away.
    pub(super) fn away_since(&self, client: u64) -> Option<Time> {
        match self.clients.get(&client)? {
            ClientState::Away { since } => Some(*since),
            ClientState::Connected | ClientState::Waiting { .. } => None,
        }
    }

    /// A standing code waits.
    fn waits(&self) -> bool {
        self.clients.values().any(|state| matches!(state, ClientState::Waiting { standing: true, .. }))
    }

    fn taken(&self) -> usize {
        self.clients.values().filter(|state| state.instead_of().is_none()).count()
    }

    fn longest_away(&self) -> Option<(Time, u64)> {
        self.clients.keys().filter_map(|client| Some((self.away_since(*client)?, *client))).min()
    }
}

impl ClientState {
    fn instead_of(&self) -> Option<u64> {
        match self {
            Self::Waiting { instead_of, .. } => *instead_of,
            Self::Connected | Self::Away { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// With these clients connected, each by a code of its own.
    fn slots(most: usize, after: Option<Duration>, clients: &[u64]) -> Slots {
        let mut slots = Slots::new(most, most > 1, after);
        for client in clients {
            slots.handle_code(*client, true, Wanted::Free);
            assert_eq!(slots.handle_paired(*client), None);
        }
        slots
    }

    #[test]
    fn a_code_comes_when_a_client_has_been_away_for_long_enough_and_not_before() {
        let mut slots = slots(1, Some(MINUTE), &[1]);
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(1000))), (None, None), "nobody is away");
        slots.handle_lost(1, at(1000));
        // A second report of the same absence does not begin it anew.
        slots.handle_lost(1, at(1030));
        assert_eq!(slots.poll_timeout(), Some(at(1060)));
        assert_eq!(slots.poll_code(at(1059)), None);
        assert_eq!(slots.poll_code(at(1060)), Some(Wanted::InsteadOf(1)));
        slots.handle_code(2, true, Wanted::InsteadOf(1));
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(2000))), (None, None), "one code is enough");
        assert_eq!(slots.handle_paired(2), Some(1));
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(3000))), (None, None));
        // The second client can be replaced as well.
        slots.handle_lost(2, at(3000));
        assert_eq!(slots.poll_code(at(3060)), Some(Wanted::InsteadOf(2)));
    }

    #[test]
    fn never_is_never_and_zero_is_at_once() {
        let mut never = slots(1, None, &[1]);
        never.handle_lost(1, at(0));
        assert_eq!((never.poll_timeout(), never.poll_code(at(1_000_000))), (None, None));
        let mut zero = slots(1, Some(Duration::ZERO), &[1]);
        zero.handle_lost(1, at(5));
        assert_eq!((zero.poll_timeout(), zero.poll_code(at(5))), (Some(at(5)), Some(Wanted::InsteadOf(1))));
    }

    #[test]
    fn a_client_that_is_back_keeps_its_slot_and_its_time_begins_anew() {
        let mut slots = slots(1, Some(MINUTE), &[1]);
        slots.handle_lost(1, at(0));
        assert_eq!(slots.handle_back(1), None, "no code was made yet");
        assert_eq!(slots.poll_timeout(), None);
        slots.handle_lost(1, at(50));
        assert_eq!(slots.poll_code(at(60)), None);
        slots.handle_code(2, true, slots.poll_code(at(110)).unwrap());
        assert_eq!(slots.handle_back(1), Some(2));
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(500))), (None, None));
        assert_eq!(slots.handle_back(1), None, "withdrawn once");
    }

    #[test]
    fn only_a_full_house_and_the_one_that_is_away_longest() {
        let mut slots = slots(3, Some(MINUTE), &[1, 2]);
        slots.handle_lost(1, at(20));
        slots.handle_lost(2, at(10));
        assert_eq!(slots.poll_code(at(500)), Some(Wanted::Free));
        slots.handle_code(3, true, Wanted::Free);
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(500))), (None, None), "a code waits already");
        assert_eq!(slots.handle_paired(3), None);
        assert_eq!(slots.poll_code(at(500)), Some(Wanted::InsteadOf(2)));
        slots.handle_code(4, true, Wanted::InsteadOf(2));
        assert_eq!(slots.handle_back(2), Some(4), "a code says whose slot it is for");
        assert_eq!(slots.poll_code(at(500)), Some(Wanted::InsteadOf(1)));
        slots.handle_code(5, true, Wanted::InsteadOf(1));
        assert_eq!(slots.handle_paired(5), Some(1));
        assert_eq!(slots.poll_code(at(500)), None);
    }

    #[test]
    fn no_client_loses_its_slot_while_another_is_free() {
        let mut slots = slots(2, Some(MINUTE), &[1, 2]);
        slots.handle_lost(1, at(0));
        slots.handle_code(3, true, slots.poll_code(at(60)).unwrap());
        slots.handle_gone(2);
        assert_eq!(slots.poll_code(at(60)), None, "the code that waits will do");
        assert_eq!(slots.handle_paired(3), None);
        // And where the client to be replaced leaves, the code is like any other.
        slots.handle_code(4, true, slots.poll_code(at(60)).unwrap());
        slots.handle_gone(1);
        assert_eq!(slots.instead_of(4), None);
        assert_eq!(slots.handle_paired(4), None);
    }

    #[test]
    fn an_invitation_finds_room_only_in_place_of_a_standing_code() {
        let mut slots = slots(2, Some(MINUTE), &[1]);
        slots.handle_code(2, true, Wanted::Free);
        assert_eq!(slots.make_room(), Ok(Some(2)));
        slots.handle_code(3, false, Wanted::Free);
        slots.handle_lost(1, at(0));
        // A code that the operator asked for is never given up for another.
        slots.handle_code(4, true, slots.poll_code(at(60)).unwrap());
        assert_eq!(slots.make_room(), Err(Full), "a code in another's stead has no slot to give");
        assert_eq!(slots.handle_paired(3), None);
        assert_eq!(slots.handle_paired(4), Some(1));
    }

    #[test]
    fn no_codes_are_made_once_closed() {
        let mut slots = slots(2, Some(MINUTE), &[1, 2]);
        slots.handle_lost(1, at(0));
        slots.close();
        assert_eq!((slots.poll_timeout(), slots.poll_code(at(60))), (None, None));
    }
}
