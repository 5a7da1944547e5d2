//! The audit log: one JSON line for every request, and one when a client pairs, leaves or is refused.
//!
//! ```json
//! {"time":"2026-01-31T12:00:00.123Z","event":"request","client":"laptop","client_id":1,"audit_id":"2f1c...","method":"GET",
//!  "verb":"list","api_group":"","api_version":"v1","resource":"pods","namespace":"default","status":200,
//!  "decision":"allowed","bytes_in":0,"bytes_out":1834,"duration_ms":12,"end":"complete","user_agent":"kubectl/v1.36.0"}
//! ```
//!
//! - A line is written when its request is over, an `exec` or a watch when it ends. `end` is `complete`, or `aborted`
//!   where the client left or the API server broke off in the middle; an `exec` is complete when either side said that
//!   it is done. `status` is missing where there was no answer. `audit_id` is also in the cluster's own audit log.
//!   Of a value that a client chose, control characters are left out and only so much is written; `shortened` names the
//!   fields that are not as they came, and one that was cut ends with `…`. `removed` names headers that were taken out
//!   because they say who somebody is. Bytes that are no HTTP request make a `refused` line of their client.
//! - One thread writes, whole lines, in append mode; a file that was renamed or removed is opened anew, so any rotation
//!   works, and `copytruncate` too.
//! - **Nothing passes unwritten.** Every request reserves room for its line before it is forwarded. While the disk is
//!   slow or full, lines wait (up to [`AuditSettings::lines`], requests in progress included); then new requests wait, at
//!   most [`AuditSettings::patience`], and are answered 503. Requests in progress are never held up.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use mykube_protocol::text::printable;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use mykube_agent_upstream::moment::moment_ms;

/// A log that cannot be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// Lines written in one go.
const BATCH: usize = 256;
/// Longest value of a field that a client chooses, in bytes.
pub(crate) const FIELD_MAX: usize = 256;

/// How many lines may wait, and for how long a request waits for room.
#[derive(Debug, Clone, Copy)]
pub struct AuditSettings {
    /// Lines that wait to be written and requests in progress, together.
    pub lines: usize,
    /// How long a request waits for room.
    pub patience: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { lines: 4096, patience: Duration::from_secs(5) }
    }
}

/// The log has no room: it cannot be written fast enough, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written at the moment (is the disk full?), so nothing is let through")]
pub struct AuditFull;

