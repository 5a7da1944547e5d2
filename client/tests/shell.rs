//! Real shells on a real terminal: the user's own start-up file, the cluster in the prompt, the session's environment.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mykube_client::{Exit, Launch, Live, Workspace, guard::Guard, shell};
use mykube_protocol::channel::Welcome;
use rustix::{
    event::{PollFd, PollFlags, poll},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

/// No shell takes so long: a test that meets it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

fn welcome() -> Welcome {
    serde_json::from_str(r#"{"mode": "shared", "cluster": "prod-1", "credentials": {"token": "abc"}}"#).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What `mykube client` does around a shell, in a process of its own: it takes over signals and the terminal.
#[test]
#[ignore = "started on a terminal by the other tests"]
fn inner() {
    let exit = runtime().block_on(async {
        let parent = std::env::var_os("TEST_PARENT").unwrap();
        let mut workspace = Workspace::create(Some(Path::new(&parent))).unwrap();
        workspace.write(&welcome(), 40123).unwrap();
        let exit = shell::prepare(&workspace, Launch::Shell).unwrap().run(std::future::pending()).await.unwrap();
        workspace.close().unwrap();
        exit
    });
    let Exit::Code(code) = exit else { panic!("{exit:?}") };
    std::process::exit(code.into());
}

/// A shell on a terminal, with a home of its own.
struct OnTerminal {
    master: File,
    child: Child,
    seen: String,
    home: tempfile::TempDir,
}

impl OnTerminal {
    fn start(shell: &str, rc: &str, content: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let rc = home.path().join(rc);
        fs::create_dir_all(rc.parent().unwrap()).unwrap();
        fs::write(&rc, content).unwrap();
        fs::create_dir(home.path().join("ram")).unwrap();
        // Without it fish reads all manual pages at its first start.
        fs::create_dir_all(home.path().join(".local/share/fish/generated_completions")).unwrap();

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(&path).unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "inner", "--nocapture"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home.path())
            .env("SHELL", shell)
            .env("TERM", "dumb")
            .env("ENV", "$HOME/.shrc")
            .env("TEST_PARENT", home.path().join("ram"))
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        Self { master: File::from(master), child, seen: String::new(), home }
    }

    /// Reads until `text` came; what came before it is forgotten.
    fn expect(&mut self, text: &str) {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = DEADLINE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "no {text:?} in {:?}", self.seen);
            let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
            poll(&mut fds, Some(&left.try_into().unwrap())).unwrap();
            let mut buffer = [0; 4096];
            match self.master.read(&mut buffer) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(error) => panic!("the terminal closed ({error}) before {text:?}: {:?}", self.seen),
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        self.master.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the end; nothing may be left of the session.
    fn finish(mut self) -> i32 {
        let mut rest = Vec::new();
        // A terminal whose other side is closed reads as an error on Linux.
        let _ = self.master.read_to_end(&mut rest);
        let status = self.child.wait().unwrap();
        assert_eq!(fs::read_dir(self.home.path().join("ram")).unwrap().count(), 0);
        status.code().unwrap()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The user's start-up file sets `OWN` and takes `KUBECONFIG` for itself, as many do.
fn try_shell(shell: &str, rc: &str, content: &str) {
    if !Path::new(shell).exists() {
        println!("skipped: {shell} is not installed");
        return;
    }
    let mut terminal = OnTerminal::start(shell, rc, content);
    terminal.expect("[prod-1] ");
    terminal.type_line("echo own=$OWN; echo config=$KUBECONFIG; echo proxy=$NO_PROXY; echo end");
    terminal.expect("own=yes");
    let ram = terminal.home.path().join("ram").canonicalize().unwrap();
    terminal.expect(&format!("config={}/mykube-", ram.display()));
    terminal.expect("proxy=127.0.0.1,localhost");
    terminal.expect("end");
    terminal.expect("[prod-1] ");
    terminal.type_line("exit 7");
    assert_eq!(terminal.finish(), 7);
}

#[test]
fn bash_shows_the_cluster() {
    try_shell("/bin/bash", ".bashrc", "OWN=yes; PROMPT_COMMAND='PS1=\"mine> \";'; export KUBECONFIG=/wrong\n");
}

#[test]
fn sh_shows_the_cluster() {
    try_shell("/bin/sh", ".shrc", "OWN=yes; export KUBECONFIG=/wrong\n");
}

#[test]
fn zsh_shows_the_cluster() {
    try_shell("/bin/zsh", ".zshrc", "OWN=yes; PROMPT='mine> '; export KUBECONFIG=/wrong\n");
}

#[test]
fn fish_shows_the_cluster() {
    try_shell("/usr/bin/fish", ".config/fish/config.fish", "set OWN yes; set -gx KUBECONFIG /wrong\n");
}

#[test]
fn ctrl_c_is_the_childs() {
    let mut terminal = OnTerminal::start("/bin/bash", ".bashrc", "PS1='mine> '\n");
    terminal.expect("[prod-1] mine> ");
    terminal.type_line("sh -c 'echo run''ning; exec sleep 1000'");
    terminal.expect("running");
    terminal.type_line("\x03");
    terminal.expect("[prod-1] mine> ");
    terminal.type_line("exit $?");
    assert_eq!(terminal.finish(), 130);
}

fn command(workspace: &Workspace, script: &str) -> shell::Prepared {
    shell::prepare(workspace, Launch::Command(["sh", "-c", script].map(Into::into).into())).unwrap()
}

fn workspace(parent: &tempfile::TempDir) -> Workspace {
    let mut workspace = Workspace::create(Some(parent.path())).unwrap();
    workspace.write(&welcome(), 40123).unwrap();
    workspace
}

#[tokio::test]
async fn a_commands_code_is_its_own() {
    let parent = tempfile::tempdir().unwrap();
    let workspace = workspace(&parent);
    let run = |script: &'static str| command(&workspace, script).run(std::future::pending());
    assert_eq!(run("exit 0").await.unwrap(), Exit::Code(0));
    assert_eq!(run("exit 42").await.unwrap(), Exit::Code(42));
    assert_eq!(run("kill -9 $$").await.unwrap(), Exit::Code(137));
    assert_eq!(run("grep -q 127.0.0.1:40123 \"$KUBECONFIG\"").await.unwrap(), Exit::Code(0));
    assert_eq!(
        run("test \"$MYKUBE_CLUSTER$KUBECTL_REMOTE_COMMAND_WEBSOCKETS\" = prod-1false").await.unwrap(),
        Exit::Code(0)
    );

    let live = Live::all(Some(parent.path()));
    let joined = Workspace::join(&live[0], Some(parent.path())).unwrap();
    let script = "test \"$HTTP2_READ_IDLE_TIMEOUT_SECONDS$KUBECTL_REMOTE_COMMAND_WEBSOCKETS\" = 0false";
    assert_eq!(command(&joined, script).run(std::future::pending()).await.unwrap(), Exit::Code(0), "a second terminal");

    let missing = shell::prepare(&workspace, Launch::Command(vec!["/nonexistent".into()])).unwrap();
    let error = missing.run(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot run /nonexistent"), "{error}");
}

#[tokio::test]
async fn in_guarded_mode_kubectl_execs_by_spdy_unless_it_is_recorded() {
    let parent = tempfile::tempdir().unwrap();
    for (recorded, expected) in [(false, "unset false"), (true, "unset unset")] {
        let mut workspace = Workspace::create(Some(parent.path())).unwrap();
        let welcome = mykube_protocol::channel::Welcome { recorded, ..welcome() };
        workspace.write(&Guard::new().unwrap().localise(&welcome), 40123).unwrap();
        let both = "${HTTP2_READ_IDLE_TIMEOUT_SECONDS-unset} ${KUBECTL_REMOTE_COMMAND_WEBSOCKETS-unset}";
        let script = format!("test \"{both}\" = '{expected}'");
        assert_eq!(command(&workspace, &script).run(std::future::pending()).await.unwrap(), Exit::Code(0));
    }
}

/// Runs `script`, tells it to stop once it says on its terms that it is ready, and gives its process id.
async fn stopped(parent: &tempfile::TempDir, script: &str) -> String {
    let workspace = workspace(parent);
    let fifo = parent.path().join("ready");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("cd '{}'; {script}; echo $$ >ready; read -r line <ready", parent.path().display());
    let (tell, pid) = tokio::sync::oneshot::channel();
    let stop = async move {
        tell.send(tokio::task::spawn_blocking(move || fs::read_to_string(fifo)).await.unwrap().unwrap()).unwrap();
    };
    assert_eq!(command(&workspace, &script).run(stop).await.unwrap(), Exit::Stopped);
    pid.await.unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_child_is_asked_to_end() {
    let parent = tempfile::tempdir().unwrap();
    let pid = stopped(&parent, "trap 'echo asked >asked; exit' TERM").await;
    assert!(!Path::new("/proc").join(pid).exists(), "the child is gone");
    assert!(parent.path().join("asked").exists());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_listen_is_killed() {
    let parent = tempfile::tempdir().unwrap();
    let pid = stopped(&parent, "trap '' TERM").await;
    assert!(!Path::new("/proc").join(pid).exists(), "the child is gone");
}

#[test]
fn nothing_runs_without_a_kubeconfig() {
    let parent = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(Some(parent.path())).unwrap();
    assert!(shell::prepare(&workspace, Launch::Shell).is_err());
}
