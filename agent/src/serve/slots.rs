//! Who has a place, who may take one, and whose place another may take. Pure: the time is an argument.

use std::{collections::BTreeMap, time::Duration};

use mykube_link::clock::Time;

/// A code that should be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A place is free.
    Free,
    /// None is, and this client has been away for too long to keep its own.
    InsteadOf(u64),
}

/// All places are taken, by clients or by codes that somebody asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// Its code waits. The desk's own codes are `standing`; one in another's stead takes no place until it is typed.
    Waiting { standing: bool, instead_of: Option<u64> },
    /// It is in.
    In,
    /// It is in, and the connection to it is lost.
    Away { since: Time },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// A free place wants a code.
    stay: bool,
    /// How long a client may be away before another may take its place.
    replace_after: Option<Duration>,
    guests: BTreeMap<u64, Guest>,
    closed: bool,
}

impl Places {
    pub(super) fn new(most: usize, stay: bool, replace_after: Option<Duration>) -> Self {
        Self { most, stay, replace_after, guests: BTreeMap::new(), closed: false }
    }

    /// The code that should be shown now, if there is one. Whoever makes it tells [`Places::handle_code`].
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

    /// When [`Places::poll_code`] wants to be called again, should nothing happen.
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
        self.guests.insert(client, Guest::Waiting { standing, instead_of });
    }

    /// Makes room for a code that somebody asks for; gives the standing one that must go.
    pub(super) fn make_room(&mut self) -> Result<Option<u64>, Full> {
        if self.taken() < self.most {
            return Ok(None);
        }
        let gives_way = Guest::Waiting { standing: true, instead_of: None };
        let client = self.guests.iter().find(|(_, guest)| **guest == gives_way).map(|(client, _)| *client);
        let client = client.ok_or(Full)?;
        self.guests.remove(&client);
        Ok(Some(client))
    }

    /// It knew its code, and is in. Gives the client that has lost its place to it.
    pub(super) fn handle_paired(&mut self, client: u64) -> Option<u64> {
        let before = self.guests.insert(client, Guest::In);
        let Some(Guest::Waiting { instead_of: Some(replaced), .. }) = before else { return None };
        if self.taken() <= self.most {
            return None;
        }
        self.guests.remove(&replaced).map(|_| replaced)
    }

    /// The connection to it is lost.
    pub(super) fn handle_lost(&mut self, client: u64, now: Time) {
        if let Some(guest @ Guest::In) = self.guests.get_mut(&client) {
            *guest = Guest::Away { since: now };
        }
    }

    /// It is back. Gives the code in its stead, which is worth nothing from here on.
    pub(super) fn handle_back(&mut self, client: u64) -> Option<u64> {
        if let Some(guest @ Guest::Away { .. }) = self.guests.get_mut(&client) {
            *guest = Guest::In;
        }
        let code = self.guests.iter().find(|(_, guest)| guest.instead_of() == Some(client)).map(|(code, _)| *code)?;
        self.guests.remove(&code);
        Some(code)
    }

    /// It has left, or its code is given up. A code in its stead is one for a free place now.
    pub(super) fn handle_gone(&mut self, client: u64) {
        self.guests.remove(&client);
        for guest in self.guests.values_mut() {
            if let Guest::Waiting { instead_of, .. } = guest {
                instead_of.take_if(|of| *of == client);
            }
        }
    }

    /// In whose stead a code waits.
    pub(super) fn instead_of(&self, client: u64) -> Option<u64> {
        self.guests.get(&client)?.instead_of()
    }

    /// Since when a client has been away.
    pub(super) fn away_since(&self, client: u64) -> Option<Time> {
        match self.guests.get(&client)? {
            Guest::Away { since } => Some(*since),
            Guest::In | Guest::Waiting { .. } => None,
        }
    }

    /// A standing code waits.
    fn waits(&self) -> bool {
        self.guests.values().any(|guest| matches!(guest, Guest::Waiting { standing: true, .. }))
    }

    fn taken(&self) -> usize {
        self.guests.values().filter(|guest| guest.instead_of().is_none()).count()
    }

    fn longest_away(&self) -> Option<(Time, u64)> {
        self.guests.keys().filter_map(|client| Some((self.away_since(*client)?, *client))).min()
    }
}

