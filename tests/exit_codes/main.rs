//! The `mykube` program as a script sees it: exit codes, output, and that nothing is left behind.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

mod accounts;

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A command with an environment of its own and no standard input.
fn mykube(home: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mykube"));
    command.args(args).env_clear().env("HOME", home.path()).env("MYKUBE_KUBECONFIG_DIR", home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Its exit code and output; its private directory must be gone.
fn ends(args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().unwrap();
    let output = mykube(&home, args).output().unwrap();
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing may be left behind");
    told(output)
}

fn told(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// An address at which nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Answers one request with `response`; returns the address, and the request once it came.
fn answers_once(response: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.ends_with(b"}") {
            let n = stream.read(&mut buffer).unwrap();
            assert_ne!(n, 0, "the request ended early");
            request.extend_from_slice(&buffer[..n]);
        }
        stream.write_all(response.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (url, thread)
}

#[test]
fn a_wrong_command_line_is_2() {
    for args in [&["client", "--no-such-flag"][..], &["nonsense"], &["client", "--port", "70000"]] {
        assert_eq!(ends(args).0, 2, "{args:?}");
    }
    let (code, _, said) = ends(&["client"]);
    assert_eq!(code, 2);
    assert!(said.contains("--relay-url") && said.contains("mykube relay"), "{said}");
    let (code, _, said) = ends(&["client", "--relay-url", "http://relay.example"]);
    assert_eq!(code, 2);
    assert!(said.contains("without TLS"), "{said}");
}

#[test]
fn a_variable_that_is_empty_is_not_set_and_nonsense_is_2() {
    let run = |value: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut command = mykube(&home, &["client", "--relay-url", &nobody(), "48320417", "--", "true"]);
        // If set, the last variable contradicts a command.
        for name in ["MYKUBE_QUIET", "MYKUBE_VERIFY", "MYKUBE_MERGE", "MYKUBE_NO_SHELL"] {
            command.env(name, value);
        }
        told(command.env("MYKUBE_PORT", "").output().unwrap())
    };
    let (code, _, said) = run("");
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("warning: other users"), "not quiet: {said}");
    let (code, _, said) = run("perhaps");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("'perhaps'") && said.contains("not a boolean"), "{said}");
}

#[test]
fn a_code_that_is_none_is_2_and_not_repeated() {
    let (code, _, said) = ends(&["client", "--relay-url", &nobody(), "1234abcd"]);
    assert_eq!(code, 2);
    assert!(said.contains("digits only") && !said.contains("1234abcd"), "{said}");
    let (code, _, said) = ends(&["client", "--relay-url", &nobody()]);
    assert_eq!(code, 2);
    assert!(said.contains("no code was given"), "{said}");
}

#[test]
fn a_relay_that_is_not_there_is_4_at_both_ends() {
    let relay = nobody();
    let (code, out, said) = ends(&["client", "--relay-url", &relay, "48320417", "--output", "json"]);
    assert_eq!(code, 4);
    assert!(said.contains("connection refused"), "{said}");
    assert!(said.contains("other users of this machine can see a code"), "{said}");
    assert!(out.starts_with(r#"{"event":"closed","reason":"cannot reach "#) && out.lines().count() == 1, "{out}");

    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("kubeconfig");
    fs::write(
        &kubeconfig,
        r#"{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": {"token": "very-secret-token"}}]}"#,
    )
    .unwrap();
    let args =
        ["server", "--relay-url", &relay, "--kubeconfig", kubeconfig.to_str().unwrap(), "-vvv", "--output", "json"];
    let (code, out, said) = told(mykube(&home, &args).output().unwrap());
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("Clients may do: as RBAC allows") && !said.contains("very-secret-token"), "{said}");
    assert!(out.starts_with(r#"{"event":"stopped","reason":"cannot reach "#) && out.lines().count() == 1, "{out}");
    let args = [&args[..], &["--share-credentials"]].concat();
    let (code, _, said) = told(mykube(&home, &args).output().unwrap());
    assert_eq!(code, 4, "{said}");
    assert!(!said.contains("Clients may do") && !said.contains("very-secret-token"), "{said}");
    let args = [&args[..], &["--read-only"]].concat();
    let (code, _, said) = told(mykube(&home, &args).output().unwrap());
    assert_eq!(code, 2, "a policy needs guarded mode: {said}");
}

#[test]
fn an_unknown_code_is_3_and_only_its_nameplate_is_sent() {
    let (relay, request) = answers_once(
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 29\r\n\r\n{\"error\":\"session not found\"}",
    );
    let home = tempfile::tempdir().unwrap();
    let mut command = mykube(&home, &["client", "--relay-url", &relay, "-vvv"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"483-20417\n").unwrap();
    let (code, _, said) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("no session waits under this code") && !said.contains("20417"), "{said}");
    let request = request.join().unwrap();
    assert!(request.contains(r#"{"nameplate":"483"}"#) && !request.contains("20417"), "{request}");
}

#[test]
fn what_fails_here_fails_before_a_code_is_spent() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, said) = ends(&["client", "--relay-url", &nobody(), "48320417", "--port", &port]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("port {port}")) && said.contains("--port"), "{said}");
    let (code, _, said) =
        ends(&["client", "--relay-url", &nobody(), "48320417", "--kubeconfig-dir", "/proc/nonexistent"]);
    assert_eq!(code, 1);
    assert!(said.contains("/proc/nonexistent"), "{said}");
    let home = tempfile::tempdir().unwrap();
    let args = ["client", "--relay-url", &nobody(), "48320417", "--merge"];
    let (code, _, said) = told(mykube(&home, &args).env("KUBECONFIG", "/dev/null").output().unwrap());
    assert_eq!(code, 1);
    assert!(said.contains("cannot merge into /dev/null") && said.contains("KUBECONFIG"), "{said}");
    assert_eq!(ends(&args).0, 4, "and without a kubeconfig none is made before there is a session");
    for end in ["client", "server"] {
        let (code, _, said) = ends(&[end, "--relay-url", &nobody(), "--verify"]);
        assert_eq!(code, 1);
        assert!(said.contains("no terminal"), "{said}");
    }
}

#[test]
fn a_command_that_is_not_there_costs_no_code() {
    let run = |command: &str| ends(&["client", "--relay-url", &nobody(), "48320417", "--", command]);
    let (code, _, said) = run("no-such-command");
    assert_eq!(code, 127, "{said}");
    assert!(said.contains("cannot run no-such-command") && said.contains("PATH"), "{said}");
    assert_eq!(run("/nonexistent/command").0, 127);
    assert_eq!(run("/dev/null").0, 126);
    assert_eq!(run("/").0, 126);
    assert_eq!(run("true").0, 4, "and one that is there is paired for");
    assert_eq!(ends(&["shell", "--", "no-such-command"]).0, 127);
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_ignored_at_the_start_stays_ignored() {
    // A server that accepts connections and never answers.
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", relay.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("kubeconfig");
    fs::write(
        &kubeconfig,
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
        clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {token: t}}]}",
    )
    .unwrap();
    let server = ["server", "--relay-url", &url, "--kubeconfig", kubeconfig.to_str().unwrap()];
    for args in [&server[..], &["client", "--relay-url", &url, "--no-shell"]] {
        let plain = mykube(&home, args);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let [hang_up, interrupt, terminate] = [1_u64, 2, 15].map(|signal| 1 << (signal - 1));
        let start = Instant::now();
        let (ignored, caught) = loop {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
            let mask = |name| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                u64::from_str_radix(line.trim(), 16).unwrap()
            };
            let masks = (mask("SigIgn:"), mask("SigCgt:"));
            if masks.1 & terminate != 0 {
                break masks;
            }
            assert!(start.elapsed() < DEADLINE && child.try_wait().unwrap().is_none(), "no handlers: {status}");
            std::thread::yield_now();
        };
        assert_eq!(
            (ignored & (hang_up | interrupt), caught & (hang_up | interrupt)),
            (hang_up | interrupt, 0),
            "{args:?}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn two_kinds_of_lines_do_not_share_standard_output() {
    let (code, _, said) = ends(&["server", "--relay-url", &nobody(), "--audit-log=-", "--output=json"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--audit-log a FILE"), "{said}");
    // A log on standard output is allowed: this fails because there is no kubeconfig.
    let (code, _, said) = ends(&["server", "--relay-url", &nobody(), "--audit-log=-"]);
    assert!(code == 1 && said.contains("no kubeconfig was found"), "{said}");
}

#[test]
fn a_signal_ends_what_waits_for_a_code() {
    let home = tempfile::tempdir().unwrap();
    let mut command = mykube(&home, &["client", "--relay-url", &nobody(), "--output", "json"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // The port is bound and the directory made before the code is read, so the directory shows that both are done.
    let start = Instant::now();
    while fs::read_dir(home.path()).unwrap().count() == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        assert!(start.elapsed() < DEADLINE, "no directory");
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let stdin = child.stdin.take();
    let (code, out, _) = told(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(code, 1);
    assert!(out.contains("SIGTERM"), "{out}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn what_was_not_typed_is_not_shown_and_a_typo_is_told() {
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        told(mykube(&home, args).env("MYKUBE_CA_FILE", "/ca").env("MYKUBE_READONLY", "1").output().unwrap())
    };
    let (code, _, said) = run(&["client", "--no-such-flag"]);
    assert!(code == 2 && !said.contains("ca-file") && said.contains("Usage: mykube client"), "{said}");
    let (_, _, said) = run(&["client", "--relay-url", "http://127.0.0.1:9", "48320417"]);
    assert!(said.contains("MYKUBE_READONLY is set, and nothing reads it: did you mean MYKUBE_READ_ONLY?"), "{said}");
    let (_, out, _) = run(&["--help"]);
    assert!(out.contains("[env: MYKUBE_CA_FILE"), "and help shows what is set: {out}");
}

#[test]
fn help_teaches_by_example_and_completions_complete() {
    for args in [&["--help"][..], &["client", "--help"], &["server", "--help"], &["relay", "--help"]] {
        let (code, out, _) = ends(args);
        assert_eq!(code, 0);
        assert!(out.contains("Examples:\n"), "{args:?}");
    }
    let (code, out, _) = ends(&["completions", "bash"]);
    assert_eq!(code, 0);
    assert!(out.contains("--relay-url"));
}
