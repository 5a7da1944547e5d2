//! Real namespaces, real devices, real sockets. Needs root.
#![allow(clippy::unwrap_used, reason = "helpers that fail should stop their test")]

mod links;
mod load;
mod namespaces;
mod program;
mod proxies;
mod stand_ins;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// A step that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

fn loopback() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// One byte there and back.
fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"!").unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"!");
}

/// An end of file or a reset, not silence.
fn assert_ended(stream: &mut TcpStream) {
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("a byte came"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}
