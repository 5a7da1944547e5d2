//! kubectl's own listeners: port-forward and proxy.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpStream},
    thread,
};

use crate::support::{LIMIT, Process, Way, noise, sha256};

const HTTP: &str = "8080";
const ECHO: &str = "9000";

/// kubectl, and the loopback port that it forwards.
fn forward(way: &Way, port: &str, env: &[(&str, &str)]) -> (Process, u16) {
    let mut command = way.command(&["port-forward", "--address", "127.0.0.1", "pod/bench", &format!(":{port}")]);
    command.envs(env.iter().copied());
    listening(Process::start(command), "Forwarding from 127.0.0.1:")
}

fn listening(process: Process, before_port: &str) -> (Process, u16) {
    let port = process.wait(before_port, |state| {
        let text = String::from_utf8_lossy(&state.stdout).into_owned();
        let (_, rest) = text.split_once(before_port)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    });
    (process, port)
}

fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.set_write_timeout(Some(LIMIT)).unwrap();
    connection
}

fn http_get(port: u16, path: &str) -> String {
    let mut connection = connect(port);
    write!(connection, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "{answer}");
    answer.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
}

/// Sends all bytes and reads as many.
fn echoes(port: u16, bytes: &[u8]) {
    let connection = connect(port);
    thread::scope(|scope| {
        scope.spawn(|| (&connection).write_all(bytes).unwrap());
        let mut back = vec![0; bytes.len()];
        (&connection).read_exact(&mut back).unwrap();
        assert!(back == bytes, "the echo differs");
    });
}

pub(super) fn http(way: &Way) -> String {
    let (_kubectl, port) = forward(way, HTTP, &[]);
    http_get(port, "/index.html")
}

pub(super) fn echo(way: &Way) -> String {
    let (_kubectl, port) = forward(way, ECHO, &[]);
    echoes(port, &noise(2_000_000));
    "2000000".to_owned()
}

pub(super) fn twenty_at_once(way: &Way) -> String {
    let (_kubectl, port) = forward(way, ECHO, &[]);
    let bytes = noise(100_000);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| echoes(port, &bytes));
        }
    });
    "20".to_owned()
}

pub(super) fn half_close(way: &Way) -> String {
    let (_kubectl, port) = forward(way, ECHO, &[]);
    let bytes = noise(500_000);
    let connection = connect(port);
    thread::scope(|scope| {
        scope.spawn(|| {
            (&connection).write_all(&bytes).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
        });
        // Bytes that come back after this side's end are not lost. (The runtime tells the pod of the end only by
        // closing.)
        let mut back = Vec::new();
        (&connection).read_to_end(&mut back).unwrap();
        assert_eq!(sha256(&back), sha256(&bytes), "{} bytes came back", back.len());
    });
    "500000".to_owned()
}

pub(super) fn spdy(way: &Way) -> String {
    let (_kubectl, port) = forward(way, ECHO, &[("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]);
    echoes(port, &noise(500_000));
    "500000".to_owned()
}

pub(super) fn proxy(way: &Way) -> String {
    let (_kubectl, port) = listening(way.start(&["proxy", "--port=0"]), "Starting to serve on 127.0.0.1:");
    http_get(port, "/version")
}
