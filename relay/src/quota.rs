//! Requests a minute, an address. `now` is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::address::AddressKey;

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at once: bounds what a flood from many networks can make the relay keep (about 4 MiB).
const ADDRESSES_MAX: usize = 65_536;

/// Counts requests in windows of a minute that begin with an address's first request.
#[derive(Debug)]
pub(crate) struct RequestQuota {
    per_minute: u32,
    seen: HashMap<AddressKey, Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    count: u32,
}

impl RequestQuota {
    /// `per_minute` requests an address; 0 is no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, seen: HashMap::new() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// Over the limit: how long until the next one is admitted.
    pub(crate) fn handle_request(&mut self, now: Instant, address: AddressKey) -> Result<(), Duration> {
        if self.per_minute == 0 {
            return Ok(());
        }
        let over = |window: &Window| now.saturating_duration_since(window.since) >= WINDOW;
        if self.seen.len() >= ADDRESSES_MAX && !self.seen.contains_key(&address) {
            self.seen.retain(|_, window| !over(window));
            if self.seen.len() >= ADDRESSES_MAX {
                return Err(WINDOW);
            }
        }
        let window = self.seen.entry(address).or_insert(Window { since: now, count: 0 });
        if over(window) {
            *window = Window { since: now, count: 0 };
        }
        if window.count >= self.per_minute {
            return Err((window.since + WINDOW).saturating_duration_since(now));
        }
        window.count += 1;
        Ok(())
    }

    /// Forgets addresses that have been quiet.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.seen.retain(|_, window| now.saturating_duration_since(window.since) < WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn key(n: u32) -> AddressKey {
        IpAddr::V4(Ipv4Addr::from_bits(n)).into()
    }

    #[test]
    fn an_address_has_its_own_minute() {
        let mut quota = RequestQuota::new(20);
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(quota.handle_request(start, key(1)), Ok(()));
        }
        let later = start + Duration::from_secs(45);
        assert_eq!(quota.handle_request(later, key(1)), Err(Duration::from_secs(15)));
        assert_eq!(quota.handle_request(later, key(2)), Ok(()));
        assert_eq!(quota.handle_request(start + WINDOW, key(1)), Ok(()));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let mut quota = RequestQuota::new(20);
        let start = Instant::now();
        for n in 0..u32::try_from(ADDRESSES_MAX).unwrap() {
            quota.handle_request(start, key(n)).unwrap();
        }
        assert!(quota.handle_request(start, key(u32::MAX)).is_err());
        assert_eq!(quota.handle_request(start, key(1)), Ok(()), "known addresses go on");
        assert_eq!(quota.handle_request(start + WINDOW, key(u32::MAX)), Ok(()));
        assert_eq!(quota.seen.len(), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut quota = RequestQuota::new(0);
        assert!((0..1000).all(|_| quota.handle_request(Instant::now(), key(1)).is_ok()));
    }
}
