//! `config.toml`: what is remembered from one command to the next.
//!
//! The file is its user's: a sign-in changes two values and leaves all else as it stands, comments, order and keys that it does
//! not know. What it does not understand as a whole it does not write over.

use std::{
    fs,
    io::ErrorKind::{NotADirectory, NotFound, PermissionDenied},
    ops::Range,
    time::Duration,
};

use mykube_dial::RelayUrl;
use toml::de::{DeTable, DeValue};
use tracing::warn;

use crate::{error::SignInError, files, home::Home};

/// How long another process of the user's may hold the file: it writes a few lines.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where one signed in last.
    pub relay: Option<String>,
    /// The organisation there, `org_...`.
    pub organisation: Option<String>,
}

/// The relay and the organisation of the last sign-in, which need not be typed again. A key that nothing reads is warned of:
/// it may be a typo.
///
/// # Errors
/// The file cannot be read, or not understood.
pub fn remembered(home: &Home) -> Result<Config, SignInError> {
    let read = load(home)?;
    for (key, line) in &read.unknown {
        warn!("{}:{line}: nothing reads `{key}`", home.config().display());
    }
    let text = |value: Option<(String, _)>| value.map(|(text, _)| text);
    Ok(Config { relay: text(read.relay), organisation: text(read.organisation) })
}

/// Changes these two values, and nothing where they are the same. A link to the file stays one. One process of a user at a
/// time does this.
pub(crate) async fn remember(home: &Home, relay: &RelayUrl, organisation: &str) -> Result<(), SignInError> {
    let path = home.config();
    let wanted = [("relay", relay.to_string()), ("organisation", organisation.to_owned())];
    let is_same = |read: &Read| {
        let now = [&read.relay, &read.organisation].map(|value| value.as_ref().map(|(text, _)| text));
        now == [Some(&wanted[0].1), Some(&wanted[1].1)]
    };
    if is_same(&load(home)?) {
        return Ok(());
    }
    let _lock = files::lock(&path.with_extension("lock"), LOCK_WAIT).await?;
    let read = load(home)?;
    let mut text = read.text;
    let mut spans = [read.relay, read.organisation].map(|value| value.map(|(_, span)| span));
    // The last first, so that the others stay where they are.
    let mut order: Vec<usize> = (0..spans.len()).filter(|at| spans[*at].is_some()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(spans[*at].as_ref().map(|span| span.start)));
    for at in order {
        if let Some(span) = spans[at].clone() {
            text.replace_range(span, &toml::Value::String(wanted[at].1.clone()).to_string());
        }
    }
    for (at, (name, value)) in wanted.iter().enumerate().rev() {
        if spans[at].take().is_none() {
            text.insert_str(0, &format!("{name} = {}\n", toml::Value::String(value.clone())));
        }
    }
    files::write(&fs::canonicalize(&path).unwrap_or(path), text.as_bytes())
}

/// A value, and where it stands.
type Placed = Option<(String, Range<usize>)>;

#[derive(Default)]
struct Read {
    text: String,
    relay: Placed,
    organisation: Placed,
    /// With their lines.
    unknown: Vec<(String, usize)>,
}

fn load(home: &Home) -> Result<Read, SignInError> {
    let path = home.config();
    // It holds no secret: a user may have made it readable for others.
    let text = match fs::read_to_string(&path) {
        // Where there is no directory of this user's (`HOME=/dev/null`, or that of another user) nothing is remembered.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory | PermissionDenied) => {
            return Ok(Read::default());
        }
        text => text.map_err(|source| SignInError::File { path: path.clone(), source })?,
    };
    let line = |at: usize| text.get(..at).unwrap_or_default().matches('\n').count() + 1;
    let wrong = |at: usize, reason: String| SignInError::Config { path: path.clone(), line: line(at), reason };
    let table = DeTable::parse(&text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
    let mut read = Read::default();
    for (key, value) in table.get_ref() {
        let place = match key.get_ref().as_ref() {
            "relay" => &mut read.relay,
            "organisation" => &mut read.organisation,
            other => {
                read.unknown.push((other.to_owned(), line(key.span().start)));
                continue;
            }
        };
        let DeValue::String(value_text) = value.get_ref() else {
            return Err(wrong(value.span().start, format!("`{}` is no text in quotes", key.get_ref())));
        };
        *place = Some((value_text.clone().into_owned(), value.span()));
    }
    drop(table);
    read.text = text;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    async fn remember(home: &Home, url: &str) -> Result<(), String> {
        super::remember(home, &url.parse().unwrap(), "org_1").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_is_remembered_is_read_again_and_a_mistake_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("mykube"));
        assert_eq!(remembered(&home).unwrap(), Config::default());
        remember(&home, "https://relay.example").await.unwrap();
        let both = Config { relay: Some("https://relay.example".into()), organisation: Some("org_1".into()) };
        assert_eq!(remembered(&home).unwrap(), both);
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&home.config()), mode(home.config().parent().unwrap())), (0o600, 0o700));
        for (broken, line, why) in [
            ("# mine\nrelay = \n", 2, ""),
            ("# mine\n\nrelay = 7\n", 3, "`relay` is no text in quotes"),
            ("organisation = [1]\n", 1, "`organisation` is no text in quotes"),
            ("a = 1\nrelay = 'x'\nrelay = 'y'\n", 3, "duplicate key"),
        ] {
            fs::write(home.config(), broken).unwrap();
            for error in [
                remembered(&home).unwrap_err().to_string(),
                remember(&home, "https://relay.example").await.unwrap_err(),
            ] {
                assert!(error.contains(&format!("config.toml:{line}: ")) && error.contains(why), "{error}");
            }
            assert_eq!(fs::read_to_string(home.config()).unwrap(), broken, "it is not written over");
        }
    }

    #[tokio::test]
    async fn two_values_change_and_the_rest_of_the_file_is_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("mykube"));
        fs::create_dir(dir.path().join("mykube")).unwrap();
        let file = dir.path().join("dotfiles.toml");
        std::os::unix::fs::symlink(&file, home.config()).unwrap();
        let (relay, organisation) = ("relay = \"https://relay.example\"\n", "organisation = \"org_1\"\n");
        for (before, after) in [
            ("# mine\n", format!("{relay}{organisation}# mine\n")),
            (
                "# mine\nrelay = 'https://x.example' # y\nof_a_newer_one = 1\n[later]\nrelay = 'z'\n",
                format!("{organisation}# mine\n{} # y\nof_a_newer_one = 1\n[later]\nrelay = 'z'\n", relay.trim_end()),
            ),
            (
                "organisation='o' # o\nrelay='r'",
                format!("{} # o\n{}", "organisation=\"org_1\"", "relay=\"https://relay.example\""),
            ),
            (
                "relay='https://relay.example'\norganisation='org_1'",
                "relay='https://relay.example'\norganisation='org_1'".into(),
            ),
        ] {
            fs::write(&file, before).unwrap();
            remember(&home, "https://relay.example").await.unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
            assert!(home.config().is_symlink());
            assert_eq!(remembered(&home).unwrap().organisation.as_deref(), Some("org_1"));
        }
    }

    #[tokio::test]
    async fn two_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("mykube"));
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..16 {
            let home = home.clone();
            writers.spawn(async move { remember(&home, &format!("https://relay-{n}.example")).await });
        }
        for done in writers.join_all().await {
            done.unwrap();
        }
        let text = fs::read_to_string(home.config()).unwrap();
        assert_eq!((text.lines().count(), text.matches("organisation").count()), (2, 1), "{text}");
    }
}
