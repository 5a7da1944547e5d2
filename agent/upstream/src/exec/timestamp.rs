//! A time as `metav1.Time` parses it: Go's `time.Parse(time.RFC3339, ...)`, which is stricter than RFC 3339 in some
//! points and looser in others.

use std::borrow::Cow;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Capital `T` and `Z` only, no leap second; an hour may have one digit, a fraction may follow a comma.
pub(super) fn parse(text: &str) -> Option<OffsetDateTime> {
    let (date, clock) = text.split_once('T')?;
    if text.contains('z') || date.len() != "2006-01-02".len() {
        return None;
    }
    let (hour, rest) = clock.split_once(':')?;
    // The rest begins with minutes and seconds.
    if rest.get(3..5) == Some("60") {
        return None;
    }
    let hour: Cow<'_, str> = if hour.len() == 1 { format!("0{hour}").into() } else { hour.into() };
    OffsetDateTime::parse(&format!("{date}T{hour}:{}", rest.replacen(',', ".", 1)), &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.26 makes of each.
    #[test]
    fn as_go_reads_them() {
        let seconds = |text| parse(text).map(OffsetDateTime::unix_timestamp);
        for (text, expected) in [
            ("2099-01-01T00:00:00Z", 4_070_908_800),
            ("2099-01-01T02:00:00+02:00", 4_070_908_800),
            ("2099-01-01T00:00:00.123456789Z", 4_070_908_800),
            ("2099-01-01T00:00:00.1234567891234Z", 4_070_908_800),
            ("2099-01-01T00:00:00,5Z", 4_070_908_800),
            ("2099-01-01T0:00:00Z", 4_070_908_800),
            ("1969-12-31T23:59:59-00:00", -1),
            ("2096-02-29T00:00:00Z", 3_981_312_000),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2099-01-01",
            "2099-01-01T00:00:00",
            "2099-01-01 00:00:00Z",
            "2099-01-01t00:00:00Z",
            "2099-01-01T00:00:00z",
            "2099-01-01T00:00:00.Z",
            "2099-01-01T00:00:60Z",
            "2099-01-01T24:00:00Z",
            "2099-02-29T00:00:00Z",
            "2099-1-01T00:00:00Z",
            "99-01-01T00:00:00Z",
            "2099-01-01T00:0:00Z",
            "2099-01-01T00:00Z",
            "2099-01-01T00:00:00+0200",
            "2099-01-01T00:00:00+02",
            "2099-01-01T00:00:00Z ",
            " 2099-01-01T00:00:00Z",
            "2099-01-01T00:00:00Z\n",
            "+2099-01-01T00:00:00Z",
            "4070908800",
            "T:",
            "2099-01-01T:",
        ] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }
}
