//! The start-up file each kind of shell needs: the user's own first, then the cluster in the prompt.
//!
//! The user's file may set `KUBECONFIG` itself, as many do: ours is exported after it.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use tokio::process::Command;

use crate::ramdir::RamDir;

/// The variables of the child, as `(name, value)`.
type Environment = [(OsString, OsString)];

const BASH: &str = r#"
__mykube_prompt() { case "$PS1" in *"[$MYKUBE_CLUSTER]"*) ;; *) PS1="[$MYKUBE_CLUSTER] $PS1" ;; esac; }
case "$(declare -p PROMPT_COMMAND 2>/dev/null)" in
  "declare -a"*) PROMPT_COMMAND+=(__mykube_prompt) ;;
  *) PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND$'\n'}__mykube_prompt" ;;
esac
"#;

const ZSH: &str = r#"
__mykube_prompt() { [[ "$PROMPT" == *"[$MYKUBE_CLUSTER]"* ]] || PROMPT="[$MYKUBE_CLUSTER] $PROMPT" }
precmd_functions+=(__mykube_prompt)
"#;

const FISH: &str = r"
functions --copy fish_prompt __mykube_prompt
function fish_prompt
    printf '[%s] ' $MYKUBE_CLUSTER
    __mykube_prompt
end
";

const SH: &str = r#"
PS1="[$MYKUBE_CLUSTER] ${PS1:-\$ }"
"#;

/// The command that starts an interactive `shell`, with its start-up file in `dir`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn command(shell: &OsStr, dir: &RamDir, environment: &Environment) -> io::Result<Command> {
    let mut command = Command::new(shell);
    let name = Path::new(shell).file_name().unwrap_or(shell).to_string_lossy();
    match name.as_ref() {
        "bash" => {
            let mut script = b"[ -f ~/.bashrc ] && . ~/.bashrc\n".to_vec();
            script.extend(exports(environment));
            script.extend(BASH.as_bytes());
            command.arg("--rcfile").arg(dir.write("bashrc", &script)?).arg("-i");
        }
        "zsh" => {
            let users = std::env::var_os("ZDOTDIR");
            let (zshenv, zshrc) = zsh_scripts(dir.path(), users.as_deref(), environment);
            dir.write(".zshenv", &zshenv)?;
            dir.write(".zshrc", &zshrc)?;
            command.env("ZDOTDIR", dir.path()).arg("-i");
        }
        "fish" => {
            let mut script = Vec::new();
            for (name, value) in environment {
                script.extend([b"set -gx ", name.as_bytes(), b" ", &fish_quoted(value), b"\n"].concat());
            }
            script.extend(FISH.as_bytes());
            let file = dir.write("init.fish", &script)?;
            let source = [b"source ".as_slice(), &fish_quoted(file.as_os_str())].concat();
            command.arg("-i").arg("-C").arg(OsStr::from_bytes(&source));
        }
        "sh" | "dash" | "ash" | "ksh" | "mksh" => {
            let mut script = sh_users_own(std::env::var_os("ENV").as_deref());
            script.extend(exports(environment));
            script.extend(SH.as_bytes());
            command.env("ENV", dir.write("shrc", &script)?).arg("-i");
        }
        _ => tracing::warn!(shell = %name, "this shell's prompt cannot show the cluster: bash, zsh, fish and sh can"),
    }
    Ok(command)
}

/// zsh reads `$ZDOTDIR/.zshenv`, then `$ZDOTDIR/.zshrc`: ours lead to the user's and leave `ZDOTDIR` as they want it.
fn zsh_scripts(dir: &Path, users: Option<&OsStr>, environment: &Environment) -> (Vec<u8>, Vec<u8>) {
    let ours = quoted(dir.as_os_str());
    let restore = match users {
        Some(users) => [b"export ZDOTDIR=", quoted(users).as_slice(), b"\n"].concat(),
        None => b"unset ZDOTDIR\n".to_vec(),
    };
    let mut zshenv = restore;
    zshenv.extend(b"[[ -f ${ZDOTDIR:-$HOME}/.zshenv ]] && source ${ZDOTDIR:-$HOME}/.zshenv\n");
    zshenv.extend(b"[[ -v ZDOTDIR ]] && __mykube_zdotdir=$ZDOTDIR\n");
    zshenv.extend([b"ZDOTDIR=", ours.as_slice(), b"\n"].concat());

    let mut zshrc = b"if [[ -v __mykube_zdotdir ]]; then ZDOTDIR=$__mykube_zdotdir; else unset ZDOTDIR; fi\n".to_vec();
    zshrc.extend(b"unset __mykube_zdotdir\n");
    // macOS's /etc/zshrc puts the history beside .zshrc: not into a directory that goes away.
    zshrc
        .extend([b"[[ $HISTFILE == ", ours.as_slice(), b"/* ]] && HISTFILE=${ZDOTDIR:-$HOME}/.zsh_history\n"].concat());
    zshrc.extend(b"[[ -f ${ZDOTDIR:-$HOME}/.zshrc ]] && source ${ZDOTDIR:-$HOME}/.zshrc\n");
    zshrc.extend(exports(environment));
    zshrc.extend(ZSH.as_bytes());
    (zshenv, zshrc)
}

/// POSIX: an interactive `sh` expands `ENV` and reads that file. Ours does so with the user's own `ENV`.
fn sh_users_own(users: Option<&OsStr>) -> Vec<u8> {
    let Some(users) = users.filter(|users| !users.is_empty()) else { return b"unset ENV\n".to_vec() };
    let mut script = [b"ENV=", quoted(users).as_slice(), b"\n"].concat();
    script.extend(b"eval \"__mykube_env=\\\"$ENV\\\"\"\n[ -r \"$__mykube_env\" ] && . \"$__mykube_env\"\n");
    script.extend(b"unset __mykube_env\n");
    script
}

fn exports(environment: &Environment) -> Vec<u8> {
    let line = |(name, value): &(OsString, OsString)| {
        [b"export ", name.as_bytes(), b"=", quoted(value).as_slice(), b"\n"].concat()
    };
    environment.iter().flat_map(line).collect()
}

/// A word of any POSIX shell: within single quotes nothing has a meaning but the quote itself.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        if byte == b'\'' { out.extend(br"'\''") } else { out.push(byte) }
    }
    out.push(b'\'');
    out
}

/// A word of fish: within single quotes the backslash escapes itself and the quote.
fn fish_quoted(word: &OsStr) -> Vec<u8> {
    let mut out = vec![b'\''];
    for &byte in word.as_bytes() {
        if matches!(byte, b'\'' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_is_one_word() {
        for word in ["plain", "two words", "it's", r"back\slash", "$(reboot)", "a\nb", "`id`", "'; rm -rf '"] {
            let script = [b"printf %s ".as_slice(), &quoted(OsStr::new(word))].concat();
            let out = std::process::Command::new("/bin/sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
        }
        assert_eq!(fish_quoted(OsStr::new(r"it's \n")), br"'it\'s \\n'");
    }
}
