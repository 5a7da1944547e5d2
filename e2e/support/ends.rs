//! Relay, server and client as processes of the real binary.

use std::{ffi::OsStr, path::Path, process::Command};

use rustix::process::Signal;
use serde_json::Value;

use super::{Done, Process, Sandbox};

const BINARY: &str = env!("CARGO_BIN_EXE_mykube");

/// A `mykube` command that is not started yet: with JSON events, and all log lines.
pub(crate) struct Mykube {
    command: Command,
    sandbox: Sandbox,
}

impl Mykube {
    pub(crate) fn new(name: &str) -> Self {
        Self::text(name).args(["--output", "json", "-vvv"])
    }

    /// With text output, as a person runs it.
    pub(crate) fn text(name: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(BINARY);
        command.arg(name);
        if name == "server" {
            // Streams are then raw TCP to the API server, or to its stand-in.
            command.arg("--share-credentials");
        }
        Self { command, sandbox }
    }

    /// `mykube server` in guarded mode.
    pub(crate) fn guarding(relay: &str, kubeconfig: &Path) -> Self {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(BINARY);
        command.args(["server", "--output", "json", "-vvv", "--relay-url", relay, "--kubeconfig"]).arg(kubeconfig);
        Self { command, sandbox }
    }

    /// `mykube server` with shared credentials and a kubeconfig.
    pub(crate) fn server(relay: &str, kubeconfig: &Path) -> Self {
        Self::new("server").arg("--relay-url").arg(relay).arg("--kubeconfig").arg(kubeconfig)
    }

    /// `mykube client --no-shell`; the code is to be written to its input.
    pub(crate) fn client(relay: &str) -> Self {
        Self::new("client").args(["--relay-url", relay, "--no-shell"])
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Runs it behind another program, which gets the whole command line as arguments.
    pub(crate) fn behind(mut self, program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.get_program()).args(self.command.get_args());
        command.current_dir(self.sandbox.home()).env_clear();
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
        self
    }

    pub(crate) fn start(self) -> Running {
        Running { process: Process::start(self.command), sandbox: self.sandbox }
    }

    /// Starts it with one line of standard input, usually the code.
    pub(crate) fn start_with(self, line: &str) -> Running {
        let mut running = self.start();
        running.process.write(format!("{line}\n"));
        running
    }

    /// Starts it as a person does, at a terminal of 24 lines.
    pub(crate) fn start_on_terminal(self) -> Running {
        Running { process: Process::on_terminal(&self.command, 24, 200), sandbox: self.sandbox }
    }

    /// Runs it with one line of standard input until it ends, which it must, with all of `words` in its output.
    #[track_caller]
    pub(crate) fn fails_with(self, line: &str, code: i32, words: &[&str]) -> Done {
        let mut running = self.start();
        running.process.feed(format!("{line}\n").into_bytes());
        running.failed(code, words)
    }

    /// Runs it until it ends, which it must.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Done {
        self.fails_with("", code, words)
    }
}

/// A running `mykube` with its sandbox.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) sandbox: Sandbox,
}

impl Running {
    /// Waits for the first event of this name.
    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        self.nth_event(name, 0)
    }

    /// Waits for the event of this name after `before` others.
    #[track_caller]
    pub(crate) fn nth_event(&self, name: &str, before: usize) -> Value {
        self.process.wait(&format!("event {name}"), |state| {
            let text = String::from_utf8_lossy(&state.stdout);
            let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
            let events = whole.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| event["event"] == name).nth(before)
        })
    }

    /// The server's code.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.event("code")["code"].as_str().expect("the code is a string").to_owned()
    }

    /// The client's kubeconfig.
    #[track_caller]
    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.event("connected")["kubeconfig"].as_str().expect("a path").into()
    }

    /// Waits for its end: with this code, each of `words` in its last line, and nothing left behind.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) -> Done {
        let done = self.process.done();
        let last = done.stderr.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
        assert_eq!(done.code, code, "exit code, with {last:?}\n{}", done.stderr);
        for word in words {
            assert!(last.contains(word), "no {word:?} in {last:?}\n{}", done.stderr);
        }
        self.sandbox.assert_clean();
        done
    }

    /// Asks it to end, which may take the promised five seconds, and must leave nothing behind.
    #[track_caller]
    pub(crate) fn stop(&self, signal: Signal) -> Done {
        self.process.signal(signal);
        let done = self.process.done_within(std::time::Duration::from_secs(5));
        self.sandbox.assert_clean();
        done
    }
}

/// A running relay.
pub(crate) struct Relay {
    pub(crate) running: Running,
    /// The URL for `--relay-url`.
    pub(crate) url: String,
}

impl Relay {
    /// On any port, without a rate limit: every test comes from one address.
    pub(crate) fn start() -> Self {
        Self::with(&["--api-rate", "0"])
    }

    pub(crate) fn with(args: &[&str]) -> Self {
        let relay = Mykube::new("relay").args(["--listen", "127.0.0.1:0"]).args(args);
        let data = relay.sandbox().home().join("relay");
        let running = relay.arg("--data-dir").arg(data).start();
        let url = running.event("listening")["url"].as_str().expect("an address").to_owned();
        Self { running, url }
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let address = self.url.split_once("://").expect("a URL").1;
        address.parse().expect("host and port, no path")
    }
}

/// All three processes, paired.
pub(crate) struct Tunnel {
    pub(crate) client: Running,
    pub(crate) server: Running,
    pub(crate) relay: Relay,
}

impl Tunnel {
    /// A tunnel to the cluster of a kubeconfig.
    pub(crate) fn open(kubeconfig: &Path) -> Self {
        Self::to(|relay| Mykube::server(relay, kubeconfig))
    }

    /// The same in guarded mode.
    pub(crate) fn guarded(kubeconfig: &Path) -> Self {
        Self::guarded_with(kubeconfig, &[])
    }

    /// The same, with these flags for the server.
    pub(crate) fn guarded_with(kubeconfig: &Path, args: &[&str]) -> Self {
        Self::to(|relay| Mykube::guarding(relay, kubeconfig).args(args))
    }

    /// The same; both ends wait only this long for a lost connection.
    pub(crate) fn open_for(kubeconfig: &Path, window: &str) -> Self {
        Self::with_window(|relay| Mykube::server(relay, kubeconfig), window)
    }

    /// A tunnel to an API server of the test's.
    pub(crate) fn to(server: impl FnOnce(&str) -> Mykube) -> Self {
        Self::with_window(server, "4h")
    }

    fn with_window(server: impl FnOnce(&str) -> Mykube, window: &str) -> Self {
        let relay = Relay::start();
        let server = server(&relay.url).env("MYKUBE_RESUME_WINDOW", window).start();
        let client = Mykube::client(&relay.url).env("MYKUBE_RESUME_WINDOW", window).start_with(&server.code());
        client.event("connected");
        Self { client, server, relay }
    }

    pub(crate) fn kubeconfig(&self) -> std::path::PathBuf {
        self.client.kubeconfig()
    }

    /// The client's loopback port.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.client.event("connected")["listen"].as_str().expect("an address").parse().expect("host and port")
    }
}
