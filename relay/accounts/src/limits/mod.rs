//! How often somebody may call what signs people in: by address and its networks, by account, and in all.
//!
//! The published figures are those of one address in a minute. What is refused is not counted.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use mykube_relay_core::address::{AddressKey, Network};

use crate::id::AccountId;

mod window;

use window::SlidingWindow;

/// The published answer, with 429.
pub const TOO_MANY: &str = "Rate limit exceeded \u{2014} try again later";

/// What rows that anybody can make are counted by: an IPv4 address, or an IPv6 network of 48 bits, which is one site's. When
/// there are too many, the network that has the most loses its oldest, and nobody else is shut out.
#[must_use]
pub fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).to_string(),
    }
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `POST /auth/device`
    DeviceBegin,
    /// `POST /auth/device/poll`. Each code has its interval besides.
    DevicePoll,
    /// `POST /auth/device/verify`, and the page's form.
    DeviceVerify,
    /// A user code that nobody has, at the last: counted when it was judged, asked about before.
    DeviceGuess,
    /// `POST /auth/dev`
    DevLogin,
    /// `POST /auth/dev/token`
    DevToken,
    /// `POST /auth/exchange`
    Exchange,
    /// `GET /auth/{provider}`
    ProviderBegin,
    /// `GET /auth/callback` and those of other providers.
    ProviderCallback,
    /// The click on the page that gives a program its sign-in.
    Confirm,
    /// `POST /auth`
    IdToken,
    /// `POST /auth/refresh`, both forms, and what says that a successor has arrived.
    Refresh,
    /// `POST /auth/revoke`
    Revoke,
    /// `GET /auth/status`, `GET /auth/dev`, `POST /auth/logout`: they try nothing.
    Status,
    /// `POST /auth/otp/request`. Each email address has limits besides.
    OtpRequest,
    /// `POST /auth/otp/verify`. Each email address has its tries besides.
    OtpVerify,
    /// A token of an app or agent that nobody has: counted when it was judged, asked about before.
    TokenGuess,
    /// An invitation's link.
    Invite,
    /// Everything else, paths that do not exist included: they try nothing.
    Other,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::DeviceBegin,
        Self::DevicePoll,
        Self::DeviceVerify,
        Self::DeviceGuess,
        Self::DevLogin,
        Self::DevToken,
        Self::Exchange,
        Self::ProviderBegin,
        Self::ProviderCallback,
        Self::Confirm,
        Self::IdToken,
        Self::Refresh,
        Self::Revoke,
        Self::Status,
        Self::OtpRequest,
        Self::OtpVerify,
        Self::TokenGuess,
        Self::Invite,
        Self::Other,
    ];

    /// Its figures.
    #[must_use]
    pub fn limit(self) -> Limit {
        let minute = |address| Limit { address, account: None, all: None, per: MINUTE };
        match self {
            // The same for a person at many addresses.
            Self::DeviceVerify => Limit { account: Some(5), ..minute(5) },
            // Only of people who are signed in. Of 32^8 codes with 16,384 live ones, all of them find one in about 900 days.
            Self::DeviceGuess => Limit { account: Some(5), all: Some(50), ..minute(5) },
            Self::DevLogin | Self::DevToken => minute(5),
            // The first is the published figure; the others bound what is asked of the database: a code is random.
            Self::DeviceBegin | Self::Exchange | Self::OtpVerify | Self::Invite => minute(10),
            Self::DevicePoll
            | Self::ProviderBegin
            | Self::ProviderCallback
            | Self::Confirm
            | Self::IdToken
            | Self::Refresh
            | Self::TokenGuess => minute(30),
            Self::Revoke => Limit { account: Some(30), ..minute(30) },
            Self::Status => minute(120),
            // What a person's programs ask when they start, behind one address of a company.
            Self::Other => minute(600),
            Self::OtpRequest => Limit { per: HOUR, ..minute(20) },
        }
    }
}

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// How often something may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// By one address; its networks have a multiple ([`AddressKey::networks`]).
    pub address: u32,
    /// By one account from any address, if there is such a limit.
    pub account: Option<u32>,
    /// By everybody together, if there is such a limit.
    pub all: Option<u32>,
    /// In this time.
    pub per: Duration,
}

/// Who is charged for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Network(Network),
    Account(AccountId),
    All,
}

/// One call's windows. Each forgets its oldest for itself: no flood, of another call or from many networks, ends the limit of
/// an account, or that of all together.
#[derive(Debug)]
struct Windows {
    networks: SlidingWindow<Counted>,
    accounts: SlidingWindow<Counted>,
    all: SlidingWindow<Counted>,
}

