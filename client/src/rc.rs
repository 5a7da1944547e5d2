//! The start-up file for each kind of shell: runs the user's own first, then puts the cluster into the prompt.
//!
//! The user's file may set `KUBECONFIG` itself: ours is exported after it. A hook that runs later, at each prompt or
//! before each command, may set it again. So the prompt is computed when it is shown, from the kubeconfig that kubectl
//! would use then: `[prod]` for this session, `[not prod]` for anything else. Nothing here may fail if the user's file
//! has made a variable read-only, or set `-u`, `-e` or `failglob`.

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

/// `$__mykube_mark` is expanded whenever the prompt is shown: after every hook, ours or the user's. Bash 3 has no maps,
/// and runs the last check in our own hook.
const BASH: &str = r#"
if declare -A __mykube_at 2>/dev/null; then
  __mykube_at["$__mykube_config"]=$__mykube_here
  __mykube_mark='${__mykube_at[${KUBECONFIG:-.}]-$__mykube_away}'
else
  __mykube_mark='$__mykube_now'
fi
__mykube_prompt() {
  __mykube_now=$__mykube_away
  if [ "${KUBECONFIG-}" = "$__mykube_config" ]; then __mykube_now=$__mykube_here; fi
  case "${PS1-}" in
    *"$__mykube_mark"*) ;;
    *) { shopt -q promptvars && printf -v PS1 %s "$__mykube_mark${PS1-}" 2>/dev/null; } || printf '%s\n' "$__mykube_now" ;;
  esac
}
__mykube_kind=$(declare -p PROMPT_COMMAND 2>/dev/null) || :
__mykube_kind=${__mykube_kind#declare -}
case "${__mykube_kind%% *}" in
  *r*) __mykube_prompt ;;
  a*) PROMPT_COMMAND+=(__mykube_prompt) ;;
  *) PROMPT_COMMAND="${PROMPT_COMMAND:+$PROMPT_COMMAND$'\n'}__mykube_prompt" ;;
esac
"#;

