//! What an ID token must be before a word of it is believed (OpenID Connect Core, sections 3.1.3.7 and 3.1.3.6). Pure.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use mykube_relay_accounts::{identity::Profile, time::UnixTime};
use serde::Deserialize;
use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::keys::algorithm;

/// By how much the provider's clock may differ from this one.
pub const LEEWAY: Duration = Duration::from_mins(1);
/// Bytes of an ID token at most: Microsoft's, with two hundred groups, have less than ten thousand.
pub const TOKEN_MAX: usize = 16 * 1024;

/// Why an ID token is not believed. The messages are reasons of the published answer `Token verification failed: ...`; one is
/// a published text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    /// Longer than [`TOKEN_MAX`].
    #[error("token too long")]
    TooLong,
    /// No signed token, or without a claim that every ID token has.
    #[error("malformed token")]
    Malformed,
    /// Not signed, signed with a shared secret, or not in the way of the provider and of the key.
    #[error("signature algorithm not accepted")]
    Algorithm,
    /// Signed with a key that the provider does not have.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The published text.
    #[error("invalid signature")]
    Signature,
    /// `exp` is over.
    #[error("token expired")]
    Expired,
    /// `iat` or `nbf` is to come.
    #[error("token from the future: check the clocks")]
    NotYet,
    /// Of another issuer, or of one that this relay does not take tokens of.
    #[error("wrong issuer")]
    Issuer,
    /// For somebody else.
    #[error("wrong audience")]
    Audience,
    /// `azp` is another client, or is missing where the token is for several.
    #[error("issued to another client")]
    AuthorizedParty,
    /// Of another sign-in.
    #[error("wrong nonce: begin the sign-in again")]
    Nonce,
    /// `at_hash` is of another access token.
    #[error("the access token is not the one of this ID token")]
    AccessToken,
}

/// What this token must say.
pub(crate) struct Expected<'a> {
    pub(crate) issuers: &'a [&'a str],
    /// The client's id, or those that a token may be handed in for.
    pub(crate) audiences: &'a [&'a str],
    /// Of the sign-in. None for a token that is handed in.
    pub(crate) nonce: Option<&'a str>,
    /// What came with it.
    pub(crate) access_token: Option<&'a str>,
}

/// What a token says of its signature.
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
}

/// Of the person: in an ID token or in UserInfo (section 5.1).
#[derive(Deserialize)]
pub(crate) struct Standard {
    pub(crate) sub: String,
    pub(crate) email: Option<String>,
    email_verified: Option<Value>,
    preferred_username: Option<String>,
    /// Google's.
    hd: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: Number,
    iat: Number,
    nbf: Option<Number>,
    azp: Option<String>,
    nonce: Option<String>,
    at_hash: Option<String>,
    #[serde(flatten)]
    standard: Standard,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Header {
    /// Reads it, before anything is known to be true.
    pub(crate) fn read(token: &str) -> Result<Self, IdTokenError> {
        #[derive(Deserialize)]
        struct Json {
            alg: String,
            kid: Option<String>,
            crit: Option<Value>,
        }
        if token.len() > TOKEN_MAX {
            return Err(IdTokenError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(IdTokenError::Malformed);
        };
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| IdTokenError::Malformed)?;
        let header: Json = serde_json::from_slice(&header).map_err(|_| IdTokenError::Malformed)?;
        // Extensions that must be understood are not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(IdTokenError::Malformed);
        }
        let algorithm = algorithm(&header.alg).ok_or(IdTokenError::Algorithm)?;
        Ok(Self { algorithm, kid: header.kid })
    }
}

/// Who a token says that it is from, to look for whoever can judge it.
pub(crate) fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Json {
        iss: String,
    }
    let payload = token.split('.').nth(1).filter(|_| token.len() <= TOKEN_MAX)?;
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Json>(&payload).ok().map(|payload| payload.iss)
}

/// Judges a token by the key that its header names, which may sign with its algorithm.
pub(crate) fn verify(
    token: &str,
    header: &Header,
    key: &DecodingKey,
    expected: &Expected<'_>,
    now: UnixTime,
) -> Result<Standard, IdTokenError> {
    // The signature is all that the library is asked: it would judge times by the system's clock.
    let mut validation = Validation::new(header.algorithm);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let claims = match jsonwebtoken::decode::<Claims>(token, key, &validation) {
        Ok(token) => token.claims,
        Err(error) if *error.kind() == ErrorKind::InvalidSignature => return Err(IdTokenError::Signature),
        Err(error) if *error.kind() == ErrorKind::InvalidAlgorithm => return Err(IdTokenError::Algorithm),
        Err(_) => return Err(IdTokenError::Malformed),
    };
    claims.judge(header.algorithm, expected, now)?;
    Ok(claims.standard)
}