impl Windows {
    fn new(call: Call) -> Self {
        let window = || SlidingWindow::new(call.limit().per);
        Self { networks: window(), accounts: window(), all: window() }
    }

    fn of(&self, counted: Counted) -> &SlidingWindow<Counted> {
        match counted {
            Counted::Network(_) => &self.networks,
            Counted::Account(_) => &self.accounts,
            Counted::All => &self.all,
        }
    }

    fn of_mut(&mut self, counted: Counted) -> &mut SlidingWindow<Counted> {
        match counted {
            Counted::Network(_) => &mut self.networks,
            Counted::Account(_) => &mut self.accounts,
            Counted::All => &mut self.all,
        }
    }
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// From where, behind the proxies that the configuration trusts.
    pub address: IpAddr,
    /// Who, if that is known.
    pub account: Option<AccountId>,
}

/// What was called of late. Kept in memory: a relay that starts again begins anew.
#[derive(Debug)]
pub struct Limits {
    calls: HashMap<Call, Windows>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: Call::ALL.map(|call| (call, Windows::new(call))).into() }
    }
}

impl Limits {
    /// Whether it may be called. Counts nothing.
    ///
    /// # Errors
    /// How long until it may be.
    pub fn admits(&self, now: Instant, call: Call, caller: Caller) -> Result<(), Duration> {
        let Some(windows) = self.calls.get(&call) else { return Ok(()) };
        let waits = counted(call, caller).filter_map(|(key, limit)| windows.of(key).wait(now, &key, limit));
        waits.max().map_or(Ok(()), Err)
    }

    /// Counts a call that may be made.
    ///
    /// # Errors
    /// How long until it may be.
    pub fn handle(&mut self, now: Instant, call: Call, caller: Caller) -> Result<(), Duration> {
        self.admits(now, call, caller)?;
        let windows = self.calls.entry(call).or_insert_with(|| Windows::new(call));
        for (key, _) in counted(call, caller) {
            windows.of_mut(key).count(now, key);
        }
        Ok(())
    }

    /// Counts a call that may be made against the account alone, where who it is was found out after its address was counted.
    ///
    /// # Errors
    /// How long until it may be.
    pub fn handle_account(&mut self, now: Instant, call: Call, account: AccountId) -> Result<(), Duration> {
        let Some(most) = call.limit().account else { return Ok(()) };
        let window = &mut self.calls.entry(call).or_insert_with(|| Windows::new(call)).accounts;
        let key = Counted::Account(account);
        if let Some(wait) = window.wait(now, &key, usize::try_from(most).unwrap_or(usize::MAX)) {
            return Err(wait);
        }
        window.count(now, key);
        Ok(())
    }

    /// Forgets some of what is over.
    pub fn handle_tick(&mut self, now: Instant) {
        const AT_ONCE: usize = 64;
        for windows in self.calls.values_mut() {
            for window in [&mut windows.networks, &mut windows.accounts, &mut windows.all] {
                window.forget(now, AT_ONCE);
            }
        }
    }
}

