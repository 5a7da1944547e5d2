//! The directory on RAM with the kubeconfig of one session in it.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
};

use mykube_protocol::{
    channel::{Mode, Welcome},
    text::is_plain_name,
};
use zeroize::Zeroizing;

use crate::{
    kubeconfig::{self, Rendered, WelcomeError},
    ramdir::{self, RamDir, RamDirError},
    terminals::{self, Terminals},
};

const KUBECONFIG: &str = "config";
/// The directory of kubectl's cache.
const CACHE: &str = "cache";
/// Why the session is away, for shells that join; empty if it is not.
const AWAY: &str = "away";
/// How the channel may be used, for shells that join.
const KIND: &str = "mode";
/// The relay's address, for `mykube relay status`.
const RELAY: &str = "relay";

/// How kubectl's connections are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As requests, which the server makes.
    Guarded,
    /// As requests, and `exec` is recorded.
    Recorded,
    /// Byte for byte.
    Shared,
}

impl Kind {
    /// As the agent's welcome says.
    #[must_use]
    pub fn of(welcome: &Welcome) -> Self {
        match welcome.mode {
            Mode::Guarded if welcome.recorded => Self::Recorded,
            Mode::Guarded => Self::Guarded,
            Mode::Shared => Self::Shared,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Guarded => "guarded",
            Self::Recorded => "recorded",
            Self::Shared => "shared",
        }
    }
}

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// There is no directory for it.
    #[error(transparent)]
    Dir(#[from] RamDirError),
    /// The other end sent a field that cannot go into it.
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
    /// It could not be written.
    #[error("cannot write the kubeconfig in {dir}: {source}")]
    Write {
        /// The path.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// One session's directory. Dropping it removes everything.
pub struct Workspace {
    dir: RamDir,
    /// The address at which the cluster is reached; the port comes with the kubeconfig.
    host: Ipv4Addr,
    /// The address of the relay that the session goes by, once it is known.
    relay: Option<String>,
    written: Option<Written>,
    /// The directory of the session that this one joins, which has the kubeconfig.
    joined: Option<PathBuf>,
    /// Locked while this terminal is in that session.
    _in_use: Option<File>,
}

/// A session that another process of this user holds on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The number of that process.
    pub pid: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The address of the relay that it goes by; an older release does not tell it.
    pub relay: Option<String>,
    dir: PathBuf,
    kind: Kind,
}

impl Live {
    /// All sessions, in `parent` or in the usual directories.
    #[must_use]
    pub fn all(parent: Option<&Path>) -> Vec<Self> {
        ramdir::held(parent).into_iter().filter_map(|(dir, pid)| Self::read(dir, pid)).collect()
    }

    fn read(dir: PathBuf, pid: u32) -> Option<Self> {
        let config: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(dir.join(KUBECONFIG)).ok()?).ok()?;
        // The user may have changed the current context; the cluster's name stays.
        let cluster = config["clusters"][0]["name"].as_str().filter(|name| is_plain_name(name))?.to_owned();
        let name = std::fs::read_to_string(dir.join(KIND)).ok()?;
        let kind = [Kind::Guarded, Kind::Recorded, Kind::Shared].into_iter().find(|kind| kind.name() == name)?;
        let relay = std::fs::read_to_string(dir.join(RELAY)).ok();
        Some(Self { pid, cluster, relay, dir, kind })
    }

    /// Why that session is away, if it is.
    #[must_use]
    pub fn away(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.join(AWAY)).ok().filter(|reason| !reason.is_empty())
    }

    /// Whether the process of this number is still the one that holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        ramdir::is_locked_by(&self.dir, self.pid)
    }

    /// Whether that session has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        ramdir::is_over(&self.dir)
    }

    /// Returns when that session ends, or has ended. Blocks.
    pub fn wait_for_end(&self) {
        // An error means that it is gone already.
        let _ = terminals::wait_for_end(&self.dir);
    }
}

/// The sessions in RAM directories now.
struct Written {
    port: u16,
    cluster: String,
    kind: Kind,
    kubeconfig: Zeroizing<String>,
    /// A directory that has itself joined a session cannot be joined.
    terminals: Option<Terminals>,
}

