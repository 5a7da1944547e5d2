//! What a sign-in leaves on this machine: a token that works now, and the one that has it replaced.

use std::path::Path;

use mykube_dial::RelayUrl;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    error::SignInError,
    files::{self, Readers},
};

/// One sign-in's. It holds secrets: it has no `Debug`.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Credentials {
    /// The relay that gave them.
    pub(crate) relay: String,
    pub(crate) token: String,
    /// Seconds since 1970, by this machine's clock.
    pub(crate) expires_at: u64,
    /// None where the token was brought from elsewhere: it ends when it ends.
    #[serde(default)]
    pub(crate) refresh_token: Option<String>,
    /// By how many milliseconds the relay's clock is ahead of this machine's, where it was told: the next time is signed so.
    #[serde(default)]
    pub(crate) skew: i64,
}

impl Credentials {
    /// Those of this relay.
    pub(crate) fn load(path: &Path, relay: &RelayUrl, readers: Readers) -> Result<Option<Self>, SignInError> {
        let Some(content) = files::read(path, readers)? else { return Ok(None) };
        // What serde says may quote a token.
        let found: Option<Self> = serde_json::from_slice(&content).ok();
        // Tokens go to the relay that gave them, whatever directory they lie in.
        let found = found.filter(|credentials| credentials.relay == relay.to_string());
        found.map(Some).ok_or_else(|| SignInError::Damaged { path: path.to_owned() })
    }

    pub(crate) fn store(&self, path: &Path) -> Result<(), SignInError> {
        let content = zeroize::Zeroizing::new(serde_json::to_vec(self).expect("texts and numbers are JSON"));
        files::write(path, &content)
    }
}
