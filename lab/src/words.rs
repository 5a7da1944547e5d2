//! Durations, rates and sizes as a person writes them.

use std::time::Duration;

use crate::LabError;

/// `200ms`, `1m 30s`, `0`.
pub fn parse_duration(text: &str) -> Result<Duration, LabError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|error| LabError::Words(format!("{text:?} is no duration ({error}); try 200ms")))
}

/// Bits a second: `500mbit`, `64kbit`, `2gbit`; `none` for no limit.
pub fn parse_bits(text: &str) -> Result<Option<u64>, LabError> {
    if text == "none" {
        return Ok(None);
    }
    let units = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1)];
    scaled(text, &units).map(Some).ok_or_else(|| LabError::Words(format!("{text:?} is no rate; try 500mbit, or none")))
}

/// Bytes: `4MiB`, `64KiB`, `1500`; `none` for no limit.
pub fn parse_bytes(text: &str) -> Result<Option<u64>, LabError> {
    if text == "none" {
        return Ok(None);
    }
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
    scaled(text, &units).map(Some).ok_or_else(|| LabError::Words(format!("{text:?} is no size; try 4MiB, or none")))
}

/// A whole number above zero and one of the units.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(parse_bits("500mbit").unwrap(), Some(500_000_000));
        assert_eq!(parse_bits("none").unwrap(), None);
        assert_eq!(parse_bytes("4MiB").unwrap(), Some(4 << 20));
        assert_eq!(parse_bytes("1500").unwrap(), Some(1500));
        assert_eq!(parse_duration("200ms").unwrap(), Duration::from_millis(200));
        for wrong in ["", "fast", "-1mbit", "0mbit", "99999999999gbit"] {
            assert!(parse_bits(wrong).is_err(), "{wrong:?}");
        }
    }
}
