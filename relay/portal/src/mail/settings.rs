//! By which server mail is sent, and in whose name.

use std::{fmt, fs, path::Path};

use lettre::{
    message::Mailbox,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, TlsParameters},
    },
};
use mykube_relay_accounts::email::Email;
use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use url::{Host, Url};
use zeroize::Zeroizing;

/// By which server mail is sent, and in whose name.
#[derive(Clone)]
pub struct Mail {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) way: Way,
    pub(super) credentials: Option<Credentials>,
    pub(super) from: Mailbox,
    pub(crate) otp_reset_unlocks: bool,
}

/// What keeps others from reading along.
#[derive(Clone)]
pub(super) enum Way {
    /// TLS from the first byte (RFC 8314, section 3.3).
    Tls(TlsParameters),
    /// STARTTLS, or nothing is sent (RFC 3207).
    StartTls(TlsParameters),
    /// Nothing, on this machine.
    Plain,
}

/// Why mail cannot be set up so. It holds neither address nor password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// No address of a server.
    #[error(
        "`smtp` is smtps://USER@HOST (TLS, port 465) or smtp://USER@HOST (STARTTLS, port 587; to this machine without it, \
         unless ?tls=required stands behind it)"
    )]
    Server,
    /// It would stand in a file that others may read.
    #[error("`smtp` must not have the password in it: give `password_file`, or MYKUBE_SMTP_PASSWORD")]
    PasswordInUrl,
    /// One without the other.
    #[error("`smtp` names a user: give `password_file`, or MYKUBE_SMTP_PASSWORD")]
    NoPassword,
    /// The other without the one.
    #[error("there is a password for the mail server and no user: `smtp` is smtps://USER@HOST")]
    NoUser,
    /// Nobody's address.
    #[error("`from` is an address, as relay@example.com, or one with a name, as \"Relay <relay@example.com>\"")]
    From,
    /// Certificates.
    #[error("`ca_file` cannot be used: {0}")]
    CaFile(String),
    /// No certificates at all.
    #[error("no certificate is trusted here, so none of a mail server can be: install the system's, or give `ca_file`")]
    NoRoots,
}

impl MailError {
    /// The key of `[mail]` that it is about.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Server | Self::PasswordInUrl | Self::NoRoots => "smtp",
            Self::NoPassword | Self::NoUser => "password",
            Self::From => "from",
            Self::CaFile(_) => "ca_file",
        }
    }
}

impl Mail {
    /// `smtp`: `smtps://USER@HOST:PORT` or `smtp://USER@HOST:PORT`, user and port as wanted. `from`: an address, with a name or
    /// without. The server's certificate is judged by the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured) and
    /// those of `ca_file` (PEM).
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(
        smtp: &str,
        from: &str,
        password: Option<Zeroizing<String>>,
        ca_file: Option<&Path>,
    ) -> Result<Self, MailError> {
        let url = Url::parse(smtp).map_err(|_| MailError::Server)?;
        if url.password().is_some() {
            return Err(MailError::PasswordInUrl);
        }
        let is_tls = match (url.scheme(), url.query()) {
            ("smtps", None) => true,
            ("smtp", None | Some("tls=required")) => false,
            _ => return Err(MailError::Server),
        };
        if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(MailError::Server);
        }
        // A URL of such a scheme has its host as it was written.
        let host = Host::parse(url.host_str().ok_or(MailError::Server)?).map_err(|_| MailError::Server)?;
        let (host, is_here) = match host {
            Host::Domain(name) => (name.clone(), name == "localhost"),
            Host::Ipv4(ip) => (ip.to_string(), ip.is_loopback()),
            Host::Ipv6(ip) => (ip.to_string(), ip.to_canonical().is_loopback()),
        };
        let way = match (is_tls, is_here && url.query().is_none()) {
            (true, _) => Way::Tls(tls(&host, ca_file)?),
            (false, false) => Way::StartTls(tls(&host, ca_file)?),
            (false, true) => Way::Plain,
        };
        let user = percent_decode_str(url.username()).decode_utf8().map_err(|_| MailError::Server)?;
        let credentials = match (user.is_empty(), password) {
            (true, None) => None,
            (false, Some(password)) => Some(Credentials::new(user.into_owned(), password.to_string())),
            (false, None) => return Err(MailError::NoPassword),
            (true, Some(_)) => return Err(MailError::NoUser),
        };
        let from: Mailbox = from.parse().map_err(|_| MailError::From)?;
        let is_plain = from.name.iter().all(|name| !name.chars().any(char::is_control));
        if !is_plain || from.email.to_string().parse::<Email>().is_err() {
            return Err(MailError::From);
        }
        let port = url.port().unwrap_or(if is_tls { 465 } else { 587 });
        Ok(Self { host, port, way, credentials, from, otp_reset_unlocks: false })
    }

    /// Whether a new code for an address lifts the lock that wrong tries of the last one brought.
    #[must_use]
    pub fn with_otp_reset_unlocks(self, unlocks: bool) -> Self {
        Self { otp_reset_unlocks: unlocks, ..self }
    }
}

