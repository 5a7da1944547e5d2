//! The discovery document: what an issuer says of itself (OpenID Connect Discovery 1.0, section 3).

use mykube_protocol::text::printable;
use serde::Deserialize;
use url::Url;

use crate::{
    address::parse_named,
    error::{Call, ProviderError},
    keys::algorithm,
};

/// Where an issuer is asked what.
pub(crate) struct Metadata {
    pub(crate) authorization: Url,
    pub(crate) token: Url,
    pub(crate) user_info: Option<Url>,
    pub(crate) keys: Url,
    /// Algorithms that ID tokens are signed with; none where the document does not say.
    pub(crate) algorithms: Option<Vec<jsonwebtoken::Algorithm>>,
    /// Whether the token endpoint takes the client's secret in a header, and in the body.
    pub(crate) client_secret: (bool, bool),
    /// Whether every answer to the browser names the issuer (RFC 9207).
    pub(crate) names_itself: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// Characters of another issuer's name that are shown.
const ISSUER_SHOWN: usize = 200;

impl Metadata {
    /// Reads the document of this issuer: `issuer` as the configuration has it, and the same as a URL.
    pub(crate) fn read(body: &[u8], issuer: &str, url: &Url) -> Result<Self, ProviderError> {
        let document: Document = serde_json::from_slice(body).map_err(|_| ProviderError::Unreadable {
            call: Call::Discovery,
            problem: "is none: it has no issuer, authorization_endpoint, token_endpoint or jwks_uri; check `issuer`",
        })?;
        if document.issuer != issuer {
            return Err(ProviderError::OtherIssuer { found: printable(&document.issuer, ISSUER_SHOWN) });
        }
        let named =
            |name, text: &str| parse_named(text, url).map_err(|problem| ProviderError::Address { name, problem });
        // Without a list it is client_secret_basic.
        let methods = document.token_endpoint_auth_methods_supported;
        let takes = |method: &str, unsaid| methods.as_ref().map_or(unsaid, |all| all.iter().any(|one| one == method));
        let user_info = document.userinfo_endpoint.as_deref().map(|text| named("userinfo_endpoint", text));
        Ok(Self {
            authorization: named("authorization_endpoint", &document.authorization_endpoint)?,
            token: named("token_endpoint", &document.token_endpoint)?,
            keys: named("jwks_uri", &document.jwks_uri)?,
            user_info: user_info.transpose()?,
            algorithms: document
                .id_token_signing_alg_values_supported
                .map(|names| names.iter().filter_map(|name| algorithm(name)).collect()),
            client_secret: (takes("client_secret_basic", true), takes("client_secret_post", false)),
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://id.example/realms/a";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example/authorize?tenant=1",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://keys.example/jwks",
        })
    }

    fn read(document: &Value) -> Result<Metadata, ProviderError> {
        Metadata::read(document.to_string().as_bytes(), ISSUER, &ISSUER.parse().unwrap())
    }

    fn with(name: &str, value: Value) -> Value {
        let mut document = document();
        document[name] = value;
        document
    }

    #[test]
    fn what_is_not_said_is_the_specifications_default() {
        let metadata = read(&document()).unwrap();
        assert_eq!((metadata.client_secret, metadata.names_itself), ((true, false), false));
        assert!(metadata.algorithms.is_none() && metadata.user_info.is_none());
        let post = read(&with("token_endpoint_auth_methods_supported", json!(["client_secret_post", "none"]))).unwrap();
        assert_eq!(post.client_secret, (false, true));
        let listed = read(&with("id_token_signing_alg_values_supported", json!(["HS256", "none", "RS256"]))).unwrap();
        assert_eq!(listed.algorithms, Some(vec![jsonwebtoken::Algorithm::RS256]));
    }

    #[test]
    fn only_this_issuers_document_counts_and_it_leads_to_https_only() {
        for issuer in
            ["https://id.example/realms/a/", "https://ID.example/realms/a", "https://evil.example", "\u{202e}x"]
        {
            let error = read(&with("issuer", json!(issuer))).err().unwrap();
            let ProviderError::OtherIssuer { found } = &error else { panic!("{error}") };
            assert!(!found.contains('\u{202e}'));
        }
        for name in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            for address in ["http://id.example/x", "http://127.0.0.1/x", "id.example", "file:///etc/passwd"] {
                let error = read(&with(name, json!(address))).err();
                assert!(
                    matches!(error, Some(ProviderError::Address { name: at, .. }) if at == name),
                    "{name} {address}"
                );
            }
        }
        for body in ["", "[]", "{}", "<html>", "null"] {
            let error = Metadata::read(body.as_bytes(), ISSUER, &ISSUER.parse().unwrap()).err();
            assert!(matches!(error, Some(ProviderError::Unreadable { call: Call::Discovery, .. })), "{body}");
        }
    }
}
