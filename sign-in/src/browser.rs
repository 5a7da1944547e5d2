//! Signing in with a browser: a person signs in on the relay's page, and the browser brings a code to a port of this machine.
//!
//! What stands in the address that is opened is no secret. Other users may see it in the browser's command line, and gain no
//! sign-in by it: `state` only tells an answer to this sign-in from another's, `code_challenge` is a hash of the verifier
//! (RFC 7636), which never leaves this process but for the relay, and the code that comes back is good for nobody who has not
//! the verifier and this machine's key. What such a user could do is to answer first, with a sign-in of their own: so it is
//! always said as whom one is signed in.

use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::BASE64URL_NOPAD;
use mykube_protocol::account::{Act, Exchange};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{
    calls,
    error::SignInError,
    loopback::{Answer, Loopback},
    session::{Session, Standing, now_millis},
};

/// How long a person has: two passwords, a second factor, and to look for it.
const WAIT: Duration = Duration::from_mins(10);

/// A sign-in that waits for its browser.
pub struct BrowserSignIn<'a> {
    session: &'a Session,
    loopback: Loopback,
    verifier: Zeroizing<String>,
    state: String,
    url: String,
}

/// The code that a browser brought.
pub struct Code<'a> {
    session: &'a Session,
    code: Zeroizing<String>,
    verifier: Zeroizing<String>,
}

impl<'a> BrowserSignIn<'a> {
    /// Sees that the relay has such a page, and listens. With a provider's name, the relay asks nobody for one.
    ///
    /// # Errors
    /// The relay is not reached, or has no accounts, or no such page; or there is no port.
    pub async fn begin(session: &'a Session, provider: Option<&str>) -> Result<Self, SignInError> {
        let page = match provider {
            Some(name) if is_name(name) => format!("/auth/{name}"),
            Some(_) => return Err(SignInError::Provider),
            None => "/portal/sign-in".to_owned(),
        };
        match provider {
            // Asking for a provider's page begins a sign-in.
            Some(_) => calls::accounts(&session.dialer).await?,
            None => calls::sign_in_page(&session.dialer).await?,
        }
        let loopback = Loopback::bind().await?;
        let (verifier, state) = (random(), random());
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes()));
        let (relay, port) = (session.relay(), loopback.port());
        let url = format!("{relay}{page}?cli_port={port}&state={}&code_challenge={challenge}", state.as_str());
        Ok(Self { session, loopback, verifier, state: state.to_string(), url })
    }

    /// What is to be opened.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the browser, ten minutes at most. Whoever drops this has changed nothing.
    ///
    /// # Errors
    /// Nobody came, or came with an error.
    pub async fn wait(self) -> Result<Code<'a>, SignInError> {
        let Self { session, loopback, verifier, state, .. } = self;
        match timeout(WAIT, loopback.answer(&state)).await {
            Ok(Answer::Code(code)) => Ok(Code { session, code, verifier }),
            Ok(Answer::Error(error)) => Err(SignInError::Declined(error)),
            Err(_) => Err(SignInError::TooLate(WAIT)),
        }
    }
}

impl Code<'_> {
    /// Redeems it, and signs in in the place of whoever was signed in before.
    ///
    /// # Errors
    /// The relay does not take it, or nothing can be kept here.
    pub async fn redeem(self) -> Result<Standing, SignInError> {
        let Self { session, code, verifier } = self;
        let lock = session.lock().await?;
        let key = session.key()?;
        let time = now_millis();
        let sig = key.sign(Act::SignIn, session.dialer.url(), &code, time);
        let body = Exchange { code: &code, verifier: &verifier, key: &key.public(), time, sig: &sig };
        let given = calls::exchange(&session.dialer, &body).await?;
        session.adopt(&lock, given).await
    }
}

/// 256 bits: as text, a verifier of the shortest form (43 characters).
fn random() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(bytes.as_mut()).expect("the system gives random numbers");
    Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_ref()))
}

/// As relays take them for providers.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=63).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{answers, session};

    /// A relay that has a page, and one that has accounts.
    fn relays() -> [String; 2] {
        ["200 OK", "401 X"].map(|status| answers(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")))
    }

    #[tokio::test]
    async fn the_address_has_a_port_a_state_and_a_challenge() {
        let dir = tempfile::tempdir().unwrap();
        let [with_page, relay] = relays();
        let (with_page, session) = (session(&dir, &with_page), session(&dir, &relay));
        let sign_in = BrowserSignIn::begin(&session, Some("google")).await.unwrap();
        let (page, query) = sign_in.url().split_once('?').unwrap();
        assert_eq!(page, format!("{relay}/auth/google"));
        let fields: Vec<_> = query.split('&').map(|field| field.split_once('=').unwrap()).collect();
        assert_eq!(fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cli_port", "state", "code_challenge"]);
        assert_eq!(fields[0].1, sign_in.loopback.port().to_string());
        assert_eq!((fields[1].1.len(), fields[2].1.len(), sign_in.verifier.len()), (43, 43, 43));
        assert!(!sign_in.url().contains(sign_in.verifier.as_str()));
        let other = BrowserSignIn::begin(&with_page, None).await.unwrap();
        let page = format!("{}/portal/sign-in?cli_port=", with_page.relay());
        assert!(other.url().starts_with(&page), "{}", other.url());
        assert!(!other.url().contains(fields[1].1) && !other.url().contains(fields[2].1));
        for name in ["", "Google", "a/b", "a?b", "..", "a%2f", &"a".repeat(64)] {
            assert!(matches!(BrowserSignIn::begin(&session, Some(name)).await, Err(SignInError::Provider)), "{name}");
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let session = session(&dir, &relays()[0]);
        let sign_in = BrowserSignIn::begin(&session, None).await.unwrap();
        tokio::time::pause();
        match sign_in.wait().await {
            Err(error @ SignInError::TooLate(_)) => assert!(error.to_string().contains("within 10 minutes")),
            _ => panic!("nobody came"),
        }
    }
}
