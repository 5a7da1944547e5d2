//! Recorded sessions with real kubectl and a real pod: what a recording has, and that nothing else changes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cluster, LIMIT, Mykube, Namespace, Process, Relay, Tunnel, Way, contains, noise, sha256};

const NOTICE: &str = "mykube: this session is recorded";
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: POD}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: IMAGE, stdin: true, command: COMMAND}]
"#;

/// A namespace with a pod `bench` that waits and a pod `cat` that echoes.
fn namespace(test: &str) -> Namespace {
    let namespace = Namespace::create(&Cluster::get(), test);
    let pod = |name: &str, command: &str| POD.replace("POD", name).replace("COMMAND", command);
    let pods = format!("{}---{}", pod("bench", "[sleep, '100000']"), pod("cat", "[cat]"));
    let direct = namespace.direct();
    direct.kubectl_with(&["apply", "-f", "-"], pods.replace("IMAGE", &namespace.cluster.image)).ok();
    direct.kubectl(&["wait", "--for=condition=Ready", "pod/bench", "pod/cat", "--timeout=60s"]).ok();
    namespace
}

/// A tunnel whose server records into `recordings` and keeps an audit log.
fn recording(cluster: &Cluster) -> Tunnel {
    let tunnel = Tunnel::guarded_with(&cluster.kubeconfig, &["--record", "recordings", "--audit-log", "audit.jsonl"]);
    assert_eq!(tunnel.client.event("connected")["recorded"], true);
    tunnel.client.process.says("is recorded at the other end");
    tunnel.server.process.says("is recorded in");
    tunnel
}

fn dir(tunnel: &Tunnel) -> PathBuf {
    tunnel.server.sandbox.home().join("recordings")
}

/// The names of all recordings so far.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// One recording, read as strictly as asciicast v2 is written.
#[derive(Debug)]
struct Cast {
    header: Value,
    shown: String,
    sizes: Vec<String>,
    markers: Vec<String>,
}

impl Cast {
    /// Waits for its last line, which may come after kubectl has ended.
    #[track_caller]
    fn read(path: &Path) -> Self {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let until = Instant::now() + LIMIT;
        let text = loop {
            let text = fs::read_to_string(path).unwrap();
            if text.ends_with('\n') && text.lines().last().is_some_and(|line| line.contains(r#", "m", "#)) {
                break text;
            }
            assert!(Instant::now() < until, "no end of {text}");
            thread::yield_now();
        };
        let mut lines = text.lines();
        let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let positive = |field: &str| header[field].as_u64().is_some_and(|n| n > 0);
        assert!(header["version"] == 2 && ["width", "height", "timestamp"].into_iter().all(positive), "{header}");
        let (mut shown, mut sizes, mut markers) = (String::new(), Vec::new(), Vec::new());
        let mut last = 0.0;
        for line in lines {
            let (at, kind, data): (f64, String, String) = serde_json::from_str(line).unwrap();
            assert!(at >= last, "{line}");
            last = at;
            match kind.as_str() {
                "o" => shown += &data,
                "r" => {
                    let (columns, rows) = data.split_once('x').unwrap();
                    assert!(columns.parse::<u16>().is_ok() && rows.parse::<u16>().is_ok(), "{line}");
                    sizes.push(data);
                }
                "m" => markers.push(data),
                _ => panic!("{line}"),
            }
        }
        Self { header, shown, sizes, markers }
    }

    /// The only recording there is, which is then removed.
    #[track_caller]
    fn only(dir: &Path) -> Self {
        let names = names(dir);
        let [name] = &names[..] else { panic!("{names:?}") };
        let path = dir.join(name);
        let cast = Self::read(&path);
        fs::remove_file(path).unwrap();
        cast
    }
}

/// Waits for the audit line of a request that is over.
#[track_caller]
fn audited(tunnel: &Tunnel, subresource: &str) -> Value {
    let path = tunnel.server.sandbox.home().join("audit.jsonl");
    let until = Instant::now() + LIMIT;
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.split_inclusive('\n').filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["subresource"] == subresource) {
            return line;
        }
        assert!(Instant::now() < until, "no line of {subresource} in\n{text}");
        thread::yield_now();
    }
}

