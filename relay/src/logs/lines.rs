//! Writing log lines, on a thread of its own. The threads that log serve sessions, so they never wait for the log's reader; and a
//! flood of lines must not fill a disk. Lines beyond the limits are dropped and counted, and the count is logged.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait to be written: the ten thousand lines of a full relay to which all ends come back at once.
const WAITING_MAX: usize = 2 << 20;
/// Bytes of warnings and errors that may wait beside those.
const WARNINGS_MAX: usize = 256 << 10;
/// Bytes at once, and bytes a second after those, unless more is asked for: some 500 lines a second, 5.5 GB a day. Warnings and
/// errors have as much of their own.
const BURST: usize = 8 << 20;
const BYTES_A_SECOND: usize = 64 << 10;
/// How often a line tells how many lines were dropped.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// At the end of a process, how long to wait for its last lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A buffer that has grown larger than this is freed.
const KEPT: usize = 64 << 10;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines this process has dropped.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Takes whole lines without waiting. Clones write to the same output.
#[derive(Clone, Debug)]
pub struct Lines {
    shared: Arc<Shared>,
    kind: Kind,
}

/// The budget of a line: a flood of one kind does not hide lines of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Warnings and errors.
    Warning,
    /// Every other line.
    Usual,
}

/// Dropping it writes the lines that still wait, for up to a second, and ends the thread.
#[derive(Debug)]
#[must_use]
pub struct Logs(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    lines: Vec<u8>,
    budgets: Option<Budgets>,
    dropped: u64,
    told: u64,
    /// No more lines will come.
    over: bool,
    /// All lines that came are written.
    done: bool,
}

#[derive(Debug)]
struct Budgets {
    warning: Budget,
    usual: Budget,
}

#[derive(Debug)]
struct Budget {
    left: usize,
    since: Instant,
}

