//! Times and sizes as people type them in flags: a whole number and its unit.

use std::time::Duration;

/// `90s`: digits and one of `units`, out of `ms`, `s`, `m`, `h`, `d` and `""`, which is seconds. A time that is longer than
/// [`Duration`] holds becomes [`Duration::MAX`]. `None` for every other text.
#[must_use]
pub fn time(text: &str, units: &[&str]) -> Option<Duration> {
    let (digits, unit) = split(text);
    if !units.contains(&unit) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(n)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    Some(n.checked_mul(seconds).map_or(Duration::MAX, Duration::from_secs))
}

/// `64KiB`: digits and `B`, `KiB`, `MiB` or no unit, which is bytes. `None` for every other text, and for a size that does not
/// fit into a `usize`.
#[must_use]
pub fn size(text: &str) -> Option<usize> {
    let (digits, unit) = split(text);
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(bytes)
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 6] = ["", "ms", "s", "m", "h", "d"];

    #[test]
    fn a_time_is_a_number_and_its_unit() {
        let seconds = Duration::from_secs;
        for (text, expected) in [
            ("0", seconds(0)),
            ("90", seconds(90)),
            ("0090s", seconds(90)),
            ("500ms", Duration::from_millis(500)),
            ("90s", seconds(90)),
            ("10m", seconds(600)),
            ("4h", seconds(14_400)),
            ("2d", seconds(172_800)),
            ("18446744073709551615", seconds(u64::MAX)),
            ("18446744073709551615ms", Duration::from_millis(u64::MAX)),
            ("307445734561825860m", seconds(18_446_744_073_709_551_600)),
            ("307445734561825861m", Duration::MAX),
            ("18446744073709551615h", Duration::MAX),
            ("18446744073709551615d", Duration::MAX),
        ] {
            assert_eq!(time(text, &ALL), Some(expected), "{text}");
        }
        for bad in [
            "",
            "s",
            "ms",
            "-1s",
            "+1s",
            "1.5m",
            "1,5m",
            "2 m",
            " 2m",
            "2m ",
            "1h30m",
            "1H",
            "1S",
            "1min",
            "1us",
            "1w",
            "1y",
            "0x1s",
            "1e3s",
            "é",
            "1é",
            "\u{661}s",
            "18446744073709551616s",
            "never",
        ] {
            assert_eq!(time(bad, &ALL), None, "{bad}");
        }
    }

    #[test]
    fn a_unit_that_was_not_named_is_none() {
        for unit in ALL {
            let (text, others): (_, Vec<_>) =
                (format!("7{unit}"), ALL.into_iter().filter(|other| *other != unit).collect());
            assert!(time(&text, &[unit]).is_some(), "{text}");
            assert_eq!(time(&text, &others), None, "{text}");
        }
        assert_eq!(time("7w", &["w"]), None, "nor is one that there is not");
    }

    #[test]
    fn a_size_is_a_number_and_its_unit() {
        for (text, expected) in [
            ("0", 0),
            ("8192", 8192),
            ("8192B", 8192),
            ("64KiB", 65_536),
            ("16MiB", 16_777_216),
            ("18446744073709551615", usize::MAX),
            ("18014398509481983KiB", usize::MAX - 1023),
            ("17592186044415MiB", usize::MAX - 1_048_575),
        ] {
            assert_eq!(size(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "KiB",
            "-1",
            "+1",
            "64KB",
            "64kB",
            "64kib",
            "64K",
            "64k",
            "64M",
            "1GiB",
            "1.5KiB",
            "64 KiB",
            " 64",
            "64 ",
            "0x40",
            "18446744073709551616",
            "18014398509481984KiB",
            "17592186044416MiB",
            "99999999999999999999KiB",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
