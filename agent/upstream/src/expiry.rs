//! How long a credential is valid, and the form of a token.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use zeroize::Zeroizing;

/// Credentials are fetched again this long before they expire, or after 80 % of their life if that is earlier.
pub const REFRESH_MARGIN: Duration = Duration::from_secs(60);
/// Credentials are fetched again at most this often, however short their life.
pub const REFRESH_MIN: Duration = Duration::from_secs(10);

/// When credentials expire, and when to fetch new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// When they expire.
    pub expires: SystemTime,
    /// When to fetch new ones, by the wall clock, which runs while a machine sleeps.
    pub refresh: SystemTime,
    /// The same by the monotonic clock, which nobody sets.
    pub refresh_at: Instant,
}

impl Expiry {
    /// Made from the time at which the credentials expire.
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

    /// Whether they have expired.
    #[must_use]
    pub fn is_over(&self) -> bool {
        SystemTime::now() >= self.expires
    }
}

/// Makes a token fit for a header: removes spaces around it. One with a line end in it is refused, as by kubectl.
pub(crate) fn checked_token(text: &str) -> Option<Zeroizing<String>> {
    let token = text.trim_matches(' ');
    (!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())).then(|| Zeroizing::new(token.to_owned()))
}
