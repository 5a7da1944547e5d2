//! The thread that moves packets between two TUN devices.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use tun_rs::SyncDevice;

use super::pipe::{End, LinkStats, Pipe, Shape};
use crate::LabError;

/// How many packets are read from one device before the due ones are written.
const BATCH: usize = 64;

/// A running thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Pump {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    stats: Mutex<LinkStats>,
    /// Written when `wanted` changed.
    wake: OwnedFd,
}

#[derive(Debug)]
struct Wanted {
    shapes: [Shape; 2],
    /// How many times the shapes were changed, and how many of these changes are applied.
    version: u64,
    applied: u64,
    stop: bool,
}

impl Pump {
    pub(super) fn start(a: SyncDevice, b: SyncDevice, shape: Shape) -> Result<Self, LabError> {
        let wake =
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(LabError::io("make an eventfd"))?;
        let wanted = Wanted { shapes: [shape; 2], version: 0, applied: 0, stop: false };
        let shared = Arc::new(Shared { wanted: Mutex::new(wanted), stats: Mutex::default(), wake });
        let its = Arc::clone(&shared);
        // The two directions must not lose the same packets.
        let back = Shape { seed: !shape.seed, ..shape };
        let run = move || run(&its, &[a, b], [Pipe::new(shape), Pipe::new(back)]);
        let thread = thread::Builder::new().name("lab-link".into()).spawn(run);
        Ok(Self { shared, thread: Some(thread.map_err(LabError::io("start a thread"))?) })
    }

    pub(super) fn shape(&self, end: End) -> Shape {
        lock(&self.shared.wanted).shapes[end as usize]
    }

    /// Returns when the change is applied.
    pub(super) fn update(&self, ends: &[End], change: impl Fn(&mut Shape)) {
        let version = {
            let mut wanted = lock(&self.shared.wanted);
            for end in ends {
                change(&mut wanted.shapes[*end as usize]);
            }
            wanted.version += 1;
            wanted.version
        };
        self.wake();
        while lock(&self.shared.wanted).applied < version && self.thread.as_ref().is_some_and(|it| !it.is_finished()) {
            thread::sleep(Duration::from_micros(100));
        }
    }

    pub(super) fn stats(&self) -> LinkStats {
        *lock(&self.shared.stats)
    }

    fn wake(&self) {
        // A full pipe means that the thread has been woken already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        lock(&self.shared.wanted).stop = true;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, devices: &[SyncDevice; 2], mut pipes: [Pipe; 2]) {
    let mut buffer = vec![0; usize::from(u16::MAX) + 1];
    let mut version = 0;
    loop {
        {
            let mut wanted = lock(&shared.wanted);
            if wanted.stop {
                return;
            }
            if wanted.version != version {
                version = wanted.version;
                let [a, b] = wanted.shapes;
                pipes[0].set_shape(a);
                pipes[1].set_shape(Shape { seed: !b.seed, ..b });
                wanted.applied = version;
            }
        }
        let now = Instant::now();
        for (pipe, to) in pipes.iter_mut().zip([&devices[1], &devices[0]]) {
            deliver(pipe, to, now);
        }
        *lock(&shared.stats) = LinkStats { from_a: pipes[0].stats(), from_b: pipes[1].stats() };

        let due = pipes.iter().filter_map(Pipe::next_due).min();
        let Ok(readable) = wait(shared, devices, due) else { return };
        for ((pipe, from), readable) in pipes.iter_mut().zip(devices).zip(readable) {
            if readable && receive(pipe, from, &mut buffer).is_err() {
                return;
            }
        }
    }
}

/// Which devices have packets. Fails when a device is gone.
fn wait(shared: &Shared, devices: &[SyncDevice; 2], due: Option<Instant>) -> io::Result<[bool; 2]> {
    let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));
    let [a, b] = devices;
    let mut waited = [
        PollFd::from_borrowed_fd(a.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(b.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(shared.wake.as_fd(), PollFlags::IN),
    ];
    match poll(&mut waited, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok([false; 2]),
        Err(error) => return Err(error.into()),
    }
    if waited[2].revents().contains(PollFlags::IN) {
        let _ = rustix::io::read(&shared.wake, &mut [0; 8]);
    }
    if waited[..2].iter().any(|one| one.revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok([waited[0].revents().contains(PollFlags::IN), waited[1].revents().contains(PollFlags::IN)])
}

fn receive(pipe: &mut Pipe, from: &SyncDevice, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..BATCH {
        match rustix::io::read(from, &mut *buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(size) => pipe.handle_packet(Instant::now(), &buffer[..size]),
            Err(Errno::AGAIN | Errno::INTR | Errno::IO) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn deliver(pipe: &mut Pipe, to: &SyncDevice, now: Instant) {
    while let Some(packet) = pipe.poll_packet(now) {
        if rustix::io::write(to, &packet).is_err() {
            pipe.stats.undeliverable += 1;
        }
        pipe.recycle(packet);
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
