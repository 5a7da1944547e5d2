//! Signing in and out, and a token that works now.

use std::{
    fs::File,
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mykube_dial::Dialer;
use mykube_protocol::account::{Act, CLIENT, DevToken, Signed, SignedIn, WhoAmI, WrongTime};
use mykube_protocol::text::printable;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::{
    calls::{self, Refreshed},
    config,
    credentials::Credentials,
    error::SignInError,
    files::{self, Readers},
    given::Given,
    home::Home,
    key::MachineKey,
};

/// A token that lives no longer than this is replaced before it is used, in seconds: what is begun with it shall not end for it.
const REFRESH_BELOW: u64 = 300;

/// How long another process of the user's may hold a sign-in: a renewal takes less, unless its relay does not answer.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// How often a refresh is signed: by this machine's clock, then by the relay's, and once more as a second may pass.
const TIMES: u32 = 3;

/// Longest list of a relay's names that is shown.
const NAMES_MAX: usize = 300;

/// Who is signed in, as the relay says.
pub type Account = WhoAmI;

/// Who is signed in, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who.
    pub account: Account,
    /// Seconds since 1970 at which it ends; none where it is renewed for as long as it is used.
    pub until: Option<u64>,
}

/// This user's sign-in at one relay, or the place for one.
pub struct Session {
    home: Home,
    pub(crate) dialer: Dialer,
    directory: PathBuf,
}

impl Session {
    /// The one at the relay that is dialed.
    #[must_use]
    pub fn new(home: Home, dialer: Dialer) -> Self {
        let directory = home.relay(dialer.url());
        Self { home, dialer, directory }
    }

    /// The relay's address.
    #[must_use]
    pub fn relay(&self) -> String {
        self.dialer.url().to_string()
    }

    /// Signs in at a relay in dev mode, by its secret, and remembers the relay.
    ///
    /// # Errors
    /// The relay is not reached, has no dev mode or another secret; or nothing can be kept here.
    pub async fn log_in_by_dev_secret(&self, email: &str, secret: &str) -> Result<Standing, SignInError> {
        // Any other relay would learn what signs in at this machine's as anybody.
        if !self.dialer.url().is_loopback() {
            return Err(SignInError::DevFarAway(self.relay()));
        }
        let lock = self.lock().await?;
        let key = self.key()?.public();
        let body = DevToken { email, secret, client: CLIENT, key: &key };
        let given = calls::dev_token(&self.dialer, &body).await?;
        self.adopt(&lock, given).await
    }

    /// Signs in with a token that was made elsewhere, and remembers the relay. It is not renewed.
    ///
    /// # Errors
    /// It is no such token, or another relay's, to which it then was not sent; or this one does not take it.
    pub async fn log_in_by_token(&self, text: &str) -> Result<Standing, SignInError> {
        let Given { token, issuer, expires_at } = Given::read(text)?;
        let relay = self.relay();
        if issuer != relay {
            return Err(SignInError::OtherRelay { issuer, relay });
        }
        let _lock = self.lock().await?;
        let account = calls::who_am_i(&self.dialer, &token).await?;
        let token = String::clone(&token);
        let credentials = Credentials { relay, token, expires_at, refresh_token: None, skew: 0 };
        self.replace(&credentials).await?;
        let account = self.remember(account).await;
        Ok(Standing { account, until: Some(expires_at) })
    }

    /// Keeps what the relay gave to this machine's key, in the place of what was kept before, and remembers the relay.
    pub(crate) async fn adopt(&self, _lock: &File, given: SignedIn) -> Result<Standing, SignInError> {
        let url = self.relay();
        if !given.relay.contains(&url) {
            self.give_back(&given).await;
            let known = printable(&given.relay.join(" or "), NAMES_MAX);
            return Err(SignInError::OtherName { known, used: url });
        }
        let credentials = self.credentials(&given, 0);
        if let Err(error) = self.replace(&credentials).await {
            self.give_back(&given).await;
            return Err(error);
        }
        let account = calls::who_am_i(&self.dialer, &credentials.token).await?;
        let account = self.remember(account).await;
        Ok(Standing { account, until: None })
    }

