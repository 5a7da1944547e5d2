//! The faults: what they do to the network and the processes, and for how long.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use mykube_lab::End;
use rustix::process::Signal;

use super::world::{Mode, World};
use crate::support::Running;

/// How long faults last, in CI and in the full table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// The relay or a line is away.
    pub(super) short: Duration,
    /// Packets are dropped silently.
    pub(super) silence: Duration,
    /// Longer than kubectl's own timers: 45 s for HTTP/2, 61 s for exec over WebSocket.
    pub(super) long: Duration,
    /// A process is stopped.
    pub(super) stop: Duration,
    /// A line loses packets, or proxies cut.
    pub(super) throughout: Duration,
    /// The proxies' limits for idle and for old connections.
    pub(super) cuts: (Duration, Duration),
    /// `--resume-window`, for the fault that outlasts it.
    pub(super) window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    RelayKilled,
    RelayDrained,
    ClientLineDown,
    ServerLineDown,
    ClientMoved,
    ServerMoved,
    ClientSilence,
    ServerSilence,
    Loss,
    Proxies,
    ClientStopped,
    ServerStopped,
    LongSilence,
    WindowOver,
    /// For comparison.
    Nothing,
}

impl Fault {
    pub(super) const ALL: [Self; 14] = [
        Self::RelayKilled,
        Self::RelayDrained,
        Self::ClientLineDown,
        Self::ServerLineDown,
        Self::ClientMoved,
        Self::ServerMoved,
        Self::ClientSilence,
        Self::ServerSilence,
        Self::Loss,
        Self::Proxies,
        Self::ClientStopped,
        Self::ServerStopped,
        Self::LongSilence,
        Self::WindowOver,
    ];

    pub(super) fn name(self, lengths: &Lengths) -> String {
        let seconds = |length: Duration| length.as_secs();
        match self {
            Self::RelayKilled => format!("relay killed (-9), back after {} s", seconds(lengths.short)),
            Self::RelayDrained => "relay drained and started again".into(),
            Self::ClientLineDown => format!("client's link down for {} s", seconds(lengths.short)),
            Self::ServerLineDown => format!("server's link down for {} s", seconds(lengths.short)),
            Self::ClientMoved => "client's address changed".into(),
            Self::ServerMoved => "server's address changed".into(),
            Self::ClientSilence => format!("client's packets dropped for {} s", seconds(lengths.silence)),
            Self::ServerSilence => format!("server's packets dropped for {} s", seconds(lengths.silence)),
            Self::Loss => format!("5 % loss and 200 ms delay, {} s", seconds(lengths.throughout)),
            Self::Proxies => {
                let (idle, life) = lengths.cuts;
                format!("proxies that cut after {} s idle, {} s in all", seconds(idle), seconds(life))
            }
            Self::ClientStopped => format!("client stopped for {} s", seconds(lengths.stop)),
            Self::ServerStopped => format!("server stopped for {} s", seconds(lengths.stop)),
            Self::LongSilence => format!("no network for {} s", seconds(lengths.long)),
            Self::Nothing => "nothing".into(),
            Self::WindowOver => format!("resume window of {} s over", seconds(lengths.window)),
        }
    }

    /// All operations must fail, and say so. (Over SPDY kubectl takes a reset connection for a good end, so WebSockets
    /// are used here.)
    pub(super) fn ends_the_session(self) -> bool {
        self == Self::WindowOver
    }

    /// Whether this fault can hurt this kind of world.
    pub(super) fn exists_in(self, mode: Mode) -> bool {
        match mode {
            Mode::Guarded | Mode::Shared => true,
            Mode::Bore => !matches!(self, Self::ClientStopped | Self::Proxies | Self::WindowOver),
            Mode::Alone => matches!(
                self,
                Self::ClientLineDown
                    | Self::ServerLineDown
                    | Self::ClientMoved
                    | Self::ServerMoved
                    | Self::ClientSilence
                    | Self::ServerSilence
                    | Self::Loss
                    | Self::LongSilence
            ),
        }
    }

    /// The trouble that is there before the first operation begins.
    pub(super) fn prepare(self, world: &World) {
        if self == Self::Loss {
            world.wires.client_line.update(|shape| (shape.loss, shape.delay) = (0.05, Duration::from_millis(200)));
        }
    }

    /// How long the fault lasts.
    pub(super) fn lasts(self, lengths: &Lengths) -> Duration {
        match self {
            Self::RelayDrained | Self::ClientMoved | Self::ServerMoved => Duration::ZERO,
            Self::RelayKilled | Self::ClientLineDown | Self::ServerLineDown => lengths.short,
            Self::ClientSilence | Self::ServerSilence => lengths.silence,
            Self::Loss | Self::Proxies | Self::Nothing => lengths.throughout,
            Self::ClientStopped | Self::ServerStopped => lengths.stop,
            Self::LongSilence => lengths.long,
            // Both ends have to notice the loss first.
            Self::WindowOver => lengths.window + Duration::from_secs(40),
        }
    }

    /// Whether the fault is long, and hardly anything moves meanwhile.
    pub(super) fn is_quiet(self) -> bool {
        matches!(self, Self::Loss | Self::ClientStopped | Self::ServerStopped | Self::LongSilence | Self::WindowOver)
    }

    /// Hurts the world. Returns when it is whole again, or when its lasting trouble has lasted long enough, with that
    /// time.
    pub(super) fn strike(self, world: &World, lengths: &Lengths) -> Instant {
        let lasts = self.lasts(lengths);
        match self {
            Self::RelayKilled | Self::RelayDrained => {
                world.wires.end_relay(if self == Self::RelayKilled { Signal::KILL } else { Signal::TERM });
                sleep(lasts);
                return world.wires.restart_relay();
            }
            Self::ClientLineDown => {
                world.wires.client_line.down(End::A).unwrap();
                sleep(lasts);
                world.wires.client_line.up(End::A).unwrap();
            }
            Self::ServerLineDown => {
                world.wires.server_line.down(End::B).unwrap();
                sleep(lasts);
                world.wires.server_line.up(End::B).unwrap();
            }
            Self::ClientMoved => drop(world.wires.client_line.readdress(End::A).unwrap()),
            Self::ServerMoved => drop(world.wires.server_line.readdress(End::B).unwrap()),
            Self::ClientSilence | Self::LongSilence | Self::WindowOver => {
                world.wires.client_line.blackhole(true);
                sleep(lasts);
                world.wires.client_line.blackhole(false);
            }
            Self::ServerSilence => {
                world.wires.server_line.blackhole(true);
                sleep(lasts);
                world.wires.server_line.blackhole(false);
            }
            Self::Loss | Self::Nothing => sleep(lasts),
            Self::Proxies => {
                sleep(lasts);
                assert!(world.wires.proxies.iter().all(|proxy| proxy.counts().cut > 0), "a proxy has cut nothing");
            }
            Self::ClientStopped => stop(world.client.as_ref(), lasts),
            Self::ServerStopped => stop(world.server.as_ref(), lasts),
        }
        Instant::now()
    }
}

fn stop(end: Option<&Running>, length: Duration) {
    let end = end.expect("only what there is is stopped");
    end.process.signal(Signal::STOP);
    sleep(length);
    end.process.signal(Signal::CONT);
}
