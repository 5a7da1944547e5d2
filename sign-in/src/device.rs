//! Signing in with a code that is typed on another machine, where there is a browser (as in RFC 8628).

use std::time::Duration;

use mykube_dial::DialError;
use mykube_protocol::{
    account::{Act, CLIENT, DeviceBegin, DeviceBegun, DevicePoll, DevicePolled, SignedIn},
    text::printable,
};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use zeroize::Zeroizing;

use crate::{
    calls,
    error::SignInError,
    key::MachineKey,
    session::{Session, Standing, now_millis},
};

/// What a relay may say of its code's time and of the time between two questions, in seconds: one that says more, or nothing,
/// is taken at these.
const LIFE: std::ops::RangeInclusive<u64> = 1..=3600;
const INTERVAL: std::ops::RangeInclusive<u64> = 1..=60;
/// Longest code and address that are shown.
const CODE_MAX: usize = 32;
const URL_MAX: usize = 2048;
/// How long, after a signal, the answer to an open question is waited for: it may be a sign-in, which would be nobody's.
const LAST_ANSWER: Duration = Duration::from_secs(3);

/// A code that waits to be confirmed.
pub struct DeviceSignIn<'a> {
    session: &'a Session,
    key: MachineKey,
    device_code: Zeroizing<String>,
    user_code: String,
    url: String,
    until: Instant,
    interval: Duration,
}

impl<'a> DeviceSignIn<'a> {
    /// Asks for a code.
    ///
    /// # Errors
    /// The relay is not reached, or has no accounts; or this machine's key cannot be kept here.
    pub async fn begin(session: &'a Session) -> Result<Self, SignInError> {
        let key = {
            let _lock = session.lock().await?;
            session.key()?
        };
        let asked = Instant::now();
        let begun = calls::device_begin(&session.dialer, &DeviceBegin { client: CLIENT, key: &key.public() }).await?;
        let DeviceBegun { device_code, user_code, verification_url, expires_in, interval } = begun;
        let seconds = |given: u64, range: std::ops::RangeInclusive<u64>| {
            Duration::from_secs(given.clamp(*range.start(), *range.end()))
        };
        Ok(Self {
            session,
            key,
            device_code: device_code.into(),
            user_code: printable(&user_code, CODE_MAX),
            url: printable(&verification_url, URL_MAX),
            until: asked + seconds(expires_in, LIFE),
            interval: seconds(interval, INTERVAL),
        })
    }

    /// What is typed.
    #[must_use]
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long it is good.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Asks until somebody has confirmed it, its time is over, or `stop` returns; then signs in in the place of whoever was
    /// signed in before. A relay that is away for a while ends nothing: `trouble` is told why, once for each reason.
    ///
    /// # Errors
    /// Nobody confirmed it, or the relay refuses, or nothing can be kept here.
    pub async fn wait(
        mut self,
        stop: impl Future<Output = ()>,
        mut trouble: impl FnMut(&SignInError),
    ) -> Result<Standing, SignInError> {
        tokio::pin!(stop);
        let (mut next, mut told) = (Instant::now() + self.interval, String::new());
        let given = loop {
            if next >= self.until {
                return Err(SignInError::CodeOver);
            }
            tokio::select! {
                () = sleep_until(next) => {}
                () = &mut stop => return Err(SignInError::Stopped),
            }
            let polled = {
                let poll = self.poll();
                tokio::pin!(poll);
                tokio::select! {
                    polled = &mut poll => polled,
                    () = &mut stop => {
                        debug!("stopped; the answer to the last question is awaited");
                        if let Ok(Ok(DevicePolled::Authorized(given))) = timeout(LAST_ANSWER, poll).await {
                            self.session.give_back(&given).await;
                        }
                        return Err(SignInError::Stopped);
                    }
                }
            };
            match polled {
                Ok(DevicePolled::Authorized(given)) => break given,
                Ok(DevicePolled::Pending) => told.clear(),
                Ok(DevicePolled::Expired) => return Err(SignInError::CodeOver),
                Ok(DevicePolled::Denied) => return Err(SignInError::Denied),
                Err(SignInError::Dial(DialError::RateLimited { retry_after })) => {
                    debug!(?retry_after, "asked too often");
                    let wait = retry_after.map_or_else(|| self.slower(), Duration::from_secs).max(self.interval);
                    next = Instant::now().checked_add(wait).unwrap_or(self.until);
                    continue;
                }
                Err(error) if is_passing(&error) => {
                    let reason = error.to_string();
                    if reason != told {
                        trouble(&error);
                        told = reason;
                    }
                }
                Err(error) => return Err(error),
            }
            next = Instant::now() + self.interval;
        };
        self.finish(given).await
    }

    /// A longer interval, as `slow_down` has it (RFC 8628, section 3.5), for a relay that does not say how long to wait.
    fn slower(&mut self) -> Duration {
        self.interval = (self.interval + Duration::from_secs(5)).min(Duration::from_secs(*INTERVAL.end()));
        self.interval
    }

    async fn poll(&self) -> Result<DevicePolled, SignInError> {
        let time = now_millis();
        let sig = self.key.sign(Act::SignIn, self.session.dialer.url(), &self.device_code, time);
        let body = DevicePoll { device_code: &self.device_code, time, sig: &sig };
        calls::device_poll(&self.session.dialer, &body).await
    }

    async fn finish(self, given: SignedIn) -> Result<Standing, SignInError> {
        let lock = self.session.lock().await;
        // It was asked for with the key that was there, and is renewed with the one that is.
        let is_ours = lock.is_ok() && self.session.key().is_ok_and(|key| key.public() == self.key.public());
        if !is_ours {
            self.session.give_back(&given).await;
            lock?;
            return Err(SignInError::KeyReplaced { path: self.session.key_file() });
        }
        self.session.adopt(&lock?, given).await
    }
}

/// The network or the relay is away, or something answers in its place for a while: a login page, a proxy.
fn is_passing(error: &SignInError) -> bool {
    match error {
        SignInError::Dial(DialError::Refused { status, .. }) => *status >= 500,
        SignInError::Dial(_) | SignInError::NoAccounts(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
