//! What a JWT says.

use serde::{Deserialize, Serialize};

use super::class::Class;
use crate::{
    id::{AccountId, BootId, SignInId, TokenId},
    time::UnixTime,
};

/// The claims, in the order in which they are written. Times are whole seconds since 1970. What is unknown is passed over:
/// a newer node of the same relay may write more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The account.
    pub sub: AccountId,
    /// Its address, for people to see. It decides nothing.
    pub email: String,
    /// What the published contracts show as the user.
    #[serde(rename = "userId")]
    pub user_id: String,
    /// When it was made.
    pub iat: u64,
    /// Its end.
    pub exp: u64,
    /// When it begins to be valid, if that is not at once. This relay writes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The relay's base URL.
    pub iss: String,
    /// The class.
    pub aud: String,
    /// This token.
    pub jti: TokenId,
    /// The sign-in that it comes of.
    pub sid: SignInId,
    /// When the person last proved who they are.
    pub auth_time: u64,
    /// The start of the relay that it ends with, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
}

impl Claims {
    /// Its class, if there is one of that name.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        Class::from_name(&self.aud)
    }

    /// Its end.
    #[must_use]
    pub fn expires_at(&self) -> UnixTime {
        UnixTime::from_secs(self.exp)
    }

    /// Seconds from when it was made to its end: `expiresIn`.
    #[must_use]
    pub const fn expires_in(&self) -> u64 {
        self.exp.saturating_sub(self.iat)
    }
}
