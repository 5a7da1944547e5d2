//! Real shells on a real terminal: the user's own start-up file, the cluster in the prompt, the session's environment.
//!
//! Over 500 lines because each shell is tried with the same helpers, which nothing else uses.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    fs::File,
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mykube_client::{Exit, Launch, Live, Workspace, guard::Guard, shell};
use mykube_protocol::channel::Welcome;
use nix::unistd::{getpgrp, getsid};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{tcgetpgrp, tcsetpgrp},
};
use tokio::signal::unix::{SignalKind, signal};

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(30);

fn welcome() -> Welcome {
    serde_json::from_str(r#"{"mode": "shared", "cluster": "prod-1", "credentials": {"token": "abc"}}"#).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What `mykube client` does around a shell, in a process of its own: it handles signals and the terminal.
#[test]
#[ignore = "started on a terminal by the other tests"]
fn inner() {
    let exit = runtime().block_on(async {
        let parent = std::env::var_os("TEST_PARENT").unwrap();
        let mut workspace = Workspace::create(Some(Path::new(&parent))).unwrap();
        workspace.write(&welcome(), 40123).unwrap();
        let launch = match std::env::var_os("TEST_COMMAND") {
            Some(script) => Launch::Command(vec!["sh".into(), "-c".into(), script]),
            None => Launch::Shell,
        };
        let stop = async {
            match std::env::var_os("TEST_STOP") {
                Some(fifo) => drop(tokio::task::spawn_blocking(|| fs::read(fifo)).await.unwrap().unwrap()),
                None => std::future::pending().await,
            }
        };
        let exit = shell::prepare(&workspace, launch).unwrap().run(stop).await.unwrap();
        workspace.close().unwrap();
        exit
    });
    let terminal = File::open("/dev/tty").unwrap();
    // Outside of our PID namespace neither has a number.
    let ours = Pid::from_raw(getpgrp().as_raw());
    assert_eq!(tcgetpgrp(&terminal).ok(), ours, "the shell that waits for us has its terminal again");
    match exit {
        Exit::Code(code) => std::process::exit(code.into()),
        Exit::Stopped => std::process::exit(5),
    }
}

/// A kubectl that ends late: it outlives its shell, waits until `mykube` is gone and the shell around that has its
/// terminal back, and then takes the terminal.
#[test]
#[ignore = "started on a terminal by the other tests"]
fn late() {
    let _runtime = runtime();
    let _entered = _runtime.enter();
    let _asked = [SignalKind::hangup(), SignalKind::terminate()].map(|kind| signal(kind).unwrap());
    let mykube = pid(&std::env::var("TEST_MYKUBE").unwrap());
    let mykube = pidfd_open(mykube, PidfdFlags::empty()).unwrap();
    let terminal = File::open("/dev/tty").unwrap();
    println!("late is {}.", std::process::id());
    poll(&mut [PollFd::new(&mykube, PollFlags::IN)], None).unwrap();
    while tcgetpgrp(&terminal).unwrap() != pid(&getsid(None).unwrap().to_string()) {
        std::thread::yield_now();
    }
    let mut blocked = nix::sys::signal::SigSet::empty();
    blocked.add(nix::sys::signal::Signal::SIGTTOU);
    blocked.thread_block().unwrap();
    tcsetpgrp(&terminal, pid(&getpgrp().to_string())).unwrap();
    fs::write(Path::new(&std::env::var_os("HOME").unwrap()).join("taken"), "").unwrap();
    std::thread::park();
}

fn pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().unwrap()).unwrap()
}

/// A shell on a terminal, with a home of its own.
struct OnTerminal {
    master: File,
    child: Child,
    seen: String,
    /// The texts that were expected, and the output before each.
    passed: String,
    /// When it last wrote something, or was sent something.
    since: Instant,
    home: tempfile::TempDir,
}

/// The command line with which a person starts `inner` in their own shell.
const INNER: &str = "\"$TEST_EXE\" --ignored --exact inner --nocapture";

