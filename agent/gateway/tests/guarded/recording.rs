//! Recorded sessions: what the file has, what the user is told, what is refused.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use mykube_agent_gateway::Recorder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{raw::Raw, setup::Setup};

const TERMINAL: &str = "stdin=true&stdout=true&tty=true";
const NOTICE: &[u8] = b"mykube: this session is recorded";

/// A setup that records to a new directory.
async fn setup() -> (Setup, PathBuf) {
    let mut setup = Setup::plain().await;
    let dir = setup.fixture.path("new/recordings");
    setup.gateway = setup.gateway.recording(Recorder::new(&dir).unwrap());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(names(&dir), [""; 0], "nothing is left of the probe");
    (setup, dir)
}

fn names(dir: &PathBuf) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn exec(query: &str, headers: &str) -> String {
    format!(
        "GET /api/v1/namespaces/a/pods/p/exec?command=cat&command=-&{query} HTTP/1.1\r\nHost: x\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

const V5: &str = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";

/// A short frame, of which `more` bytes are still to come.
fn frame(first: u8, payload: &[u8], more: usize) -> Vec<u8> {
    let length = u8::try_from(payload.len() + more).unwrap();
    assert!(length < 126);
    [&[first, length], payload].concat()
}

/// The message that comes before the pod's own.
async fn told(client: &mut Raw) -> Option<(u8, Vec<u8>)> {
    let [first, length] = client.take(2).await.try_into().unwrap();
    assert_eq!(first, 0x82);
    let payload = client.take(length.into()).await;
    payload.starts_with(&[&payload[..1], NOTICE].concat()).then(|| (payload[0], payload[1..].to_vec()))
}

/// The end of a session with this API server, which echoes and says goodbye: in a frame of the output that is left open
/// for it.
async fn end(client: &mut Raw) -> Vec<u8> {
    let open = frame(0x82, b"\x01", 7);
    client.send(&open).await;
    client.stream.shutdown().await.unwrap();
    client.rest().await
}

/// Header and events of the recording.
fn read(path: PathBuf) -> (Value, Vec<(f64, String, String)>) {
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header = serde_json::from_str(lines.next().unwrap()).unwrap();
    let events: Vec<(f64, String, String)> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.is_sorted_by_key(|(at, ..)| *at), "{events:?}");
    (header, events)
}

fn kinds(events: &[(f64, String, String)]) -> Vec<(&str, &str)> {
    events.iter().map(|(_, kind, data)| (kind.as_str(), data.as_str())).collect()
}

#[tokio::test]
async fn a_session_on_a_terminal() {
    let (mut setup, dir) = setup().await;
    let mut client = setup.client();
    let offered = "Sec-WebSocket-Protocol: channel.k8s.io, v4.channel.k8s.io, base64.channel.k8s.io\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate\r\n";
    client.send(exec(TERMINAL, offered)).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(told(&mut client).await, Some((1, b"mykube: this session is recorded\r\n".to_vec())));
    let seen = setup.api.last();
    assert_eq!(seen.header("sec-websocket-protocol"), ["v4.channel.k8s.io"]);
    assert!(seen.header("sec-websocket-extensions").is_empty());

    let first = [
        frame(0x82, b"\x04{\"Width\":120,\"Height\":40}", 0),
        frame(0x89, b"ping", 0),
        frame(0x82, b"\x01caf\xc3", 0),
        frame(0x02, b"\x01\xa9", 0),
        frame(0x80, b" noir", 0),
    ];
    let then = [
        frame(0x82, b"\x00typed password", 0),
        frame(0x82, b"\x04{\"Width\":100,\"Height\":30}", 0),
        frame(0x82, b"\x02oops\n", 0),
        frame(0x82, b"\x03{\"status\":\"Success\"}", 0),
    ];
    for sent in [first.concat(), then.concat()] {
        client.send(&sent).await;
        assert_eq!(client.take(sent.len()).await, sent, "nothing is changed");
    }
    let rest = end(&mut client).await;
    assert_eq!(rest, [&frame(0x82, b"\x01", 7)[..], b"goodbye"].concat());

    let line = setup.log.wait(1).await.remove(0);
    assert_eq!((&line["end"], &line["status"]), (&json!("complete"), &json!(101)));
    let name = line["recording"].as_str().unwrap();
    assert_eq!(names(&dir), [name]);
    let (when, rest) = name.split_once('-').unwrap();
    assert!(when.len() == 16 && when.ends_with('Z') && when[8..].starts_with('T'), "{name}");
    assert_eq!(rest, format!("laptop-a-p-{}.cast", line["audit_id"].as_str().unwrap()));
    let (header, events) = read(dir.join(name));
    // The recording's header has the terminal's first size.
    for (key, expected) in [
        ("version", json!(2)),
        ("width", json!(120)),
        ("height", json!(40)),
        ("title", json!("exec a/p")),
        ("command", json!("cat -")),
    ] {
        assert_eq!(header[key], expected, "{key}");
    }
    assert!(header["timestamp"].as_i64().unwrap() > 1_700_000_000);
    let mut text = String::new();
    let mut others = Vec::new();
    for (kind, data) in kinds(&events) {
        match kind {
            "o" => text += data,
            _ => others.push((kind, data)),
        }
    }
    assert_eq!(text, "mykube: this session is recorded\r\ncafé noiroops\ngoodbye");
    assert_eq!(others, [("r", "100x30"), ("m", "exit code 0")]);
}

#[tokio::test]
async fn the_user_is_told_where_nothing_is_spoilt() {
    let (mut setup, dir) = setup().await;
    for (query, expected) in [
        ("stdout=true&stderr=true", Some(2)),
        ("stdout=true&stderr=true&tty=false", Some(2)),
        ("stdout=1&stderr=0&tty=0", None),
        ("stdout=true", None),
        ("stdout=true&tty=true", Some(1)),
        ("stderr=true&tty=true", None),
    ] {
        let mut client = setup.client();
        client.send(exec(query, V5)).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101 "));
        let own = frame(0x82, b"\x01a\nb", 0);
        client.send(&own).await;
        let heard = told(&mut client).await.map(|(channel, _)| channel);
        assert_eq!(heard, expected, "{query}");
        if expected.is_some() {
            assert_eq!(client.take(own.len()).await, own, "{query}");
        }
        end(&mut client).await;
        let line = setup.log.wait(1).await.pop().unwrap();
        let path = dir.join(line["recording"].as_str().unwrap());
        let (_, events) = read(path.clone());
        let ended = if query.contains("tty=true") { "a\nb" } else { "a\r\nb" };
        assert!(kinds(&events).contains(&("o", ended)), "{query}: {events:?}");
        assert_eq!(kinds(&events).last(), Some(&("m", "ended without a word")));
        fs::remove_file(path).unwrap();
        setup.log.clear();
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused() {
    let (mut setup, dir) = setup().await;
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let others = format!("{websocket}Sec-WebSocket-Protocol: base64.channel.k8s.io, channel.k8s.io\r\n");
    let pod = "/api/v1/namespaces/a/pods/p/exec?command=sh&stdout=true";
    for (method, target, headers, words) in [
        ("POST", pod, spdy, "WebSocket"),
        ("POST", "/api/v1/namespaces/a/pods/p/attach?stdout=true", spdy, "WebSocket"),
        ("GET", "/apis/x.io/v1/namespaces/a/machines/m/exec", spdy, "WebSocket"),
        ("GET", pod, websocket, "v5.channel.k8s.io"),
        ("GET", pod, &others, "v5.channel.k8s.io"),
        ("GET", "/api/v1/nodes/n/proxy/exec/a/p/c?command=sh&output=1", websocket, "nodes/proxy"),
        ("POST", "/api/v1/nodes/n/proxy/run/a/p/c?cmd=sh", "", "nodes/proxy"),
    ] {
        let before = setup.api.seen().len();
        let answer = setup.client().ask(method, target, headers).await;
        assert_eq!(answer.status, 403, "{target} {headers}");
        assert!(answer.message().contains(words), "{target} {headers}: {}", answer.message());
        // A pod's SPDY exec is asked about at the API server, without its upgrade.
        let asked = method == "POST" && target.contains("/pods/");
        assert_eq!(setup.api.seen().len() - before, usize::from(asked), "{target}");
        assert!(!asked || setup.api.last().header("upgrade").is_empty());
    }
    assert_eq!(setup.client().get("/api/v1/nodes/n/proxy/metrics").await.status, 200);
    assert_eq!(setup.client().get("/api/v1/namespaces/a/pods/p").await.status, 200);
    let forward = setup.client().ask("POST", "/api/v1/namespaces/a/pods/p/portforward", spdy).await;
    assert_eq!(forward.status, 101, "a port-forward is not recorded");
    // The client gets the API server's refusal, not ours.
    *setup.api.state.accepted.lock().unwrap() = Some(Default::default());
    let answer = setup.client().ask("POST", pod, spdy).await;
    assert_eq!((answer.status, answer.text().as_str()), (401, "who are you?"));
    let answer = setup.client().ask("GET", pod, &format!("{websocket}{V5}")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(names(&dir), [""; 0], "no session, no recording");
}

#[tokio::test]
async fn without_a_recording_there_is_no_session() {
    let (mut setup, dir) = setup().await;
    fs::remove_dir_all(&dir).unwrap();
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let mut client = setup.client();
    client.send(exec(TERMINAL, V5)).await;
    let websocket = client.answer().await;
    let spdy = setup.client().ask("POST", "/api/v1/namespaces/a/pods/p/exec?command=sh", spdy).await;
    for answer in [websocket, spdy] {
        assert_eq!(answer.status, 503);
        assert!(answer.message().contains("the recording cannot be written"), "{}", answer.message());
        assert!(!answer.message().contains("recordings"), "the directory is the operator's");
    }
    assert!(setup.api.seen().is_empty(), "nothing was forwarded");
    assert_eq!(setup.client().get("/version").await.status, 200);
}

#[tokio::test]
async fn what_is_not_understood_ends_the_session() {
    let (mut setup, dir) = setup().await;
    let mut client = setup.client();
    client.send(exec("stdout=true", V5)).await;
    client.head().await;
    let (good, compressed) = (frame(0x82, b"\x01good", 0), frame(0xc2, b"\x01bad", 0));
    client.send(&good).await;
    assert_eq!(client.take(good.len()).await, good);
    client.send(&compressed).await;
    // A message on the error channel and a close frame; nothing of the bytes that could not be read.
    let rest = client.rest().await;
    drop(client);
    let status = [&rest[4..5], b"{"].concat();
    assert_eq!((&rest[..2], &status[..]), (&[0x82, 126][..], &b"\x03{"[..]));
    assert!(String::from_utf8_lossy(&rest).contains("the recording cannot be written"));
    assert!(rest.ends_with(&[0x88, 2, 0x03, 0xe8]), "{rest:?}");
    let line = setup.log.wait(1).await.remove(0);
    assert_eq!(line["end"], "aborted");
    assert!(line["reason"].as_str().unwrap().contains("cannot be written"));
    let (_, events) = read(dir.join(line["recording"].as_str().unwrap()));
    assert_eq!(kinds(&events), [("o", "good"), ("m", "cut off")]);
}

#[tokio::test]
async fn a_session_that_is_cut_says_so() {
    let (mut setup, dir) = setup().await;
    let mut client = setup.client();
    client.send(exec(TERMINAL, V5)).await;
    client.head().await;
    told(&mut client).await;
    setup.served.shutdown().await;
    let line = setup.log.wait(1).await.remove(0);
    let (_, events) = read(dir.join(line["recording"].as_str().unwrap()));
    assert_eq!(kinds(&events).last(), Some(&("m", "cut off")));
}

#[test]
fn a_directory_that_cannot_be_used_is_said_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("under"), "/proc/self".into()] {
        let error = Recorder::new(&path).unwrap_err().to_string();
        assert!(error.contains(path.file_name().unwrap().to_str().unwrap()) || path.starts_with("/proc"), "{error}");
        assert!(error.starts_with("recordings cannot be written to "), "{error}");
    }
}
