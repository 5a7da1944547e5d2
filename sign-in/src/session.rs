//! Signing in and out, and a token that works now.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mykube_dial::Dialer;
use mykube_protocol::account::{Act, CLIENT, DevToken, Revoke, Signed, SignedIn, WhoAmI, WrongTime};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::{
    calls::{self, Refreshed},
    config,
    credentials::Credentials,
    error::SignInError,
    files::{self, Readers},
    home::Home,
    key::MachineKey,
};

/// A token that lives no longer than this is replaced before it is used, in seconds: what is begun with it shall not end for it.
const REFRESH_BELOW: u64 = 300;

/// How long another process of the user's may hold a sign-in: a renewal takes less, unless its relay does not answer.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// How often a refresh is signed: by this machine's clock, then by the relay's, and once more as a second may pass.
const TIMES: u32 = 3;

/// Who is signed in, as the relay says.
pub type Account = WhoAmI;

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
    pub async fn log_in_by_dev_secret(&self, email: &str, secret: &str) -> Result<Account, SignInError> {
        // Any other relay would learn what signs in at this machine's as anybody.
        if !self.dialer.url().is_loopback() {
            return Err(SignInError::DevFarAway(self.relay()));
        }
        let _lock = self.lock().await?;
        let key = MachineKey::load_or_create(&self.file("relay.key"))?.public();
        let body = DevToken { email, secret, client: CLIENT, key: &key };
        let given = calls::dev_token(&self.dialer, &body).await?;
        let url = self.dialer.url().to_string();
        if !given.relay.contains(&url) {
            let revoked = calls::revoke(&self.dialer, &Revoke { refresh_token: &given.refresh_token }).await;
            debug!(revoked = revoked.is_ok(), "the relay has another name");
            let known = given.relay.join(" or ");
            return Err(SignInError::OtherName { known, used: url });
        }
        let before = self.find(Readers::Anybody).ok().flatten();
        let refresh_token = Zeroizing::new(given.refresh_token.clone());
        let kept = self.keep(given, 0);
        if kept.is_err() {
            // Nobody has it: nobody would ever end it.
            let revoked = calls::revoke(&self.dialer, &Revoke { refresh_token: &refresh_token }).await;
            debug!(revoked = revoked.is_ok(), "the sign-in cannot be kept");
        }
        let credentials = kept?;
        if let Some(before) = before {
            // The new one takes its place: nobody would ever end it.
            let revoked = calls::revoke(&self.dialer, &Revoke { refresh_token: &before.refresh_token }).await;
            debug!(revoked = revoked.is_ok(), "there was a sign-in before");
        }
        if let Err(error) = config::remember(&self.home, self.dialer.url()) {
            warn!(%error, "signed in, but the relay is not remembered: name it with --relay-url");
        }
        calls::who_am_i(&self.dialer, &credentials.token).await
    }

    /// Who is signed in here, by the relay's word.
    ///
    /// # Errors
    /// Nobody, or the relay does not know the sign-in any more, or it is not reached.
    pub async fn who_am_i(&self) -> Result<Account, SignInError> {
        let token = self.token().await?;
        match calls::who_am_i(&self.dialer, &token).await {
            // It may have ended before its time, by the relay's clock; the sign-in itself has not, where it can be replaced.
            Err(SignInError::Ended(_)) => {
                let token = self.token_but(Some(&token)).await?;
                calls::who_am_i(&self.dialer, &token).await
            }
            answer => answer,
        }
    }

    /// Ends the sign-in at the relay, then here. Where the relay is not reached, or answers anything else than that it has
    /// ended, it stays in both places. What others may have read is ended too, and first of all.
    ///
    /// # Errors
    /// Nobody is signed in, or the relay did not end it.
    pub async fn log_out(&self) -> Result<(), SignInError> {
        let _lock = self.lock().await?;
        let credentials = self.find(Readers::Anybody)?.ok_or_else(|| SignInError::NotSignedIn(self.relay()))?;
        let revoked = calls::revoke(&self.dialer, &Revoke { refresh_token: &credentials.refresh_token }).await;
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
        let _lock = self.lock().await?;
        let credentials = self.load()?;
        if is_good(&credentials) {
            return Ok(credentials.token.clone().into());
        }
        let key = MachineKey::load_or_create(&self.file("relay.key"))?;
        let (given, time, skew) = self.refresh(&key, &credentials).await?;
        let credentials = self.keep(given, skew)?;
        // It is kept: whatever was copied from here before is worth nothing from now on. Where the relay does not hear of
        // that, the next refresh says it too.
        let time = time.saturating_add(1);
        let sig = key.sign(Act::Received, self.dialer.url(), &credentials.refresh_token, time);
        let body = Signed { refresh_token: &credentials.refresh_token, time, sig: &sig };
        let told = calls::received(&self.dialer, &body).await;
        debug!(told = told.is_ok(), "the token was replaced");
        Ok(credentials.token.clone().into())
    }

    /// Has a token replaced; also says the time that was signed, by the relay's clock if need be, and by how much that clock
    /// is ahead of this machine's.
    async fn refresh(&self, key: &MachineKey, of: &Credentials) -> Result<(SignedIn, u64, i64), SignInError> {
        let (refresh_token, mut skew) = (of.refresh_token.as_str(), of.skew);
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

    fn keep(&self, given: SignedIn, skew: i64) -> Result<Credentials, SignInError> {
        let SignedIn { token, expires_in, refresh_token, .. } = given;
        let expires_at = now().saturating_add(expires_in);
        let credentials = Credentials { relay: self.dialer.url().to_string(), token, expires_at, refresh_token, skew };
        credentials.store(&self.file("credentials"))?;
        Ok(credentials)
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

    async fn lock(&self) -> Result<std::fs::File, SignInError> {
        files::lock(&self.file("lock"), LOCK_WAIT).await
    }
}

/// Whether nothing has to be asked before it is used.
fn is_fresh(credentials: &Credentials, now: u64) -> bool {
    credentials.expires_at > now.saturating_add(REFRESH_BELOW)
}

/// Seconds since 1970.
fn now() -> u64 {
    now_millis() / 1000
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::fs::PermissionsExt as _,
    };

    use mykube_dial::DialOptions;
    use mykube_protocol::account::UNKNOWN_TOKEN;

    use super::*;

    #[test]
    fn a_token_is_used_until_its_last_five_minutes() {
        let credentials = Credentials {
            relay: String::new(),
            token: String::new(),
            expires_at: 1000,
            refresh_token: String::new(),
            skew: 0,
        };
        assert!(is_fresh(&credentials, 699));
        assert!(!is_fresh(&credentials, 700));
        assert!(!is_fresh(&credentials, u64::MAX));
    }

    /// Answers every request alike; the relay's address.
    fn answers(answer: String) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut request) = (stream.unwrap(), Vec::new());
                while !request.ends_with(b"}") {
                    let mut buffer = [0; 1024];
                    let n = stream.read(&mut buffer).unwrap();
                    assert_ne!(n, 0, "the request ended early");
                    request.extend_from_slice(&buffer[..n]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        url
    }

    fn session(dir: &tempfile::TempDir, url: &str) -> Session {
        Session::new(Home::at(dir.path()), Dialer::new(url.parse().unwrap(), DialOptions::default()).unwrap())
    }

    fn sign_in(session: &Session) -> PathBuf {
        let path = session.file("credentials");
        let text = |text: &str| text.to_owned();
        let credentials = Credentials {
            relay: session.relay(),
            token: text("t"),
            expires_at: u64::MAX,
            refresh_token: text("r"),
            skew: 0,
        };
        credentials.store(&path).unwrap();
        path
    }

    #[tokio::test]
    async fn only_the_relays_own_word_that_it_is_over_removes_a_sign_in() {
        let json = |error: &str| ("application/json", format!(r#"{{"error":"{error}"}}"#));
        for (status, (kind, body), is_over) in [
            ("200 OK", ("application/json", r#"{"ok":true}"#.to_owned()), true),
            ("401 Unauthorized", json(UNKNOWN_TOKEN), true),
            ("200 OK", ("text/html", "<p>sign in at the proxy</p>".to_owned()), false),
            ("204 No Content", ("application/json", String::new()), false),
            ("401 Unauthorized", json("sign in at the proxy"), false),
            ("403 Forbidden", json("this origin is not allowed"), false),
            ("403 Forbidden", ("text/plain", UNKNOWN_TOKEN.to_owned()), false),
            ("404 Not Found", json("not found"), false),
            ("408 Request Timeout", json("the body did not come in time"), false),
            ("429 Too Many Requests", ("text/plain", "later".to_owned()), false),
            ("503 Service Unavailable", json("try again in a moment"), false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let length = body.len();
            let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
            let session = session(&dir, &answers(head + &body));
            let path = sign_in(&session);
            // Others may have read it: the more it is to be ended.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            let done = session.log_out().await;
            assert_eq!((done.is_ok(), path.exists()), (is_over, !is_over), "{status} {kind}: {done:?}");
        }
    }

    #[tokio::test]
    async fn the_dev_secret_stays_on_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let done = session(&dir, "https://relay.invalid").log_in_by_dev_secret("a@example.com", "secret").await;
        assert!(matches!(done, Err(SignInError::DevFarAway(_))), "{done:?}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing was begun");
    }

    #[test]
    fn tokens_go_to_the_relay_that_gave_them() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (session(&dir, "https://one.example"), session(&dir, "https://other.example"));
        let path = other.file("credentials");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(sign_in(&one), path).unwrap();
        assert!(one.load().is_ok());
        assert!(matches!(other.load(), Err(SignInError::Damaged { .. })));
    }
}