fn tls(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, MailError> {
    let mut roots = rustls_native_certs::load_native_certs().certs;
    // Some of the system's may be of a form that nobody reads any more; of their own file an operator wants to know.
    roots.retain(is_root);
    if let Some(path) = ca_file {
        let failed = |why: String| MailError::CaFile(format!("{}: {why}", path.display()));
        let pem = fs::read(path).map_err(|error| failed(error.to_string()))?;
        let given: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
        if given.is_empty() || !given.iter().all(is_root) {
            return Err(failed("it must hold certificates in PEM form, all of which can be read".to_owned()));
        }
        roots.extend(given);
    }
    if roots.is_empty() {
        return Err(MailError::NoRoots);
    }
    let mut tls = TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    for root in roots {
        tls = tls.add_root_certificate(Certificate::from_der(root.to_vec()).map_err(|_| MailError::NoRoots)?);
    }
    tls.build_rustls().map_err(|_| MailError::Server)
}

fn is_root(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(smtp: &str, password: Option<&str>) -> Result<Mail, MailError> {
        let password = password.map(|password| Zeroizing::new(password.to_owned()));
        Mail::new(smtp, "Relay <relay@example.com>", password, None)
    }

    #[test]
    fn a_server_is_reached_by_tls_but_for_one_on_this_machine() {
        for (smtp, host, port, way) in [
            ("smtps://smtp.example.com", "smtp.example.com", 465, "tls"),
            ("smtps://127.0.0.1:4650/", "127.0.0.1", 4650, "tls"),
            ("smtp://smtp.example.com", "smtp.example.com", 587, "starttls"),
            ("smtp://smtp.example.com:25?tls=required", "smtp.example.com", 25, "starttls"),
            ("smtp://localhost:25", "localhost", 25, "plain"),
            ("smtp://[::1]:25", "::1", 25, "plain"),
            ("smtp://localhost?tls=required", "localhost", 587, "starttls"),
            ("smtp://localhost.example.com", "localhost.example.com", 587, "starttls"),
        ] {
            let mail = read(smtp, None).unwrap();
            let found = match mail.way {
                Way::Tls(_) => "tls",
                Way::StartTls(_) => "starttls",
                Way::Plain => "plain",
            };
            assert_eq!((mail.host.as_str(), mail.port, found), (host, port, way), "{smtp}");
        }
        for smtp in [
            "",
            "smtp.example.com",
            "https://smtp.example.com",
            "smtp://",
            "smtp://host/path",
            "smtp://host?tls=none",
            "smtps://host?tls=required",
            "smtp://host#x",
        ] {
            assert_eq!(read(smtp, None).err(), Some(MailError::Server), "{smtp}");
        }
    }

    #[test]
    fn a_user_has_a_password_that_stands_elsewhere() {
        let mail = read("smtps://ada%40example.com@host", Some("canary")).unwrap();
        assert_eq!((mail.credentials.is_some(), format!("{mail:?}").as_str()), (true, "Mail"));
        for (smtp, password, wrong) in [
            ("smtps://ada:canary@host", None, MailError::PasswordInUrl),
            ("smtps://ada@host", None, MailError::NoPassword),
            ("smtps://host", Some("canary"), MailError::NoUser),
        ] {
            let error = read(smtp, password).unwrap_err();
            assert!(error == wrong && !error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_letter_is_from_one_address() {
        for from in ["", "relay", "a@b.de, c@d.de", "Relay <relay@b.de>\r\nBcc: eve@b.de", "a@[127.0.0.1]"] {
            let mail = Mail::new("smtps://host", from, None, None);
            assert_eq!(mail.err(), Some(MailError::From), "{from:?}");
        }
    }

    #[test]
    fn certificates_that_cannot_be_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in [None, Some("nothing"), Some(no_certificate)] {
            if let Some(content) = content {
                fs::write(&file, content).unwrap();
            }
            let error = Mail::new("smtps://host", "relay@example.com", None, Some(&file)).unwrap_err();
            assert!(matches!(error, MailError::CaFile(_)), "{error}");
        }
    }
}