/// What happened to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// It knew the code.
    Paired,
    /// It said goodbye, or its session ended for the reason given.
    Left(&'a str),
    /// It was not let in.
    Refused(&'a str),
}

/// The audit log. Clones share it.
#[derive(Clone)]
pub struct Audit {
    lines: Option<mpsc::Sender<Entry>>,
    patience: Duration,
    /// Promises of lines that are still to be written.
    promises: TaskTracker,
}

enum Entry {
    Line(String),
    Flush(oneshot::Sender<()>),
}

/// Room for one line.
pub(crate) struct LineSlot {
    room: Option<mpsc::OwnedPermit<Entry>>,
    /// Held while the line has its room.
    _promise: Promise,
}

/// A promise that a line will be written, at the latest when this is dropped.
pub struct Promise {
    _counted: TaskTrackerToken,
}

impl Audit {
    /// No log.
    #[must_use]
    pub fn off() -> Self {
        Self { lines: None, patience: Duration::ZERO, promises: TaskTracker::new() }
    }

    /// Appends to a file, which others cannot read if it is made here.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn file(path: &Path, settings: AuditSettings) -> io::Result<Self> {
        Self::writer(LogFile::open(path)?, settings)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stdout(settings: AuditSettings) -> io::Result<Self> {
        Self::writer(io::stdout(), settings)
    }

    /// Writes to any writer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn writer(writer: impl Write + Send + 'static, settings: AuditSettings) -> io::Result<Self> {
        let (lines, entries) = mpsc::channel(settings.lines.max(1));
        std::thread::Builder::new().name("mykube-audit".into()).spawn(move || write_all(writer, entries))?;
        Ok(Self { lines: Some(lines), patience: settings.patience, promises: TaskTracker::new() })
    }

    /// Writes that a client paired, left or was refused.
    ///
    /// # Errors
    /// The log has had no room for [`AuditSettings::patience`].
    pub async fn client(&self, name: &str, id: Option<u64>, event: ClientEvent<'_>) -> Result<(), AuditFull> {
        write_client(self.reserve().await?, name, id, event);
        Ok(())
    }

    /// Writes the same at once, for a task that is being dropped and cannot wait; without room the line is left out.
    pub fn client_at_once(&self, name: &str, id: Option<u64>, event: ClientEvent<'_>) {
        if let Some(Ok(permit)) = self.lines.clone().map(mpsc::Sender::try_reserve_owned) {
            write_client(LineSlot { room: Some(permit), _promise: self.promise() }, name, id, event);
        }
    }

    /// A promise that [`Self::finish`] waits for.
    #[must_use]
    pub fn promise(&self) -> Promise {
        Promise { _counted: self.promises.token() }
    }

    /// Waits until all promised lines are written. A task that is given up ends, and writes its line, only some time
    /// after that.
    pub async fn finish(&self) {
        self.promises.close();
        self.promises.wait().await;
        self.flush().await;
    }

    /// Waits until every line that was queued so far is written.
    pub async fn flush(&self) {
        if let Some(lines) = &self.lines {
            let (done, written) = oneshot::channel();
            if lines.send(Entry::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        }
    }

    pub(crate) async fn reserve(&self) -> Result<LineSlot, AuditFull> {
        let promise = self.promise();
        let Some(lines) = &self.lines else { return Ok(LineSlot { room: None, _promise: promise }) };
        let reserved = tokio::time::timeout(self.patience, lines.clone().reserve_owned()).await;
        reserved
            .map_err(|_| AuditFull)?
            .map(|permit| LineSlot { room: Some(permit), _promise: promise })
            .map_err(|_| AuditFull)
    }
}

fn write_client(slot: LineSlot, name: &str, id: Option<u64>, event: ClientEvent<'_>) {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        event: &'a str,
        client: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<u64>,
        #[serde(skip_serializing_if = "str::is_empty")]
        reason: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        shortened: Vec<&'static str>,
    }
    let (event, reason) = match event {
        ClientEvent::Paired => ("paired", ""),
        ClientEvent::Left(reason) => ("left", reason),
        ClientEvent::Refused(reason) => ("refused", reason),
    };
    let mut shortened = Vec::new();
    let reason = shown(reason, FIELD_MAX, "reason", &mut shortened);
    let client = shown(name, FIELD_MAX, "client", &mut shortened);
    slot.write(&Line { time: now(), event, client, client_id: id, reason, shortened });
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Audit({})", if self.lines.is_some() { "on" } else { "off" })
    }
}

impl LineSlot {
    pub(crate) fn write(self, line: &impl Serialize) {
        if let (Some(permit), Ok(mut text)) = (self.room, serde_json::to_string(line)) {
            text.push('\n');
            permit.send(Entry::Line(text));
        }
    }
}

/// The time now, to the millisecond.
pub(crate) fn now() -> String {
    moment_ms(SystemTime::now())
}

/// Makes a value that a client chose fit for a terminal: at most `max` bytes, a cut one ending with `…`. If the value
/// is changed, adds `field` to the shortened ones.
pub(crate) fn shown(text: &str, max: usize, field: &'static str, shortened: &mut Vec<&'static str>) -> String {
    let mut shown = printable(text, max);
    if shown == text {
        return shown;
    }
    if !shortened.contains(&field) {
        shortened.push(field);
    }
    if printable(text, usize::MAX).len() > shown.len() {
        shown.push('…');
    }
    shown
}

/// The thread that writes the log; it ends when the last [`Audit`] is dropped.
fn write_all(mut writer: impl Write, mut entries: mpsc::Receiver<Entry>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut text = String::new();
    while entries.blocking_recv_many(&mut batch, BATCH) > 0 {
        text.clear();
        let mut flushed = Vec::new();
        for entry in batch.drain(..) {
            match entry {
                Entry::Line(line) => text.push_str(&line),
                Entry::Flush(done) => flushed.push(done),
            }
        }
        write_whole(&mut writer, text.as_bytes());
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// Writes all of `bytes`, trying again until it works.
fn write_whole(writer: &mut impl Write, mut bytes: &[u8]) {
    let mut failing = false;
    loop {
        let step = match bytes {
            [] => writer.flush(),
            _ => match writer.write(bytes) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            },
        };
        match step {
            Ok(()) => break,
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "the audit log cannot be written; soon nothing will be let through");
                }
                failing = true;
                std::thread::sleep(RETRY);
            }
        }
    }
    if failing {
        tracing::info!("the audit log is written again");
    }
}

/// The log file. It is opened anew when its path names another file, or none.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { path: path.to_owned(), file: options.open(path)? })
    }

    #[cfg(unix)]
    fn is_current(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        let open = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(not(unix))]
    fn is_current(&self) -> io::Result<bool> {
        Ok(true)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_current()? {
            *self = Self::open(&self.path)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