/// A PID namespace of its own, but not a session or a process group.
const APART: &str = "unshare --user --map-root-user --pid --fork --mount-proc --";

impl OnTerminal {
    /// `mykube` has the terminal to itself.
    fn start(shell: &str, rc: &str, content: &str) -> Self {
        Self::leading(&["sh", "-c", &format!("exec {INNER}")], shell, rc, content)
    }

    /// An interactive bash has the terminal.
    fn outer(shell: &str) -> Self {
        let mut terminal = Self::leading(&["bash", "--norc", "--noprofile", "-i"], shell, ".bashrc", "PS1='mine> '\n");
        terminal.expect("OUTER> ");
        terminal
    }

    fn leading(program: &[&str], shell: &str, rc: &str, content: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let rc = home.path().join(rc);
        fs::create_dir_all(rc.parent().unwrap()).unwrap();
        fs::write(&rc, content).unwrap();
        fs::create_dir(home.path().join("ram")).unwrap();
        // Without this, fish reads all manual pages at its first start.
        fs::create_dir_all(home.path().join(".local/share/fish/generated_completions")).unwrap();

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || Stdio::from(File::options().read(true).write(true).open(&path).unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .args(program)
            .env_clear()
            .env("TEST_EXE", std::env::current_exe().unwrap())
            .env("PS1", "OUTER> ")
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
        Self {
            master: File::from(master),
            child,
            seen: String::new(),
            passed: String::new(),
            since: Instant::now(),
            home,
        }
    }

    /// Reads until `text` comes; the next call searches behind it.
    fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                let passed: String = self.seen.drain(..at + text.len()).collect();
                self.passed.push_str(&passed);
                return;
            }
            assert!(self.read_some(text), "the terminal closed before {text:?}: {:?}", self.seen);
        }
    }

    /// Waits for something to read. False once all processes have closed the terminal, which reads as an error on
    /// Linux.
    fn read_some(&mut self, wanted: &str) -> bool {
        let left = DEADLINE.saturating_sub(self.since.elapsed());
        assert!(!left.is_zero(), "no {wanted:?} in {:?}, after {:?}", self.seen, self.passed);
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        // A signal for another test of this process may interrupt the wait.
        if poll(&mut fds, Some(&left.try_into().unwrap())).is_err() || fds[0].revents().is_empty() {
            return true;
        }
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(n) if n > 0 => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
            _ => return false,
        }
        self.since = Instant::now();
        true
    }

    fn type_line(&mut self, line: &str) {
        self.since = Instant::now();
        self.master.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for the end, and checks that nothing is left of the session.
    fn finish(mut self) -> i32 {
        while self.read_some("its end") {}
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

/// Whether a shell is installed. `scripts/test` says at its end what was not tested.
fn is_there(shell: &str) -> bool {
    let there = Path::new(shell).exists();
    if !there {
        println!("NOT RUN: {shell} is not installed");
        if let Some(list) = std::env::var_os("MYKUBE_NOT_RUN") {
            let mut list = File::options().append(true).open(list).unwrap();
            writeln!(list, "sessions in {shell}: NOT RUN, it is not installed").unwrap();
        }
    }
    there
}

/// A user's start-up file that sets `OWN` and its own `KUBECONFIG`, as many do.
fn try_shell(shell: &str, rc: &str, content: &str) {
    if !is_there(shell) {
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

/// Sets `KUBECONFIG` from a hook of the user's, and by hand: the prompt is right each time.
fn try_truth(shell: &str, rc: &str, content: &str, set: &str, unset: &str) {
    if !is_there(shell) {
        return;
    }
    let mut terminal = OnTerminal::start(shell, rc, content);
    terminal.expect("[prod-1] ");
    terminal.type_line(set);
    terminal.expect("[not prod-1] ");
    terminal.type_line(unset);
    terminal.expect("[prod-1] ");
    terminal.type_line("exit 7");
    assert_eq!(terminal.finish(), 7);
}

#[test]
fn the_prompt_says_where_kubectl_goes() {
    let (set, unset) = ("OURS=$KUBECONFIG; KUBECONFIG=/wrong", "KUBECONFIG=$OURS");
    // A hook that runs after ours sets it.
    let hooked = "TO=/wrong; PROMPT_COMMAND+=('KUBECONFIG=${TO-$KUBECONFIG}')";
    try_truth("/bin/bash", ".bashrc", "", set, unset);
    try_truth("/bin/bash", ".bashrc", "set -u; shopt -s failglob; IFS=,; unset PROMPT_COMMAND\n", set, unset);
    try_truth("/bin/bash", ".bashrc", "declare -r PROMPT_COMMAND=:\n", set, unset);
    let late = format!("OURS=$KUBECONFIG; {hooked}");
    try_truth("/bin/bash", ".bashrc", "PROMPT_COMMAND=(true)\n", &late, "unset TO; KUBECONFIG=$OURS");
    try_truth("/bin/sh", ".shrc", "", set, unset);
    try_truth("/bin/zsh", ".zshrc", "PROMPT='mine> '\n", set, unset);
    let late = "OURS=$KUBECONFIG; hook() { export KUBECONFIG=/wrong }; precmd_functions+=(hook); true";
    try_truth(
        "/bin/zsh",
        ".zshrc",
        "setopt nounset; true\n",
        &format!("{late}\n"),
        "precmd_functions=(${precmd_functions:#hook}); KUBECONFIG=$OURS",
    );
    let (set, unset) = ("set OURS $KUBECONFIG; set -gx KUBECONFIG /wrong", "set -gx KUBECONFIG $OURS");
    try_truth("/usr/bin/fish", ".config/fish/config.fish", "", set, unset);
    let late = "set OURS $KUBECONFIG; function hook --on-event fish_prompt; set -gx KUBECONFIG /wrong; end";
    try_truth("/usr/bin/fish", ".config/fish/config.fish", "", late, "functions -e hook; set -gx KUBECONFIG $OURS");
}

#[test]
fn a_hook_of_the_users_own_file_is_seen_at_once() {
    let hook = "_hook() { export KUBECONFIG=/wrong; }\n";
    for content in [
        "PROMPT_COMMAND=_hook\n",
        "PROMPT_COMMAND='_hook;'\n",
        "PROMPT_COMMAND=(_hook)\n",
        "set -u; PROMPT_COMMAND=_hook\n",
        "trap _hook DEBUG\n",
        "declare -rx KUBECONFIG=/wrong\n",
    ] {
        let mut terminal = OnTerminal::start("/bin/bash", ".bashrc", &format!("{hook}PS1='mine> '\n{content}"));
        terminal.expect("[not prod-1] mine> ");
        terminal.type_line("echo to=$KUBECONFIG");
        terminal.expect("to=/wrong");
        terminal.type_line("exit 7");
        assert_eq!(terminal.finish(), 7, "{content}");
    }
}

#[test]
fn what_is_read_only_is_survived_and_told() {
    for (shell, rc, read_only) in [
        ("/bin/bash", ".bashrc", "declare -rx KUBECONFIG=/wrong; OWN=yes\n"),
        ("/bin/sh", ".shrc", "export KUBECONFIG=/wrong; readonly KUBECONFIG; OWN=yes\n"),
        ("/bin/zsh", ".zshrc", "typeset -rx KUBECONFIG=/wrong; OWN=yes\n"),
    ] {
        if !is_there(shell) {
            continue;
        }
        let mut terminal = OnTerminal::start(shell, rc, read_only);
        terminal.expect("your start-up file made KUBECONFIG read-only");
        terminal.expect("[not prod-1] ");
        terminal.type_line("echo own=$OWN:$MYKUBE_CLUSTER; exit 7");
        terminal.expect("own=yes:prod-1");
        assert_eq!(terminal.finish(), 7);
    }
    // The cluster is then before the prompt.
    let mut terminal = OnTerminal::start("/bin/bash", ".bashrc", "declare -r PS1='fixed> '\n");
    terminal.expect("[prod-1] \r\n");
    terminal.expect("fixed> ");
    terminal.type_line("KUBECONFIG=/wrong");
    terminal.expect("[not prod-1] \r\n");
    assert!(!terminal.seen.contains("readonly"), "{}", terminal.seen);
    terminal.type_line("exit 7");
    assert_eq!(terminal.finish(), 7);
}

#[test]
fn the_own_prompt_of_fish_sees_the_last_status() {
    let rc = ".config/fish/config.fish";
    if is_there("/usr/bin/fish") {
        let prompt = "function fish_prompt; echo -n \"<$status> \"; end\n";
        let mut terminal = OnTerminal::start("/usr/bin/fish", rc, prompt);
        terminal.expect("[prod-1] <0> ");
        terminal.type_line("false");
        terminal.expect("[prod-1] <1> ");
        terminal.type_line("exit 7");
        assert_eq!(terminal.finish(), 7);
    }
}

#[test]
fn suspend_gives_the_prompt_back_and_fg_goes_on() {
    for shell in ["/bin/bash", "/bin/zsh", "/usr/bin/fish"] {
        if !is_there(shell) {
            continue;
        }
        let mut terminal = OnTerminal::outer(shell);
        terminal.type_line(INNER);
        terminal.expect("[prod-1] ");
        // In the background it waits for the terminal, like any shell.
        for back in ["fg", "bg; until jobs | grep -q Stopped; do :; done; fg"] {
            terminal.type_line("suspend");
            terminal.expect("Stopped");
            terminal.expect("OUTER> ");
            terminal.type_line("stty -a | tr ' ' '\\n' | grep -x -e '.\\?icanon'; echo mo''des");
            terminal.expect("modes");
            terminal.expect("OUTER> ");
            terminal.type_line(back);
            terminal.type_line("echo al''ive");
            terminal.expect("alive");
        }
        terminal.type_line("exit 7");
        terminal.expect("OUTER> ");
        terminal.type_line("echo co''de=$?; exit");
        terminal.expect("code=7");
        assert_eq!(terminal.finish(), 0, "{shell}");
    }
}

#[test]
fn a_command_stops_and_goes_on_with_its_job() {
    for (script, key) in [
        ("echo pid=$$. rea''dy; read line; exit 7", "\x1a"),
        ("echo pid=$$. rea''dy; kill -STOP $$; read line; exit 7", ""),
    ] {
        let mut terminal = OnTerminal::outer("/bin/sh");
        terminal.type_line(&format!("TEST_COMMAND={} {INNER}", shell_word(script)));
        terminal.expect("pid=");
        terminal.expect(".");
        let command = terminal.passed.rsplit_once("pid=").unwrap().1.trim_end_matches('.').to_owned();
        terminal.expect("ready\r");
        terminal.master.write_all(key.as_bytes()).unwrap();
        terminal.expect("Stopped");
        terminal.expect("OUTER> ");
        // Our shell waits for `mykube` alone; until the command has stopped too, it may read what is typed.
        while !fs::read_to_string(format!("/proc/{command}/stat")).unwrap().contains(") T ") {
            std::thread::yield_now();
        }
        terminal.type_line("fg");
        terminal.expect(INNER);
        terminal.type_line("a line");
        terminal.expect("OUTER> ");
        terminal.type_line("echo co''de=$?; exit");
        terminal.expect("code=7");
        assert_eq!(terminal.finish(), 0, "{script}");
    }
}

#[test]
fn ctrl_c_reaches_a_command_whose_code_comes_out() {
    let mut terminal = OnTerminal::outer("/bin/sh");
    let script = "trap 'kill $!; echo got\"\"it; exit 3' INT; sleep 1000 & echo rea''dy; wait";
    terminal.type_line(&format!("TEST_COMMAND={} {INNER}", shell_word(script)));
    terminal.expect("ready\r");
    terminal.type_line("\x03");
    terminal.expect("gotit");
    terminal.expect("OUTER> ");
    terminal.type_line("echo co''de=$?; exit");
    terminal.expect("code=3");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn modes_are_put_back_after_a_command_that_was_killed() {
    for around in ["", APART] {
        let mut terminal = OnTerminal::outer("/bin/sh");
        let script = shell_word("stty raw -echo; kill -9 $$");
        terminal.type_line(&format!("TEST_COMMAND={script} {around} {INNER}; stty -a"));
        terminal.expect(" icanon");
        terminal.expect(" echo ");
        terminal.type_line("exit");
        terminal.finish();
    }
}

/// Outer shell, `mykube`, its shell, and in that a kubectl that ends last: the outer shell keeps its terminal.
#[test]
fn what_a_shell_has_left_does_not_take_the_terminal_from_the_one_around_us() {
    let mut terminal = OnTerminal::outer("/bin/sh");
    let home = terminal.home.path().to_owned();
    let (shell, fifo) = (home.join("leaves-one"), home.join("stop"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = "#!/bin/bash\nset -m\ntrap 'exit 1' HUP\n\
                  TEST_MYKUBE=$PPID \"$TEST_EXE\" --ignored --exact late --nocapture &\nwait\n";
    fs::write(&shell, script).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o700)).unwrap();
    terminal.type_line(&format!("SHELL={} TEST_STOP={} {INNER}", shell.display(), fifo.display()));
    terminal.expect("late is ");
    terminal.expect(".");
    let late = terminal.passed.rsplit_once("late is ").unwrap().1.trim_end_matches('.').to_owned();
    fs::write(&fifo, "").unwrap();
    terminal.expect("OUTER> ");
    while Path::new("/proc").join(&late).exists() && !home.join("taken").exists() {
        std::thread::yield_now();
    }
    terminal.type_line("echo co''de=$?; exit");
    terminal.expect("code=5");
    assert_eq!(terminal.finish(), 0);
}

/// Quotes a text as one word of a shell.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn command(workspace: &Workspace, script: &str) -> shell::Prepared {
    shell::prepare(workspace, Launch::Command(["sh", "-c", script].map(Into::into).into())).unwrap()
}

fn workspace(parent: &tempfile::TempDir) -> Workspace {
    let mut workspace = Workspace::create(Some(parent.path())).unwrap();
    workspace.write(&welcome(), 40123).unwrap();
    workspace
}

/// Runs a test in a process of its own, so that it has no children but its own. Returns whether this is that process.
fn apart(test: &str) -> bool {
    if std::env::var_os("TEST_APART").is_some() {
        return true;
    }
    let mut apart = Command::new(std::env::current_exe().unwrap());
    assert!(apart.args(["--exact", test, "--nocapture"]).env("TEST_APART", "1").status().unwrap().success());
    false
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

    let script = format!("test \"$KUBECACHEDIR\" = '{}'", workspace.kubeconfig().with_file_name("cache").display());
    assert_eq!(command(&joined, &script).run(std::future::pending()).await.unwrap(), Exit::Code(0), "as the first");

    let missing = shell::prepare(&workspace, Launch::Command(vec!["/proc/nonexistent".into()])).unwrap();
    let error = missing.run(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot run /proc/nonexistent"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_child_has_left_is_ended_with_it_unless_it_ignores_a_hang_up() {
    if !apart("what_a_child_has_left_is_ended_with_it_unless_it_ignores_a_hang_up") {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let start = "sh -c 'trap : TERM; while :; do sleep 0.1; done' & echo $! >left; \
                 trap '' HUP TERM; sleep 1000 & echo $! >kept; trap - HUP; trap exit TERM";
    stopped(&parent, start, WhenAsked::Ends).await;
    let read = |name| fs::read_to_string(parent.path().join(name)).unwrap().trim().to_owned();
    has_ended(&read("left"));
    let kept = read("kept");
    assert!(Path::new("/proc").join(&kept).exists(), "it was to stay");
    rustix::process::kill_process(pid(&kept), rustix::process::Signal::KILL).unwrap();
}

/// As in a container entered with `nsenter` or `unshare`: our session and group have no number here.
#[test]
fn a_session_from_outside_of_the_pid_namespace_is_ours_too() {
    let mut apart = APART.split(' ');
    let mut there = Command::new(apart.next().unwrap());
    there.args(apart).arg(std::env::current_exe().unwrap());
    there.args(["--nocapture", "a_child_", "what_a_child_has_left"]);
    let output = there.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("3 passed"), "{output:?}");
}

#[tokio::test]
async fn in_guarded_mode_kubectl_execs_by_spdy_unless_it_is_recorded() {
    let parent = tempfile::tempdir().unwrap();
    for (recorded, expected) in [(false, "unset false"), (true, "unset unset")] {
        let mut workspace = Workspace::create(Some(parent.path())).unwrap();
        let welcome = mykube_protocol::channel::Welcome { recorded, ..welcome() };
        workspace.write(&Guard::new(Ipv4Addr::LOCALHOST).unwrap().localise(&welcome), 40123).unwrap();
        let both = "${HTTP2_READ_IDLE_TIMEOUT_SECONDS-unset} ${KUBECTL_REMOTE_COMMAND_WEBSOCKETS-unset}";
        let script = format!("test \"{both}\" = '{expected}'");
        assert_eq!(command(&workspace, &script).run(std::future::pending()).await.unwrap(), Exit::Code(0));
    }
}

/// Whether a child ends by itself when it is asked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenAsked {
    Ends,
    RunsOn,
}

/// Runs `script`, stops it once it says that it is ready, and returns its process id. To be called on a paused clock: a
/// child that ends when it is asked to has all the time it needs, and one that runs on is killed at once.
async fn stopped(parent: &tempfile::TempDir, script: &str, when_asked: WhenAsked) -> String {
    let workspace = workspace(parent);
    let fifo = parent.path().join("ready");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let script = format!("cd '{}'; {script}; echo $$ >ready; read -r line <ready", parent.path().display());
    let (tell, id) = tokio::sync::oneshot::channel();
    let stop = async move {
        let id = tokio::task::spawn_blocking(move || fs::read_to_string(fifo)).await.unwrap().unwrap();
        let id = id.trim().to_owned();
        if when_asked == WhenAsked::Ends {
            let child = pid(&id);
            // While this thread waits for the child to be reaped, the clock stands still.
            tokio::task::spawn_blocking(move || wait_until_reaped(child));
        }
        tell.send(id).unwrap();
    };
    assert_eq!(command(&workspace, &script).run(stop).await.unwrap(), Exit::Stopped);
    id.await.unwrap()
}

/// Returns when no process has this number any more; where that does not happen, after the deadline.
fn wait_until_reaped(child: Pid) {
    let (began, entry) = (Instant::now(), Path::new("/proc").join(child.as_raw_nonzero().to_string()));
    if let Ok(child) = pidfd_open(child, PidfdFlags::empty()) {
        let _ = poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&DEADLINE.try_into().unwrap()));
    }
    while entry.exists() && began.elapsed() < DEADLINE {
        std::thread::yield_now();
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_is_asked_to_end() {
    if !apart("a_child_is_asked_to_end") {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let pid = stopped(&parent, "trap 'echo asked >asked; exit' TERM", WhenAsked::Ends).await;
    assert!(!Path::new("/proc").join(pid).exists(), "the child is gone");
    assert!(parent.path().join("asked").exists());
}

#[tokio::test(start_paused = true)]
async fn a_child_that_does_not_listen_is_killed() {
    if !apart("a_child_that_does_not_listen_is_killed") {
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let pid = stopped(&parent, "trap '' TERM", WhenAsked::RunsOn).await;
    has_ended(&pid);
}

/// It was killed; that takes the longer the busier the machine is.
fn has_ended(pid: &str) {
    let began = Instant::now();
    let state = || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    while state().is_some_and(|stat| !stat.contains(") Z ")) {
        assert!(began.elapsed() < DEADLINE, "it runs on");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_runs_without_a_kubeconfig() {
    let parent = tempfile::tempdir().unwrap();
    let workspace = Workspace::create(Some(parent.path())).unwrap();
    assert!(shell::prepare(&workspace, Launch::Shell).is_err());
}