impl Guest {
    fn instead_of(&self) -> Option<u64> {
        match self {
            Self::Waiting { instead_of, .. } => *instead_of,
            Self::In | Self::Away { .. } => None,
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

    /// With these clients in, by codes of their own.
    fn places(most: usize, after: Option<Duration>, clients: &[u64]) -> Places {
        let mut places = Places::new(most, most > 1, after);
        for client in clients {
            places.handle_code(*client, true, Wanted::Free);
            assert_eq!(places.handle_paired(*client), None);
        }
        places
    }

    #[test]
    fn a_code_comes_when_a_client_has_been_away_for_long_enough_and_not_before() {
        let mut places = places(1, Some(MINUTE), &[1]);
        assert_eq!((places.poll_timeout(), places.poll_code(at(1000))), (None, None), "nobody is away");
        places.handle_lost(1, at(1000));
        // What else is told of the same absence does not begin it anew.
        places.handle_lost(1, at(1030));
        assert_eq!(places.poll_timeout(), Some(at(1060)));
        assert_eq!(places.poll_code(at(1059)), None);
        assert_eq!(places.poll_code(at(1060)), Some(Wanted::InsteadOf(1)));
        places.handle_code(2, true, Wanted::InsteadOf(1));
        assert_eq!((places.poll_timeout(), places.poll_code(at(2000))), (None, None), "one code is enough");
        assert_eq!(places.handle_paired(2), Some(1));
        assert_eq!((places.poll_timeout(), places.poll_code(at(3000))), (None, None));
        // It can happen to the second as well.
        places.handle_lost(2, at(3000));
        assert_eq!(places.poll_code(at(3060)), Some(Wanted::InsteadOf(2)));
    }

    #[test]
    fn never_is_never_and_zero_is_at_once() {
        let mut never = places(1, None, &[1]);
        never.handle_lost(1, at(0));
        assert_eq!((never.poll_timeout(), never.poll_code(at(1_000_000))), (None, None));
        let mut zero = places(1, Some(Duration::ZERO), &[1]);
        zero.handle_lost(1, at(5));
        assert_eq!((zero.poll_timeout(), zero.poll_code(at(5))), (Some(at(5)), Some(Wanted::InsteadOf(1))));
    }

    #[test]
    fn whoever_is_back_keeps_the_place_and_the_time_begins_anew() {
        let mut places = places(1, Some(MINUTE), &[1]);
        places.handle_lost(1, at(0));
        assert_eq!(places.handle_back(1), None, "no code was made yet");
        assert_eq!(places.poll_timeout(), None);
        places.handle_lost(1, at(50));
        assert_eq!(places.poll_code(at(60)), None);
        places.handle_code(2, true, places.poll_code(at(110)).unwrap());
        assert_eq!(places.handle_back(1), Some(2));
        assert_eq!((places.poll_timeout(), places.poll_code(at(500))), (None, None));
        assert_eq!(places.handle_back(1), None, "withdrawn once");
    }

    #[test]
    fn only_a_full_house_and_the_one_that_is_away_longest() {
        let mut places = places(3, Some(MINUTE), &[1, 2]);
        places.handle_lost(1, at(20));
        places.handle_lost(2, at(10));
        assert_eq!(places.poll_code(at(500)), Some(Wanted::Free));
        places.handle_code(3, true, Wanted::Free);
        assert_eq!((places.poll_timeout(), places.poll_code(at(500))), (None, None), "a code waits already");
        assert_eq!(places.handle_paired(3), None);
        assert_eq!(places.poll_code(at(500)), Some(Wanted::InsteadOf(2)));
        places.handle_code(4, true, Wanted::InsteadOf(2));
        assert_eq!(places.handle_back(2), Some(4), "a code says whose place it is for");
        assert_eq!(places.poll_code(at(500)), Some(Wanted::InsteadOf(1)));
        places.handle_code(5, true, Wanted::InsteadOf(1));
        assert_eq!(places.handle_paired(5), Some(1));
        assert_eq!(places.poll_code(at(500)), None);
    }

    #[test]
    fn nobody_loses_a_place_while_another_is_free() {
        let mut places = places(2, Some(MINUTE), &[1, 2]);
        places.handle_lost(1, at(0));
        places.handle_code(3, true, places.poll_code(at(60)).unwrap());
        places.handle_gone(2);
        assert_eq!(places.poll_code(at(60)), None, "the code that waits will do");
        assert_eq!(places.handle_paired(3), None);
        // And where the very client leaves, the code is like any other.
        places.handle_code(4, true, places.poll_code(at(60)).unwrap());
        places.handle_gone(1);
        assert_eq!(places.instead_of(4), None);
        assert_eq!(places.handle_paired(4), None);
    }

    #[test]
    fn an_invitation_finds_room_only_in_place_of_a_standing_code() {
        let mut places = places(2, Some(MINUTE), &[1]);
        places.handle_code(2, true, Wanted::Free);
        assert_eq!(places.make_room(), Ok(Some(2)));
        places.handle_code(3, false, Wanted::Free);
        places.handle_lost(1, at(0));
        // An invited one may take as long as it likes; that code is nobody else's.
        places.handle_code(4, true, places.poll_code(at(60)).unwrap());
        assert_eq!(places.make_room(), Err(Full), "a code in another's stead has no place to give");
        assert_eq!(places.handle_paired(3), None);
        assert_eq!(places.handle_paired(4), Some(1));
    }

    #[test]
    fn a_closed_desk_makes_no_codes() {
        let mut places = places(2, Some(MINUTE), &[1, 2]);
        places.handle_lost(1, at(0));
        places.close();
        assert_eq!((places.poll_timeout(), places.poll_code(at(60))), (None, None));
    }
}