/// Who is charged for a call, and the figure of each.
fn counted(call: Call, caller: Caller) -> impl Iterator<Item = (Counted, usize)> {
    let limit = call.limit();
    let figure = |figure: u32| usize::try_from(figure).unwrap_or(usize::MAX);
    let networks = AddressKey::from(caller.address).networks();
    let networks = networks.map(move |(network, times)| (Counted::Network(network), figure(limit.address) * times));
    let account = caller.account.zip(limit.account).map(|(account, most)| (Counted::Account(account), figure(most)));
    let all = limit.all.map(|most| (Counted::All, figure(most)));
    networks.chain(account).chain(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn from(address: &str) -> Caller {
        Caller { address: address.parse().unwrap(), account: None }
    }

    #[test]
    fn the_figures_are_these() {
        for (call, figure, secs) in [
            (Call::DeviceBegin, 10, 60),
            (Call::DeviceVerify, 5, 60),
            (Call::DevicePoll, 30, 60),
            (Call::DevToken, 5, 60),
            (Call::DevLogin, 5, 60),
            (Call::IdToken, 30, 60),
            (Call::Refresh, 30, 60),
            (Call::OtpRequest, 20, 3600),
        ] {
            assert_eq!((call.limit().address, call.limit().per.as_secs()), (figure, secs), "{call:?}");
        }
        assert_eq!(TOO_MANY, "Rate limit exceeded — try again later");
    }

    #[test]
    fn each_call_has_its_own_limit_by_address() {
        let (mut limits, start) = (Limits::default(), start());
        for call in Call::ALL {
            let Limit { address, per, .. } = call.limit();
            for _ in 0..address {
                assert_eq!(limits.handle(start, call, from("192.0.2.1")), Ok(()), "{call:?}");
            }
            assert_eq!(limits.handle(start, call, from("192.0.2.1")), Err(per), "{call:?}");
            assert_eq!(limits.handle(start, call, from("::ffff:192.0.2.1")), Err(per), "the same in the other family");
            assert_eq!(limits.admits(start, call, from("192.0.2.2")), Ok(()));
            assert_eq!(limits.admits(start + per, call, from("192.0.2.1")), Ok(()));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let (mut limits, start) = (Limits::default(), start());
        let admitted = |limits: &mut Limits, address: fn(u32) -> String| {
            (0..2000).filter(|n| limits.handle(start, Call::DeviceVerify, from(&address(*n))).is_ok()).count()
        };
        assert_eq!(admitted(&mut limits, |n| format!("2001:db8:1:0::{n:x}")), 5, "a /64");
        assert_eq!(admitted(&mut Limits::default(), |n| format!("2001:db8:1:{:x}::1", n % 256)), 20, "a /56");
        assert_eq!(admitted(&mut Limits::default(), |n| format!("2001:db8:1:{n:x}::1")), 80, "a /48");
    }

    #[test]
    fn a_person_at_many_addresses_is_one_person() {
        let (mut limits, start) = (Limits::default(), start());
        let ada = AccountId::from_bytes([1; 16]);
        let verify = |limits: &mut Limits, n: u8, account| {
            limits.handle(start, Call::DeviceVerify, Caller { account, ..from(&format!("192.0.2.{n}")) })
        };
        let admitted = (0..50).filter(|n| verify(&mut limits, *n, Some(ada)).is_ok()).count();
        assert_eq!(admitted, 5);
        assert_eq!(limits.handle_account(start, Call::DeviceVerify, ada), Err(MINUTE), "the same count");
        assert_eq!(verify(&mut limits, 60, Some(AccountId::from_bytes([2; 16]))), Ok(()));
        assert_eq!(verify(&mut limits, 61, None), Ok(()));
    }

    #[test]
    fn guesses_are_limited_for_all_together() {
        let (mut limits, start) = (Limits::default(), start());
        let guess = |limits: &mut Limits, n: u8| limits.handle(start, Call::DeviceGuess, from(&format!("192.0.2.{n}")));
        let admitted = (0..=255).filter(|n| guess(&mut limits, *n).is_ok()).count();
        assert_eq!(admitted, 50);
        assert_eq!(limits.admits(start + MINUTE, Call::DeviceGuess, from("192.0.2.1")), Ok(()));
    }

    #[test]
    fn what_is_refused_is_not_counted() {
        let (mut limits, start) = (Limits::default(), start());
        for second in 0..600 {
            let _ = limits.handle(start + Duration::from_secs(second), Call::DevToken, from("192.0.2.1"));
        }
        // Five a minute for ten minutes, however often it is asked.
        let now = start + 10 * MINUTE;
        assert_eq!(limits.admits(now, Call::DevToken, from("192.0.2.1")), Ok(()));
        limits.handle_tick(start + 2 * HOUR);
        assert_eq!(limits.calls[&Call::DevToken].networks.len(), (0, 0));
    }

    #[test]
    fn no_flood_ends_the_limit_of_another_call_of_an_account_or_of_all() {
        let (mut limits, start) = (Limits::default(), start());
        let from_network = |n: usize| {
            let n = u32::try_from(n).unwrap();
            Caller { address: std::net::Ipv4Addr::from(n).into(), account: None }
        };
        let ada = Caller { account: Some(AccountId::from_bytes([1; 16])), ..from("192.0.2.1") };
        for _ in 0..5 {
            limits.handle(start, Call::DeviceVerify, ada).unwrap();
            limits.handle(start, Call::DevToken, from("192.0.2.1")).unwrap();
        }
        for n in 0..50 {
            limits.handle(start, Call::DeviceGuess, from_network(n)).unwrap();
        }
        for call in [Call::DeviceVerify, Call::DeviceBegin] {
            for n in 0..window::CALLS_MAX {
                limits.handle(start, call, from_network(n)).unwrap();
            }
        }
        assert!(limits.admits(start, Call::DeviceVerify, Caller { address: from_network(7).address, ..ada }).is_err());
        assert!(limits.admits(start, Call::DevToken, from("192.0.2.1")).is_err());
        assert!(limits.admits(start, Call::DeviceGuess, from("192.0.2.1")).is_err());
    }
}