#[test]
fn a_terminal_is_recorded_as_it_was_seen() {
    let namespace = namespace("cast");
    let tunnel = recording(&namespace.cluster);
    let way = namespace.through("recorded", &tunnel.kubeconfig());
    let mut terminal = Process::on_terminal(&way.command(&["exec", "-it", "bench", "--", "sh"]), 40, 100);
    terminal.prints(NOTICE);
    terminal.write("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo be''gun\n");
    terminal.prints("begun");
    terminal.resize(50, 120);
    terminal.write("until [ \"$(stty size)\" = '50 120' ]; do sleep 0.1; done; echo re''sized é € 😀\n");
    terminal.prints("resized é € 😀");
    terminal.write("stty -echo; echo si''lent; read word; echo sec''ret: ${#word}; stty echo\n");
    terminal.prints("silent");
    terminal.write("pass1234word\n");
    terminal.prints("secret: 12");
    terminal.write("exit 5\n");
    let done = terminal.done();
    assert_eq!(done.code, 5, "{}", done.stdout);

    let line = audited(&tunnel, "exec");
    let name = line["recording"].as_str().unwrap().to_owned();
    assert_eq!(names(&dir(&tunnel)), [name.as_str()]);
    let end = format!("-client-1-{}-bench-{}.cast", namespace.name, line["audit_id"].as_str().unwrap());
    assert!(name.ends_with(&end), "{name} {end}");
    let cast = Cast::only(&dir(&tunnel));
    let sizes = [format!("{}x{}", cast.header["width"], cast.header["height"])].into_iter().chain(cast.sizes);
    // Where the first size came after the shell's first output, the header could not have it.
    let sizes: Vec<_> = sizes.skip_while(|size| size == "80x24").collect();
    assert_eq!(sizes, ["100x40", "120x50"]);
    assert_eq!(cast.header["command"], "sh");
    assert_eq!(cast.markers, ["exit code 5"]);
    // All of the output but kubectl's own, and nothing else.
    assert!(cast.shown.starts_with(NOTICE) && cast.shown.contains("resized é € 😀"), "{:?}", cast.shown);
    let seen = done.stdout.split("command terminated").next().unwrap();
    assert_eq!(seen.replace("If you don't see a command prompt, try pressing enter.\r\n", ""), cast.shown);
    assert!(!cast.shown.contains("pass1234word"), "what is typed without an echo is nowhere");

    // Whichever side ends it.
    let sleeping = Process::on_terminal(
        &way.command(&["exec", "-it", "bench", "--", "sh", "-c", "echo o''n; sleep 1000"]),
        24,
        80,
    );
    sleeping.prints("on\r\n");
    tunnel.server.stop(Signal::TERM);
    let cast = Cast::only(&dir(&tunnel));
    assert!(["cut off", "ended without a word"].contains(&cast.markers[0].as_str()), "{cast:?}");
    assert!(cast.shown.ends_with("on\r\n"), "{cast:?}");
}

#[test]
fn what_is_piped_is_intact() {
    let namespace = namespace("piped");
    let tunnel = recording(&namespace.cluster);
    let dir = dir(&tunnel);
    let way = namespace.through("recorded", &tunnel.kubeconfig());
    let bytes = noise(3_000_000);
    let expected = sha256(&bytes);

    let script = "sha256sum; echo err >&2; exit 9";
    let done = way.kubectl_with(&["exec", "-i", "bench", "--", "sh", "-c", script], bytes.clone());
    assert_eq!((done.code, done.stdout.as_str()), (9, format!("{expected}  -\n").as_str()), "{done:?}");
    assert!(done.stderr.starts_with(&format!("{NOTICE}\n")) && done.stderr.contains("err\n"), "{done:?}");
    let cast = Cast::only(&dir);
    assert_eq!(cast.markers, ["exit code 9"]);
    for words in [NOTICE, "err\r\n", &expected] {
        assert!(cast.shown.contains(words), "no {words:?} in {:?}", cast.shown);
    }

    let (source, back) = (way.sandbox().file("source", &bytes), way.sandbox().home().join("back"));
    way.kubectl(&["cp", source.to_str().unwrap(), "bench:/tmp/copied"]).ok();
    way.kubectl(&["cp", "bench:/tmp/copied", back.to_str().unwrap()]).ok();
    assert_eq!(sha256(&fs::read(&back).unwrap()), expected);
    let copies = names(&dir);
    assert!(copies.len() >= 2, "{copies:?}");
    for name in copies {
        // kubectl first asks whether it is a directory, and there is none.
        assert!(Cast::read(&dir.join(&name)).markers[0].starts_with("exit code "), "{name}");
        fs::remove_file(dir.join(name)).unwrap();
    }

    let mut attached = way.start(&["attach", "-i", "cat"]);
    attached.says(NOTICE);
    attached.write("told\n");
    attached.prints("told\n");
    attached.signal(Signal::INT);
    attached.done();
    assert_eq!(audited(&tunnel, "attach")["upgrade"], "websocket");
    let cast = Cast::only(&dir);
    assert!(cast.shown.contains("told\r\n"), "{cast:?}");
    assert!(cast.header["title"].as_str().unwrap().starts_with("attach "), "{cast:?}");
}

