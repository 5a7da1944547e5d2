//! While a code waits to be typed: a spinner with its remaining time, and the code as a QR code. Terminals only.
//!
//! The spinner is the terminal's last line. Everything else is printed [`around`] it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use mykube_link::clock::{self, Time};
use mykube_protocol::text::printable;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use rustix::{stdio::stderr, termios::tcgetwinsize};
use tokio::time::Instant;

use crate::outlet::Outlet;

/// Longest reason that is shown beside the clock.
const REASON_MAX: usize = 120;

/// Columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;
/// Columns that the spinner takes, with one more left free: some terminals wrap at the last.
const SPINNER: usize = 3;

/// The spinner on the terminal's last line.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Prints something while the spinner is out of the way.
pub(crate) fn around<T>(print: impl FnOnce() -> T) -> T {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// The spinner; removed when dropped. It is drawn and removed in order with other output.
pub(crate) struct Waiting(&'static Outlet);

impl Waiting {
    /// Starts counting down.
    pub(crate) fn start(screen: &'static Outlet, lifetime: Duration) -> Self {
        let until = Instant::now() + lifetime;
        Self::show(screen, Duration::from_millis(120), move || {
            let left = minutes(until.saturating_duration_since(Instant::now()));
            [format!("waiting for a client, the code is good for {left}"), format!("the code is good for {left}"), left]
        })
    }

    /// Counts how long a connection has been lost.
    pub(crate) fn lost(screen: &'static Outlet, reason: &str, since: Time) -> Self {
        let reason = printable(reason, REASON_MAX);
        Self::show(screen, Duration::from_millis(500), move || {
            let lasts = clock::now().since(since).as_secs();
            let short = format!("lost, retrying ({lasts} s)");
            [format!("{short}: {reason}"), short, format!("lost {lasts} s")]
        })
    }

    /// A line made anew at each tick, in its longest form that fits.
    fn show(
        screen: &'static Outlet,
        tick: Duration,
        line: impl Fn() -> [String; 3] + Clone + Send + Sync + 'static,
    ) -> Self {
        let fitting = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let columns = tcgetwinsize(stderr()).map_or(COLUMNS, |size| size.ws_col);
            let _ = out.write_str(&fitting(line(), usize::from(columns).saturating_sub(SPINNER)));
        };
        let style =
            ProgressStyle::with_template("{spinner} {line}").expect("the template is valid").with_key("line", fitting);
        screen.push(0, move || {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            bar.enable_steady_tick(tick);
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
        });
        Self(screen)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.push(0, || {
            let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(bar) = shown {
                bar.finish_and_clear();
            }
        });
    }
}

/// The first of these lines that fits, or as much as fits of the last.
fn fitting(lines: [String; 3], columns: usize) -> String {
    let [.., last] = &lines;
    let cut = last.chars().take(columns).collect();
    lines.into_iter().find(|line| line.chars().count() <= columns).unwrap_or(cut)
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
    fn a_line_fits_into_its_terminal() {
        let lines = || ["waiting, 1:43 left", "1:43 left", "1:43"].map(str::to_owned);
        let fits = |columns| fitting(lines(), columns);
        assert_eq!(
            [80, 18, 17, 9, 8, 2].map(fits),
            ["waiting, 1:43 left", "waiting, 1:43 left", "1:43 left", "1:43 left", "1:43", "1:"]
        );
    }

    #[test]
    fn a_qr_code_is_of_the_digits() {
        let qr = qr("483 20417").unwrap();
        assert_eq!(Some(&qr), super::qr("48320417").as_ref());
        assert_ne!(Some(&qr), super::qr("48320418").as_ref());
        assert!(qr.lines().count() > 10 && qr.chars().all(|c| " ▀▄█\n".contains(c)));
    }
}
