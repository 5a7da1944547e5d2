//! `config.toml`: what is remembered from one command to the next.

use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};

use mykube_dial::RelayUrl;
use serde::Deserialize;
use toml::Spanned;

use crate::{error::SignInError, files, home::Home};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where one signed in last.
    relay: Option<Spanned<String>>,
}

/// The relay of the last sign-in, which need not be typed again.
///
/// # Errors
/// The file cannot be read, or not understood.
pub fn remembered_relay(home: &Home) -> Result<Option<String>, SignInError> {
    Ok(load(home)?.1.relay.map(Spanned::into_inner))
}

/// Changes this one value, and nothing where it is the same: the rest of the file is its user's. A link to it stays one.
pub(crate) fn remember(home: &Home, relay: &RelayUrl) -> Result<(), SignInError> {
    let (mut text, config) = load(home)?;
    let value = toml::Value::String(relay.to_string()).to_string();
    match config.relay {
        Some(before) if before.get_ref() == &relay.to_string() => return Ok(()),
        Some(before) => text.replace_range(before.span(), &value),
        None => text.insert_str(0, &format!("relay = {value}\n")),
    }
    let path = home.config();
    files::write(&std::fs::canonicalize(&path).unwrap_or(path), text.as_bytes())
}

/// The file, and what it says.
fn load(home: &Home) -> Result<(String, Config), SignInError> {
    let path = home.config();
    // It holds no secret: a user may have made it readable for others.
    let text = match std::fs::read_to_string(&path) {
        // Where there is no directory of this user's (`HOME=/dev/null`, or that of another user) nothing is remembered.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => {
            return Ok(Default::default());
        }
        text => text.map_err(|source| SignInError::File { path: path.clone(), source })?,
    };
    match toml::from_str(&text) {
        Ok(config) => Ok((text, config)),
        Err(error) => {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            Err(SignInError::Config { path, line, reason: error.message().to_owned() })
        }
    }
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

    #[test]
    fn one_value_changes_and_the_rest_of_the_file_is_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("mykube"));
        std::fs::create_dir(dir.path().join("mykube")).unwrap();
        let file = dir.path().join("dotfiles.toml");
        std::os::unix::fs::symlink(&file, home.config()).unwrap();
        let remember = |url: &str| remember(&home, &url.parse().unwrap()).map_err(|error| error.to_string());
        for (before, after) in [
            ("# mine\n", "relay = \"https://relay.example\"\n# mine\n"),
            ("# mine\nrelay = 'https://x.example' # y\n", "# mine\nrelay = \"https://relay.example\" # y\n"),
            ("relay='https://relay.example'", "relay='https://relay.example'"),
        ] {
            std::fs::write(&file, before).unwrap();
            remember("https://relay.example").unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
            assert!(home.config().is_symlink());
        }
        // What this program does not understand it does not write over.
        std::fs::write(&file, "of_a_newer_one = 1\n").unwrap();
        assert!(remember("https://relay.example").unwrap_err().contains("config.toml:1"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "of_a_newer_one = 1\n");
    }
}
