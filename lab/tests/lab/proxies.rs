//! What a forwarder does to connections.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use mykube_lab::{Cut, End, ForwardOptions, ForwardTarget, Forwarder, Lab, Shape, load::Target};

use super::{LIMIT, assert_ended, connect, exchange, loopback};

fn target() -> Target {
    Target::start(loopback()).unwrap()
}

fn through(target: &Target, change: impl FnOnce(&mut ForwardOptions)) -> Forwarder {
    let mut options = ForwardOptions::to(target.address());
    change(&mut options);
    Forwarder::start(loopback(), options).unwrap()
}

fn echo(forwarder: &Forwarder) -> TcpStream {
    let mut stream = connect(forwarder.address());
    stream.write_all(b"e").unwrap();
    exchange(&mut stream);
    stream
}

/// Waits until the counts are as they should be.
fn wait(forwarder: &Forwarder, what: &str, test: impl Fn(mykube_lab::ForwardCounts) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !test(forwarder.counts()) {
        assert!(Instant::now() < deadline, "{what}: {:?}", forwarder.counts());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn bytes_and_half_closes_go_through() {
    let (target, sent) = (target(), vec![7; 3_000_000]);
    for threads in [1, 2] {
        let forwarder = through(&target, |options| options.threads = threads);
        let mut stream = connect(forwarder.address());
        stream.write_all(b"u").unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "3000000\n");
        wait(&forwarder, "none is open", |counts| counts.accepted == 1 && counts.open == 0 && counts.cut == 0);
        assert_eq!(forwarder.counts().bytes, 1 + 3_000_000 + 8);
    }
}

#[test]
fn connect_leads_where_it_says() {
    let target = target();
    let routes = HashMap::from([("relay.test:443".to_owned(), target.address())]);
    let proxy = Forwarder::start(loopback(), ForwardOptions::new(ForwardTarget::Connect(routes))).unwrap();
    for name in ["relay.test:443".to_owned(), target.address().to_string()] {
        let mut stream = connect(proxy.address());
        write!(stream, "CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n").unwrap();
        let wanted = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let mut answer = vec![0; wanted.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, wanted, "{name}");
        stream.write_all(b"e").unwrap();
        exchange(&mut stream);
    }
    let refused = loopback().local_addr().unwrap();
    let wrong =
        [("GET http://x/ HTTP/1.1\r\n\r\n".into(), "405"), (format!("CONNECT {refused} HTTP/1.1\r\n\r\n"), "502")];
    for (request, status) in wrong {
        let mut stream = connect(proxy.address());
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[test]
fn idle_connections_are_cut_and_busy_ones_are_not() {
    let idle = Duration::from_millis(300);
    let target = target();
    let forwarder = through(&target, |options| options.idle = Some(idle));
    let (mut quiet, mut busy) = (echo(&forwarder), echo(&forwarder));
    let start = Instant::now();
    busy.set_nonblocking(false).unwrap();
    while forwarder.counts().cut == 0 {
        exchange(&mut busy);
        assert!(start.elapsed() < LIMIT, "nothing is cut");
    }
    assert!(start.elapsed() + Duration::from_millis(50) >= idle, "cut after {:?}", start.elapsed());
    assert_ended(&mut quiet);
    exchange(&mut busy);
}

#[test]
fn old_connections_are_cut_however_busy() {
    let life = Duration::from_millis(200);
    let target = target();
    let start = Instant::now();
    let forwarder = through(&target, |options| options.life = Some(life));
    let mut stream = connect(forwarder.address());
    stream.write_all(b"d").unwrap();
    let mut buffer = vec![0; 65536];
    while stream.read(&mut buffer).unwrap_or(0) > 0 {
        assert!(start.elapsed() < LIMIT, "it still sends");
    }
    assert!(start.elapsed() >= life);
    wait(&forwarder, "it counts as cut", |counts| counts.cut == 1 && counts.open == 0);
}

#[test]
fn a_cut_is_an_end_of_file_or_a_reset_on_both_sides() {
    for (cut, kind) in [(Cut::Close, None), (Cut::Reset, Some(std::io::ErrorKind::ConnectionReset))] {
        let listener = loopback();
        let mut options = ForwardOptions::to(listener.local_addr().unwrap());
        options.cut = cut;
        let forwarder = Forwarder::start(loopback(), options).unwrap();
        let mut near = connect(forwarder.address());
        let mut far = listener.accept().unwrap().0;
        far.set_read_timeout(Some(LIMIT)).unwrap();
        near.write_all(b"!").unwrap();
        far.read_exact(&mut [0]).unwrap();
        forwarder.kill_all();
        for side in [&mut near, &mut far] {
            let ended = side.read(&mut [0]);
            assert_eq!(ended.as_ref().err().map(std::io::Error::kind), kind, "{ended:?}");
        }
        // Later connections are not cut.
        let _later = connect(forwarder.address());
        listener.accept().unwrap();
        wait(&forwarder, "one is open", |counts| counts.open == 1 && counts.cut == 1);
    }
}

#[test]
fn a_paused_forwarder_passes_nothing_and_loses_nothing() {
    let target = target();
    let forwarder = through(&target, |_| {});
    let mut stream = echo(&forwarder);
    // A byte is counted once it was passed on, so the reply may come first.
    wait(&forwarder, "the echo is counted", |counts| counts.bytes == 3);
    forwarder.pause(true);
    stream.write_all(&[9; 5000]).unwrap();
    let mut other = connect(forwarder.address());
    other.write_all(b"e!").unwrap();
    // The second connection has been accepted by then, and the first was readable before that.
    wait(&forwarder, "both are open", |counts| counts.open == 2);
    assert_eq!(forwarder.counts().bytes, 3);
    forwarder.pause(false);
    let mut back = [0; 5000];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, [9; 5000]);
    other.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_refusing_forwarder_keeps_what_it_has() {
    let target = target();
    let forwarder = through(&target, |_| {});
    let mut old = echo(&forwarder);
    forwarder.refuse(true);
    assert_ended(&mut connect(forwarder.address()));
    exchange(&mut old);
    forwarder.refuse(false);
    echo(&forwarder);
}

#[test]
fn a_rate_bounds_each_connection() {
    let target = target();
    let forwarder = through(&target, |options| options.rate = Some(1_000_000));
    let mut stream = connect(forwarder.address());
    let start = Instant::now();
    stream.write_all(b"u").unwrap();
    stream.write_all(&[0; 300_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250), "300 kB at 1 MB/s took {:?}", start.elapsed());
}

#[test]
fn a_door_leads_from_one_namespace_into_another() {
    let lab = Lab::new().unwrap();
    let (a, b, lonely) = (lab.namespace("a").unwrap(), lab.namespace("b").unwrap(), lab.namespace("lonely").unwrap());
    let link = lab.link(&a, &b, Shape::default()).unwrap();
    let target = Target::start(b.listen((link.address(End::B), 0).into()).unwrap()).unwrap();
    for threads in [1, 2] {
        let mut options = ForwardOptions::to(target.address()).from_namespace(&a);
        options.threads = threads;
        let inside = lonely.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let door = Forwarder::start(inside, options).unwrap();
        lonely.enter(|| drop(echo(&door))).unwrap();
    }
    assert!(link.stats().from_a.packets > 0);
}
