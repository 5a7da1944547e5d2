//! Output that a thread of its own writes, in order. The code that prints also carries sessions, or answers the
//! operator: it never waits for a reader.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Most bytes that may wait to be written: some 30,000 events.
pub(crate) const WAITING_MAX: usize = 4 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// One output. It lives as long as the process.
pub(crate) struct Outlet {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(usize, Job)>,
    /// Bytes of all unfinished jobs.
    bytes: usize,
    /// Unfinished jobs: those that wait, and the one that is being written.
    left: usize,
    /// Jobs for which there was no room, since the last [`Outlet::take_refused`].
    refused: usize,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet")
    }
}

impl Outlet {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start() -> io::Result<&'static Self> {
        let outlet: &'static Self = Box::leak(Box::new(Self { state: Mutex::default(), changed: Condvar::new() }));
        thread::Builder::new().name("output".to_owned()).spawn(move || outlet.write_out())?;
        Ok(outlet)
    }

    /// Queues `job`, which writes this many bytes. Returns false, and drops the job, if there is no room.
    pub(crate) fn push(&self, bytes: usize, job: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.lock();
        // A job without bytes puts the terminal right, and always has room.
        if bytes > 0 && state.bytes + bytes > WAITING_MAX {
            state.refused += 1;
            return false;
        }
        state.bytes += bytes;
        state.left += 1;
        state.jobs.push_back((bytes, Box::new(job)));
        drop(state);
        self.changed.notify_all();
        true
    }

    /// How many jobs found no room since the last call.
    pub(crate) fn take_refused(&self) -> usize {
        std::mem::take(&mut self.lock().refused)
    }

    /// Counts these jobs again: they are told of with the next line.
    pub(crate) fn refused(&self, jobs: usize) {
        self.lock().refused += jobs;
    }

    /// Waits until everything is written, but at most this long. Returns whether it is.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut state = self.lock();
        while state.left > 0 {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let left = left.unwrap_or(Duration::MAX);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self) -> ! {
        loop {
            let state = self.changed.wait_while(self.lock(), |state| state.jobs.is_empty());
            let next = state.unwrap_or_else(PoisonError::into_inner).jobs.pop_front();
            let Some((bytes, job)) = next else { continue };
            job();
            let mut state = self.lock();
            state.bytes -= bytes;
            state.left -= 1;
            drop(state);
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A test that takes longer has failed.
    const DEADLINE: Duration = Duration::from_secs(60);

    #[test]
    fn no_caller_waits_for_the_reader_and_what_is_told_keeps_its_order() {
        let outlet = Outlet::start().unwrap();
        let (free, stuck) = mpsc::channel::<()>();
        let (wrote, written) = mpsc::channel();
        assert!(outlet.push(1, move || stuck.recv().unwrap_or_default()));
        let line = WAITING_MAX / 8;
        // The first job has one byte of the room.
        let fit = (0..20).filter(|n| {
            let (wrote, n) = (wrote.clone(), *n);
            outlet.push(line, move || wrote.send(n).unwrap())
        });
        assert_eq!(fit.collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        assert_eq!((outlet.take_refused(), outlet.take_refused()), (13, 0), "what was refused is counted once");
        assert!(outlet.push(0, move || wrote.send(100).unwrap()), "what needs no room is always taken");
        assert!(!outlet.wait(Some(Duration::ZERO)), "nothing is written yet");
        drop(free);
        assert!(outlet.wait(Some(DEADLINE)));
        assert_eq!(written.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 100]);
        assert!(outlet.push(WAITING_MAX, || {}), "and there is room again");
        assert!(outlet.wait(Some(DEADLINE)));
    }
}
