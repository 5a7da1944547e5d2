//! One connection to a mail server, and one letter over it.

use std::error::Error as _;

use lettre::{
    Message,
    address::Envelope,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::DEFAULT_MECHANISMS,
        client::{AsyncSmtpConnection, TlsParameters},
        extension::ClientId,
    },
};
use mykube_relay_accounts::secret::Secret;
use zeroize::Zeroizing;

use super::{
    letter::Letter,
    settings::{Mail, Way},
};

/// What went wrong, without whom a letter was for and without what a server says, as that repeats it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// No connection, or none that is private.
    #[error("{0}")]
    Way(String),
    /// A status (RFC 5321, section 4.2.3).
    #[error("it answered with status {0}")]
    Status(String),
    /// User and password.
    #[error("it does not accept user and password (status {0}): check `smtp` and the password in [mail]")]
    Credentials(String),
    /// An answer that is none.
    #[error("it does not speak SMTP")]
    Nonsense,
    /// No answer.
    #[error("it takes too long")]
    Slow,
    /// A fault of this program.
    #[error("the letter cannot be written")]
    Letter,
}

/// Bytes of what a system or a certificate has to say.
const WHY_MAX: usize = 300;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Some(status) = error.status() {
            return Self::Status(status.to_string());
        }
        if error.is_timeout() {
            return Self::Slow;
        }
        if error.is_response() {
            return Self::Nonsense;
        }
        // A refused connection, a certificate, what the server cannot do: nothing of the letter.
        let what = match (error.is_tls(), error.is_client()) {
            (true, _) => "TLS failed",
            (_, true) => "it cannot be used",
            _ => "no connection",
        };
        let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Self::Way(format!("{what}{why}").chars().filter(|sign| !sign.is_control()).take(WHY_MAX).collect())
    }
}

/// A connection that is ready for a letter.
pub(super) struct Connection(AsyncSmtpConnection);

impl Mail {
    /// Connects, with TLS where it must be, and signs in where there is a user.
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        let name = ClientId::Domain(self.from.email.domain().to_owned());
        let at_once: Option<TlsParameters> = match &self.way {
            Way::Tls(tls) => Some(tls.clone()),
            Way::StartTls(_) | Way::Plain => None,
        };
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(server, None, &name, at_once, None).await?;
        if let Way::StartTls(tls) = &self.way {
            connection.starttls(tls.clone(), &name).await?;
        }
        if let Some(credentials) = &self.credentials {
            let accepted = connection.auth(DEFAULT_MECHANISMS, credentials).await;
            accepted.map_err(|error| match error.status() {
                Some(status) => Fault::Credentials(status.to_string()),
                None => error.into(),
            })?;
        }
        Ok(Connection(connection))
    }
}

impl Connection {
    pub(super) async fn send(&mut self, mail: &Mail, letter: &Letter) -> Result<(), Fault> {
        let (envelope, bytes) = write(mail, letter).ok_or(Fault::Letter)?;
        self.0.send(&envelope, &bytes).await?;
        Ok(())
    }

    pub(super) async fn quit(mut self) {
        let _ = self.0.quit().await;
    }
}

/// The letter as it is sent.
fn write(mail: &Mail, letter: &Letter) -> Option<(Envelope, Zeroizing<Vec<u8>>)> {
    let to = letter.to.as_str().parse().ok()?;
    // It says nothing of this machine.
    let id = format!("<{}@{}>", Secret::random(&mut rand::rng()).expose(), mail.from.email.domain());
    let message = Message::builder()
        .from(mail.from.clone())
        .to(Mailbox::new(None, to))
        .subject(letter.subject.clone())
        .message_id(Some(id))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN)
        .body(letter.body.to_string())
        .ok()?;
    Some((message.envelope().clone(), Zeroizing::new(message.formatted())))
}

/// No holiday answer is wanted (RFC 3834, section 5).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_can_be_written_however_long_a_relays_address_is() {
        let mail = Mail::new("smtp://127.0.0.1:25", "Die Br\u{fc}cke <relay@example.com>", None, None).unwrap();
        for (url, encoding) in [("https://r.example".to_owned(), "7bit"), ("x".repeat(2000), "quoted-printable")] {
            let body = Zeroizing::new(format!("012345 is your code to sign in at\r\n{url}\r\n"));
            let letter = Letter { to: "ada@example.com".parse().unwrap(), subject: "Your code".to_owned(), body };
            let (envelope, bytes) = write(&mail, &letter).unwrap();
            assert_eq!(envelope.to().len(), 1);
            let text = std::str::from_utf8(&bytes).unwrap();
            assert!(text.contains(&format!("Content-Transfer-Encoding: {encoding}\r\n")), "{text}");
            assert!(text.contains("\r\n\r\n012345 is your code") && text.is_ascii(), "{text}");
            assert!(text.lines().all(|line| line.len() <= 78), "RFC 5322, section 2.1.1: {text}");
        }
    }
}
