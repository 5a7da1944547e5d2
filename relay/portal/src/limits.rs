//! How often an address may ask: each call by itself, in a minute.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Method;
use mykube_relay_accounts::time::UnixTime;
use mykube_relay_core::quota::RequestQuota;

/// Calls a minute and address. What takes a secret that could be guessed has the published 5; what starts
/// something 10, what a program does by itself 30; what a page asks when it is shown has 60.
const CALLS: [(Method, &str, u32); 11] = [
    (Method::POST, "/auth/dev", 5),
    (Method::POST, "/auth/dev/token", 5),
    (Method::POST, "/auth/device", 10),
    (Method::POST, "/auth/device/poll", 30),
    (Method::POST, "/auth/device/verify", 5),
    (Method::POST, "/auth/refresh", 30),
    (Method::POST, "/auth/refresh/received", 30),
    (Method::GET, "/auth/dev", 60),
    (Method::GET, "/auth/status", 60),
    (Method::POST, "/auth/logout", 60),
    (Method::POST, "/auth/revoke", 60),
];

/// One count for each call.
pub(crate) struct Limits {
    calls: Vec<(Method, &'static str, Mutex<RequestQuota>)>,
    /// The quota's clock begins here.
    start: (Instant, UnixTime),
}

impl Limits {
    pub(crate) fn new(now: UnixTime) -> Self {
        let calls = CALLS.map(|(method, path, most)| (method, path, Mutex::new(RequestQuota::new(most))));
        Self { calls: calls.into(), start: (Instant::now(), now) }
    }

    /// Counts a request, or says how long until the next one is admitted.
    pub(crate) fn admit(&self, method: &Method, path: &str, address: IpAddr, now: UnixTime) -> Result<(), Duration> {
        let call = self.calls.iter().find(|call| (&call.0, call.1) == (method, path));
        let Some((_, _, quota)) = call else { return Ok(()) };
        let now = self.start.0 + now.since(self.start.1);
        let mut quota = quota.lock().unwrap_or_else(PoisonError::into_inner);
        quota.handle_tick(now);
        quota.handle_request(now, address.into())
    }
}
