//! The subshell, or one command, with the session's kubeconfig in its environment.
//!
//! The child has the terminal: while it runs, Ctrl-C goes to it and not to us, and when it stops itself we stop with
//! it. When the session ends first, or we are told to stop, the child and the processes that it has started are asked
//! to end, then killed. The terminal is restored, and we return, only when all of them are gone.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::{OsStr, OsString},
    future::Future,
    io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    family::{self, KILLED, STOP_GRACE},
    rc,
    signals::ignored_at_start,
    terminal::Terminal,
    workspace::{Kind, Workspace},
};

/// How long a child must have been stopped before we stop with it: Ctrl-Z stops us too, and `fg` continues both, one
/// just before the other.
const SETTLED: Duration = Duration::from_millis(20);

/// Where programs are looked up without `PATH` (execvp(3)).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Hosts that never go through a proxy: the cluster answers there.
const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// Variables with which kubectl outlives every outage. Over WebSocket kubectl gives up after 61 s without a pong, which
/// this client sends in guarded mode, and after 60 s in which nothing takes what it has to send; SPDY has no such
/// timers. A server that records can record WebSocket only. In shared mode HTTP/2 also gives up after 45 s of silence.
#[must_use]
pub fn environment_for(kind: Kind) -> BTreeMap<&'static str, &'static str> {
    const SPDY: (&str, &str) = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
    match kind {
        Kind::Guarded => [SPDY].into(),
        Kind::Recorded => BTreeMap::new(),
        Kind::Shared => [("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "0"), SPDY].into(),
    }
}

/// The program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launch {
    /// The user's own shell, interactively.
    Shell,
    /// One command, as given after `--`. Never empty.
    Command(Vec<OsString>),
}

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself, with this code: its own, or 128 and the number of the signal that killed it.
    Code(u8),
    /// We ended it, because the session ended or we were told to stop.
    Stopped,
}

/// Why no child runs.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// It could not be started.
    #[error("cannot run {}: {source}", program.to_string_lossy())]
    Spawn {
        /// The program.
        program: OsString,
        /// The system's error.
        source: io::Error,
    },
    /// The shell's own files could not be written, or waiting for the child failed.
    #[error("cannot prepare or follow the shell: {0}")]
    Io(#[from] io::Error),
    /// There is no kubeconfig yet.
    #[error("there is no kubeconfig yet")]
    NoKubeconfig,
}

/// A child ready to run. It does not borrow the workspace, which takes new credentials while it runs.
pub struct Prepared {
    command: Command,
    program: OsString,
    ask_to_end: Signal,
    terminal: Terminal,
}

/// Prepares a child that uses `workspace`, whose kubeconfig must have been written.
///
/// # Errors
/// There is no kubeconfig yet, or the shell's files cannot be written.
pub fn prepare(workspace: &Workspace, launch: Launch) -> Result<Prepared, ShellError> {
    let environment = environment(workspace).ok_or(ShellError::NoKubeconfig)?;
    let (program, mut command, ask_to_end) = match launch {
        Launch::Command(words) => {
            let mut words = words.into_iter();
            let program = words.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let mut command = Command::new(&program);
            command.args(words);
            (program, command, Signal::TERM)
        }
        Launch::Shell => {
            let program = user_shell(std::env::var_os("SHELL"));
            let command = rc::command(
                &program,
                workspace.dir(),
                workspace.cluster().ok_or(ShellError::NoKubeconfig)?,
                &environment,
            )?;
            // An interactive shell ignores SIGTERM; it passes a hang-up on to its jobs.
            (program, command, Signal::HUP)
        }
    };
    command.envs(environment).kill_on_drop(true);
    // With a terminal the child stays in our group, which Ctrl-C reaches as a whole; without one, a signal to us alone
    // would not reach the processes that the child has started.
    let terminal = Terminal::save();
    if !terminal.is_there() {
        command.process_group(0);
    }
    Ok(Prepared { command, program, ask_to_end, terminal })
}

/// Checks that the program can be run, before a code is spent on it.
///
/// # Errors
/// The program does not exist, or cannot be run.
pub fn check(launch: &Launch) -> Result<(), ShellError> {
    let Launch::Command(words) = launch else { return Ok(()) };
    let Some(program) = words.first() else { return Err(io::Error::from(io::ErrorKind::InvalidInput).into()) };
    let failed = |kind, why| Err(ShellError::Spawn { program: program.clone(), source: io::Error::new(kind, why) });
    let path = Path::new(program);
    if !program.as_bytes().contains(&b'/') {
        let list = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        return if find(path, &list).is_some() {
            Ok(())
        } else {
            failed(io::ErrorKind::NotFound, "there is no such program on the PATH")
        };
    }
    match path.metadata() {
        Ok(_) if is_executable(path) => Ok(()),
        Ok(_) => failed(io::ErrorKind::PermissionDenied, "it is no program that may be run"),
        Err(source) => Err(ShellError::Spawn { program: program.clone(), source }),
    }
}

impl ShellError {
    /// The exit code that a shell, and env(1), would give: 127 for a program that does not exist, 126 for one that
    /// cannot be run, `None` for other failures.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(127),
            Self::Spawn { .. } => Some(126),
            _ => None,
        }
    }
}

