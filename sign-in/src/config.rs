//! `config.toml`: what is remembered from one command to the next.

use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};

use mykube_dial::RelayUrl;
use serde::{Deserialize, Serialize};

use crate::{error::SignInError, files, home::Home};

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where one signed in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
}

/// The relay of the last sign-in, which need not be typed again.
///
/// # Errors
/// The file cannot be read, or not understood.
pub fn remembered_relay(home: &Home) -> Result<Option<String>, SignInError> {
    Ok(load(home)?.relay)
}

pub(crate) fn remember(home: &Home, relay: &RelayUrl) -> Result<(), SignInError> {
    let text = toml::to_string(&Config { relay: Some(relay.to_string()) }).expect("a text is TOML");
    files::write(&home.config(), text.as_bytes())
}

fn load(home: &Home) -> Result<Config, SignInError> {
    let path = home.config();
    // It holds no secret: a user may have made it readable for others.
    let text = match std::fs::read_to_string(&path) {
        // Where there is no directory of this user's (`HOME=/dev/null`, or that of another user) nothing is remembered.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => {
            return Ok(Config::default());
        }
        text => text.map_err(|source| SignInError::File { path: path.clone(), source })?,
    };
    toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        SignInError::Config { path, line: before.matches('\n').count() + 1, reason: error.message().to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_again_and_a_mistake_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        assert_eq!(remembered_relay(&home).unwrap(), None);
        remember(&home, &"https://relay.example".parse().unwrap()).unwrap();
        assert_eq!(remembered_relay(&home).unwrap().as_deref(), Some("https://relay.example"));
        std::fs::write(home.config(), "# mine\nrelais = \"https://relay.example\"\n").unwrap();
        let error = remembered_relay(&home).unwrap_err().to_string();
        assert!(error.contains("config.toml:2: unknown field `relais`"), "{error}");
    }
}
