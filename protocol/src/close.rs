//! WebSocket close codes the relay uses. They may change what is displayed and when to reconnect, never keys or data.

use std::time::Duration;

use crate::limits::RETRY_AFTER_MAX;

/// Drain or restart: come back after the delay in the reason (`retry-after=<ms>`). RFC 6455 registry, "service restart".
pub const RESTART: u16 = 1012;
/// A frame over the limit. RFC 6455 section 7.4.1.
pub const TOO_BIG: u16 = 1009;
/// What was sent breaks the protocol. RFC 6455 section 7.4.1.
pub const POLICY: u16 = 1008;
/// This attempt was refused: wrong secret.
pub const REFUSED: u16 = 4401;
/// Legacy form: not paired yet.
pub const NOT_PAIRED: u16 = 4403;
/// The session is not known here, and its nameplate is taken: a new code is needed.
pub const NO_SESSION: u16 = 4404;
/// The relay heard nothing from this end for too long, not even a pong: dial again.
pub const SILENT: u16 = 4407;
/// A code's time is over, or an end has waited too long for the other to come back.
pub const EXPIRED: u16 = 4408;
/// Legacy form: this end is connected already.
pub const ALREADY_CONNECTED: u16 = 4409;
/// A newer socket of the same end took over. Do not reconnect.
pub const REPLACED: u16 = 4410;
/// A legacy client tried this nameplate and may have disclosed the secret: mykube 2 clients only.
pub const UPGRADE: u16 = 4426;
/// Too many sessions. A paired session may try again after the delay in the reason.
pub const TOO_MANY: u16 = 4429;

/// How far an end has come when its connection to the relay ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The two ends are paired: the session outlives its connections.
    Session,
    /// A client pairs with the code that was typed.
    ClientPairing,
    /// An agent waits for a client with a code.
    CodeWaiting,
}

/// What an end does after its connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dial again.
    Reconnect,
    /// A newer connection of this end took over: the session is over here, unless this end opened it itself.
    Replaced,
    /// The typed code, the waiting code or the session is over: another code may help.
    NewCode,
    /// The waiting code may have been disclosed: it counts as burned.
    Disclosed,
    /// The attempt or session is over, and another code by itself changes nothing.
    Over,
}

impl Verdict {
    /// Whether this end dials no more for it. [`Verdict::Replaced`] may be explained.
    #[must_use]
    pub fn is_final(self) -> bool {
        self != Self::Reconnect
    }
}

/// What the end of a connection means; `code` is none where it ended without a close frame.
#[must_use]
pub fn verdict(code: Option<u16>, stage: Stage) -> Verdict {
    let Some(code) = code else { return Verdict::Reconnect };
    match (stage, code) {
        (_, NO_SESSION | EXPIRED) | (Stage::ClientPairing, REFUSED) => Verdict::NewCode,
        (Stage::Session, REPLACED) => Verdict::Replaced,
        (Stage::CodeWaiting, UPGRADE) => Verdict::Disclosed,
        (_, REPLACED | UPGRADE) | (Stage::ClientPairing | Stage::CodeWaiting, TOO_MANY) => Verdict::Over,
        _ => Verdict::Reconnect,
    }
}

/// The delay in a close reason: `retry-after=<ms>`, alone or followed by `; ` and a text for people. At most
/// [`RETRY_AFTER_MAX`]; none where the reason is anything else.
#[must_use]
pub fn retry_after(reason: &str) -> Option<Duration> {
    let rest = reason.strip_prefix("retry-after=")?;
    let (digits, _) = rest.split_once("; ").unwrap_or((rest, ""));
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // More digits than a u64 holds are more than the longest delay.
    Some(digits.parse().map_or(RETRY_AFTER_MAX, Duration::from_millis).min(RETRY_AFTER_MAX))
}

/// The reason that [`retry_after`] reads, without or with a text for people.
#[must_use]
pub fn retry_reason(delay: Duration, text: &str) -> String {
    let separator = if text.is_empty() { "" } else { "; " };
    format!("retry-after={}{separator}{text}", delay.min(RETRY_AFTER_MAX).as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_means_one_thing_at_each_stage() {
        use Verdict::{Disclosed, NewCode, Over, Reconnect, Replaced};
        for (code, session, client, waiting) in [
            (REFUSED, Reconnect, NewCode, Reconnect),
            (NO_SESSION, NewCode, NewCode, NewCode),
            (EXPIRED, NewCode, NewCode, NewCode),
            (REPLACED, Replaced, Over, Over),
            (UPGRADE, Over, Over, Disclosed),
            (TOO_MANY, Reconnect, Over, Over),
        ] {
            let stages = [Stage::Session, Stage::ClientPairing, Stage::CodeWaiting];
            assert_eq!(stages.map(|stage| verdict(Some(code), stage)), [session, client, waiting], "{code}");
        }
        let known = [REFUSED, NO_SESSION, EXPIRED, REPLACED, UPGRADE, TOO_MANY];
        for stage in [Stage::Session, Stage::ClientPairing, Stage::CodeWaiting] {
            assert_eq!(verdict(None, stage), Reconnect);
            for code in (0..=u16::MAX).filter(|code| !known.contains(code)) {
                assert_eq!(verdict(Some(code), stage), Reconnect, "{code}");
            }
        }
    }

    #[test]
    fn delays_are_read_and_bounded() {
        let ms = |n| Some(Duration::from_millis(n));
        for (reason, delay) in [
            ("retry-after=0", ms(0)),
            ("retry-after=1500", ms(1500)),
            ("retry-after=1500; too many sessions", ms(1500)),
            ("retry-after=60001", ms(60_000)),
            ("retry-after=99999999999999999999999999", ms(60_000)),
            ("", None),
            ("retry-after=", None),
            ("retry-after=-1", None),
            ("retry-after=+1", None),
            ("retry-after=1s", None),
            ("retry-after=; 1", None),
            ("retry-after= 1", None),
            ("Retry-After: 1", None),
            ("retry-after=\u{661}", None),
        ] {
            assert_eq!(retry_after(reason), delay, "{reason}");
        }
        for (delay, text) in [(0, ""), (2000, "wait"), (90_000, "; odd")] {
            let delay = Duration::from_millis(delay);
            assert_eq!(retry_after(&retry_reason(delay, text)), Some(delay.min(RETRY_AFTER_MAX)));
        }
    }
}
