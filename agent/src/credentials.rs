//! Whom the API server sees: certificates, tokens, passwords and plugins, and what happens when they change.
//!
//! The rules are client-go's: `*-data` wins over a file, a readable `tokenFile` over `token`, a fixed token or password over
//! `auth-provider: oidc`, and these or a fixed certificate over an exec plugin, which then never runs.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use mykube_protocol::channel::Credentials;
use tokio::{io::AsyncReadExt as _, time::Instant};
use zeroize::Zeroizing;

use crate::{
    KubeconfigError,
    error::{Place, Shown},
    exec::ExecPlugin,
    kubeconfig::types::{AuthInfo, Secret},
    oidc::Oidc,
    pem,
};

pub use crate::refresh::{Credentialer, POLL, RETRY_MAX};

/// Longest certificate, key or token file: what does not fit a welcome need not be read.
pub const FILE_MAX: u64 = mykube_protocol::limits::WELCOME_MAX as u64;
/// Credentials are fetched again this long before they expire, or after 80 % of their life if that is earlier.
pub const REFRESH_MARGIN: Duration = Duration::from_secs(60);
/// Credentials are fetched again at most this often, however short their life.
pub const REFRESH_MIN: Duration = Duration::from_secs(10);

/// Base64 as Go reads it: padded, last bits of any kind. Line breaks it skips are to be taken out before.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Until when credentials are good, and when to fetch new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// When they end.
    pub expires: SystemTime,
    /// When to fetch new ones, by the wall clock: it runs while a machine sleeps.
    pub refresh: SystemTime,
    /// The same by the monotonic clock: nobody sets it.
    pub refresh_at: Instant,
}

impl Expiry {
    /// From an end, seen now.
    #[must_use]
    pub fn until(expires: SystemTime) -> Self {
        let now = SystemTime::now();
        let life = expires.duration_since(now).unwrap_or_default();
        let wait = (life * 4 / 5).min(life.saturating_sub(REFRESH_MARGIN)).max(REFRESH_MIN);
        Self { expires, refresh: now + wait, refresh_at: Instant::now() + wait }
    }

    /// Whether new credentials should be fetched.
    #[must_use]
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.refresh_at || SystemTime::now() >= self.refresh
    }

    /// Whether they are over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        SystemTime::now() >= self.expires
    }
}

/// Where a user's credentials come from.
pub struct CredentialSource {
    certificate: Option<(Sourced, Sourced)>,
    token: Option<Zeroizing<String>>,
    token_file: Option<Sourced>,
    basic: Option<(Zeroizing<String>, Zeroizing<String>)>,
    exec: Option<ExecPlugin>,
    oidc: Option<Oidc>,
    place: Place,
}

impl CredentialSource {
    /// From a kubeconfig's user and its plugin or provider. Files are read when needed, data is decoded here.
    pub(crate) fn new(
        user: &AuthInfo,
        exec: Option<ExecPlugin>,
        oidc: Option<Oidc>,
        place: Place,
    ) -> Result<Self, KubeconfigError> {
        let secret = |value: &Option<Secret>| value.clone().filter(|value| !value.is_empty());
        let field = |field, problem| KubeconfigError::Field { field, place: place.clone(), problem };

        let data = user.client_certificate_data.as_deref();
        let names = ("client-certificate-data", "client-certificate");
        let certificate = Sourced::new(data, user.client_certificate.as_deref(), names, &place)?;
        let data = user.client_key_data.as_ref().map(|data| data.as_str());
        let key = Sourced::new(data, user.client_key.as_deref(), ("client-key-data", "client-key"), &place)?;
        let certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => {
                return Err(field("client-key", "is missing, and a client certificate needs its key: add it"));
            }
            (None, _) => None,
        };

        let token = match secret(&user.token) {
            Some(token) => Some(checked_token(&token).ok_or_else(|| field("token", BAD_TOKEN))?),
            None => None,
        };
        let token_file = Sourced::new(None, user.token_file.as_deref(), ("tokenFile", "tokenFile"), &place)?;
        let basic = match (&user.username, secret(&user.password)) {
            (Some(username), password) if !username.is_empty() => {
                Some((Zeroizing::new(username.clone()), password.unwrap_or_default()))
            }
            (_, Some(_)) => return Err(field("username", "is missing, and a password needs it: add it")),
            _ => None,
        };
        if basic.is_some() && (token.is_some() || token_file.is_some()) {
            return Err(field("username", "stands beside a token, and kubectl takes only one of them: remove one"));
        }
        let says_who = basic.is_some() || token.is_some() || token_file.is_some();
        let exec = exec.filter(|_| !says_who && certificate.is_none());
        let oidc = oidc.filter(|_| !says_who);
        Ok(Self { certificate, token, token_file, basic, exec, oidc, place })
    }

    /// A token file alone, as pods have it.
    pub(crate) fn from_token_file(file: Sourced, place: Place) -> Self {
        Self { certificate: None, token: None, token_file: Some(file), basic: None, exec: None, oidc: None, place }
    }

    /// Whether they can ever change.
    pub(crate) fn changes(&self) -> bool {
        self.exec.is_some() || self.oidc.is_some() || self.reads_files()
    }

    /// Whether they come from files, which may change at any time.
    pub(crate) fn reads_files(&self) -> bool {
        let certificate = self.certificate.iter().any(|(certificate, key)| certificate.is_file() || key.is_file());
        self.token_file.is_some() || certificate
    }

    /// Lets the next [`CredentialSource::current`] run the plugin: its credential was refused.
    pub(crate) async fn forget(&self) {
        if let Some(exec) = &self.exec {
            exec.forget().await;
        }
        if let Some(oidc) = &self.oidc {
            oidc.forget().await;
        }
    }

    /// The credentials of this moment: files are read, a plugin runs if it never did or its credential is due.
    ///
    /// # Errors
    /// A file or the plugin's answer cannot be used.
    pub async fn current(&self) -> Result<(Credentials, Option<Expiry>), KubeconfigError> {
        let mut out = none();
        let mut expiry = None;
        if let Some((certificate, key)) = &self.certificate {
            let chain = pem::certificates(&certificate.read().await?).map_err(|problem| certificate.error(problem))?;
            let private = pem::private_key(&key.read().await?).map_err(|problem| key.error(problem))?;
            pem::belongs(&chain, &private).map_err(|problem| key.error(problem))?;
            out.certificate = Some(chain);
            out.key = Some(private.to_string());
        }
        out.token = self.token.as_ref().map(|token| token.to_string());
        if let Some(file) = &self.token_file {
            out.expiring = true;
            match read_token(file).await {
                Ok(token) => out.token = Some(token.to_string()),
                Err(error) if out.token.is_none() => return Err(error),
                Err(error) => tracing::warn!(%error, "the token file cannot be used, the token beside it is"),
            }
        }
        if let Some((username, password)) = &self.basic {
            out.username = Some(username.to_string());
            out.password = Some(password.to_string());
        }
        if let Some(exec) = &self.exec {
            let credential = exec.current().await?;
            out.token = credential.token.as_ref().map(|token| token.to_string());
            if let Some((chain, key)) = &credential.certificate {
                out.certificate = Some(chain.clone());
                out.key = Some(key.to_string());
            }
            out.expiring = credential.expiry.is_some();
            expiry = credential.expiry;
        }
        if let Some(oidc) = &self.oidc {
            let (token, until) = oidc.current().await?;
            out.token = Some(token.to_string());
            out.expiring = true;
            expiry = Some(until);
        }
        Ok((out, expiry))
    }
}

