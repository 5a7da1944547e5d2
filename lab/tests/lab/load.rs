//! Load measures what happens, and notices what is broken.

use std::time::{Duration, Instant};

use mykube_lab::{
    ForwardOptions, Forwarder,
    load::{Direction, Load, Target},
    process_stats::Watched,
};

use super::loopback;

const SHORT: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);

fn own() -> Vec<Watched> {
    vec![Watched { name: "own".into(), pid: std::process::id() }]
}

/// The tunnel has carried at least that much since. It counts a byte once it was passed on, so the receiver may be first.
fn carries(tunnel: &Forwarder, since: u64, least: f64) {
    let deadline = Instant::now() + PATIENCE;
    while ((tunnel.counts().bytes - since) as f64) < least {
        assert!(Instant::now() < deadline, "{} of {least}", tunnel.counts().bytes - since);
        std::thread::yield_now();
    }
}

#[test]
fn a_good_tunnel_gets_good_figures() {
    let target = Target::start(loopback()).unwrap();
    let tunnel = Forwarder::start(loopback(), ForwardOptions::to(target.address())).unwrap();
    let load = Load::new(tunnel.address(), &target, own(), PATIENCE);
    load.wait_ready(PATIENCE).unwrap();
    let integrity = load.integrity();
    assert!(integrity.same && integrity.complete && integrity.half_close);
    let echo = load.echo(64, SHORT, Duration::ZERO);
    assert!(!echo.hang && echo.count > 0 && echo.p50_us.unwrap() <= echo.p99_us.unwrap());
    let paced = load.echo(1, SHORT, Duration::from_millis(20));
    assert!((1..=10).contains(&paced.count), "one each 20 ms in 200 ms: {}", paced.count);
    let connections = load.connections(SHORT);
    assert!(connections.failed == 0 && connections.per_s > 0.0);
    assert!(connections.per_s * SHORT.as_secs_f64() <= connections.latency.count as f64, "{connections:?}");
    for direction in [Direction::Down, Direction::Up] {
        for streams in [1, 20] {
            let carried = tunnel.counts().bytes;
            let bulk = load.bulk(direction, streams, SHORT, SHORT);
            // It was measured for at least that long; bytes from before and after that are not in the rate.
            carries(&tunnel, carried, bulk.mb_s * 1e6 * SHORT.as_secs_f64());
            let tool = bulk.tool_cpu_s_per_gib.unwrap();
            assert!(0.0 < tool && tool <= bulk.cpu_by_process["own"], "{bulk:?}");
            assert_eq!(bulk.cpu_s_per_gib, Some(bulk.cpu_by_process["own"]), "the only one");
            assert!(bulk.mb_s > 0.0 && bulk.failed == 0 && bulk.cpu_s_per_gib.unwrap() > 0.0, "{bulk:?}");
            assert!((1.0 / 20.0..=1.0).contains(&bulk.fairness.unwrap()), "{bulk:?}");
        }
        let carried = tunnel.counts().bytes;
        let loaded = load.echo_under_bulk(direction, 1, SHORT, SHORT, Duration::ZERO);
        assert!(!loaded.latency.hang && loaded.bulk_mb_s > 0.0, "{loaded:?}");
        carries(&tunnel, carried, loaded.bulk_mb_s * 1e6 * SHORT.as_secs_f64() + loaded.latency.count as f64);
        let stall = load.stall(direction, 4 * SHORT);
        assert!(!stall.one.latency.hang && !stall.both.latency.hang && stall.works_after, "{stall:?}");
        assert!(stall.both.new_connection_us.is_some(), "{stall:?}");
        assert!(stall.absorbed_down_mib > 0.0 && stall.absorbed_up_mib > 0.0, "{stall:?}");
    }
    assert_eq!(tunnel.counts().cut, 0);
}

#[test]
fn a_tunnel_that_hangs_or_cuts_is_seen() {
    let target = Target::start(loopback()).unwrap();
    let tunnel = Forwarder::start(loopback(), ForwardOptions::to(target.address())).unwrap();
    let load = Load::new(tunnel.address(), &target, own(), SHORT);
    tunnel.pause(true);
    assert!(load.echo(1, SHORT, Duration::ZERO).hang);
    assert!(load.wait_ready(SHORT).is_err());
    let integrity = load.integrity();
    assert!(!integrity.complete && !integrity.half_close);
    tunnel.pause(false);
    tunnel.refuse(true);
    assert_eq!(load.connections(SHORT).failed, 2);
    assert!(load.bulk(Direction::Down, 2, Duration::ZERO, SHORT).mb_s == 0.0);
}
