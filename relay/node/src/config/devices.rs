//! `[devices]`: tokens of class `devices`. The channel that they are for is not built yet.

use std::time::Duration;

use mykube_relay_accounts::jwt::{Class, Policy};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DevicesTable {
    token_lifetime: Option<Spanned<String>>,
}

/// How long a token is valid.
///
/// # Errors
/// Where it is wrong, and why.
pub(super) fn token_life(table: Option<&DevicesTable>) -> Result<Duration, (usize, &'static str)> {
    let Some(given) = table.and_then(|table| table.token_lifetime.as_ref()) else { return Ok(Class::Devices.life()) };
    let life = lifetime(given.get_ref());
    life.map_err(|why| (given.span().start, why))
}

/// Digits and one of `s`, `m`, `h`, `d`: the published form of `JWT_EXPIRATION`, of which the published relay takes anything
/// else for a day.
fn lifetime(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "how long a token lives is digits and one of s, m, h and d, as 24h";
    let split = text.char_indices().last().map_or(0, |(at, _)| at);
    let (digits, unit) = text.split_at(split);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(WRONG),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(WRONG);
    }
    let life = digits.parse().ok().and_then(|n: u64| n.checked_mul(seconds)).map_or(Duration::MAX, Duration::from_secs);
    // Shorter, and clients that renew theirs five minutes early would do nothing else.
    if (Duration::from_mins(1)..=Policy::DEVICES_SESSION).contains(&life) {
        Ok(life)
    } else {
        Err("a token lives for a minute at least, and for 7 days at most: then people prove anew who they are")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_what_its_published_form_says_and_nothing_else_passes_for_a_day() {
        for (text, secs) in [("60s", 60), ("90m", 5400), ("24h", 86_400), ("7d", 604_800), ("024h", 86_400)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for text in [
            "",
            "h",
            "24",
            "24H",
            "24 h",
            " 24h",
            "24h ",
            "-1h",
            "+1h",
            "1.5h",
            "1w",
            "24hh",
            "0h",
            "59s",
            "8d",
            "é",
            "99999999999999999999d",
            "1ms",
            "٣h",
        ] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
