//! The programs as people use them: prompts, a subshell, questions.

use rustix::process::Signal;

use crate::support::{Cluster, Mykube, Relay, Running};

fn server(relay: &str) -> Running {
    let server = Mykube::text("server").args(["--relay-url", relay, "--color", "never", "--kubeconfig"]);
    server.arg(Cluster::get().kubeconfig).start_on_terminal()
}

/// The code as the terminal shows it.
#[track_caller]
fn shown_code(server: &Running) -> String {
    server.process.wait("code", |state| {
        let text = String::from_utf8_lossy(&state.stdout).into_owned();
        let (_, rest) = text.split_once("Code: ")?;
        let (line, _) = rest.split_once('\r')?;
        Some(line.to_owned())
    })
}

fn client(relay: &str) -> Mykube {
    Mykube::text("client").args(["--relay-url", relay, "--color", "never"])
}

#[test]
fn a_person_pairs_and_works_in_a_shell() {
    for shell in ["/bin/bash", "/bin/sh"] {
        let relay = Relay::start();
        let server = server(&relay.url);
        let code = shown_code(&server);
        let mut client = client(&relay.url).env("SHELL", shell).start_on_terminal();
        client.process.prints("Code shown by `mykube server`: ");
        client.process.write("48 2\n");
        client.process.prints("8 digits");
        client.process.wait("the question again", |state| {
            let asked = String::from_utf8_lossy(&state.stdout).matches("Code shown by").count();
            (asked == 2).then_some(())
        });
        client.process.write(format!("{code}\n"));
        client.process.prints("Connected to");
        client.process.write("kubectl get namespace default -o name && echo \"<$MYKUBE_CLUSTER>\"; echo do''ne\n");
        client.process.prints("done");
        let said = client.process.stdout();
        assert!(said.contains("namespace/default") && said.contains("<mykube>"), "{said}");
        // Ctrl-C goes to the shell: the session stays.
        client.process.write("sh -c 'echo sle\"\"eping; exec sleep 1000'\n");
        client.process.prints("sleeping");
        client.process.write("\x03");
        client.process.prints("^C");
        client.process.write("echo st''ill; exit 3\n");
        client.process.prints("still");
        let done = client.process.done();
        // Only a command after `--` sets the client's exit code: a shell's says nothing about the session.
        assert_eq!(done.code, 0, "{}", done.stdout);
        client.sandbox.assert_clean();
        server.process.prints("is gone");
        assert_eq!(server.process.done().code, 0);
    }
}

#[test]
fn a_shell_without_kubectl_is_told_so() {
    let relay = Relay::start();
    let server = server(&relay.url);
    let code = shown_code(&server);
    let client = client(&relay.url).env("SHELL", "/bin/sh").env("PATH", "/nonexistent");
    // setsid must be in the test's PATH.
    let mut client = client.start_on_terminal();
    client.process.prints("Code shown by");
    client.process.write(format!("{code}\n"));
    client.process.prints("kubectl is not on the PATH: install it");
    client.process.prints("Connected to");
    client.process.write("exit\n");
    assert_eq!(client.process.done().code, 0);
    client.sandbox.assert_clean();
}

#[test]
fn a_burned_code_is_asked_about() {
    let relay = Relay::start();
    let mut server = server(&relay.url);
    let code = shown_code(&server).replace(' ', "");
    let last = if code.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &code[..code.len() - 1]);
    for _ in 0..3 {
        Mykube::client(&relay.url).fails_with(&wrong, 3, &["ask for a new code"]);
    }
    server.process.prints("Make a new code? [yes/no] ");
    server.process.write("no\n");
    assert_eq!(server.process.done().code, 3);
    server.sandbox.assert_clean();
}

#[test]
fn both_people_compare_the_words() {
    for (answers, codes) in [(["yes", "yes"], [0, 0]), (["yes", "no"], [1, 1])] {
        let relay = Relay::start();
        let server = Mykube::text("server").args(["--relay-url", &relay.url, "--color", "never", "--verify"]);
        let mut server = server.arg("--kubeconfig").arg(Cluster::get().kubeconfig).start_on_terminal();
        let code = shown_code(&server);
        // One end with `--verify` is enough.
        let mut client = client(&relay.url).args(["--no-shell", &code]).start_on_terminal();
        let [here, there] = [&server, &client].map(|end| {
            end.process.wait("words", |state| {
                let text = String::from_utf8_lossy(&state.stdout).into_owned();
                let (_, rest) = text.split_once("Four words: ")?;
                let words = rest.split_once('\r')?.0.to_owned();
                text.contains("[yes/no] ").then_some(words)
            })
        });
        assert_eq!(here, there);
        assert_eq!(here.split_whitespace().count(), 4, "{here}");
        server.process.write(format!("{}\n", answers[0]));
        client.process.write(format!("{}\n", answers[1]));
        if codes == [0, 0] {
            client.process.prints("Connected to");
            client.process.signal(Signal::TERM);
        }
        assert_eq!(client.process.done().code, codes[1], "{}", client.process.stdout());
        if codes != [0, 0] {
            server.process.signal(Signal::TERM);
        }
        server.process.done();
        client.sandbox.assert_clean();
    }
    // Without a person to ask, no words are shown.
    let relay = Relay::start();
    let server = Mykube::server(&relay.url, &Cluster::get().kubeconfig).arg("--verify");
    server.fails(1, &["four words", "terminal"]);
}
