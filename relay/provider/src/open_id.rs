//! One OpenID Connect issuer: its documents, the code that it gave, and its ID tokens.

use std::sync::Arc;

use mykube_relay_accounts::{
    identity::{Kind, Profile},
    pkce::Challenge,
    provider_state::Sent,
    time::UnixTime,
};
use url::Url;

use crate::{
    address::{parse_issuer, under, uri},
    cached::Cached,
    callback::Code,
    discovery::Metadata,
    error::{Call, ProviderError, SettingError},
    id_token::{self, Expected, Header, IdTokenError, Standard},
    keys::Keys,
    token_call::{Client, ClientSecret, Grant, Secret, redeem},
    web::{Web, get, get_with},
};

const SCOPES: &str = "openid email profile";
const GOOGLE: &str = "https://accounts.google.com";
/// Under what name Google signs too.
const GOOGLE_ALSO: &str = "accounts.google.com";

pub(crate) struct OpenId {
    issuer: String,
    url: Url,
    kind: Kind,
    web: Web,
    metadata: Cached<Metadata>,
    keys: Cached<Keys>,
}

impl OpenId {
    pub(crate) fn new(issuer: &str, kind: Kind, web: Web) -> Result<Self, SettingError> {
        let issuer = issuers(kind, issuer)[0];
        let url = parse_issuer(issuer).map_err(SettingError::Issuer)?;
        let issuer = issuer.to_owned();
        Ok(Self { issuer, url, kind, web, metadata: Cached::new(), keys: Cached::new() })
    }

    pub(crate) fn issuers(&self) -> Vec<&str> {
        issuers(self.kind, &self.issuer)
    }

