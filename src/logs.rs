//! What `-v` shows on standard error. No secret is logged at any level; that is the callers' duty.
//!
//! A thread of its own writes: a terminal that was stopped, or a pipe that nobody reads, holds up no thread that carries sessions.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Lines that may wait to be written; those after them are counted and not kept.
const WAITING: usize = 4096;
/// How long the last ones may take at the end.
const FLUSH: Duration = Duration::from_millis(200);

/// Starts logging for so many `-v`. None: warnings and errors only.
pub(crate) fn start(verbose: u8, color: bool) -> Logs {
    let filter = EnvFilter::new(directives(verbose));
    let lines = Lines::to(io::stderr(), WAITING);
    let logs = Logs(lines.clone());
    let layer = fmt::layer().with_writer(move || lines.clone()).with_ansi(color).with_target(verbose > 1);
    tracing_subscriber::registry().with(filter).with(layer).init();
    logs
}

/// Dropped at the end of the program, it waits a little for the last lines.
pub(crate) struct Logs(Lines);

impl Drop for Logs {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // A full queue is nobody's who reads.
        if self.0.writer.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

enum Entry {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Takes whole lines and never waits.
#[derive(Clone)]
struct Lines {
    writer: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    fn to(to: impl Write + Send + 'static, waiting: usize) -> Self {
        let ((writer, entries), lost) = (sync_channel(waiting), Arc::default());
        let lines = Self { writer, lost };
        let lost = lines.lost.clone();
        thread::spawn(move || write_all(to, &entries, &lost));
        lines
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.writer.try_send(Entry::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut to: impl Write, entries: &Receiver<Entry>, lost: &AtomicU64) {
    while let Ok(entry) = entries.recv() {
        match entry {
            Entry::Line(line) => {
                // Where nobody reads, nobody misses it.
                let _ = to.write_all(&line);
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let _ = writeln!(to, "({lost} more lines of the log could not be written in time)");
                }
            }
            Entry::Flush(done) => drop(done.send(())),
        }
    }
}

/// Our own crates at the level asked for; others one step quieter and never more than debug, so that no library
/// prints what passes through it.
fn directives(verbose: u8) -> &'static str {
    match verbose {
        0 => {
            "off,mykube=warn,mykube_agent=warn,mykube_client=warn,mykube_link=warn,mykube_relay=warn,mykube_tunnel=warn"
        }
        1 => {
            "warn,mykube=info,mykube_agent=info,mykube_client=info,mykube_link=info,mykube_relay=info,mykube_tunnel=info"
        }
        2 => {
            "info,mykube=debug,mykube_agent=debug,mykube_client=debug,mykube_link=debug,mykube_relay=debug,mykube_tunnel=debug"
        }
        _ => {
            "debug,mykube=trace,mykube_agent=trace,mykube_client=trace,mykube_link=trace,mykube_relay=trace,mykube_tunnel=trace"
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    /// Takes nothing before it is told to.
    struct Stopped {
        goes_on: Receiver<()>,
        written: std::sync::mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Its other end is dropped, once and for all.
            let _ = self.goes_on.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_takes_nothing_holds_nobody_up_and_what_is_missing_is_counted() {
        const LINES: usize = 100;
        let (go_on, goes_on) = sync_channel(0);
        let (written, seen) = std::sync::mpsc::channel();
        let mut lines = Lines::to(Stopped { goes_on, written }, 2);
        for _ in 0..LINES {
            lines.write_all(b"line\n").unwrap();
        }
        drop(go_on);
        let (done, flushed) = sync_channel(1);
        lines.writer.send(Entry::Flush(done)).unwrap();
        flushed.recv().unwrap();
        let text = String::from_utf8(seen.try_iter().flatten().collect()).unwrap();
        let there = text.lines().filter(|line| *line == "line").count();
        let missing = text.lines().find_map(|line| line.strip_prefix('(')?.split_once(' ')?.0.parse::<usize>().ok());
        assert_eq!(there + missing.unwrap(), LINES, "{text}");
    }

    #[test]
    fn libraries_never_go_past_debug() {
        let expected = [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE];
        for (verbose, ours) in expected.into_iter().enumerate() {
            let text = directives(u8::try_from(verbose).unwrap());
            let filter: EnvFilter = text.parse().unwrap();
            assert_eq!(filter.max_level_hint(), Some(ours));
            assert!(!text.split(',').any(|directive| directive == "trace"));
        }
    }
}
