//! A child process whose output is collected, whose end is bounded, and which never outlives its test.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process, kill_process_group},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use super::LIMIT;

/// The output and end of it so far.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    open: usize,
    exit: Option<ExitStatus>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// How a process ended, with all of its output.
#[derive(Debug)]
pub(crate) struct Done {
    name: String,
    /// Its exit code; 128 and the number for a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Its standard output, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(
            self.code == 0,
            "{} ended with {}\n{}\n{}",
            self.name,
            self.code,
            tail(&self.stdout),
            tail(&self.stderr)
        );
        self.stdout
    }
}

/// A child. Killed with its whole group and reaped on drop.
pub(crate) struct Process {
    name: String,
    pid: Pid,
    shared: Arc<Shared>,
    input: Option<Box<dyn Write + Send + Sync>>,
    terminal: Option<File>,
}

impl Process {
    /// Starts it with pipes, as the leader of a group of its own.
    pub(crate) fn start(mut command: Command) -> Self {
        let name = name(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let shared = Arc::new(Shared::default());
        let input = child.stdin.take().map(|stdin| Box::new(stdin) as Box<dyn Write + Send + Sync>);
        shared.lock().open = 2;
        collect(&shared, child.stdout.take().unwrap(), |state| &mut state.stdout);
        collect(&shared, child.stderr.take().unwrap(), |state| &mut state.stderr);
        let pid = reap(&shared, child);
        Self { name, pid, shared, input, terminal: None }
    }

    /// Starts it on a terminal of its own, which is its only input and output.
    pub(crate) fn on_terminal(command: &Command, rows: u16, columns: u16) -> Self {
        let name = name(command);
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(path).unwrap();
        let terminal = File::from(master);
        // setsid --ctty makes standard input the controlling terminal, which safe Rust cannot.
        let mut session = Command::new(on_path("setsid"));
        session.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let child = session.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        drop(session);
        let shared = Arc::new(Shared::default());
        shared.lock().open = 1;
        collect(&shared, terminal.try_clone().unwrap(), |state| &mut state.stdout);
        let input = Box::new(terminal.try_clone().unwrap());
        let process = Self { name, pid: reap(&shared, child), shared, input: Some(input), terminal: Some(terminal) };
        process.resize(rows, columns);
        process
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sets a new size of its terminal; the system tells the programs on it.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.terminal.as_ref().expect("a process on a terminal"), size).unwrap();
    }

    /// Writes to its standard input.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let input = self.input.as_mut().expect("its input is still open");
        input.write_all(bytes.as_ref()).and_then(|()| input.flush()).unwrap();
    }

    /// Writes all of it from a thread of its own, then ends the input.
    pub(crate) fn feed(&mut self, bytes: Vec<u8>) {
        let mut input = self.input.take().expect("its input is still open");
        // It may end without reading: its output tells what it did.
        thread::spawn(move || input.write_all(&bytes));
    }

    /// Ends its standard input.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
    }

    /// Waits until `find` returns a value. Fails when the process ends before, or after [`LIMIT`].
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&State) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = find(&state) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            let over = state.exit.is_some() && state.open == 0;
            if over || left.is_zero() {
                let why = state.exit.map_or("after the limit".to_owned(), |exit| format!("though it ended ({exit})"));
                let said = format!("{}\n{}", lossy(&state.stdout), lossy(&state.stderr));
                drop(state);
                panic!("no {what} from {} {why}:\n{}", self.name, tail(&said));
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `look` on all output, now and after each change, until it returns true. False if the process ended before,
    /// or the deadline passed.
    pub(crate) fn follow(&self, until: Instant, mut look: impl FnMut(&State) -> bool) -> bool {
        let mut state = self.shared.lock();
        loop {
            if look(&state) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.exit.is_some() && state.open == 0 {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its standard input, to be written by other code.
    pub(crate) fn take_input(&mut self) -> Box<dyn Write + Send + Sync> {
        self.input.take().expect("its input is still open")
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for a text on standard output.
    #[track_caller]
    pub(crate) fn prints(&self, text: &str) {
        self.wait(text, |state| lossy(&state.stdout).contains(text).then_some(()));
    }

    /// Waits for a text on standard error.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) {
        self.wait(text, |state| lossy(&state.stderr).contains(text).then_some(()));
    }

    pub(crate) fn stdout(&self) -> String {
        lossy(&self.shared.lock().stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        lossy(&self.shared.lock().stderr)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.shared.lock().exit.is_none()
    }

    /// Waits for its end and the end of its output.
    #[track_caller]
    pub(crate) fn done(&self) -> Done {
        self.done_within(LIMIT)
    }

    /// The same within a promised limit.
    #[track_caller]
    pub(crate) fn done_within(&self, limit: Duration) -> Done {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        while state.exit.is_none() || state.open > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let said = format!("{}\n{}", lossy(&state.stdout), lossy(&state.stderr));
                drop(state);
                panic!("{} did not end within {limit:?}:\n{}", self.name, tail(&said));
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let exit = state.exit.expect("the loop ended on it");
        let code = exit.code().unwrap_or_else(|| 128 + exit.signal().unwrap_or(0));
        Done { name: self.name.clone(), code, stdout: lossy(&state.stdout), stderr: lossy(&state.stderr) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // Under the lock: a process that is not reaped keeps its number.
        let state = self.shared.lock();
        if state.exit.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let mut state = self.shared.lock();
        let until = Instant::now() + LIMIT;
        while state.exit.is_none() && Instant::now() < until {
            state = self.shared.changed.wait_timeout(state, LIMIT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn collect(shared: &Arc<Shared>, mut from: impl Read + Send + 'static, to: fn(&mut State) -> &mut Vec<u8>) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => shared.update(|state| to(state).extend_from_slice(&buffer[..n])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The last program on a terminal has ended.
                Err(_) => break,
            }
        }
        shared.update(|state| state.open -= 1);
    });
}

fn reap(shared: &Arc<Shared>, mut child: std::process::Child) -> Pid {
    let pid = Pid::from_child(&child);
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let exit = child.wait().expect("our own child can be waited for");
        shared.update(|state| state.exit = Some(exit));
    });
    pid
}

/// A program of the test's own `PATH`, whatever the child's `PATH` is.
fn on_path(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{program} is needed: install util-linux"))
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let name: Vec<_> = words.map(|word| word.to_string_lossy().chars().take(60).collect::<String>()).collect();
    name.join(" ").replace('\n', " ")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last lines, which name the cause of a failure.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
