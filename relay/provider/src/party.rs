//! One `[[provider]]` of the configuration.

use mykube_relay_accounts::{
    identity::{Kind, Person, Provider},
    provider_state::Sent,
    time::UnixTime,
};

use crate::{
    callback::Outcome,
    error::{ProviderError, SettingError},
    github::GitHub,
    id_token::IdTokenError,
    open_id::OpenId,
    token_call::ClientSecret,
    web::Web,
};

/// A provider, and how the relay is known there.
#[derive(Debug)]
pub struct Settings {
    /// Its name, kind, issuer and the domains whose addresses it proves.
    pub provider: Provider,
    /// `client_id`.
    pub client_id: String,
    /// `client_secret`, if the client has one.
    pub client_secret: Option<ClientSecret>,
    /// Clients whose ID tokens programs may hand in. Empty: none.
    pub id_token_audiences: Vec<String>,
    /// Where GitHub's API is, if not where it is known to be.
    pub github_api: Option<String>,
}

/// A provider that people can sign in at.
pub struct RelyingParty {
    settings: Settings,
    protocol: Protocol,
}

enum Protocol {
    OpenId(Box<OpenId>),
    GitHub(Box<GitHub>, ClientSecret),
}

impl RelyingParty {
    /// Checks the settings. Touches no network: the provider may be away when the relay starts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(mut settings: Settings, web: &Web) -> Result<Self, SettingError> {
        let Provider { kind, issuer, .. } = &settings.provider;
        if settings.client_id.is_empty() {
            return Err(SettingError::NoClient);
        }
        let protocol = if *kind == Kind::GitHub {
            let github = GitHub::new(issuer, settings.github_api.as_deref(), web.clone())?;
            Protocol::GitHub(Box::new(github), settings.client_secret.take().ok_or(SettingError::NoSecret)?)
        } else {
            Protocol::OpenId(Box::new(OpenId::new(issuer, *kind, web.clone())?))
        };
        Ok(Self { settings, protocol })
    }

    /// The provider as the rules know it.
    #[must_use]
    pub fn provider(&self) -> &Provider {
        &self.settings.provider
    }

    /// The provider's page to send a browser to. `redirect_uri` must be the same in [`RelyingParty::redeem`].
    ///
    /// # Errors
    /// The provider's documents cannot be had or believed.
    pub async fn authorization_url(
        &self,
        redirect_uri: &str,
        sent: &Sent,
        now: UnixTime,
    ) -> Result<String, ProviderError> {
        let client_id = &self.settings.client_id;
        match &self.protocol {
            Protocol::OpenId(open_id) => open_id.authorization_url(client_id, redirect_uri, sent, now).await,
            Protocol::GitHub(github, _) => Ok(github.authorization_url(client_id, redirect_uri, sent)),
        }
    }

    /// Who has signed in. The state must have been looked up and taken before, and `sent` be what belongs to it.
    ///
    /// # Errors
    /// Nobody, or nobody that can be believed.
    pub async fn redeem(
        &self,
        outcome: Outcome,
        redirect_uri: &str,
        sent: &Sent,
        now: UnixTime,
    ) -> Result<Person, ProviderError> {
        let code = match outcome {
            Outcome::Code(code) => code,
            Outcome::Denied(words) => return Err(ProviderError::Denied(words)),
        };
        let Settings { client_id, client_secret, .. } = &self.settings;
        let profile = match &self.protocol {
            Protocol::OpenId(open_id) => {
                let client = (client_id.as_str(), client_secret.as_ref());
                open_id.redeem(client, &code, redirect_uri, sent, now).await?
            }
            Protocol::GitHub(github, secret) => github.redeem((client_id, secret), &code, redirect_uri, sent).await?,
        };
        Ok(self.provider().person(&profile)?)
    }

    /// Whose ID token a program hands in: of one of `id_token_audiences`. It has no nonce to compare.
    ///
    /// # Errors
    /// It is not believed, or nobody's are taken.
    pub async fn verify_id_token(&self, token: &str, now: UnixTime) -> Result<Person, ProviderError> {
        let audiences: Vec<_> = self.settings.id_token_audiences.iter().map(String::as_str).collect();
        let Protocol::OpenId(open_id) = &self.protocol else { return Err(IdTokenError::Issuer.into()) };
        if audiences.is_empty() {
            return Err(IdTokenError::Issuer.into());
        }
        Ok(self.provider().person(&open_id.verify(token, &audiences, now).await?)?)
    }

    /// Whether it takes ID tokens of this issuer.
    pub(crate) fn takes_id_tokens_of(&self, issuer: &str) -> bool {
        let Protocol::OpenId(open_id) = &self.protocol else { return false };
        !self.settings.id_token_audiences.is_empty() && open_id.issuers().contains(&issuer)
    }
}
