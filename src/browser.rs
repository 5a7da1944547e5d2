//! Opening an address in a person's browser, where there is one on this machine.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Stdio,
};

use tokio::process::{Child, Command};

/// What came of it.
pub(crate) enum Opened {
    /// A program has it. It may fail yet.
    By(Child),
    /// There is no browser here that a person would see; this is why.
    Nowhere(&'static str),
}

/// Gives the address to `$BROWSER` (programs with their arguments, colons between them, `%s` for the address), else to the
/// system's own program for that. It outlives this one, and Ctrl-C does not reach it.
pub(crate) fn open(url: &str) -> Opened {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(named) = set("BROWSER") {
        // Whoever set it, over SSH too, has said what opens addresses: an editor's, say, that passes them on.
        return commands(&named, url).into_iter().find_map(start).unwrap_or("no program of $BROWSER can be run".into());
    }
    if ["SSH_CONNECTION", "SSH_TTY"].into_iter().any(|name| set(name).is_some()) {
        return "this is a session over SSH".into();
    }
    if cfg!(target_os = "macos") {
        return start(vec!["open".into(), url.into()]).unwrap_or("`open` cannot be run".into());
    }
    if set("DISPLAY").is_none() && set("WAYLAND_DISPLAY").is_none() {
        return "there is no display here".into();
    }
    start(vec!["xdg-open".into(), url.into()]).unwrap_or("there is no xdg-open here".into())
}

impl From<&'static str> for Opened {
    fn from(why: &'static str) -> Self {
        Self::Nowhere(why)
    }
}

/// The words of each program of `$BROWSER`.
fn commands(named: &OsStr, url: &str) -> Vec<Vec<OsString>> {
    // Names that are no text are none of a program that somebody set here.
    let named = named.to_string_lossy();
    let words = |command: &str| {
        let has_place = command.contains("%s");
        let words = command.split_whitespace().map(|word| OsString::from(word.replace("%s", url)));
        words.chain((!has_place).then(|| url.into())).collect()
    };
    named.split(':').filter(|command| !command.trim().is_empty()).map(words).collect()
}

/// What it says would only stand between the lines of this program.
fn start(words: Vec<OsString>) -> Option<Opened> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().ok().map(Opened::By)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_one_word_wherever_it_goes() {
        let url = "https://relay.example/portal/sign-in?cli_port=1&state=a%20b;c";
        assert_eq!(
            commands(OsStr::new("firefox --new-tab: :w3m %s -n:x%s"), url),
            [
                vec!["firefox".into(), "--new-tab".into(), OsString::from(url)],
                vec!["w3m".into(), OsString::from(url), "-n".into()],
                vec![OsString::from(format!("x{url}"))],
            ]
        );
        assert!(commands(OsStr::new("::"), url).is_empty());
    }
}
