//! The nameplates under which sessions wait, and the drawing of new ones.

use std::collections::HashMap;

use mykube_protocol::{
    Nameplate, SessionId,
    limits::{NAMEPLATE_MAX_DIGITS, NAMEPLATE_MIN_DIGITS},
};
use rand::{CryptoRng, RngExt as _};

const LENGTHS: usize = NAMEPLATE_MAX_DIGITS - NAMEPLATE_MIN_DIGITS + 1;
const TRIES: usize = 32;

/// Nameplates that are taken.
#[derive(Debug, Default)]
pub(super) struct Nameplates {
    waiting: HashMap<Nameplate, SessionId>,
    counts: [usize; LENGTHS],
}

impl Nameplates {
    pub(super) fn get(&self, nameplate: &Nameplate) -> Option<SessionId> {
        self.waiting.get(nameplate).copied()
    }

    /// Whether a waiting nameplate is a prefix of these digits.
    pub(super) fn is_prefixed(&self, digits: &str) -> bool {
        (NAMEPLATE_MIN_DIGITS..=NAMEPLATE_MAX_DIGITS)
            .filter_map(|len| digits.get(..len)?.parse::<Nameplate>().ok())
            .any(|nameplate| self.waiting.contains_key(&nameplate))
    }

    /// A random free nameplate of the current length: one digit more when more than half of the shorter ones wait.
    pub(super) fn draw(&self, rng: &mut impl CryptoRng, blocked: impl Fn(&str) -> bool) -> Option<Nameplate> {
        let current = (0..LENGTHS - 1).take_while(|&i| self.counts[i] > values(i) / 2).count();
        let free = |digits: String| {
            let nameplate = digits.parse::<Nameplate>().ok()?;
            (!self.waiting.contains_key(&nameplate) && !blocked(&digits)).then_some(nameplate)
        };
        (current..LENGTHS).find_map(|i| {
            let width = NAMEPLATE_MIN_DIGITS + i;
            let digits = |value: usize| format!("{value:0width$}");
            let drawn = (0..TRIES).find_map(|_| free(digits(rng.random_range(0..values(i)))));
            drawn.or_else(|| {
                let start = rng.random_range(0..values(i));
                (0..values(i)).find_map(|n| free(digits((start + n) % values(i))))
            })
        })
    }

    /// Takes a nameplate if it is free.
    pub(super) fn take(&mut self, nameplate: Nameplate, session: SessionId) -> bool {
        if self.waiting.contains_key(&nameplate) {
            return false;
        }
        self.counts[nameplate.as_str().len() - NAMEPLATE_MIN_DIGITS] += 1;
        self.waiting.insert(nameplate, session);
        true
    }

    pub(super) fn free(&mut self, nameplate: &Nameplate) {
        if self.waiting.remove(nameplate).is_some() {
            self.counts[nameplate.as_str().len() - NAMEPLATE_MIN_DIGITS] -= 1;
        }
    }
}

/// How many nameplates of the i-th length there are.
const fn values(i: usize) -> usize {
    let mut n = 1;
    let mut digits = NAMEPLATE_MIN_DIGITS + i;
    while digits > 0 {
        n *= 10;
        digits -= 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn fill(nameplates: &mut Nameplates, rng: &mut StdRng, n: usize) {
        for _ in 0..n {
            let nameplate = nameplates.draw(rng, |_| false).unwrap();
            assert!(nameplates.take(nameplate, SessionId::from_bytes([0; 16])));
        }
    }

    #[test]
    fn nameplates_grow_when_more_than_half_wait() {
        let rng = &mut StdRng::seed_from_u64(1);
        let mut nameplates = Nameplates::default();
        fill(&mut nameplates, rng, 501);
        assert_eq!(nameplates.counts, [501, 0, 0]);
        fill(&mut nameplates, rng, 5001);
        assert_eq!(nameplates.counts, [501, 5001, 0]);
        fill(&mut nameplates, rng, 1);
        assert_eq!(nameplates.counts, [501, 5001, 1]);

        let short = nameplates.waiting.keys().find(|n| n.as_str().len() == 3).unwrap().clone();
        nameplates.free(&short);
        assert_eq!(nameplates.draw(rng, |_| false).unwrap().as_str().len(), 3, "and shrink again");
    }

    #[test]
    fn what_is_blocked_is_not_drawn() {
        let rng = &mut StdRng::seed_from_u64(1);
        let nameplates = Nameplates::default();
        assert_eq!(nameplates.draw(rng, |digits| digits != "007").unwrap().as_str(), "007");
        assert_eq!(nameplates.draw(rng, |digits| digits.len() < 5).unwrap().as_str().len(), 5);
        assert_eq!(nameplates.draw(rng, |_| true), None);
    }
}
