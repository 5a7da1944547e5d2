//! How long to wait before something is tried again.

use std::time::Duration;

/// The first wait, doubled so many times, and no longer than the longest.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}
