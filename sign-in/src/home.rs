//! Where a user's configuration and sign-ins lie.

use std::{
    env,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use mykube_dial::RelayUrl;
use sha2::{Digest as _, Sha256};

/// `$XDG_CONFIG_HOME/mykube`, else `~/.config/mykube`.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

impl Home {
    /// This user's; nothing where the environment names no absolute path.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
        config.map(|config| Self(config.join("mykube")))
    }

    /// This directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// What is remembered from one command to the next.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// What belongs to one relay. Its name is a hash, as an address has characters that a name must not have.
    pub(crate) fn relay(&self, url: &RelayUrl) -> PathBuf {
        self.0.join("relays").join(of_relay(url))
    }
}

/// `$XDG_STATE_HOME/mykube`, else `~/.local/state/mykube`: what programs of this machine keep for themselves.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    /// This user's; nothing where the environment names no absolute path.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
        state.map(|state| Self(state.join("mykube")))
    }

    /// This directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// What an agent of this name has for one relay.
    pub(crate) fn agent(&self, url: &RelayUrl, name: &str) -> PathBuf {
        self.0.join("relays").join(of_relay(url)).join("agents").join(name)
    }
}

fn of_relay(url: &RelayUrl) -> String {
    HEXLOWER.encode(&Sha256::digest(url.to_string()))[..32].to_owned()
}
