//! Times as they are written.

use mykube_relay_accounts::time::UnixTime;
use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

const PEOPLE: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");

/// For programs; a time that RFC 3339 cannot write is none that this relay made.
pub(crate) fn rfc3339(time: UnixTime) -> String {
    date(time).and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// For people, to the minute.
pub(crate) fn for_people(time: UnixTime) -> String {
    date(time).and_then(|time| time.format(PEOPLE).ok()).unwrap_or_default()
}

fn date(time: UnixTime) -> Option<OffsetDateTime> {
    i64::try_from(time.secs()).ok().and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_for_programs_and_for_people() {
        let time = UnixTime::from_millis(1_800_000_000_999);
        assert_eq!(rfc3339(time), "2027-01-15T08:00:00Z");
        assert_eq!(for_people(time), "2027-01-15 08:00 UTC");
    }
}
