//! The relay's JWTs: HS256, header `typ alg kid`, in four [classes](Class), judged without asking the database.

use std::{
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    id::{AccountId, BootId, SignInId, TokenId},
    keys::{Key, Keys, Kid, Purpose},
    time::UnixTime,
};

mod claims;
mod class;
mod deny;
mod error;

pub use claims::Claims;
pub use class::Class;
pub use deny::{DENIED_MIN, DenyList, RENEWABLE};
pub use error::{DEVICES_MISSING, DEVICES_NO_STRING, JwtError, RenewError};

/// Bytes of a token at most: ours have a few hundred, and an address of 254 bytes fits three times over.
const TOKEN_MAX: usize = 4096;

/// What the tokens of this relay have in common.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The relay's base URL, and those it had or has besides: the first is written, all are accepted.
    pub issuers: Vec<String>,
    /// This start of the relay.
    pub boot: BootId,
    /// Whether a daemon's tokens end with the start too (`boot_scope = "all"`), or only a browser's.
    pub boot_ends_daemons: bool,
    /// How long a token of [`Class::Devices`] is valid (`token_lifetime`, `JWT_EXPIRATION`).
    pub devices_life: Duration,
    /// How long after the person proved who they are a token of [`Class::Devices`] can be renewed, and may last.
    pub devices_session: Duration,
}

impl Policy {
    /// How long after the proof a token can be renewed, where the configuration says nothing else.
    pub const DEVICES_SESSION: Duration = Duration::from_hours(7 * 24);
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The account.
    pub account: AccountId,
    /// Its address; empty if it has none.
    pub email: String,
    /// What the published contracts show as the user.
    pub user_id: String,
    /// The sign-in.
    pub sign_in: SignInId,
    /// When the person proved who they are.
    pub auth_time: UnixTime,
}

/// For another token of the same sign-in.
impl From<Claims> for Subject {
    fn from(claims: Claims) -> Self {
        Self {
            account: claims.sub,
            email: claims.email,
            user_id: claims.user_id,
            sign_in: claims.sid,
            auth_time: UnixTime::from_secs(claims.auth_time),
        }
    }
}

/// A token that was made.
#[derive(Debug)]
pub struct Issued {
    /// For its holder only. Wiped on drop.
    pub token: Token,
    /// What it says.
    pub claims: Claims,
}

/// The text of a token. Wiped on drop, prints nothing.
pub struct Token(Zeroizing<String>);

impl Token {
    /// The text, for its holder.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Makes and judges tokens.
pub struct Jwts {
    policy: Policy,
    keys: RwLock<Vec<JwtKey>>,
}

struct JwtKey {
    kid: Kid,
    signs_from: UnixTime,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl JwtKey {
    fn new(key: &Key) -> Self {
        let secret = key.derive(Purpose::Jwt);
        Self {
            kid: key.kid(),
            signs_from: key.signs_from(),
            encoding: EncodingKey::from_secret(secret.as_ref()).expect("the secret is not empty"),
            decoding: DecodingKey::from_secret(secret.as_ref()).expect("the secret is not empty"),
        }
    }
}

/// What a header of ours has, and nothing besides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHeader {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
}

impl Jwts {
    /// For these secrets.
    #[must_use]
    pub fn new(keys: &Keys, policy: Policy) -> Self {
        Self { policy, keys: RwLock::new(keys.accepted().map(JwtKey::new).collect()) }
    }

    /// With these secrets from now on.
    pub fn replace(&self, keys: &Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.accepted().map(JwtKey::new).collect();
    }

    fn keys(&self) -> RwLockReadGuard<'_, Vec<JwtKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a token of this class. `jti` is [random](TokenId::random).
    #[must_use]
    pub fn issue(&self, class: Class, subject: &Subject, jti: TokenId, now: UnixTime) -> Issued {
        let iat = now.secs();
        let life = if class == Class::Devices { self.policy.devices_life } else { class.life() };
        let mut exp = iat.saturating_add(life.as_secs());
        if class == Class::Devices {
            exp = exp.min((subject.auth_time + self.policy.devices_session).secs()).max(iat);
        }
        let claims = Claims {
            sub: subject.account,
            email: subject.email.clone(),
            user_id: subject.user_id.clone(),
            iat,
            exp,
            nbf: None,
            iss: self.policy.issuers.first().cloned().unwrap_or_default(),
            aud: class.name().to_owned(),
            jti,
            sid: subject.sign_in,
            auth_time: subject.auth_time.secs(),
            boot: self.ends_with_boot(class).then_some(self.policy.boot),
        };
        let keys = self.keys();
        let signing = keys.iter().find(|key| key.signs_from <= now).or(keys.last());
        let key = signing.expect("there is always one");
        let header = Header { kid: Some(key.kid.to_string()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &key.encoding).expect("HMAC signs what is plain JSON");
        Issued { token: Token(Zeroizing::new(token)), claims }
    }

    /// Judges a token where these classes are taken.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(
        &self,
        token: &str,
        expected: &[Class],
        now: UnixTime,
        denied: &DenyList,
    ) -> Result<Claims, JwtError> {
        let claims = self.signed(token)?;
        let class = self.judge(&claims, expected, now, denied)?;
        if now.secs() >= claims.exp.saturating_add(class.leeway().as_secs()) {
            return Err(JwtError::Expired);
        }
        Ok(claims)
    }

