//! What a line does to packets.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use mykube_lab::{DirectionStats, End, Lab, Link, Namespace, Shape, load::Target};

use super::{LIMIT, connect, exchange};

struct Pair {
    link: Link,
    a: Namespace,
    b: Namespace,
}

impl Pair {
    fn new(shape: Shape) -> Self {
        let lab = Lab::new().unwrap();
        let (a, b) = (lab.namespace("a").unwrap(), lab.namespace("b").unwrap());
        let link = lab.link(&a, &b, shape).unwrap();
        Self { link, a, b }
    }

    /// A target in `b`.
    fn target(&self) -> Target {
        Target::start(self.b.listen((self.link.address(End::B), 0).into()).unwrap()).unwrap()
    }

    /// A connection from `a` to its echo.
    fn echo(&self, target: &Target) -> TcpStream {
        let mut stream = self.a.enter(|| connect(target.address())).unwrap();
        stream.write_all(b"e").unwrap();
        stream
    }
}

fn round_trip(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    exchange(stream);
    start.elapsed()
}

#[test]
fn delay_holds_both_ways_and_changes_while_traffic_runs() {
    let pair = Pair::new(Shape { delay: Duration::from_millis(30), ..Shape::default() });
    let target = pair.target();
    let mut stream = pair.echo(&target);
    assert!(round_trip(&mut stream) >= Duration::from_millis(60));
    pair.link.update_from(End::A, |shape| shape.delay = Duration::from_millis(150));
    assert!(round_trip(&mut stream) >= Duration::from_millis(180));
    pair.link.update(|shape| shape.delay = Duration::ZERO);
    let fastest = (0..20).map(|_| round_trip(&mut stream)).min().unwrap();
    assert!(fastest < Duration::from_millis(150), "the best of 20 still took {fastest:?}");
}

#[test]
fn a_rate_bounds_what_goes_through() {
    let pair = Pair::new(Shape { rate: Some(16_000_000), ..Shape::default() });
    let target = pair.target();
    let mut stream = pair.a.enter(|| connect(target.address())).unwrap();
    stream.write_all(b"u").unwrap();
    let start = Instant::now();
    stream.write_all(&vec![0; 1_000_000]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "1000000\n");
    assert!(start.elapsed() >= Duration::from_millis(500), "a megabyte at 2 MB/s took {:?}", start.elapsed());
}

#[test]
fn losses_are_counted_and_come_with_the_seed() {
    let arrived = || {
        let pair = Pair::new(Shape { loss: 0.3, seed: 5, ..Shape::default() });
        let bind = |end| move || UdpSocket::bind((pair_address(end), 0)).unwrap();
        let from = pair.a.enter(bind(End::A)).unwrap();
        let to = pair.b.enter(bind(End::B)).unwrap();
        for n in 0..200_u8 {
            from.send_to(&[n], to.local_addr().unwrap()).unwrap();
        }
        let deadline = Instant::now() + LIMIT;
        let stats = loop {
            let stats = pair.link.stats().from_a;
            if stats.lost + stats.packets == 200 {
                break stats;
            }
            assert!(Instant::now() < deadline, "200 packets sent: {stats:?}");
            std::thread::yield_now();
        };
        to.set_read_timeout(Some(LIMIT)).unwrap();
        let mut seen = Vec::new();
        while seen.len() < usize::try_from(stats.packets).unwrap() {
            let mut packet = [0];
            to.recv(&mut packet).unwrap();
            seen.push(packet[0]);
        }
        seen
    };
    let (first, again) = (arrived(), arrived());
    assert_eq!(first, again);
    assert!(first.is_sorted());
    assert!((100..180).contains(&first.len()), "{} of 200 survived 30 % loss", first.len());
}

/// Of the first link of a lab.
fn pair_address(end: End) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, if end == End::A { 1 } else { 2 })
}

#[test]
fn a_black_hole_is_silent_and_tcp_survives_it() {
    let pair = Pair::new(Shape::default());
    let target = pair.target();
    let mut stream = pair.echo(&target);
    exchange(&mut stream);
    pair.link.blackhole(true);
    stream.write_all(b"?").unwrap();
    let deadline = Instant::now() + LIMIT;
    while pair.link.stats().from_a.swallowed < 2 {
        assert!(Instant::now() < deadline, "the kernel did not try again");
        std::thread::sleep(Duration::from_millis(5));
    }
    stream.set_nonblocking(true).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    pair.link.blackhole(false);
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"?");
}

#[test]
fn a_link_goes_down_and_comes_back() {
    let pair = Pair::new(Shape::default());
    let target = pair.target();
    let mut stream = pair.echo(&target);
    exchange(&mut stream);
    pair.link.down(End::A).unwrap();
    let refused = pair.a.enter(|| TcpStream::connect_timeout(&target.address(), LIMIT)).unwrap().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::NetworkUnreachable);
    pair.link.up(End::A).unwrap();
    exchange(&mut stream);
    exchange(&mut pair.echo(&target));
}

#[test]
fn packets_for_a_device_that_is_down_are_counted() {
    let pair = Pair::new(Shape::default());
    let from = pair.a.enter(|| UdpSocket::bind((pair_address(End::A), 0)).unwrap()).unwrap();
    pair.link.down(End::B).unwrap();
    for _ in 0..3 {
        from.send_to(&[0; 100], (pair_address(End::B), 9)).unwrap();
    }
    // With their IP and UDP headers.
    let expected = DirectionStats { packets: 3, bytes: 3 * 128, undeliverable: 3, ..DirectionStats::default() };
    let deadline = Instant::now() + LIMIT;
    while pair.link.stats().from_a != expected {
        assert!(Instant::now() < deadline, "3 packets sent: {:?}", pair.link.stats());
        std::thread::yield_now();
    }
    assert_eq!(pair.link.stats().from_b, DirectionStats::default());
}

#[test]
fn an_end_moves_to_another_address() {
    let pair = Pair::new(Shape::default());
    let listener = pair.b.listen((Ipv4Addr::UNSPECIFIED, 0).into()).unwrap();
    let to = SocketAddr::from((pair.link.address(End::B), listener.local_addr().unwrap().port()));
    let source = || {
        let _held = pair.a.enter(|| connect(to)).unwrap();
        listener.accept().unwrap().1.ip()
    };
    let old = pair.link.address(End::A);
    assert_eq!(source(), old);
    let new = pair.link.readdress(End::A).unwrap();
    assert_ne!(new, old);
    assert_eq!(pair.link.address(End::A), new);
    assert_eq!(source(), new);
    assert!(pair.a.listen((old, 0).into()).is_err(), "the old address is still there");
}

#[test]
fn links_in_a_row_are_routed() {
    let lab = Lab::new().unwrap();
    let names = ["client", "relay", "server"].map(|name| lab.namespace(name).unwrap());
    let near = lab.link(&names[0], &names[1], Shape::default()).unwrap();
    let far = lab.link(&names[1], &names[2], Shape { delay: Duration::from_millis(20), ..Shape::default() }).unwrap();
    let target = Target::start(names[2].listen((far.address(End::B), 0).into()).unwrap()).unwrap();
    let mut stream = names[0].enter(|| connect(target.address())).unwrap();
    stream.write_all(b"e").unwrap();
    assert!(round_trip(&mut stream) >= Duration::from_millis(40));
    assert!(near.stats().from_a.packets > 0 && far.stats().from_b.packets > 0);
}
