//! Until when a credential is good, and what a token may be.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use zeroize::Zeroizing;

/// Credentials are fetched again this long before they expire, or after 80 % of their life if that is earlier.
pub const REFRESH_MARGIN: Duration = Duration::from_secs(60);
/// Credentials are fetched again at most this often, however short their life.
pub const REFRESH_MIN: Duration = Duration::from_secs(10);

/// Until when credentials are good, and when to fetch new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// When they end.
    pub expires: SystemTime,
    /// When to fetch new ones, by the wall clock: it runs while a machine sleeps.
    pub refresh: SystemTime,
    /// The same by the monotonic clock: nobody sets it.
    pub refresh_at: Instant,
}

impl Expiry {
    /// From an end, seen now.
    #[must_use]
    pub fn until(expires: SystemTime) -> Self {
        let now = SystemTime::now();
        let life = expires.duration_since(now).unwrap_or_default();
        let wait = (life * 4 / 5).min(life.saturating_sub(REFRESH_MARGIN)).max(REFRESH_MIN);
        Self { expires, refresh: now + wait, refresh_at: Instant::now() + wait }
    }

    /// Whether new credentials should be fetched.
    #[must_use]
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.refresh_at || SystemTime::now() >= self.refresh
    }

    /// Whether they are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        SystemTime::now() >= self.expires
    }
}

/// A token fit for a header. Spaces around it are removed; a line end is no part of a header, for kubectl neither.
pub(crate) fn checked_token(text: &str) -> Option<Zeroizing<String>> {
    let token = text.trim_matches(' ');
    (!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())).then(|| Zeroizing::new(token.to_owned()))
}
