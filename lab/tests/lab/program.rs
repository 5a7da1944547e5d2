//! The `lab` program, as a script uses it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use super::{assert_ended, connect, exchange, loopback};

/// A running `lab`, ended with its input.
struct Lab {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    ready: Value,
}

impl Lab {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, input, output, ready }
    }

    fn say(&mut self, line: &str) -> Value {
        writeln!(self.input.as_ref().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.input.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_network_obeys_its_input_and_its_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("net.sock");
    let mut net = Lab::start(&["net", "--names", "x,y,z", "--delay", "1ms", "--control", socket.to_str().unwrap()]);
    assert_eq!(net.ready["links"]["x-y"]["y"], "10.99.0.2");
    assert_eq!(net.ready["links"]["y-z"]["y"], "10.99.1.1");
    let orders = ["delay 20ms", "rate 10mbit", "queue 64KiB", "loss 0.1 7", "y-z blackhole on", "down x", "up x"];
    for order in orders {
        assert_eq!(net.say(order)["ok"], true, "{order}");
    }
    for wrong in ["delay", "loss 2", "down w", "rate fast", "x-z stats"] {
        assert!(net.say(wrong)["error"].is_string(), "{wrong}");
    }
    let mut control = UnixStream::connect(&socket).unwrap();
    control.write_all(b"readdress x\ny-z stats\n").unwrap();
    let mut answers =
        BufReader::new(&control).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    assert_eq!(answers.next().unwrap()["x-y"], "10.99.0.3");
    let stats = answers.next().unwrap();
    assert_eq!(stats["y-z"]["from_a"]["bytes"], 0);
    assert!(stats["x-y"].is_null(), "only the link that was named");
}

#[test]
fn a_proxy_obeys_its_input() {
    let target = mykube_lab::load::Target::start(loopback()).unwrap();
    let mut proxy = Lab::start(&["proxy", "--to", &target.address().to_string()]);
    let address = proxy.ready["listen"].as_str().unwrap().parse().unwrap();
    let mut stream = connect(address);
    stream.write_all(b"e").unwrap();
    exchange(&mut stream);
    assert_eq!(proxy.say("stats")["open"], 1);
    assert_eq!(proxy.say("kill")["ok"], true);
    assert_ended(&mut stream);
    assert!(proxy.say("explode")["error"].is_string());
}

#[test]
fn load_across_a_network_reports_figures() {
    let net = Lab::start(&["net", "--delay", "5ms"]);
    let name = |end: &str| net.ready["namespaces"][end]["netns"].as_str().unwrap().to_owned();
    let to = format!("{}:9000", net.ready["links"]["a-b"]["b"].as_str().unwrap());
    let own = format!("lab={}", net.child.id());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["load", "--target", &to, "--via", &to, "--target-in", &name("b"), "--via-in", &name("a")]);
    command.args(["--procs", &own, "--phases", "integrity,echo,bulk", "--echo", "100ms", "--bulk", "200ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let figures: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(figures["integrity"], serde_json::json!({"same": true, "complete": true, "half_close": true}));
    assert!(figures["echo_64"]["p50_us"].as_f64().unwrap() >= 10_000.0, "{figures}");
    assert!(figures["bulk_1_down"]["mb_s"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(figures["bulk_1_up"]["peak_rss_mib"]["lab"].as_f64().unwrap() > 0.0, "{figures}");
    assert_eq!(figures["died"], serde_json::json!([]));
}
