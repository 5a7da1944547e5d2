//! How many requests an address and its networks may make in a minute. `now` is an argument, and no call takes longer with
//! more addresses.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::address::{AddressKey, Network};

const WINDOW: Duration = Duration::from_mins(1);
/// Windows remembered at once: bounds what a flood from many networks can make the relay keep (about 10 MiB). The oldest
/// makes room for a new one, so that a flood locks nobody out; it ends at most a minute early.
const WINDOWS_MAX: usize = 65_536;
/// Windows forgotten in one tick, so that a request that waits for the quota's lock meanwhile waits for microseconds.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// The `Retry-After` of a refused request (RFC 9110 section 10.2.3), in whole seconds: after at least `wait`.
#[must_use]
pub fn retry_after(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// Counts requests in windows of a minute that begin with a network's first request.
#[derive(Debug)]
pub struct RequestQuota {
    per_minute: u32,
    windows: HashMap<Network, Window>,
    /// When each window began, in that order. A network whose window ended and began again stands here twice.
    begun: VecDeque<(Instant, Network)>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    count: usize,
}

impl RequestQuota {
    /// `per_minute` requests an address; 0 is no limit.
    #[must_use]
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, windows: HashMap::new(), begun: VecDeque::new() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The address, or a network it is in, is over its limit. The error is the time until the next request is admitted.
    pub fn handle_request(&mut self, now: Instant, address: AddressKey) -> Result<(), Duration> {
        let Some(per_minute) = usize::try_from(self.per_minute).ok().filter(|limit| *limit > 0) else { return Ok(()) };
        let over = address.networks().filter_map(|(network, times)| {
            let window = self.windows.get(&network)?;
            let left = (window.since + WINDOW).saturating_duration_since(now);
            (window.count >= per_minute.saturating_mul(times) && !left.is_zero()).then_some(left)
        });
        // A refused request is not counted: it takes no window, and does not keep its sender out for longer.
        if let Some(wait) = over.max() {
            return Err(wait);
        }
        for (network, _) in address.networks() {
            self.count(now, network);
        }
        Ok(())
    }

    fn count(&mut self, now: Instant, network: Network) {
        if let Some(window) = self.windows.get_mut(&network)
            && now.saturating_duration_since(window.since) < WINDOW
        {
            window.count += 1;
            return;
        }
        if self.begun.len() >= WINDOWS_MAX {
            self.forget_oldest();
        }
        self.begun.push_back((now, network));
        self.windows.insert(network, Window { since: now, count: 1 });
    }

    /// Forgets some of the windows that are over.
    pub fn handle_tick(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            match self.begun.front() {
                Some((since, _)) if now.saturating_duration_since(*since) >= WINDOW => self.forget_oldest(),
                _ => break,
            }
        }
        if self.begun.is_empty() {
            // Gives back the memory that a flood took.
            (self.windows, self.begun) = (HashMap::new(), VecDeque::new());
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((since, network)) = self.begun.pop_front()
            && self.windows.get(&network).is_some_and(|window| window.since == since)
        {
            self.windows.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn key(n: u32) -> AddressKey {
        IpAddr::V4(Ipv4Addr::from_bits(n)).into()
    }

    /// The n-th /64.
    fn network(n: u64) -> AddressKey {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(n) << 64 | 1)).into()
    }

    #[test]
    fn an_address_has_its_own_minute() {
        let mut quota = RequestQuota::new(20);
        let start = start();
        for _ in 0..20 {
            assert_eq!(quota.handle_request(start, key(1)), Ok(()));
        }
        let later = start + Duration::from_secs(45);
        assert_eq!(quota.handle_request(later, key(1)), Err(Duration::from_secs(15)));
        assert_eq!(quota.handle_request(later, key(2)), Ok(()));
        assert_eq!(quota.handle_request(start + WINDOW, key(1)), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_locks_nobody_out() {
        let mut quota = RequestQuota::new(20);
        let start = start();
        for n in 0..3 * u32::try_from(WINDOWS_MAX).unwrap() {
            assert_eq!(quota.handle_request(start, key(n)), Ok(()));
        }
        assert_eq!((quota.windows.len(), quota.begun.len()), (WINDOWS_MAX, WINDOWS_MAX));
        for _ in 0..20 {
            assert_eq!(quota.handle_request(start, key(u32::MAX)), Ok(()));
        }
        assert!(quota.handle_request(start, key(u32::MAX)).is_err(), "and an address that is new has its limit");
    }

    #[test]
    fn what_is_over_is_forgotten_a_part_at_a_time() {
        let mut quota = RequestQuota::new(20);
        let start = start();
        for n in 0..5000 {
            quota.handle_request(start, key(n)).unwrap();
        }
        quota.handle_tick(start);
        assert_eq!(quota.windows.len(), 5000);
        // One that began again is not forgotten with its former self.
        quota.handle_request(start + WINDOW, key(0)).unwrap();
        quota.handle_tick(start + WINDOW);
        assert_eq!(quota.windows.len(), 5000 - FORGOTTEN_AT_ONCE + 1);
        for _ in 0..5 {
            quota.handle_tick(start + WINDOW);
        }
        assert_eq!((quota.windows.len(), quota.begun.len()), (1, 1));
        for _ in 1..20 {
            quota.handle_request(start + WINDOW, key(0)).unwrap();
        }
        assert!(quota.handle_request(start + WINDOW, key(0)).is_err());
        quota.handle_tick(start + 2 * WINDOW);
        assert_eq!(quota.windows.capacity(), 0);
    }

    /// A holder of a /56 has 256 networks, one of a /48 65,536: and 4 and 16 times an address's limit.
    #[test]
    fn many_addresses_of_one_network_do_not_have_as_many_requests() {
        let start = start();
        for (addresses, times) in [(256, 4), (65_536, 16)] {
            let mut quota = RequestQuota::new(20);
            let admitted =
                (0..addresses).map(|n| (0..30).filter(|_| quota.handle_request(start, network(n)).is_ok()).count());
            assert_eq!(admitted.sum::<usize>(), 20 * times);
            assert!(quota.windows.len() <= 3 * 20 * times, "and does not fill the table");
            assert_eq!(quota.handle_request(start, network(1 << 20)), Ok(()), "of another /48");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let mut quota = RequestQuota::new(0);
        assert!((0..1000).all(|_| quota.handle_request(start(), key(1)).is_ok()));
    }
}
