//! The credentials that the API server sees: certificates, tokens, passwords and plugins, and how their changes are
//! noticed.
//!
//! The rules are client-go's: `*-data` wins over a file, a readable `tokenFile` over `token`, a fixed token or password
//! over `auth-provider: oidc`, and any of these, or a fixed certificate, over an exec plugin, which then never runs.

use mykube_protocol::channel::Credentials;
use zeroize::Zeroizing;

use crate::{
    error::{KubeconfigError, Place},
    exec::ExecPlugin,
    expiry::{Expiry, checked_token},
    kubeconfig::types::{AuthInfo, Secret},
    oidc::Oidc,
    pem,
    sourced::Sourced,
};

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
    #[must_use]
    pub fn changes(&self) -> bool {
        self.exec.is_some() || self.oidc.is_some() || self.reads_files()
    }

    /// Whether they come from files, which may change at any time.
    #[must_use]
    pub fn reads_files(&self) -> bool {
        let certificate = self.certificate.iter().any(|(certificate, key)| certificate.is_file() || key.is_file());
        self.token_file.is_some() || certificate
    }

    /// Makes the next [`CredentialSource::current`] run the plugin: the API server refused its credential.
    pub async fn forget(&self) {
        if let Some(exec) = &self.exec {
            exec.forget().await;
        }
        if let Some(oidc) = &self.oidc {
            oidc.forget().await;
        }
    }

    /// The current credentials: reads files, and runs a plugin if it never ran or its credential is due.
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
