//! What a sign-in leaves on this machine: a token that works now, and the one that has it replaced.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{error::SignInError, files};

/// One sign-in's. It holds secrets: it has no `Debug`.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Credentials {
    /// The relay, for whoever reads the file.
    pub(crate) relay: String,
    pub(crate) token: String,
    /// Seconds since 1970, by this machine's clock.
    pub(crate) expires_at: u64,
    pub(crate) refresh_token: String,
}

impl Credentials {
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, SignInError> {
        let Some(content) = files::read(path)? else { return Ok(None) };
        // What serde says may quote a token.
        serde_json::from_slice(&content).map(Some).map_err(|_| SignInError::Damaged { path: path.to_owned() })
    }

    pub(crate) fn store(&self, path: &Path) -> Result<(), SignInError> {
        let content = zeroize::Zeroizing::new(serde_json::to_vec(self).expect("texts and numbers are JSON"));
        files::write(path, &content)
    }
}