impl Claims {
    fn judge(&self, algorithm: Algorithm, expected: &Expected<'_>, now: UnixTime) -> Result<(), IdTokenError> {
        let (now, leeway) = (now.secs(), LEEWAY.as_secs());
        if !expected.issuers.contains(&self.iss.as_str()) {
            return Err(IdTokenError::Issuer);
        }
        let ours = |client: &str| expected.audiences.contains(&client);
        let (for_us, several) = match &self.aud {
            Audience::One(one) => (ours(one), false),
            Audience::Several(all) => (all.iter().any(|one| ours(one)), all.len() > 1),
        };
        if !for_us {
            return Err(IdTokenError::Audience);
        }
        match &self.azp {
            Some(client) if !ours(client) => return Err(IdTokenError::AuthorizedParty),
            None if several => return Err(IdTokenError::AuthorizedParty),
            _ => {}
        }
        if seconds(&self.exp)?.saturating_add(leeway) <= now {
            return Err(IdTokenError::Expired);
        }
        let latest = now.saturating_add(leeway);
        let begins = self.nbf.as_ref().map_or(Ok(0), seconds)?;
        if seconds(&self.iat)? > latest || begins > latest {
            return Err(IdTokenError::NotYet);
        }
        if expected.nonce.is_some_and(|nonce| self.nonce.as_deref() != Some(nonce)) {
            return Err(IdTokenError::Nonce);
        }
        match (&self.at_hash, expected.access_token) {
            (Some(hash), Some(token)) if *hash != access_token_hash(algorithm, token) => Err(IdTokenError::AccessToken),
            _ => Ok(()),
        }
    }
}

impl Standard {
    /// What the rules of accounts are applied to.
    pub(crate) fn profile(self) -> Profile {
        Profile {
            subject: self.sub,
            email: self.email,
            // `"true"` is a text, and what some write for "nobody looked".
            email_verified: self.email_verified == Some(Value::Bool(true)),
            login: self.preferred_username,
            hosted_domain: self.hd,
        }
    }
}

/// A `NumericDate` (RFC 7519, section 2), which may have a fraction.
fn seconds(number: &Number) -> Result<u64, IdTokenError> {
    let whole = number.as_u64().or_else(|| {
        let seconds = number.as_f64().filter(|seconds| (0.0..=1e15).contains(seconds))?;
        format!("{:.0}", seconds.trunc()).parse().ok()
    });
    whole.ok_or(IdTokenError::Malformed)
}

/// The left half of the hash that goes with the algorithm.
fn access_token_hash(algorithm: Algorithm, token: &str) -> String {
    let half = |hash: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(&hash[..hash.len() / 2]);
    match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => half(&Sha384::digest(token)),
        // Ed25519 hashes with SHA-512.
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => half(&Sha512::digest(token)),
        _ => half(&Sha256::digest(token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenID Connect Core, appendix A.3 and A.4: the access token and `at_hash` of an answer.
    #[test]
    fn the_hash_of_the_specifications_example() {
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(access_token_hash(Algorithm::RS256, token), "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(access_token_hash(Algorithm::ES384, token).len(), 32);
        assert_eq!(access_token_hash(Algorithm::EdDSA, token).len(), 43);
    }

    #[test]
    fn a_date_is_a_number_that_is_not_absurd() {
        let read = |text: &str| seconds(&serde_json::from_str(text).unwrap());
        for (text, value) in
            [("0", 0), ("1800000000", 1_800_000_000), ("1800000000.9", 1_800_000_000), ("1.8e9", 1_800_000_000)]
        {
            assert_eq!(read(text), Ok(value), "{text}");
        }
        for text in ["-1", "-0.5", "1e16", "1e300"] {
            assert_eq!(read(text), Err(IdTokenError::Malformed), "{text}");
        }
    }

    #[test]
    fn only_a_provider_that_says_so_in_so_many_words_has_verified_an_address() {
        for (value, verified) in [("true", true), ("false", false), ("\"true\"", false), ("1", false), ("null", false)]
        {
            let claims = format!(r#"{{"sub":"1","email":"a@b.c","email_verified":{value}}}"#);
            let standard: Standard = serde_json::from_str(&claims).unwrap();
            assert_eq!(standard.profile().email_verified, verified, "{value}");
        }
    }

    #[test]
    fn a_header_names_a_public_key_algorithm_and_wants_nothing_unknown() {
        let read = |header: &str| {
            let header = BASE64_URL_SAFE_NO_PAD.encode(header);
            Header::read(&format!("{header}.e30.AAAA")).map(|header| header.algorithm)
        };
        assert_eq!(read(r#"{"alg":"RS256","typ":"JWT","jku":"https://evil.example"}"#), Ok(Algorithm::RS256));
        for name in ["none", "None", "", "HS256", "HS384", "HS512", "ES512", "rs256"] {
            assert_eq!(read(&format!(r#"{{"alg":"{name}"}}"#)), Err(IdTokenError::Algorithm), "{name}");
        }
        for header in ["", "{}", r#"{"alg":1}"#, r#"{"alg":"RS256","crit":["b64"]}"#, r#"{"alg":"none","alg":"RS256"}"#]
        {
            assert_eq!(read(header), Err(IdTokenError::Malformed), "{header}");
        }
        for token in ["", "a", "a.b", "e30.e30.AA.AA", "e30.e30.AA.AA.AA", "=.e30.AA"] {
            assert_eq!(Header::read(token).err(), Some(IdTokenError::Malformed), "{token}");
        }
        assert_eq!(Header::read(&"a".repeat(TOKEN_MAX + 1)).err(), Some(IdTokenError::TooLong));
    }
}
