//! Operations that stay open: exec, attach, logs, cp, run, debug.

use rustix::process::Signal;

use crate::support::{Process, Way, noise, sha256};

const CP_BYTES: usize = 100_000_000;
const STDIN_BYTES: usize = 5_000_000;

pub(super) fn exec_output(way: &Way) -> String {
    let done = way.kubectl(&["exec", "bench", "--", "sh", "-c", "echo out; echo err >&2; seq 20000"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout + &done.stderr
}

pub(super) fn exec_exit_code(way: &Way) -> String {
    let done = way.kubectl(&["exec", "bench", "--", "sh", "-c", "echo before; exit 7"]);
    assert_eq!(done.code, 7, "{}", done.stderr);
    done.stdout + &done.stderr
}

pub(super) fn exec_stdin(way: &Way) -> String {
    let bytes = noise(STDIN_BYTES);
    let expected = sha256(&bytes);
    let said = way.kubectl_with(&["exec", "-i", "bench", "--", "sha256sum"], bytes).ok();
    assert!(said.starts_with(&expected), "{said}");
    said
}

pub(super) fn exec_spdy(way: &Way) -> String {
    exec_both_ways(way, "false")
}

pub(super) fn exec_websocket(way: &Way) -> String {
    exec_both_ways(way, "true")
}

fn exec_both_ways(way: &Way, websockets: &str) -> String {
    let env = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)];
    let bytes = noise(1_000_000);
    let expected = sha256(&bytes);
    let done = way.kubectl_env(&["exec", "-i", "bench", "--", "sh", "-c", "sha256sum; exit 9"], &env, bytes);
    assert_eq!(done.code, 9, "{}", done.stderr);
    assert!(done.stdout.starts_with(&expected), "{}", done.stdout);
    done.stdout
}

pub(super) fn exec_terminal(way: &Way) -> String {
    let command = way.command(&["exec", "-it", "bench", "--", "sh"]);
    let mut terminal = Process::on_terminal(&command, 40, 100);
    // Typed text is echoed, so the shell computes the words that the test waits for.
    terminal.write("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; tty; echo be''gun\n");
    terminal.prints("begun");
    terminal.resize(50, 120);
    terminal.write("until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo re''sized\n");
    terminal.prints("resized");
    // Ctrl-C reaches the program in the pod, not kubectl.
    terminal.write("sh -c 'echo sle\"\"eping; exec sleep 1000'\n");
    terminal.prints("sleeping");
    terminal.write("\x03");
    terminal.prints("^C");
    terminal.write("echo inter''rupted; exit 5\n");
    terminal.prints("interrupted");
    let done = terminal.done();
    assert!(done.stdout.contains("/dev/pts/"), "{}", done.stdout);
    done.code.to_string()
}

pub(super) fn logs_follow(way: &Way) -> String {
    let logs = way.start(&["logs", "-f", "--tail=1", "bench"]);
    let lines = logs.wait("20 lines", |state| {
        let text = String::from_utf8_lossy(&state.stdout);
        let lines: Vec<_> = text.lines().take(20).map(str::to_owned).collect();
        (text.lines().count() > 20).then_some(lines)
    });
    logs.signal(Signal::INT);
    let number = |line: &String| line.strip_prefix("line ").expect("a line").parse::<u32>().expect("a number");
    let numbers: Vec<_> = lines.iter().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    numbers.len().to_string()
}

pub(super) fn attach(way: &Way) -> String {
    let mut attached = way.start(&["attach", "-i", "cat"]);
    let line = format!("by way of {}\n", way.name);
    // Output from before the attach is not lost.
    attached.write(&line);
    attached.prints(&line);
    attached.write("again\n");
    attached.prints("again\n");
    attached.signal(Signal::INT);
    attached.done().stdout.replace(way.name, "")
}

pub(super) fn cp(way: &Way) -> String {
    let bytes = noise(CP_BYTES);
    let expected = sha256(&bytes);
    let source = way.sandbox().file("source", &bytes);
    drop(bytes);
    let back = way.sandbox().home().join("back");
    let (source, back) = (source.to_str().unwrap(), back.to_str().unwrap());
    way.kubectl(&["cp", source, "bench:/tmp/copied"]).ok();
    let there = way.kubectl(&["exec", "bench", "--", "sha256sum", "/tmp/copied"]).ok();
    assert!(there.starts_with(&expected), "{there}");
    way.kubectl(&["cp", "bench:/tmp/copied", back]).ok();
    assert_eq!(sha256(&std::fs::read(back).unwrap()), expected);
    way.kubectl(&["exec", "bench", "--", "rm", "/tmp/copied"]).ok();
    std::fs::remove_file(source).and_then(|()| std::fs::remove_file(back)).unwrap();
    there
}

pub(super) fn run_interactive(way: &Way) -> String {
    let image = image(way);
    let run = ["run", "run-i", "--rm", "-i", "--restart=Never", "--image", &image, "--", "sh"];
    let said = way.kubectl_with(&run, "echo sum=$((2+3))\n").ok();
    assert!(said.contains("sum=5") && said.contains("deleted"), "{said}");
    let gone = way.kubectl(&["get", "pod", "run-i"]);
    assert_eq!(gone.code, 1);
    gone.stderr
}

pub(super) fn debug(way: &Way) -> String {
    let image = image(way);
    let name = format!("debugger-{}", way.name);
    let args =
        ["debug", "-i", "patient", "--image", &image, "--profile=general", "--target=main", "-c", &name, "--", "sh"];
    let mut debugger = way.start(&args);
    debugger.write("ps; echo sum=$((2+3))\n");
    debugger.prints("sum=5");
    debugger.end_input();
    let said = debugger.done().ok();
    assert!(said.contains("sleep 100000"), "{said}");
    "sees the other container's processes".to_owned()
}

fn image(way: &Way) -> String {
    way.kubectl(&["get", "pod", "bench", "-o", "jsonpath={.spec.containers[0].image}"]).ok()
}