impl Lines {
    /// Starts the thread that writes to `out`. `all`: as much as `out` takes; otherwise 8 MiB at once and 64 KiB a second after
    /// that, and the same again for warnings and errors.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(out: impl Write + Send + 'static, all: bool) -> io::Result<(Self, Logs)> {
        let tell = |lines| warn!(lines, "log lines were dropped so far: there were more than can be written");
        let budget = || Budget { left: BURST, since: Instant::now() };
        Self::start_to(out, (!all).then(|| Budgets { warning: budget(), usual: budget() }), tell)
    }

    fn start_to(
        out: impl Write + Send + 'static,
        budgets: Option<Budgets>,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<(Self, Logs)> {
        let state = State { lines: Vec::new(), budgets, dropped: 0, told: 0, over: false, done: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let writes = shared.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writes.write_out(out, tell))?;
        Ok((Self { shared: shared.clone(), kind: Kind::Usual }, Logs(shared)))
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut locked = self.shared.lock();
        let state = &mut *locked;
        let (max, budget) = match self.kind {
            Kind::Warning => (WAITING_MAX + WARNINGS_MAX, state.budgets.as_mut().map(|budgets| &mut budgets.warning)),
            Kind::Usual => (WAITING_MAX, state.budgets.as_mut().map(|budgets| &mut budgets.usual)),
        };
        let has_room = state.lines.len() + line.len() <= max;
        if has_room && budget.is_none_or(|budget| budget.take(Instant::now(), line.len())) {
            state.lines.extend_from_slice(line);
        } else {
            state.dropped += 1;
            DROPPED.fetch_add(1, Relaxed);
        }
        drop(locked);
        self.shared.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }

    fn make_writer_for(&self, meta: &Metadata<'_>) -> Self {
        let kind = if *meta.level() <= Level::WARN { Kind::Warning } else { Kind::Usual };
        Self { kind, ..self.clone() }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.over = true;
        self.0.changed.notify_all();
        let _ = self.0.changed.wait_timeout_while(state, LAST_WORDS, |state| !state.done);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line that tells of dropped lines may be dropped like any other; it is then written again later.
    fn write_out(&self, mut out: impl Write, tell: impl Fn(u64)) {
        let (mut batch, mut told_at) = (Vec::new(), None::<Instant>);
        loop {
            let untold = {
                let mut state = self.lock();
                let due = loop {
                    let due = state.dropped != state.told
                        && (state.over || told_at.is_none_or(|at| at.elapsed() >= TOLD_EVERY));
                    if due || !state.lines.is_empty() {
                        break due;
                    }
                    if state.over {
                        state.done = true;
                        drop(state);
                        return self.changed.notify_all();
                    }
                    let wait = if state.dropped == state.told { Duration::MAX } else { TOLD_EVERY };
                    state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                };
                std::mem::swap(&mut state.lines, &mut batch);
                due.then(|| {
                    state.told = state.dropped;
                    state.told
                })
            };
            // An error cannot be reported anywhere.
            let _ = out.write_all(&batch).and_then(|()| out.flush());
            batch.clear();
            batch.shrink_to(KEPT);
            if let Some(lines) = untold {
                tell(lines);
                told_at = Some(Instant::now());
            }
        }
    }
}

impl Budget {
    fn take(&mut self, now: Instant, len: usize) -> bool {
        let elapsed = now.saturating_duration_since(self.since).as_millis();
        let earned = usize::try_from(elapsed).unwrap_or(usize::MAX).saturating_mul(BYTES_A_SECOND) / 1000;
        if earned > 0 {
            (self.left, self.since) = (self.left.saturating_add(earned).min(BURST), now);
        }
        let Some(left) = self.left.checked_sub(len) else { return false };
        self.left = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that takes nothing until it is opened, then everything.
    struct Stuck {
        until: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.until.recv();
            let _ = self.taken.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_thread_that_logs_never_waits_for_the_logs_reader() {
        let (free, until) = mpsc::channel();
        let (taken, took) = mpsc::channel();
        let (told, tells) = mpsc::channel();
        let (mut lines, logs) = Lines::start_to(Stuck { until, taken }, None, move |n| told.send(n).unwrap()).unwrap();
        let line = [b'x'; 1024];
        // Twice what can wait, and nobody reads a byte of it.
        let all = 2 * WAITING_MAX / line.len();
        for _ in 0..all {
            assert_eq!(lines.write(&line).unwrap(), line.len());
        }
        drop(free);
        let dropped = tells.recv().unwrap();
        drop(logs);
        drop(lines);
        let written = took.iter().map(|batch| batch.len()).sum::<usize>() / line.len();
        assert_eq!(written + usize::try_from(dropped).unwrap(), all, "what is not written is counted");
        assert!(written >= WAITING_MAX / line.len());
    }

    #[test]
    fn a_flood_of_lines_hides_no_warning() {
        let line = "x".repeat(1024);
        // A spent budget, or a reader that takes nothing: either way there is no room for the next lines.
        for spent in [true, false] {
            let (free, until) = mpsc::channel();
            let (taken, took) = mpsc::channel();
            // A budget that begins in the future earns nothing.
            let since = Instant::now() + Duration::from_secs(3600);
            let budget = |left| Budget { left, since };
            let budgets = spent.then(|| Budgets { warning: budget(4 * line.len()), usual: budget(line.len()) });
            let (lines, logs) = Lines::start_to(Stuck { until, taken }, budgets, |_| {}).unwrap();
            let shared = lines.shared.clone();
            tracing::subscriber::with_default(tracing_subscriber::fmt().with_writer(lines).finish(), || {
                for _ in 0..2 * WAITING_MAX / line.len() {
                    tracing::info!("{line}");
                }
                assert_ne!(shared.lock().dropped, 0);
                tracing::warn!("beware {line}");
                tracing::error!("alas {line}");
                // Warnings are limited too.
                let before = shared.lock().dropped;
                for _ in 0..3 * WAITING_MAX / line.len() {
                    tracing::warn!("{line}");
                }
                assert!(shared.lock().dropped > before);
            });
            drop(free);
            drop(logs);
            let written = String::from_utf8(took.iter().flatten().collect()).unwrap();
            assert!(written.contains("beware") && written.contains("alas"), "{spent}");
        }
    }

    #[test]
    fn what_is_written_a_day_is_bounded() {
        let start = Instant::now();
        let mut budget = Budget { left: BURST, since: start };
        let take = |budget: &mut Budget, seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..).take_while(|_| budget.take(now, 1024)).count() * 1024
        };
        assert_eq!(take(&mut budget, 0), BURST);
        assert_eq!(take(&mut budget, 10), 10 * BYTES_A_SECOND);
        assert_eq!(take(&mut budget, 1_000_000), BURST, "what was not needed is not saved up for ever");
    }
}
