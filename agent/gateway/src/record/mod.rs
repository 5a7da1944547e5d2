//! Recordings of `exec` and `attach`: what the pod showed, one asciicast v2 file for each session.
//!
//! A recording has what comes back (output, errors, how it ended) and the terminal's sizes. What the user types is not
//! recorded, as passwords are typed. The session's bytes pass unchanged, after one message of ours that tells the user
//! of the recording.
//!
//! **Nothing is shown unrecorded.** What comes from the pod is written to the file before it is passed on. If that
//! fails, a session does not begin, or ends. Only WebSocket with the binary channels of `v4` and `v5.channel.k8s.io`
//! can be read: any other way to run a command is refused.

mod cast;
mod frames;
pub(crate) mod tee;

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, Method, header};
use time::OffsetDateTime;

use self::cast::{About, Cast};
use crate::{
    audit::shown,
    request_info::{RequestInfo, query_flag, query_pairs},
};

/// Subprotocols that can be recorded.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Longest parts of a file's name, so that the whole fits into 255 bytes.
const CLIENT_MAX: usize = 40;
const NAME_MAX: usize = 63;
/// Longest title and command in a recording, in bytes.
const TITLE_MAX: usize = 1024;

/// The answer where no recording can be written; the reason, with the directory's name, is in the operator's log.
pub(crate) const UNWRITABLE: &str = "mykube: exec and attach are recorded here, and the recording cannot be written at the \
     moment (is the disk full?), so none is let through";
/// The answer to SPDY, and to WebSocket with other channels.
pub(crate) const WEBSOCKET_ONLY: &str = "mykube: exec and attach are recorded here, which needs the WebSocket protocol \
     (v5.channel.k8s.io or v4.channel.k8s.io): use kubectl 1.31 or newer, without KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false, and \
     a cluster of 1.30 or newer";
/// The answer to a request of the kubelet's own API that could run something.
const KUBELET: &str = "mykube: exec and attach are recorded here, and what a node's proxy runs could not be: only GET without \
     an upgrade is let through to nodes/proxy";

/// The answer to an upgrade on a path that is none of the API server's.
const FOREIGN: &str = "mykube: exec and attach are recorded here, and what this path opens could not be";

/// The directory cannot be used for recordings.
#[derive(Debug, thiserror::Error)]
#[error("recordings cannot be written to {}: {source}; name a directory that exists and that mykube may write to, or one to make", dir.display())]
pub struct RecorderError {
    dir: PathBuf,
    source: io::Error,
}

/// Writes recordings to a directory.
#[derive(Debug, Clone)]
pub struct Recorder {
    dir: Arc<Path>,
}

/// What a recorder does with a request.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Passes it unrecorded.
    Pass,
    /// Records it.
    Record(Box<PlannedRecording>),
    /// An exec that cannot be recorded: it is forwarded without its upgrade, so that the API server can say if
    /// something else is wrong with it.
    Ask,
    /// Refuses it with this message.
    Refuse(&'static str),
}

/// A session that is to be recorded.
#[derive(Debug)]
pub(crate) struct PlannedRecording {
    namespace: String,
    pod: String,
    about: About,
    notice: Option<Notice>,
}

/// The message that tells the user of the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Notice {
    channel: u8,
    text: &'static str,
}

/// The file of one session. Dropped before [`Recording::begins`], it removes the file; dropped before its end, it
/// writes that it was cut off.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) name: String,
    path: PathBuf,
    disk: Arc<Mutex<Disk>>,
    cast: Cast,
    notice: Option<Notice>,
    start: Instant,
    /// Nothing is recorded yet: the terminal's first size can still be the header's.
    opening: bool,
    begun: bool,
    ended: bool,
}

/// A file that has only whole lines.
#[derive(Debug)]
struct Disk {
    file: File,
    length: u64,
}

impl Recorder {
    /// Makes the directory if there is none, closed to others, and tries to write to it.
    ///
    /// # Errors
    /// It cannot be made, or not written to.
    pub fn new(dir: &Path) -> Result<Self, RecorderError> {
        let failed = |source| RecorderError { dir: dir.to_owned(), source };
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir).map_err(failed)?;
        let dir = fs::canonicalize(dir).map_err(failed)?;
        let recorder = Self { dir: dir.clone().into() };
        recorder.probe().map_err(|source| RecorderError { dir, source })?;
        Ok(recorder)
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Decides what to do with a request, and removes from its headers what could not be recorded: other subprotocols,
    /// extensions.
    pub(crate) fn plan(
        &self,
        info: &RequestInfo,
        method: &Method,
        query: Option<&str>,
        upgrade: Option<&HeaderValue>,
        headers: &mut HeaderMap,
    ) -> Plan {
        if info.is_proxy() && info.resource == "nodes" {
            let plain = upgrade.is_none() && matches!(*method, Method::GET | Method::HEAD);
            return if plain { Plan::Pass } else { Plan::Refuse(KUBELET) };
        }
        // An unknown path may lead to another API server, and to its exec.
        if info.is_foreign() && upgrade.is_some() {
            return Plan::Refuse(FOREIGN);
        }
        let Some(upgrade) = upgrade.filter(|_| matches!(info.subresource.as_str(), "exec" | "attach")) else {
            return Plan::Pass;
        };
        if !upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
            let known = info.group.is_empty() && info.resource == "pods";
            return if known { Plan::Ask } else { Plan::Refuse(WEBSOCKET_ONLY) };
        }
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let kept: Vec<_> =
            offered.flat_map(|list| list.split(',')).map(str::trim).filter(|name| PROTOCOLS.contains(name)).collect();
        let Ok(kept) = HeaderValue::from_str(&kept.join(", ")) else { return Plan::Refuse(WEBSOCKET_ONLY) };
        if kept.is_empty() {
            return Plan::Refuse(WEBSOCKET_ONLY);
        }
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, kept);
        headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        Plan::Record(Box::new(PlannedRecording::new(info, query)))
    }

    /// Makes the file of a session.
    pub(crate) async fn record(
        &self,
        planned: PlannedRecording,
        client: &str,
        audit_id: &str,
    ) -> io::Result<Recording> {
        let PlannedRecording { namespace, pod, mut about, notice } = planned;
        let now = OffsetDateTime::now_utc();
        about.timestamp = now.unix_timestamp();
        let (client, namespace, pod) = (plain(client, CLIENT_MAX), plain(&namespace, NAME_MAX), plain(&pod, NAME_MAX));
        let (date, time) = (now.date(), now.time());
        let name = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z-{client}-{namespace}-{pod}-{audit_id}.cast",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        let path = self.dir.join(&name);
        let open = path.clone();
        let file = tokio::task::spawn_blocking(move || create(&open)).await.map_err(io::Error::other)??;
        let mut recording = Recording {
            name,
            path,
            disk: Arc::new(Mutex::new(Disk { file, length: 0 })),
            cast: Cast::new(about),
            notice,
            start: Instant::now(),
            opening: true,
            begun: false,
            ended: false,
        };
        recording.open().await?;
        Ok(recording)
    }

    /// Checks that a recording could be written.
    pub(crate) async fn check(&self) -> io::Result<()> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.probe()).await.map_err(io::Error::other)?
    }

    fn probe(&self) -> io::Result<()> {
        let path = self.dir.join(format!(".mykube-{:016x}", rand::random::<u64>()));
        let mut file = create(&path)?;
        let written = file.write_all(&[b'\n'; 4096]);
        fs::remove_file(&path)?;
        written
    }
}