#[test]
fn what_cannot_be_recorded_is_refused_in_clear_words() {
    let namespace = namespace("refused");
    let tunnel = recording(&namespace.cluster);
    let dir = dir(&tunnel);
    let way = namespace.through("recorded", &tunnel.kubeconfig());
    let fails = |args: &[&str], websockets: &str| {
        let done = way.kubectl_env(args, &[("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)], Vec::new());
        assert_ne!(done.code, 0, "{done:?}");
        done.stderr
    };
    let said = fails(&["exec", "bench", "--", "true"], "false");
    assert!(said.contains("needs the WebSocket protocol") && said.contains("kubectl 1.31"), "{said}");
    // The API server's own refusal is shown, whichever protocol kubectl tried last.
    for websockets in ["true", "false"] {
        let said = fails(&["exec", "-c", "nobody", "bench", "--", "true"], websockets);
        assert!(said.contains("nobody") && !said.contains("WebSocket protocol"), "{websockets}: {said}");
        let said = fails(&["--as=alice", "exec", "bench", "--", "true"], websockets);
        assert!(said.contains("alice") && !said.contains("WebSocket protocol"), "{websockets}: {said}");
    }
    assert_eq!(names(&dir), [""; 0], "no session, no recording");

    fs::remove_dir(&dir).unwrap();
    for websockets in ["true", "false"] {
        let said = fails(&["exec", "bench", "--", "true"], websockets);
        assert!(said.contains("the recording cannot be written"), "{websockets}: {said}");
    }
    way.kubectl(&["get", "pods"]).ok();
    fs::create_dir(&dir).unwrap();
    way.kubectl(&["exec", "bench", "--", "true"]).ok();
}

/// A limit of file sizes plays a full disk.
#[test]
fn a_full_disk_ends_the_session() {
    let namespace = namespace("full");
    let relay = Relay::start();
    let limited = "trap '' XFSZ; exec prlimit --fsize=65536 \"$0\" \"$@\"";
    let server = Mykube::guarding(&relay.url, &namespace.cluster.kubeconfig)
        .args(["--record", "recordings"])
        .behind("sh", &["-c", limited])
        .start();
    let client = Mykube::client(&relay.url).start_with(&server.code());
    let way = namespace.through("full", &client.kubeconfig());
    let dir = server.sandbox.home().join("recordings");
    let done = way.kubectl(&["exec", "bench", "--", "sh", "-c", "seq 1000000; sleep 1000"]);
    assert_ne!(done.code, 0, "{}", done.stderr);
    assert!(done.stderr.contains("the recording cannot be written"), "{}", done.stderr);
    server.process.says("a recording cannot be written any more");
    let cast = Cast::only(&dir);
    // Nothing was shown that is not in the recording.
    assert!(cast.shown.replace("\r\n", "\n").contains(&done.stdout), "{} bytes shown", done.stdout.len());
    way.kubectl(&["exec", "bench", "--", "true"]).ok();
}

#[test]
fn the_flag_is_checked_before_a_code_is_shown() {
    let cluster = Cluster::get();
    let relay = Relay::start();
    let server = Mykube::guarding(&relay.url, &cluster.kubeconfig);
    let file = server.sandbox().file("taken", "");
    server.arg("--record").arg(&file).fails(1, &["--record", "recordings cannot be written to", "taken"]);
    Mykube::server(&relay.url, &cluster.kubeconfig)
        .args(["--record", "recordings"])
        .fails(2, &["--share-credentials", "--record"]);
}

/// Both kinds of tunnel: recording and not.
#[test]
fn without_the_flag_nothing_is_said() {
    let namespace = namespace("silent");
    let tunnel = Tunnel::guarded(&namespace.cluster.kubeconfig);
    assert!(tunnel.client.event("connected").get("recorded").is_none());
    let way: Way = namespace.through("silent", &tunnel.kubeconfig());
    let done = way.kubectl(&["exec", "bench", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    assert!(!contains(tunnel.client.process.stderr().as_bytes(), b"recorded"));
}