impl std::fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CredentialSource({})", self.place)
    }
}

const BAD_TOKEN: &str = "is not a token (those are one line of printable characters without spaces): fetch a new one";
const EMPTY_TOKEN: &str = "names a file with no token in it: fetch a new one";

fn none() -> Credentials {
    Credentials { token: None, certificate: None, key: None, username: None, password: None, expiring: false }
}

async fn read_token(file: &Sourced) -> Result<Zeroizing<String>, KubeconfigError> {
    let bytes = file.read().await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| file.error(BAD_TOKEN))?;
    if text.trim().is_empty() {
        return Err(file.error(EMPTY_TOKEN));
    }
    checked_token(text.trim()).ok_or_else(|| file.error(BAD_TOKEN))
}

/// A token fit for a header. Spaces around it are removed; a line end is no part of a header, for kubectl neither.
pub(crate) fn checked_token(text: &str) -> Option<Zeroizing<String>> {
    let token = text.trim_matches(' ');
    (!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())).then(|| Zeroizing::new(token.to_owned()))
}

/// A value that stands in the kubeconfig as base64, or in a file beside it.
pub(crate) struct Sourced {
    field: &'static str,
    place: Place,
    value: Value,
}

enum Value {
    Data(Zeroizing<Vec<u8>>),
    File(PathBuf),
}

impl Sourced {
    /// Data wins over a file; empty ones count as absent. `names` are the two fields.
    pub(crate) fn new(
        data: Option<&str>,
        file: Option<&str>,
        names: (&'static str, &'static str),
        place: &Place,
    ) -> Result<Option<Self>, KubeconfigError> {
        let given = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
        if let Some(data) = data.filter(|data| given(Some(data))) {
            let plain = Zeroizing::new(data.replace(['\r', '\n'], ""));
            let bytes = BASE64.decode(plain.as_bytes()).map_err(|_| KubeconfigError::Field {
                field: names.0,
                place: place.clone(),
                problem: "is not valid base64: copy it again whole, or name a file instead",
            })?;
            return Ok(Some(Self { field: names.0, place: place.clone(), value: Value::Data(Zeroizing::new(bytes)) }));
        }
        let file = file.filter(|file| given(Some(file)));
        Ok(file.map(|file| Self::file(names.1, place.resolve(file), place.clone())))
    }

    pub(crate) fn file(field: &'static str, path: PathBuf, place: Place) -> Self {
        Self { field, place, value: Value::File(path) }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.value, Value::File(_))
    }

    pub(crate) fn error(&self, problem: &'static str) -> KubeconfigError {
        KubeconfigError::Field { field: self.field, place: self.place.clone(), problem }
    }

    /// The same without waiting for others, for what is read once at the start.
    pub(crate) fn read_now(&self) -> Result<Zeroizing<Vec<u8>>, KubeconfigError> {
        match &self.value {
            Value::Data(bytes) => Ok(bytes.clone()),
            Value::File(path) => {
                let failed = |cause| self.unreadable(path, &cause);
                let file = std::fs::File::open(path).map_err(failed)?;
                let mut bytes = Zeroizing::new(Vec::new());
                std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_MAX), &mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }

    fn unreadable(&self, path: &std::path::Path, cause: &std::io::Error) -> KubeconfigError {
        KubeconfigError::FileReference {
            field: self.field,
            place: self.place.clone(),
            file: Shown::path(path),
            cause: Shown::cause(cause),
        }
    }

    /// The bytes, a file's read anew each time.
    pub(crate) async fn read(&self) -> Result<Zeroizing<Vec<u8>>, KubeconfigError> {
        let path = match &self.value {
            Value::Data(bytes) => return Ok(bytes.clone()),
            Value::File(path) => path,
        };
        let failed = |cause: std::io::Error| self.unreadable(path, &cause);
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(KubeconfigError::TooLarge { path: Shown::path(path), max: FILE_MAX });
        }
        Ok(bytes)
    }
}