    /// Ends a sign-in that nobody here has: nobody would ever end it.
    pub(crate) async fn give_back(&self, given: &SignedIn) {
        let revoked = calls::revoke(&self.dialer, &given.refresh_token).await;
        debug!(revoked = revoked.is_ok(), "the sign-in is not kept");
    }

    /// Keeps these; those before them have no use any more, and end at the relay.
    async fn replace(&self, credentials: &Credentials) -> Result<(), SignInError> {
        let before = self.find(Readers::Anybody).ok().flatten();
        credentials.store(&self.file("credentials"))?;
        if let Some(before) = before.filter(|before| before.token != credentials.token) {
            let revoked = self.revoke(&before).await;
            debug!(revoked = revoked.is_ok(), "there was a sign-in before");
        }
        Ok(())
    }

    async fn revoke(&self, credentials: &Credentials) -> Result<(), SignInError> {
        match &credentials.refresh_token {
            Some(token) => calls::revoke(&self.dialer, token).await,
            None => calls::revoke_token(&self.dialer, &credentials.token).await,
        }
    }

    async fn remember(&self, account: Account) -> Account {
        if let Err(error) = config::remember(&self.home, self.dialer.url(), &account.organisation).await {
            warn!(%error, "signed in, but the relay is not remembered: name it with --relay-url");
        }
        account
    }

    /// Who is signed in here, by the relay's word.
    ///
    /// # Errors
    /// Nobody, or the relay does not know the sign-in any more, or it is not reached.
    pub async fn who_am_i(&self) -> Result<Standing, SignInError> {
        let token = self.token().await?;
        let account = match calls::who_am_i(&self.dialer, &token).await {
            // It may have ended before its time, by the relay's clock; the sign-in itself has not, where it can be replaced.
            Err(SignInError::Ended(_)) => {
                let token = self.token_but(Some(&token)).await?;
                calls::who_am_i(&self.dialer, &token).await?
            }
            answer => answer?,
        };
        let credentials = self.load()?;
        let until = credentials.refresh_token.is_none().then_some(credentials.expires_at);
        Ok(Standing { account, until })
    }

    /// Ends the sign-in at the relay, then here. Where the relay is not reached, or answers anything else than that it has
    /// ended, it stays in both places. What others may have read is ended too, and first of all. A token that cannot be renewed
    /// and is over by itself is forgotten here.
    ///
    /// # Errors
    /// Nobody is signed in, or the relay did not end it.
    pub async fn log_out(&self) -> Result<(), SignInError> {
        let _lock = self.lock().await?;
        let credentials = self.find(Readers::Anybody)?.ok_or_else(|| SignInError::NotSignedIn(self.relay()))?;
        let is_over = credentials.refresh_token.is_none() && credentials.expires_at <= now();
        let revoked = if is_over { Ok(()) } else { self.revoke(&credentials).await };
        let path = self.file("credentials");
        match revoked {
            Ok(()) => files::remove(&path),
            Err(reason @ (SignInError::Refused { .. } | SignInError::NoAccounts(_))) => {
                Err(SignInError::NotEnded { path, reason: Box::new(reason) })
            }
            Err(error) => Err(error),
        }
    }

    /// A token for `Authorization: Bearer` that lives for five minutes at least. One process of a user at a time has it
    /// replaced; others find the new one.
    ///
    /// # Errors
    /// Nobody is signed in, or the sign-in is over, or the relay is not reached.
    pub async fn token(&self) -> Result<Zeroizing<String>, SignInError> {
        self.token_but(None).await
    }

