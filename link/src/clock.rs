//! The clock that `tunnel` is given: microseconds on a clock that runs during suspend.

use std::time::Duration;

pub use mykube_tunnel::Time;
use rustix::time::{ClockId, clock_gettime};

/// Linux's CLOCK_MONOTONIC stands still during suspend, CLOCK_BOOTTIME does not; on macOS CLOCK_MONOTONIC does not.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Now.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time::from_micros(seconds * 1_000_000 + nanos / 1000)
}

/// Sleeps until `deadline`, or for ever without one.
pub(crate) async fn sleep_until(deadline: Option<Time>) {
    match deadline {
        // Never less than a tick of the timer wheel, never rounded down to a busy loop.
        Some(deadline) => tokio::time::sleep(deadline.since(now()).max(Duration::from_micros(1))).await,
        None => std::future::pending().await,
    }
}
