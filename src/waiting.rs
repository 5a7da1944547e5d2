//! While a code waits to be typed: a spinner with its remaining time, and the code as a QR code. Terminals only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use mykube_client::link::clock::{self, Time};
use mykube_protocol::text::printable;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use tokio::time::Instant;

/// Longest reason that is shown beside the clock.
const REASON_MAX: usize = 120;

/// The spinner; gone when dropped.
pub(crate) struct Waiting(ProgressBar);

impl Waiting {
    /// Starts counting down.
    pub(crate) fn start(lifetime: Duration) -> Self {
        let until = Instant::now() + lifetime;
        let left = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&minutes(until.saturating_duration_since(Instant::now())));
        };
        let style = ProgressStyle::with_template("{spinner} waiting for a client, the code is good for {left}")
            .expect("the template is valid")
            .with_key("left", left);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Counts how long a connection has been lost.
    pub(crate) fn lost(reason: &str, since: Time) -> Self {
        let lasts = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{} s", clock::now().since(since).as_secs());
        };
        let style = ProgressStyle::with_template("{spinner} lost, retrying ({lasts}): {msg}")
            .expect("the template is valid")
            .with_key("lasts", lasts);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        bar.set_message(printable(reason, REASON_MAX));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    /// Prints something without the spinner in its way.
    pub(crate) fn around(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// `1:43`.
fn minutes(left: Duration) -> String {
    format!("{}:{:02}", left.as_secs() / 60, left.as_secs() % 60)
}

/// The code's digits as a QR code in half blocks, light on dark as terminals are.
pub(crate) fn qr(code: &str) -> Option<String> {
    let digits: String = code.chars().filter(char::is_ascii_digit).collect();
    let qr = QrCode::with_error_correction_level(digits, EcLevel::M).ok()?;
    Some(qr.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_minutes() {
        assert_eq!(minutes(Duration::from_secs(103)), "1:43");
        assert_eq!(minutes(Duration::ZERO), "0:00");
    }

    #[test]
    fn a_qr_code_is_of_the_digits() {
        let qr = qr("483 20417").unwrap();
        assert_eq!(Some(&qr), super::qr("48320417").as_ref());
        assert_ne!(Some(&qr), super::qr("48320418").as_ref());
        assert!(qr.lines().count() > 10 && qr.chars().all(|c| " ▀▄█\n".contains(c)));
    }
}
