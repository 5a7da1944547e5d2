//! What a portal is told at its start.

use std::{fmt, sync::Arc, time::Duration};

use mykube_relay_accounts::sign_up::SignUp;
use mykube_relay_provider::Providers;
use zeroize::Zeroizing;

use crate::url::PublicUrl;

/// What a portal is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that people reach the relay by.
    pub public_url: PublicUrl,
    /// Others by which they do too.
    pub aliases: Vec<PublicUrl>,
    /// Who may have an account.
    pub sign_up: SignUp,
    /// What ends when the relay does.
    pub boot_scope: BootScope,
    /// Where people sign in.
    pub providers: Arc<Providers>,
    /// Programs without a challenge of PKCE get a token at `/auth/exchange`, as published ones want it.
    pub published_exchange: bool,
    /// Dev mode, where it is on.
    pub dev: Option<Dev>,
    /// Origins whose pages may use published calls.
    pub allow_origins: Vec<String>,
    /// Longest body, in bytes.
    pub body_max: usize,
    /// How long a body may take to come.
    pub body_time: Duration,
}

/// Whose tokens end when the relay starts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootScope {
    /// Those of published browser clients.
    #[default]
    Browser,
    /// Those of published daemons too.
    All,
}

/// Dev mode: whoever knows its secret is whom they say.
#[derive(Clone)]
pub struct Dev(Zeroizing<String>);

impl Dev {
    /// By this secret.
    #[must_use]
    pub fn new(secret: Zeroizing<String>) -> Self {
        Self(secret)
    }

    pub(crate) fn secret(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dev")
    }
}
