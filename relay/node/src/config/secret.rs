//! A secret's three ways in: a value in the file, a file of its own, an environment variable.

use std::{env, fmt, fs, path::Path};

use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

/// A value that no message shows.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret(Zeroizing::new(text.to_owned())))
            }

            // serde's own messages repeat what was there instead.
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret is a text in quotes"))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret is a text in quotes"))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// The secret that was given in one of the three ways; nothing where it was given in none.
///
/// # Errors
/// It was given in two, the file cannot be read, or it is empty.
pub(super) fn from_one_of(
    name: &str,
    value: Option<&Secret>,
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<Zeroizing<String>>, String> {
    // A variable that is set to nothing counts as not set, as everywhere.
    let set = env::var(variable).ok().filter(|set| !set.is_empty()).map(Zeroizing::new);
    let secret = match (value, file, set) {
        (None, None, None) => return Ok(None),
        (Some(Secret(value)), None, None) => value.clone(),
        (None, Some(file), None) => {
            let text = fs::read_to_string(file).map(Zeroizing::new);
            let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())
        }
        (None, None, Some(set)) => set,
        _ => return Err(format!("give one of `{name}`, `{name}_file` and {variable}")),
    };
    if secret.is_empty() {
        return Err(format!("`{name}` is empty"));
    }
    Ok(Some(secret))
}
