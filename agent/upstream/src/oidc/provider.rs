//! The identity provider: finds its token endpoint (OpenID Connect Discovery 1.0) and exchanges a refresh token there
//! (RFC 6749 section 6), in the way of golang.org/x/oauth2.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use mykube_dial::{
    Trust,
    fetch::{Way, fetch, target},
};
use mykube_protocol::text::printable;
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::{environment::Environment, kubeconfig::types::Secret, proxy::proxy_from_environment};

/// Most redirects from the discovery document's address that are followed. The refresh token goes to the address in
/// that document, and is not redirected.
const REDIRECTS: usize = 5;

/// The answer to a refresh token.
pub(super) struct Bought {
    pub(super) id: Secret,
    pub(super) refresh: Option<Secret>,
}

pub(super) struct Provider {
    issuer: String,
    /// Id and secret, which may be empty.
    client: (Secret, Secret),
    trust: Trust,
    proxy_trust: Trust,
    env: Environment,
    limit: Duration,
    /// How the provider wants the client's id and secret, once that is known.
    style: Mutex<Option<Style>>,
}

/// Where the client's id and secret are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Header,
    Body,
}

#[derive(Deserialize)]
struct Discovery {
    token_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<Secret>,
    id_token: Option<Secret>,
    refresh_token: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Provider {
    pub(super) fn new(
        issuer: String,
        client: (Secret, Secret),
        trust: Trust,
        proxy_trust: Trust,
        env: Environment,
        limit: Duration,
    ) -> Self {
        Self { issuer, client, trust, proxy_trust, env, limit, style: Mutex::new(None) }
    }

    /// # Errors
    /// What went wrong and what to do, without any token.
    pub(super) async fn refresh(&self, token: &str) -> Result<Bought, String> {
        let endpoint = self.token_endpoint().await?;
        let known = *self.style.lock().unwrap_or_else(PoisonError::into_inner);
        let styles = known.map_or_else(|| vec![Style::Header, Style::Body], |style| vec![style]);
        let mut refused = String::new();
        for style in styles {
            match self.ask(&endpoint, token, style).await? {
                Ok(bought) => {
                    *self.style.lock().unwrap_or_else(PoisonError::into_inner) = Some(style);
                    return Ok(bought);
                }
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }

    async fn token_endpoint(&self) -> Result<Uri, String> {
        let mut at =
            self.address(&format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/')))?;
        for _ in 0..=REDIRECTS {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = at.clone();
            let answer = self.send(request).await?;
            if let Some(to) = redirect(&answer) {
                at = self.address(&join(&at, &to).ok_or("the issuer redirects to something that is no address")?)?;
                continue;
            }
            if answer.status() != StatusCode::OK {
                return Err(format!(
                    "the issuer has no discovery document (status {}); check idp-issuer-url",
                    answer.status().as_u16()
                ));
            }
            let found: Option<Discovery> = serde_json::from_slice(answer.body()).ok();
            let endpoint = found.and_then(|found| found.token_endpoint).filter(|endpoint| !endpoint.is_empty());
            let endpoint =
                endpoint.ok_or("the issuer's discovery document names no token_endpoint; check idp-issuer-url")?;
            return self.address(&endpoint);
        }
        Err("the issuer redirects again and again; check idp-issuer-url".into())
    }

    /// One attempt; the inner error is the provider's refusal, in its words.
    async fn ask(&self, endpoint: &Uri, token: &str, style: Style) -> Result<Result<Bought, String>, String> {
        let (id, secret) = &self.client;
        let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        if style == Style::Body {
            fields.push(("client_id", id));
            if !secret.is_empty() {
                fields.push(("client_secret", secret));
            }
        }
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = Request::new(Bytes::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if style == Style::Header {
            headers.insert(header::AUTHORIZATION, basic(id, secret));
        }
        let answer = self.send(request).await?;
        let status = answer.status();
        let Ok(said) = serde_json::from_slice::<Answer>(answer.body()) else {
            return Ok(Err(format!(
                "the provider refused the refresh token (status {}); log in to the cluster again",
                status.as_u16()
            )));
        };
        let error = said.error.filter(|error| !error.is_empty());
        if !status.is_success() || error.is_some() {
            let words = [error, said.error_description].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let words = printable(&words, 120);
            return Ok(Err(format!("the provider refused the refresh token ({words}); log in to the cluster again")));
        }
        if said.access_token.is_none_or(|token| token.is_empty()) {
            return Ok(Err("the provider's answer has no access_token, which OAuth 2 wants".into()));
        }
        let id = said.id_token.filter(|token| !token.is_empty()).ok_or(
            "the provider gave no id_token for the refresh token: the scope \"openid\" must have been asked for at the login, and not \
             every provider gives one",
        )?;
        Ok(Ok(Bought { id, refresh: said.refresh_token.filter(|token| !token.is_empty()) }))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (host, port, tls) = target(request.uri()).map_err(|error| error.to_string())?;
        let proxy = match tls {
            true => proxy_from_environment(&self.env, &host, port).map_err(|error| error.to_string())?,
            false => None,
        };
        let way = Way { trust: &self.trust, proxy_trust: &self.proxy_trust, proxy: proxy.as_ref(), limit: self.limit };
        fetch(request, &way).await.map_err(|error| format!("the identity provider: {error}"))
    }

    /// An address that a token may be sent to: https. An http issuer is on this machine (`super::Oidc::new`), and so
    /// must be the addresses that it names.
    fn address(&self, text: &str) -> Result<Uri, String> {
        let uri: Uri =
            text.parse().map_err(|_| "idp-issuer-url, or what its discovery document says, is no address")?;
        let (_, _, tls) = target(&uri).map_err(|error| error.to_string())?;
        if !tls && self.issuer.starts_with("https:") {
            return Err(
                "the issuer is https:// and leads to an http:// address, unencrypted; that is not followed".into()
            );
        }
        Ok(uri)
    }
}

fn redirect(answer: &Response<Bytes>) -> Option<String> {
    let to = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308).then(|| to.to_owned())
}

fn join(base: &Uri, to: &str) -> Option<String> {
    Some(url::Url::parse(&base.to_string()).ok()?.join(to).ok()?.into())
}

/// Id and secret are form-encoded first (RFC 6749 section 2.3.1).
fn basic(id: &str, secret: &str) -> HeaderValue {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encoded(id), *Zeroizing::new(encoded(secret))));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).expect("base64 is a header value");
    value.set_sensitive(true);
    value
}
