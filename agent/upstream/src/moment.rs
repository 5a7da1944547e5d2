//! Times as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Seconds from 1970 to the end of the year 9999, the last that has four digits.
const LATEST: u64 = 253_402_300_799;

/// The last moment that RFC 3339 can write.
#[must_use]
pub fn latest() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(LATEST)
}

/// RFC 3339, to the second: `2026-01-31T12:00:00Z`. A time outside of its years becomes their first or last.
#[must_use]
pub fn moment(at: SystemTime) -> String {
    date(at.clamp(UNIX_EPOCH, latest()))
        .and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The same to the millisecond, always with three digits.
#[must_use]
pub fn moment_ms(at: SystemTime) -> String {
    let at = at.clamp(UNIX_EPOCH, latest());
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
    let mut text = moment(at);
    text.truncate(text.len().saturating_sub(1));
    format!("{text}.{millis:03}Z")
}

fn date(at: SystemTime) -> Option<OffsetDateTime> {
    let seconds = at.duration_since(UNIX_EPOCH).ok()?.as_secs();
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_have_one_width_and_no_end() {
        let at = |ms| UNIX_EPOCH + Duration::from_millis(ms);
        assert_eq!(moment(at(1_767_225_599_999)), "2025-12-31T23:59:59Z");
        for (ms, expected) in
            [(0, "1970-01-01T00:00:00.000Z"), (120, "1970-01-01T00:00:00.120Z"), (1007, "1970-01-01T00:00:01.007Z")]
        {
            assert_eq!(moment_ms(at(ms)), expected);
        }
        assert_eq!(moment(latest()), "9999-12-31T23:59:59Z");
        let beyond = UNIX_EPOCH + Duration::from_secs(1 << 62);
        assert_eq!(moment(beyond), "9999-12-31T23:59:59Z");
        assert_eq!(moment(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