/// Always the last of the hooks, also after others were added.
const ZSH: &str = r#"
__mykube_prompt() {
  local now=$__mykube_away
  [[ ${KUBECONFIG-} == "$__mykube_config" ]] && now=$__mykube_here
  if [[ ${(t)PROMPT} == *readonly* ]]; then
    print -r -- $now
  else
    local rest=${${PROMPT-}//"$__mykube_away"/}
    PROMPT=$now${rest//"$__mykube_here"/}
  fi
  [[ ${precmd_functions[-1]} == __mykube_prompt ]] || precmd_functions=(${precmd_functions:#__mykube_prompt} __mykube_prompt)
}
typeset -ga precmd_functions
[[ ${(t)precmd_functions} == *readonly* ]] || precmd_functions+=(__mykube_prompt)
"#;

/// `fish_prompt` sees the status of the last command, as the user's own prompt may show it.
const FISH: &str = r#"
functions --copy fish_prompt __mykube_prompt
function __mykube_return
    return $argv[1]
end
function fish_prompt
    set -l __mykube_status $status
    if set -qx KUBECONFIG; and test "$KUBECONFIG" = $__mykube_config
        printf %s $__mykube_here
    else
        printf %s $__mykube_away
    end
    __mykube_return $__mykube_status
    __mykube_prompt
end
"#;

/// POSIX has no hooks, but expands `PS1` whenever it is shown.
const SH: &str = r#"
__mykube_now() {
  if [ "${KUBECONFIG-}" = "$__mykube_config" ]; then printf %s "$__mykube_here"; else printf %s "$__mykube_away"; fi
}
if (PS1=x) 2>/dev/null; then PS1='$(__mykube_now)'"${PS1:-\$ }"; fi
"#;

/// The command that starts an interactive `shell`, with its start-up file in `dir`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn command(shell: &OsStr, dir: &RamDir, cluster: &str, environment: &Environment) -> io::Result<Command> {
    let mut command = Command::new(shell);
    let name = Path::new(shell).file_name().unwrap_or(shell).to_string_lossy();
    match name.as_ref() {
        "bash" => {
            let mut script = b"if [ -f ~/.bashrc ]; then . ~/.bashrc; fi\n".to_vec();
            script.extend(exports(cluster, environment));
            script.extend(BASH.as_bytes());
            command.arg("--rcfile").arg(dir.write("bashrc", &script)?).arg("-i");
        }
        "zsh" => {
            let users = std::env::var_os("ZDOTDIR");
            let (zshenv, zshrc) = zsh_scripts(dir.path(), users.as_deref(), cluster, environment);
            dir.write(".zshenv", &zshenv)?;
            dir.write(".zshrc", &zshrc)?;
            command.env("ZDOTDIR", dir.path()).arg("-i");
        }
        "fish" => {
            let set = |how: &[u8], name: &[u8], value: &OsStr| [how, name, b" ", &fish_quoted(value), b"\n"].concat();
            let exported = environment.iter().map(|(name, value)| set(b"set -gx ", name.as_bytes(), value));
            let own = own(cluster, environment).map(|(name, value)| set(b"set -g ", name.as_bytes(), &value));
            let mut script: Vec<u8> = exported.chain(own).flatten().collect();
            script.extend(FISH.as_bytes());
            let file = dir.write("init.fish", &script)?;
            let source = [b"source ".as_slice(), &fish_quoted(file.as_os_str())].concat();
            command.arg("-i").arg("-C").arg(OsStr::from_bytes(&source));
        }
        "sh" | "dash" | "ash" | "ksh" | "mksh" => {
            let mut script = sh_users_own(std::env::var_os("ENV").as_deref());
            script.extend(exports(cluster, environment));
            script.extend(SH.as_bytes());
            command.env("ENV", dir.write("shrc", &script)?).arg("-i");
        }
        _ => tracing::warn!(
            shell = %name,
            "this shell's prompt cannot show the cluster, and its start-up file may set KUBECONFIG to another: bash, zsh, fish and sh can"
        ),
    }
    Ok(command)
}

/// zsh reads `$ZDOTDIR/.zshenv`, then `$ZDOTDIR/.zshrc`: ours run the user's, and leave `ZDOTDIR` as they set it.
fn zsh_scripts(dir: &Path, users: Option<&OsStr>, cluster: &str, environment: &Environment) -> (Vec<u8>, Vec<u8>) {
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
    // macOS's /etc/zshrc puts the history beside .zshrc: not into our directory, which is removed.
    zshrc
        .extend([b"[[ $HISTFILE == ", ours.as_slice(), b"/* ]] && HISTFILE=${ZDOTDIR:-$HOME}/.zsh_history\n"].concat());
    zshrc.extend(b"[[ -f ${ZDOTDIR:-$HOME}/.zshrc ]] && source ${ZDOTDIR:-$HOME}/.zshrc\n");
    zshrc.extend(exports(cluster, environment));
    zshrc.extend(ZSH.as_bytes());
    (zshenv, zshrc)
}

/// POSIX: an interactive `sh` expands `ENV` and reads that file. Ours does the same with the user's own `ENV`.
fn sh_users_own(users: Option<&OsStr>) -> Vec<u8> {
    let Some(users) = users.filter(|users| !users.is_empty()) else { return b"unset ENV\n".to_vec() };
    let mut script = [b"ENV=", quoted(users).as_slice(), b"\n"].concat();
    script.extend(b"eval \"__mykube_env=\\\"$ENV\\\"\"\n[ -r \"$__mykube_env\" ] && . \"$__mykube_env\"\n");
    script.extend(b"unset __mykube_env\n");
    script
}

/// The inputs of the prompt: this session's kubeconfig, the text to show for it, and the text for any other. The
/// cluster's name is plain.
fn own(cluster: &str, environment: &Environment) -> [(&'static str, OsString); 3] {
    let kubeconfig = environment.iter().find(|(name, _)| name == "KUBECONFIG");
    [
        ("__mykube_config", kubeconfig.map(|(_, value)| value.clone()).unwrap_or_default()),
        ("__mykube_here", format!("[{cluster}] ").into()),
        ("__mykube_away", format!("[not {cluster}] ").into()),
    ]
}

/// Assigns, and exports variables that are not read-only: exporting a read-only one would end the file, or the shell.
fn exports(cluster: &str, environment: &Environment) -> Vec<u8> {
    let own = own(cluster, environment);
    let own = own.iter().map(|(name, value)| [name.as_bytes(), b"=", quoted(value).as_slice(), b"\n"].concat());
    let exported = environment.iter().map(|(name, value)| {
        let name = name.as_bytes();
        let word = quoted(value);
        [
            b"if (",
            name,
            b"=x) 2>/dev/null; then export ",
            name,
            b"=",
            &word,
            b"; else echo 'mykube: your start-up file made ",
            name,
            b" read-only, and it is not set' >&2; fi\n",
        ]
        .concat()
    });
    own.chain(exported).flatten().collect()
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