    /// Judges a token of [`Class::Devices`] that is to be renewed: it may have ended up to [`RENEWABLE`] ago. Its
    /// successor has the same sign-in, account and `auth_time`.
    ///
    /// # Errors
    /// Why it is not renewed.
    pub fn verify_to_renew(&self, token: &str, now: UnixTime, denied: &DenyList) -> Result<Claims, RenewError> {
        let claims = self.signed(token)?;
        self.judge(&claims, &[Class::Devices], now, denied)?;
        if now.secs().saturating_sub(claims.exp) > RENEWABLE.as_secs() {
            return Err(RenewError::TooLate);
        }
        let since = now.secs().saturating_sub(claims.auth_time);
        if since >= self.policy.devices_session.as_secs() { Err(RenewError::TooOld) } else { Ok(claims) }
    }

    /// The claims of a token that this relay has signed, whatever its class, and whether or not it has ended or is denied:
    /// for who wants to end it.
    ///
    /// # Errors
    /// It is none of this relay's.
    pub fn verify_to_revoke(&self, token: &str) -> Result<Claims, JwtError> {
        let claims = self.signed(token)?;
        if self.policy.issuers.contains(&claims.iss) { Ok(claims) } else { Err(JwtError::Issuer) }
    }

    /// All but its end.
    fn judge(&self, claims: &Claims, expected: &[Class], now: UnixTime, denied: &DenyList) -> Result<Class, JwtError> {
        if !self.policy.issuers.contains(&claims.iss) {
            return Err(JwtError::Issuer);
        }
        let class = claims.class().filter(|class| expected.contains(class)).ok_or(JwtError::Class)?;
        if self.ends_with_boot(class) && claims.boot != Some(self.policy.boot) {
            return Err(JwtError::Boot);
        }
        if claims.nbf.is_some_and(|nbf| now.secs() < nbf) {
            return Err(JwtError::Early);
        }
        if denied.denies(claims) { Err(JwtError::Revoked) } else { Ok(class) }
    }

    fn ends_with_boot(&self, class: Class) -> bool {
        match class {
            Class::Browser => true,
            Class::Daemon => self.policy.boot_ends_daemons,
            Class::Mykube | Class::Devices => false,
        }
    }

    /// Checks form and signature. The algorithm is this relay's, whatever the header says.
    fn signed(&self, token: &str) -> Result<Claims, JwtError> {
        let (header, signature) = split(token).ok_or(JwtError::Malformed)?;
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| JwtError::Malformed)?;
        let header: OwnHeader = serde_json::from_slice(&header).map_err(|_| JwtError::Malformed)?;
        if signature.is_empty() || header.alg.eq_ignore_ascii_case("none") {
            return Err(JwtError::Unsigned);
        }
        if header.alg != "HS256" {
            return Err(JwtError::Algorithm);
        }
        if header.typ.as_deref() != Some("JWT") {
            return Err(JwtError::Malformed);
        }
        // One of another program on the same secret has no `kid` of ours either.
        let kid: Kid = header.kid.and_then(|kid| kid.parse().ok()).ok_or(JwtError::Signature)?;
        let keys = self.keys();
        let key = keys.iter().find(|key| key.kid == kid).ok_or(JwtError::Signature)?;
        // The time, class and issuer are judged here: the library would ask the system for the time.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        match jsonwebtoken::decode(token, &key.decoding, &validation) {
            Ok(token) => Ok(token.claims),
            // Claims are read only when the signature is right.
            Err(error) => Err(match error.kind() {
                jsonwebtoken::errors::ErrorKind::Json(_) | jsonwebtoken::errors::ErrorKind::Utf8(_) => JwtError::Claims,
                _ => JwtError::Signature,
            }),
        }
    }
}

impl fmt::Debug for Jwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jwts")
    }
}

/// Header and signature of what has three parts.
fn split(token: &str) -> Option<(&str, &str)> {
    let mut parts = Some(token).filter(|token| token.len() <= TOKEN_MAX)?.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(header), Some(_), Some(signature), None) => Some((header, signature)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