impl Workspace {
    /// Makes the directory, in `parent` or on RAM. Call it before pairing: a machine without RAM directory should not
    /// cost a code.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(parent: Option<&Path>) -> Result<Self, WorkspaceError> {
        let (dir, host) = (RamDir::create(parent)?, Ipv4Addr::LOCALHOST);
        Ok(Self { dir, host, relay: None, written: None, joined: None, _in_use: None })
    }

    /// A directory for joining a running session, whose kubeconfig is used.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn join(live: &Live, parent: Option<&Path>) -> Result<Self, WorkspaceError> {
        let Live { cluster, kind, .. } = live.clone();
        let written = Written { port: 0, cluster, kind, kubeconfig: Zeroizing::default(), terminals: None };
        let (dir, host) = (RamDir::create(parent)?, Ipv4Addr::LOCALHOST);
        let in_use = terminals::join(&live.dir);
        Ok(Self { dir, host, relay: None, written: Some(written), joined: Some(live.dir.clone()), _in_use: in_use })
    }

    /// A warning about the directory for the user.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.dir.warning()
    }

    /// The cluster will be reached at this address of the loopback network instead of 127.0.0.1.
    pub fn answer_at(&mut self, host: Ipv4Addr) {
        self.host = host;
    }

    /// The session goes by the relay of this address.
    pub fn reach_by(&mut self, relay: String) {
        self.relay = Some(relay);
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.host, port)
    }

    /// Writes the kubeconfig of a cluster that is reached at the loopback `port`; returns its path.
    ///
    /// # Errors
    /// The welcome has a field that cannot go into it, or writing failed.
    pub fn write(&mut self, welcome: &Welcome, port: u16) -> Result<PathBuf, WorkspaceError> {
        let Rendered { kubeconfig, files } = kubeconfig::render(welcome, self.address(port), self.dir.path())?;
        for (name, content) in &files {
            self.store(name, content)?;
        }
        // The user's changes (`kubectl config set-context`) are kept, unless they collide with ours.
        if self.written.as_ref().is_none_or(|written| written.kubeconfig != kubeconfig) {
            self.store(KUBECONFIG, &kubeconfig)?;
        }
        let terminals = match self.terminals() {
            None => Terminals::open(&self.dir)
                .map_err(|source| WorkspaceError::Write { dir: self.dir.path().to_owned(), source })?,
            Some(terminals) => terminals,
        };
        let kind = Kind::of(welcome);
        self.store(KIND, kind.name())?;
        if let Some(relay) = &self.relay {
            self.store(RELAY, relay)?;
        }
        let (cluster, terminals) = (welcome.cluster.clone(), Some(terminals));
        self.written = Some(Written { port, cluster, kind, kubeconfig, terminals });
        Ok(self.kubeconfig())
    }

    /// Replaces the credentials by those of a later welcome. Does nothing before the first [`Self::write`].
    ///
    /// # Errors
    /// As [`Self::write`]; the old credentials stay.
    pub fn update(&mut self, welcome: &Welcome) -> Result<(), WorkspaceError> {
        match &self.written {
            Some(written) => self.write(welcome, written.port).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The path of the kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.joined.as_deref().unwrap_or(self.dir.path()).join(KUBECONFIG)
    }

    /// The directory for kubectl's cache: removed with the session.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.joined.as_deref().unwrap_or(self.dir.path()).join(CACHE)
    }

    /// Tells joined shells why the session is away, or that it is back.
    pub fn tell_away(&self, reason: Option<&str>) {
        if let Err(error) = self.store(AWAY, reason.unwrap_or_default()) {
            tracing::debug!(%error, "other terminals will not hear of it");
        }
    }

    /// The cluster's name, once written.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.written.as_ref().map(|written| written.cluster.as_str())
    }

    /// How the channel may be used, once written.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.written.as_ref().map(|written| written.kind)
    }

    /// Removes everything now; returns whether that worked. Dropping does the same without reporting errors.
    ///
    /// # Errors
    /// The system's error: the directory may still be there.
    pub fn close(self) -> io::Result<()> {
        self.dir.close()
    }

    /// The terminals that may join, once the kubeconfig was written.
    pub(crate) fn terminals(&self) -> Option<Terminals> {
        self.written.as_ref()?.terminals.clone()
    }

    /// The directory, for files that a shell needs beside the kubeconfig.
    pub(crate) fn dir(&self) -> &RamDir {
        &self.dir
    }

    fn store(&self, name: &str, content: &str) -> Result<PathBuf, WorkspaceError> {
        self.dir
            .write(name, content.as_bytes())
            .map_err(|source| WorkspaceError::Write { dir: self.dir.path().to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use serde_json::{Value, json};

    use super::*;

    fn welcome(token: &str, expiring: bool) -> Welcome {
        let credentials = json!({"token": token, "expiring": expiring});
        serde_json::from_value(json!({"mode": "shared", "cluster": "prod", "credentials": credentials})).unwrap()
    }

    fn user(path: &Path) -> Value {
        let config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        config["users"][0]["user"].clone()
    }

    #[test]
    fn a_second_terminal_finds_the_session_until_it_ends() {
        let parent = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::create(Some(parent.path())).unwrap();
        assert_eq!(Live::all(Some(parent.path())), [], "a session that has no kubeconfig yet");
        workspace.reach_by("https://relay.example".to_owned());
        let path = workspace.write(&welcome("one", false), 40123).unwrap();
        let live = Live::all(Some(parent.path()));
        assert_eq!(live.len(), 1);
        assert_eq!(live[0].relay.as_deref(), Some("https://relay.example"));
        assert!(live[0].is_held() && !live[0].has_ended());
        let other = Live { pid: 1, ..live[0].clone() };
        assert!(!other.is_held() || !cfg!(target_os = "linux"), "another process has not locked it");
        assert_eq!((live[0].pid, live[0].cluster.as_str()), (std::process::id(), "prod"));
        let joined = Workspace::join(&live[0], Some(parent.path())).unwrap();
        assert_eq!((joined.kubeconfig(), joined.kind()), (path, Some(Kind::Shared)));
        assert_eq!(Live::all(Some(parent.path())), live, "joining makes no second session");
        assert_eq!(live[0].away(), None);
        workspace.tell_away(Some("the relay is gone"));
        assert_eq!(live[0].away().as_deref(), Some("the relay is gone"), "and hears why it waits");
        workspace.tell_away(None);
        assert_eq!(live[0].away(), None);
        workspace.close().unwrap();
        live[0].wait_for_end();
        assert!(!live[0].is_held() && live[0].has_ended());
        assert_eq!(Live::all(Some(parent.path())), []);
    }

    #[test]
    fn later_credentials_replace_earlier_ones_and_leave_the_rest() {
        let parent = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::create(Some(parent.path())).unwrap();
        workspace.update(&welcome("early", true)).unwrap();
        assert!(!workspace.kubeconfig().exists(), "nothing is written before the first welcome");

        let path = workspace.write(&welcome("one", true), 40123).unwrap();
        let token = user(&path)["tokenFile"].as_str().unwrap().to_owned();
        assert_eq!(fs::read_to_string(&token).unwrap(), "one");
        for file in [&path, Path::new(&token)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }

        // As `kubectl config set-context --namespace` does.
        let changed = fs::read_to_string(&path).unwrap().replace("\"v1\"", "\"v1\", \"preferences\": {}");
        fs::write(&path, &changed).unwrap();
        workspace.update(&welcome("two", true)).unwrap();
        assert_eq!(fs::read_to_string(&token).unwrap(), "two");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed, "the user's own change stays");

        workspace.update(&welcome("three", false)).unwrap();
        assert_eq!(user(&path), json!({"token": "three"}));
        assert!(fs::read_to_string(&path).unwrap().contains("https://127.0.0.1:40123"));
    }

    #[test]
    fn a_bad_welcome_changes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::create(Some(parent.path())).unwrap();
        let path = workspace.write(&welcome("one", false), 40123).unwrap();
        assert!(workspace.update(&welcome("two\nthree", false)).is_err());
        assert_eq!(user(&path), json!({"token": "one"}));
        drop(workspace);
        assert!(!path.exists());
    }
}
