//! The token endpoint: a code is redeemed (RFC 6749, sections 2.3.1, 4.1.3 and 5; RFC 7636, section 4.5).

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::{
    callback::words,
    error::{Call, ProviderError},
    web::Web,
};

/// `client_secret`. Wiped on drop, prints nothing.
pub struct ClientSecret(Zeroizing<String>);

/// A client as the token endpoint is told of it.
pub(crate) struct Client<'a> {
    pub(crate) id: &'a str,
    pub(crate) secret: Secret<'a>,
}

/// How the client's secret is shown.
pub(crate) enum Secret<'a> {
    /// There is none: PKCE alone says that who redeems is who asked.
    None,
    /// `client_secret_basic`.
    Header(&'a str),
    /// `client_secret_post`.
    Body(&'a str),
}

/// A code, and what belongs to it.
pub(crate) struct Grant<'a> {
    pub(crate) code: &'a str,
    pub(crate) redirect_uri: &'a str,
    pub(crate) verifier: &'a str,
}

/// What a code bought.
pub(crate) struct Tokens {
    pub(crate) access_token: Zeroizing<String>,
    pub(crate) id_token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    id_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl ClientSecret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for ClientSecret {
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret")
    }
}

/// Redeems a code.
pub(crate) async fn redeem(
    web: &Web,
    endpoint: Uri,
    client: &Client<'_>,
    grant: &Grant<'_>,
) -> Result<Tokens, ProviderError> {
    let answer = web.ask(Call::Token, request(endpoint, client, grant)).await?;
    let status = || ProviderError::Status { call: Call::Token, status: answer.status.as_u16() };
    let unreadable = |problem| ProviderError::Unreadable { call: Call::Token, problem };
    let said: Answer = serde_json::from_slice(&answer.body).map_err(|_| match answer.status {
        StatusCode::OK => unreadable("is not the JSON that a token endpoint sends"),
        _ => status(),
    })?;
    // GitHub refuses with status 200.
    if let Some(error) = said.error.filter(|error| !error.is_empty()) {
        let hidden = |text: &str| without_secrets(text, client, grant);
        let words = words(&hidden(&error), said.error_description.as_deref().map(hidden).as_deref());
        return Err(match error.as_str() {
            "invalid_grant" | "bad_verification_code" => ProviderError::CodeRefused(words),
            "server_error" | "temporarily_unavailable" => status(),
            _ => ProviderError::ClientRefused(words),
        });
    }
    if answer.status != StatusCode::OK {
        return Err(status());
    }
    let some = |token: Option<String>| token.filter(|token| !token.is_empty()).map(Zeroizing::new);
    let access_token = some(said.access_token).ok_or_else(|| unreadable("has no access_token"))?;
    Ok(Tokens { access_token, id_token: some(said.id_token) })
}

fn request(endpoint: Uri, client: &Client<'_>, grant: &Grant<'_>) -> Request<Bytes> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", grant.code)
        .append_pair("redirect_uri", grant.redirect_uri)
        .append_pair("code_verifier", grant.verifier);
    if !matches!(client.secret, Secret::Header(_)) {
        form.append_pair("client_id", client.id);
    }
    if let Secret::Body(secret) = client.secret {
        form.append_pair("client_secret", secret);
    }
    let mut request = Request::new(Bytes::from(form.finish()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    if let Secret::Header(secret) = client.secret {
        headers.insert(header::AUTHORIZATION, basic(client.id, secret));
    }
    request
}

/// What a provider says, which may repeat what it was sent: a code that it refused for the client's sake is still good.
fn without_secrets(text: &str, client: &Client<'_>, grant: &Grant<'_>) -> String {
    let secret = match client.secret {
        Secret::None => "",
        Secret::Header(secret) | Secret::Body(secret) => secret,
    };
    let sent = [grant.code, grant.verifier, secret].into_iter().filter(|secret| !secret.is_empty());
    sent.fold(text.to_owned(), |text, secret| text.replace(secret, "..."))
}

/// Id and secret are form-encoded first (RFC 6749, section 2.3.1).
fn basic(id: &str, secret: &str) -> HeaderValue {
    let encoded = |text: &str| Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
    let pair = Zeroizing::new(format!("{}:{}", *encoded(id), *encoded(secret)));
    let text = Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64_STANDARD.encode(pair.as_bytes()))));
    let mut value = HeaderValue::from_str(&text).expect("base64 is a header value");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(secret: Secret<'_>) -> (Option<String>, String) {
        let grant = Grant { code: "c/d", redirect_uri: "https://r.example/auth/callback", verifier: "v" };
        let request = request(Uri::from_static("https://id.example/token"), &Client { id: "a:b", secret }, &grant);
        let header = request.headers().get(header::AUTHORIZATION);
        assert!(header.is_none_or(HeaderValue::is_sensitive));
        let header = header.map(|value| value.to_str().unwrap().to_owned());
        (header, String::from_utf8(request.into_body().to_vec()).unwrap())
    }

    #[test]
    fn what_a_provider_repeats_is_not_repeated() {
        let grant = Grant { code: "c/d", redirect_uri: "https://r.example", verifier: "v43" };
        let said = "no code c/d with v43 of s+t";
        for (secret, told) in [
            (Secret::Body("s+t"), "no code ... with ... of ..."),
            (Secret::Header("s+t"), "no code ... with ... of ..."),
            (Secret::None, "no code ... with ... of s+t"),
        ] {
            assert_eq!(without_secrets(said, &Client { id: "no", secret }, &grant), told);
        }
    }

    #[test]
    fn the_client_shows_its_secret_in_one_place() {
        let grant = "grant_type=authorization_code&code=c%2Fd\
                     &redirect_uri=https%3A%2F%2Fr.example%2Fauth%2Fcallback&code_verifier=v";
        let (header, body) = written(Secret::Header("s +é"));
        // `a%3Ab:s+%2B%C3%A9`.
        assert_eq!(header.as_deref(), Some("Basic YSUzQWI6cyslMkIlQzMlQTk="));
        assert_eq!(body, grant);
        assert_eq!(written(Secret::Body("s&t")), (None, format!("{grant}&client_id=a%3Ab&client_secret=s%26t")));
        assert_eq!(written(Secret::None), (None, format!("{grant}&client_id=a%3Ab")));
    }
}
