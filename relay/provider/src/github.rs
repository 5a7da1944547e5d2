//! GitHub's OAuth, which is no OpenID Connect: who somebody is stands in its API.

use http::{HeaderValue, Request, header};
use mykube_relay_accounts::{identity::Profile, pkce::Challenge, provider_state::Sent};
use serde::{Deserialize, de::DeserializeOwned};
use url::{Host, Url};

use crate::{
    address::{parse_issuer, under, uri},
    callback::Code,
    error::{Call, ProviderError, SettingError},
    token_call::{Client, ClientSecret, Grant, Secret, redeem},
    web::{Web, get_with},
};

const SCOPES: &str = "read:user user:email";
/// Addresses that are asked for: GitHub's own limit of a page.
const EMAILS_PATH: &str = "user/emails";
const EMAILS_QUERY: &str = "per_page=100";

pub(crate) struct GitHub {
    base: Url,
    api: Url,
    web: Web,
}

#[derive(Deserialize)]
struct User {
    id: u64,
    login: String,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    #[serde(default)]
    primary: bool,
    #[serde(default)]
    verified: bool,
}

impl GitHub {
    pub(crate) fn new(base: &str, api: Option<&str>, web: Web) -> Result<Self, SettingError> {
        let base = parse_issuer(base).map_err(SettingError::Issuer)?;
        let api = match api {
            Some(api) => parse_issuer(api).map_err(SettingError::Api)?,
            None => own_api(&base),
        };
        Ok(Self { base, api, web })
    }

    pub(crate) fn authorization_url(&self, client_id: &str, redirect_uri: &str, sent: &Sent) -> String {
        let mut url = under(&self.base, "login/oauth/authorize");
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", SCOPES)
            .append_pair("state", sent.state.expose())
            .append_pair("code_challenge", &Challenge::of(sent.verifier.expose()).encode())
            .append_pair("code_challenge_method", "S256");
        url.into()
    }

    pub(crate) async fn redeem(
        &self,
        (id, secret): (&str, &ClientSecret),
        code: &Code,
        redirect_uri: &str,
        sent: &Sent,
    ) -> Result<Profile, ProviderError> {
        let endpoint = uri(&under(&self.base, "login/oauth/access_token"));
        let client = Client { id, secret: Secret::Body(secret.expose()) };
        let grant = Grant { code: &code.code, redirect_uri, verifier: sent.verifier.expose() };
        let token = redeem(&self.web, endpoint, &client, &grant).await?.access_token;
        let user: User = self.get(Call::User, &under(&self.api, "user"), &token).await?;
        let mut emails = under(&self.api, EMAILS_PATH);
        emails.set_query(Some(EMAILS_QUERY));
        let emails: Vec<Address> = self.get(Call::Emails, &emails, &token).await?;
        let email = emails.into_iter().find(|address| address.primary && address.verified);
        Ok(Profile {
            subject: user.id.to_string(),
            email_verified: email.is_some(),
            email: email.map(|address| address.email),
            login: Some(user.login),
            hosted_domain: None,
        })
    }

    async fn get<T: DeserializeOwned>(&self, call: Call, address: &Url, token: &str) -> Result<T, ProviderError> {
        let unreadable = |problem| ProviderError::Unreadable { call, problem };
        let request = get_with(uri(address), token).map(versioned);
        let request = request.ok_or_else(|| unreadable("wants an access token that cannot stand in a header"))?;
        let body = self.web.ask_for(call, request).await?;
        serde_json::from_slice(&body).map_err(|_| unreadable("is not what its API is documented to send"))
    }
}

fn versioned<T>(mut request: Request<T>) -> Request<T> {
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
    request
}

/// Where the API of a GitHub is: beside github.com and the instances under ghe.com, and on a server of one's own.
fn own_api(base: &Url) -> Url {
    let Some(Host::Domain(name)) = base.host() else { return under(base, "api/v3") };
    if name == "github.com" || name.ends_with(".ghe.com") {
        let mut api = base.clone();
        api.set_host(Some(&format!("api.{name}"))).expect("a name with a label before it is a name");
        return api;
    }
    under(base, "api/v3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_github_has_its_api() {
        for (base, user) in [
            ("https://github.com", "https://api.github.com/user"),
            ("https://acme.ghe.com/", "https://api.acme.ghe.com/user"),
            ("https://git.example", "https://git.example/api/v3/user"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/api/v3/user"),
        ] {
            assert_eq!(under(&own_api(&parse_issuer(base).unwrap()), "user").as_str(), user);
        }
    }
}
