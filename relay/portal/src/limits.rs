//! How often an address may ask. The figures are [`mykube_relay_accounts::limits`]'.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::Method;
use mykube_relay_accounts::{
    id::AccountId,
    limits::{Call, Caller, Limits as Counted},
    time::UnixTime,
};

use crate::socket::is_socket;

/// What was asked of late.
pub(crate) struct Limits {
    counted: Mutex<Counted>,
    /// Its clock begins here.
    start: (Instant, UnixTime),
}

impl Limits {
    pub(crate) fn new(now: UnixTime) -> Self {
        Self { counted: Mutex::default(), start: (Instant::now(), now) }
    }

    /// Counts a request, or says how long until it is admitted.
    pub(crate) fn admit(&self, method: &Method, path: &str, address: IpAddr, now: UnixTime) -> Result<(), Duration> {
        let Some(call) = call(method, path) else { return Ok(()) };
        let now = self.instant(now);
        let mut counted = self.lock();
        counted.handle_tick(now);
        counted.handle(now, call, Caller { address, account: None })
    }

    /// Counts a request whose account was found out since, or says how long until it is admitted.
    pub(crate) fn admit_account(&self, call: Call, account: AccountId, now: UnixTime) -> Result<(), Duration> {
        self.lock().handle_account(self.instant(now), call, account)
    }

    /// Whether this account may try another code that somebody else shows.
    pub(crate) fn may_guess(&self, address: IpAddr, account: AccountId, now: UnixTime) -> Result<(), Duration> {
        let caller = Caller { address, account: Some(account) };
        self.lock().admits(self.instant(now), Call::DeviceGuess, caller)
    }

    /// It tried one that nobody has.
    pub(crate) fn guessed(&self, address: IpAddr, account: AccountId, now: UnixTime) {
        let caller = Caller { address, account: Some(account) };
        // Over the limit, the next one is refused as it is.
        let _ = self.lock().handle(self.instant(now), Call::DeviceGuess, caller);
    }

    /// Whether this address may show another token of an agent.
    pub(crate) fn may_try_token(&self, address: IpAddr, now: UnixTime) -> Result<(), Duration> {
        self.lock().admits(self.instant(now), Call::TokenGuess, Caller { address, account: None })
    }

    /// It showed one that nobody has.
    pub(crate) fn tried_token(&self, address: IpAddr, now: UnixTime) {
        // Over the limit, the next one is refused as it is.
        let _ = self.lock().handle(self.instant(now), Call::TokenGuess, Caller { address, account: None });
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The system's clock may be set, and no limit ends or lasts for that. Tests have the one that they set.
    pub(crate) fn instant(&self, now: UnixTime) -> Instant {
        if cfg!(test) { self.start.0 + now.since(self.start.1) } else { Instant::now() }
    }
}

/// What a request calls, where that is counted.
pub(crate) fn call(method: &Method, path: &str) -> Option<Call> {
    Some(match (method.as_str(), path) {
        ("POST", "/auth/otp/request" | "/portal/sign-in/email") => Call::OtpRequest,
        ("POST", "/auth/otp/verify" | "/portal/sign-in/code") => Call::OtpVerify,
        ("POST", "/auth/dev" | "/portal/sign-in/dev") => Call::DevLogin,
        ("POST", "/auth/dev/token") => Call::DevToken,
        ("POST", "/auth/device") => Call::DeviceBegin,
        ("POST", "/auth/device/poll") => Call::DevicePoll,
        ("POST", "/auth/device/verify" | "/device") => Call::DeviceVerify,
        ("POST", "/auth/refresh" | "/auth/refresh/received") => Call::Refresh,
        ("POST", "/auth/revoke" | "/portal/sessions/end" | "/portal/sessions/end-others") => Call::Revoke,
        ("POST", "/auth/exchange") => Call::Exchange,
        ("POST", "/auth") => Call::IdToken,
        ("POST", "/portal/confirm") => Call::Confirm,
        ("POST", "/auth/logout") | ("GET" | "HEAD", "/auth/dev" | "/auth/status") => Call::Status,
        ("GET" | "HEAD", "/auth/callback") => Call::ProviderCallback,
        ("GET" | "HEAD", path) if path.starts_with("/auth/callback/") => Call::ProviderCallback,
        ("GET" | "HEAD", path) if path.starts_with("/auth/") => Call::ProviderBegin,
        // Asked by who watches the relay, and by browsers before they ask anything.
        (_, "/health") | ("OPTIONS", _) => return None,
        // Counted when its token was judged: many agents may come back at once from one address.
        (_, path) if is_socket(path) => return None,
        _ => Call::Other,
    })
}