    /// Where the browser is sent (OpenID Connect Core, section 3.1.2.1; RFC 7636, section 4.3).
    pub(crate) async fn authorization_url(
        &self,
        client_id: &str,
        redirect_uri: &str,
        sent: &Sent,
        now: UnixTime,
    ) -> Result<String, ProviderError> {
        let mut url = self.metadata(now).await?.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", SCOPES)
            .append_pair("state", sent.state.expose())
            .append_pair("nonce", sent.nonce.expose())
            .append_pair("code_challenge", &Challenge::of(sent.verifier.expose()).encode())
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    pub(crate) async fn redeem(
        &self,
        (client_id, secret): (&str, Option<&ClientSecret>),
        code: &Code,
        redirect_uri: &str,
        sent: &Sent,
        now: UnixTime,
    ) -> Result<Profile, ProviderError> {
        let metadata = self.metadata(now).await?;
        let issuers = self.issuers();
        let from_it = code.issuer.as_deref().map_or(!metadata.names_itself, |issuer| issuers.contains(&issuer));
        if !from_it {
            return Err(ProviderError::MixedUp);
        }
        let secret = match (secret, metadata.client_secret) {
            (None, _) => Secret::None,
            (Some(secret), (true, _)) => Secret::Header(secret.expose()),
            (Some(secret), (false, true)) => Secret::Body(secret.expose()),
            (Some(_), (false, false)) => return Err(ProviderError::ClientAuthentication),
        };
        let grant = Grant { code: &code.code, redirect_uri, verifier: sent.verifier.expose() };
        let tokens = redeem(&self.web, uri(&metadata.token), &Client { id: client_id, secret }, &grant).await?;
        let problem = "has no id_token: the client must be one of OpenID Connect, and allowed the scope `openid`";
        let id_token = tokens.id_token.ok_or(ProviderError::Unreadable { call: Call::Token, problem })?;
        let expected = Expected {
            issuers: &issuers,
            audiences: &[client_id],
            nonce: Some(sent.nonce.expose()),
            access_token: Some(&tokens.access_token),
        };
        let said = self.judge(&id_token, &expected, &metadata, now).await?;
        match &metadata.user_info {
            Some(address) if said.email.is_none() && self.kind != Kind::Microsoft => {
                self.user_info(address, &tokens.access_token, &said.sub).await
            }
            _ => Ok(said.profile()),
        }
    }

    /// Judges a token that a program hands in.
    pub(crate) async fn verify(
        &self,
        token: &str,
        audiences: &[&str],
        now: UnixTime,
    ) -> Result<Profile, ProviderError> {
        let issuers = self.issuers();
        let expected = Expected { issuers: &issuers, audiences, nonce: None, access_token: None };
        let metadata = self.metadata(now).await?;
        Ok(self.judge(token, &expected, &metadata, now).await?.profile())
    }

    async fn judge(
        &self,
        token: &str,
        expected: &Expected<'_>,
        metadata: &Metadata,
        now: UnixTime,
    ) -> Result<Standard, ProviderError> {
        let header = Header::read(token)?;
        if metadata.algorithms.as_ref().is_some_and(|all| !all.contains(&header.algorithm)) {
            return Err(IdTokenError::Algorithm.into());
        }
        let (kid, algorithm) = (header.kid.as_deref(), header.algorithm);
        let keys = self.keys(metadata, |keys| keys.find(kid, algorithm).is_some(), now).await?;
        let key = keys.find(kid, algorithm).ok_or(IdTokenError::UnknownKey)?;
        Ok(id_token::verify(token, &header, key, expected, now)?)
    }

    /// What an ID token leaves out where an access token comes with it (OpenID Connect Core, section 5.4).
    async fn user_info(&self, address: &Url, access_token: &str, subject: &str) -> Result<Profile, ProviderError> {
        let unreadable = |problem| ProviderError::Unreadable { call: Call::UserInfo, problem };
        let request = get_with(uri(address), access_token);
        let request = request.ok_or_else(|| unreadable("wants an access token that cannot stand in a header"))?;
        let body = self.web.ask_for(Call::UserInfo, request).await?;
        let said: Standard = serde_json::from_slice(&body)
            .map_err(|_| unreadable("is not JSON with a `sub`: the client must not be one that wants it signed"))?;
        if said.sub != subject {
            return Err(ProviderError::OtherPerson);
        }
        Ok(said.profile())
    }

    async fn metadata(&self, now: UnixTime) -> Result<Arc<Metadata>, ProviderError> {
        let (web, issuer, url) = (self.web.clone(), self.issuer.clone(), self.url.clone());
        let fetch = async move {
            let address = under(&url, ".well-known/openid-configuration");
            let body = web.ask_for(Call::Discovery, get(uri(&address))).await?;
            Metadata::read(&body, &issuer, &url)
        };
        self.metadata.get(|_| true, now, fetch).await
    }

    async fn keys(
        &self,
        metadata: &Metadata,
        enough: impl Fn(&Keys) -> bool,
        now: UnixTime,
    ) -> Result<Arc<Keys>, ProviderError> {
        let (web, address) = (self.web.clone(), uri(&metadata.keys));
        let fetch = async move {
            let body = web.ask_for(Call::Keys, get(address)).await?;
            Keys::read(&body).map_err(|problem| ProviderError::Unreadable { call: Call::Keys, problem })
        };
        self.keys.get(enough, now, fetch).await
    }
}

/// As whom a provider signs; under the first of these names it has its discovery document.
fn issuers(kind: Kind, issuer: &str) -> Vec<&str> {
    let google = kind == Kind::Google && [GOOGLE, GOOGLE_ALSO].contains(&issuer);
    if google { vec![GOOGLE, GOOGLE_ALSO] } else { vec![issuer] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn google_alone_has_two_names() {
        assert_eq!(issuers(Kind::Google, GOOGLE), [GOOGLE, GOOGLE_ALSO]);
        assert_eq!(issuers(Kind::Google, GOOGLE_ALSO), [GOOGLE, GOOGLE_ALSO]);
        assert_eq!(issuers(Kind::Oidc, GOOGLE), [GOOGLE]);
        assert_eq!(issuers(Kind::Google, "http://127.0.0.1:9"), ["http://127.0.0.1:9"]);
    }
}
