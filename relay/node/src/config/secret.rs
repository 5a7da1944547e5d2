//! A secret's three ways in: a value in the file, a file of its own, an environment variable.

use std::{env, fs, io::Read as _, path::Path};

use mykube_relay::private_file::{self, NotPrivate};
use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

/// Where the dev secret may also stand.
pub(crate) const DEV_SECRET: &str = "MYKUBE_DEV_SECRET";

/// Fewest bytes of one that people make up: a word that somebody would try is none.
pub(super) const SHORTEST: usize = 16;
/// Longest file that is read.
const LONGEST: usize = 4096;

/// A value that no message shows.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not as a text at once: of what is there instead, serde's own messages repeat the value, or TOML's the number.
        match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(text)) => Ok(Self(Zeroizing::new(text))),
            _ => Err(de::Error::custom("a secret is a text in quotes")),
        }
    }
}

/// The secret that was given in one of the three ways; nothing where it was given in none.
///
/// # Errors
/// It was given in two, the file cannot be read or is not private, or it has less than `shortest` bytes.
pub(super) fn from_one_of(
    name: &str,
    value: Option<&Secret>,
    file: Option<&Path>,
    variable: &str,
    shortest: usize,
) -> Result<Option<Zeroizing<String>>, String> {
    // A variable that is set to nothing counts as not set, as everywhere.
    let set = env::var(variable).ok().filter(|set| !set.is_empty()).map(Zeroizing::new);
    let secret = match (value, file, set) {
        (None, None, None) => return Ok(None),
        (Some(Secret(value)), None, None) => value.clone(),
        (None, Some(file), None) => {
            let text = read(file).map_err(|why| format!("cannot read {}: {why}", file.display()))?;
            Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, None, Some(set)) => set,
        _ => return Err(format!("give one of `{name}`, `{name}_file` and {variable}")),
    };
    if secret.is_empty() {
        return Err(format!("`{name}` is empty"));
    }
    if secret.len() < shortest {
        return Err(format!("`{name}` is shorter than {shortest} bytes: `openssl rand -hex 16` makes one"));
    }
    Ok(Some(secret))
}

fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    let opened = open(file)?;
    // All at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    opened.take(LONGEST as u64).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// A file that is this user's alone.
///
/// # Errors
/// It is not, or cannot be opened: what to do.
pub(super) fn open(file: &Path) -> Result<fs::File, String> {
    let opened = private_file::open(file).map_err(|error| match error {
        NotPrivate::Io(error) => error.to_string(),
        NotPrivate::Exposed(mode) => {
            format!(
                "other users may read it (mode {mode:o}): run `chmod 600 {}`, and take another secret",
                file.display()
            )
        }
        NotPrivate::Foreign(owner) => format!("it belongs to another user (uid {owner})"),
        NotPrivate::NoFile => "it is not a regular file of its directory".to_owned(),
    })?;
    opened.ok_or_else(|| "there is no such file".to_owned())
}