/// Whether the API server's answer to an upgrade leads to a protocol that can be recorded.
pub(crate) fn can_read(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    protocol.is_some_and(|protocol| PROTOCOLS.contains(&protocol))
        && !headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
}

impl PlannedRecording {
    fn new(info: &RequestInfo, query: Option<&str>) -> Self {
        let value = |wanted: &str| query_pairs(query).find(|(key, _)| key == wanted).map(|(_, value)| value);
        let terminal = query_flag(query, "tty");
        let notice = match terminal {
            true if query_flag(query, "stdout") => {
                Some(Notice { channel: 1, text: "mykube: this session is recorded\r\n" })
            }
            // Piped output must not change.
            false if query_flag(query, "stderr") => {
                Some(Notice { channel: 2, text: "mykube: this session is recorded\n" })
            }
            _ => None,
        };
        let command: Vec<_> = query_pairs(query).filter(|(key, _)| key == "command").map(|(_, word)| word).collect();
        // A shortened text ends with a mark, as in the audit log.
        let short = |text: &str| shown(text, TITLE_MAX, "", &mut Vec::new());
        let command = short(&command.join(" "));
        let mut title = format!("{} {}/{}", info.subresource, info.namespace, info.name);
        if let Some(container) = value("container") {
            let _ = write!(title, " -c {container}");
        }
        let about = About { title: short(&title), command, timestamp: 0, terminal };
        Self { namespace: info.namespace.clone(), pod: info.name.clone(), about, notice }
    }
}

impl Recording {
    /// The session has begun: from here on the file is kept.
    pub(crate) fn begins(&mut self) {
        self.begun = true;
    }

    /// Records bytes from the pod.
    fn output(&mut self, channel: u8, bytes: &[u8], lines: &mut String) {
        self.cast.output(self.start.elapsed(), channel, bytes, lines);
        // The API server opens every channel with an empty message.
        self.opening &= lines.is_empty();
    }

    /// Records bytes to the pod: the terminal's sizes only.
    fn input(&mut self, channel: u8, bytes: &[u8], lines: &mut String) -> bool {
        channel == 4 && self.cast.resize(self.start.elapsed(), bytes, lines)
    }

    async fn resized(&mut self, lines: String) -> io::Result<()> {
        if self.opening { self.open().await } else { self.write(lines).await }
    }

    /// Writes the first lines, and again as long as there are no others.
    async fn open(&mut self) -> io::Result<()> {
        let mut lines = self.cast.header();
        if let Some(Notice { channel, text }) = self.notice {
            self.cast.output(std::time::Duration::ZERO, channel, text.as_bytes(), &mut lines);
        }
        self.on_disk(move |disk| disk.restart().and_then(|()| disk.append(&lines))).await
    }

    async fn write(&mut self, lines: String) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.on_disk(move |disk| disk.append(&lines)).await
    }

    /// Writes the last lines.
    async fn end(&mut self) -> io::Result<()> {
        let mut lines = String::new();
        self.cast.end(self.start.elapsed(), "ended without a word", &mut lines);
        self.ended = true;
        self.write(lines).await
    }

    async fn on_disk(&self, work: impl FnOnce(&mut Disk) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || work(&mut lock(&disk))).await.map_err(io::Error::other)?
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.begun {
            let _ = fs::remove_file(&self.path);
        } else if !self.ended {
            let mut lines = String::new();
            self.cast.end(self.start.elapsed(), "cut off", &mut lines);
            let _ = lock(&self.disk).append(&lines);
        }
    }
}

impl Disk {
    /// Writes all lines or none: players read whole lines.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        match self.file.write_all(lines.as_bytes()) {
            Ok(()) => {
                self.length += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                let _ = self.file.set_len(self.length);
                Err(error)
            }
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.length = 0;
        self.file.set_len(0)
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a new file that others cannot read.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes any text fit for a part of a file's name.
fn plain(text: &str, max: usize) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    text.chars().take(max).map(kept).collect()
}