    /// The same, but for one that the relay did not take.
    pub(crate) async fn token_but(&self, refused: Option<&str>) -> Result<Zeroizing<String>, SignInError> {
        let is_good = |credentials: &Credentials| {
            is_fresh(credentials, now()) && refused.is_none_or(|refused| refused != credentials.token)
        };
        let credentials = self.load()?;
        if is_good(&credentials) {
            return Ok(credentials.token.clone().into());
        }
        if credentials.refresh_token.is_none() {
            return Err(SignInError::TokenOver(self.relay()));
        }
        let not_kept = |error| match error {
            SignInError::File { .. } => SignInError::NotRenewed(Box::new(error)),
            error => error,
        };
        let found = || self.load().ok().filter(is_good);
        let _lock = match files::lock_unless(&self.file("lock"), LOCK_WAIT, found).await.map_err(not_kept)? {
            ControlFlow::Continue(lock) => lock,
            ControlFlow::Break(credentials) => return Ok(credentials.token.clone().into()),
        };
        let credentials = self.load()?;
        if is_good(&credentials) {
            return Ok(credentials.token.clone().into());
        }
        let Some(refresh_token) = &credentials.refresh_token else { return Err(SignInError::TokenOver(self.relay())) };
        let key = self.key()?;
        // A successor that could not be kept would leave this user with a token that is worth nothing.
        files::may_write(&self.directory).map_err(not_kept)?;
        let (given, time, skew) = self.refresh(&key, refresh_token, credentials.skew).await?;
        let credentials = self.credentials(&given, skew);
        credentials.store(&self.file("credentials")).map_err(not_kept)?;
        // It is kept: whatever was copied from here before is worth nothing from now on. Where the relay does not hear of
        // that, the next refresh says it too.
        let time = time.saturating_add(1);
        let sig = key.sign(Act::Received, self.dialer.url(), &given.refresh_token, time);
        let body = Signed { refresh_token: &given.refresh_token, time, sig: &sig };
        let told = calls::received(&self.dialer, &body).await;
        debug!(told = told.is_ok(), "the token was replaced");
        Ok(credentials.token.clone().into())
    }

    /// Has a token replaced; also says the time that was signed, by the relay's clock if need be, and by how much that clock
    /// is ahead of this machine's.
    async fn refresh(
        &self,
        key: &MachineKey,
        refresh_token: &str,
        mut skew: i64,
    ) -> Result<(SignedIn, u64, i64), SignInError> {
        let mut time = now_millis().saturating_add_signed(skew);
        for _ in 0..TIMES {
            let sig = key.sign(Act::Refresh, self.dialer.url(), refresh_token, time);
            match calls::refresh(&self.dialer, &Signed { refresh_token, time, sig: &sig }).await? {
                Refreshed::Given(given) => return Ok((given, time, skew)),
                Refreshed::WrongTime(WrongTime { now, after }) => {
                    skew = now.checked_signed_diff(now_millis()).unwrap_or_default();
                    time = now.max(after.saturating_add(1));
                }
            }
        }
        let relay = self.dialer.url().to_string();
        Err(SignInError::Refused { relay, reason: "it takes no time that this machine signs".to_owned() })
    }

    fn credentials(&self, given: &SignedIn, skew: i64) -> Credentials {
        Credentials {
            relay: self.relay(),
            token: given.token.clone(),
            expires_at: now().saturating_add(given.expires_in),
            refresh_token: Some(given.refresh_token.clone()),
            skew,
        }
    }

    fn load(&self) -> Result<Credentials, SignInError> {
        self.find(Readers::User)?.ok_or_else(|| SignInError::NotSignedIn(self.relay()))
    }

    fn find(&self, readers: Readers) -> Result<Option<Credentials>, SignInError> {
        Credentials::load(&self.file("credentials"), self.dialer.url(), readers)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.file("relay.key")
    }

    /// This machine's key for the relay. Who asks has the lock.
    pub(crate) fn key(&self) -> Result<MachineKey, SignInError> {
        MachineKey::load_or_create(&self.key_file())
    }

    pub(crate) async fn lock(&self) -> Result<File, SignInError> {
        files::lock(&self.file("lock"), LOCK_WAIT).await
    }
}

/// Whether nothing has to be asked before it is used. One that cannot be replaced is used to its end.
fn is_fresh(credentials: &Credentials, now: u64) -> bool {
    let margin = if credentials.refresh_token.is_some() { REFRESH_BELOW } else { 0 };
    credentials.expires_at > now.saturating_add(margin)
}

/// Seconds since 1970.
fn now() -> u64 {
    now_millis() / 1000
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
