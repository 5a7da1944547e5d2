//! All providers of the configuration.

use std::fmt;

use mykube_relay_accounts::{identity::Person, time::UnixTime};

use crate::{
    error::ProviderError,
    id_token::{IdTokenError, TOKEN_MAX, claimed_issuer},
    party::RelyingParty,
};

/// The providers that people can sign in at, in the order of the configuration.
#[derive(Default)]
pub struct Providers(Vec<RelyingParty>);

impl Providers {
    /// Their names are different: who reads the configuration has checked that.
    #[must_use]
    pub fn new(all: Vec<RelyingParty>) -> Self {
        Self(all)
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RelyingParty> {
        self.iter().find(|party| party.provider().name.as_str() == name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &RelyingParty> {
        self.0.iter()
    }

    /// Whether a program can hand in ID tokens at all.
    #[must_use]
    pub fn takes_id_tokens(&self) -> bool {
        self.iter().any(|party| party.takes_id_tokens_of(&party.provider().issuer))
    }

    /// Whose ID token a program hands in (`POST /auth`). The first provider that takes tokens of its issuer judges it.
    ///
    /// # Errors
    /// It is not believed, or no provider takes tokens of its issuer.
    pub async fn verify_id_token(&self, token: &str, now: UnixTime) -> Result<Person, ProviderError> {
        if token.len() > TOKEN_MAX {
            return Err(IdTokenError::TooLong.into());
        }
        let issuer = claimed_issuer(token).ok_or(IdTokenError::Malformed)?;
        let judge = self.iter().find(|party| party.takes_id_tokens_of(&issuer)).ok_or(IdTokenError::Issuer)?;
        judge.verify_id_token(token, now).await
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|party| &party.provider().name)).finish()
    }
}