impl Prepared {
    /// Runs until the child ends, or until `stop` resolves and the child, with the processes that it left, was made to
    /// end. The terminal is as before then.
    ///
    /// # Errors
    /// The child could not be started.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<Exit, ShellError> {
        // A handler, not "ignore", which the child would inherit. A signal that is ignored already stays so, and is
        // inherited.
        let outlive = |kind, number| (!ignored_at_start(number)).then(|| signal(kind)).transpose();
        let _interrupt = outlive(SignalKind::interrupt(), Signal::INT)?;
        let _quit = outlive(SignalKind::quit(), Signal::QUIT)?;
        let mut changes = signal(SignalKind::child())?;
        let mut child =
            self.command.spawn().map_err(|source| ShellError::Spawn { program: self.program.clone(), source })?;
        let pid = pid(&child);
        let exit = tokio::select! {
            status = child.wait() => Exit::Code(code(status?)),
            never = suspend_with(pid, &self.terminal, &mut changes) => match never {},
            () = stop => {
                end(&mut child, self.ask_to_end, !self.terminal.is_there()).await?;
                Exit::Stopped
            }
        };
        self.terminal.restore();
        Ok(exit)
    }
}

/// When the child stops itself (`suspend` in a shell), we stop too: the shell that waits for us does not see the child.
async fn suspend_with(
    child: Option<Pid>,
    terminal: &Terminal,
    changes: &mut tokio::signal::unix::Signal,
) -> Infallible {
    let is_stopped = |more| child.is_some_and(|child| has_stopped(child, more));
    loop {
        if changes.recv().await.is_none() {
            std::future::pending().await
        }
        if terminal.is_there() && is_stopped(WaitIdOptions::NOWAIT) {
            sleep(SETTLED).await;
            if let Some(child) = child.filter(|_| is_stopped(WaitIdOptions::empty())) {
                terminal.suspend(child);
            }
        }
    }
}

fn has_stopped(child: Pid, more: WaitIdOptions) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | more;
    matches!(waitid(WaitId::Pid(child), options), Ok(Some(status)) if status.stopped())
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The child's variables: for kubectl, for proxies, and for prompts.
fn environment(workspace: &Workspace) -> Option<Vec<(OsString, OsString)>> {
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("KUBECONFIG".into(), workspace.kubeconfig().into()),
        ("MYKUBE_CLUSTER".into(), workspace.cluster()?.into()),
        // kubectl caches what a server offers by its address, at which another cluster may have been yesterday.
        ("KUBECACHEDIR".into(), workspace.cache().into()),
    ];
    for name in ["NO_PROXY", "no_proxy"] {
        variables.push((name.into(), with_loopback(std::env::var_os(name))));
    }
    variables.extend(environment_for(workspace.kind()?).into_iter().map(|(name, value)| (name.into(), value.into())));
    Some(variables)
}

/// Adds the loopback names to a `NO_PROXY` list.
fn with_loopback(list: Option<OsString>) -> OsString {
    let mut list = list.unwrap_or_default();
    for host in LOOPBACK {
        let shown = list.to_string_lossy();
        if shown.split(',').any(|item| item.trim() == host || item.trim() == "*") {
            continue;
        }
        if !list.is_empty() {
            list.push(",");
        }
        list.push(host);
    }
    list
}

/// `$SHELL`, or `/bin/sh` if that is not set or does not exist.
fn user_shell(shell: Option<OsString>) -> OsString {
    shell.filter(|shell| is_executable(Path::new(shell))).unwrap_or_else(|| "/bin/sh".into())
}

/// Where a program is on `PATH`.
#[must_use]
pub fn on_path(program: &str) -> Option<PathBuf> {
    find(Path::new(program), &std::env::var_os("PATH")?)
}

fn find(program: &Path, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The number with which a shell says how a program ended.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

async fn end(child: &mut Child, ask: Signal, group: bool) -> io::Result<()> {
    let pid = pid(child);
    // Fails if the child has just ended by itself, which is fine.
    let send = |signal| {
        let _ = pid.map(|pid| if group { kill_process_group(pid, signal) } else { kill_process(pid, signal) });
    };
    let deadline = Instant::now() + STOP_GRACE;
    family::adopt();
    send(ask);
    // A stopped child would not see the signal.
    send(Signal::CONT);
    if timeout_at(deadline, child.wait()).await.is_err() {
        send(Signal::KILL);
        timeout_at(deadline + KILLED, child.kill()).await.unwrap_or(Ok(()))?;
    }
    family::end(ask, deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_never_goes_through_a_proxy() {
        assert_eq!(with_loopback(None), "127.0.0.1,localhost");
        assert_eq!(with_loopback(Some("corp.example".into())), "corp.example,127.0.0.1,localhost");
        assert_eq!(with_loopback(Some("localhost, 127.0.0.1".into())), "localhost, 127.0.0.1");
        assert_eq!(with_loopback(Some("*".into())), "*");
    }

    #[test]
    fn an_exit_is_told_as_a_shell_tells_it() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
    }

    #[test]
    fn a_shell_that_is_not_there_becomes_sh() {
        assert_eq!(user_shell(None), "/bin/sh");
        assert_eq!(user_shell(Some("/nonexistent/zsh".into())), "/bin/sh");
        assert_eq!(user_shell(Some("/bin/sh".into())), "/bin/sh");
    }

    #[test]
    fn programs_are_found_where_they_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubectl");
        let path = std::env::join_paths([Path::new("/nonexistent"), dir.path()]).unwrap();
        assert_eq!(find(Path::new("kubectl"), &path), None);
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(Path::new("kubectl"), &path), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find(Path::new("kubectl"), &path), Some(file));
    }
}
