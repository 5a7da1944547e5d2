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
/// What kubectl has learned of the cluster.
const CACHE: &str = "cache";
/// Why the session is away, or nothing, for shells that join.
const AWAY: &str = "away";
/// How the channel may be used, for shells that join.
const KIND: &str = "mode";

/// How kubectl's connections are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As requests that the server makes.
    Guarded,
    /// So, and what `exec` shows is recorded.
    Recorded,
    /// As they are.
    Shared,
}

impl Kind {
    /// As the agent says.
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
    /// The other end sent something that cannot go into it.
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
    /// It could not be written.
    #[error("cannot write the kubeconfig in {dir}: {source}")]
    Write {
        /// Where.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One session's directory. Dropping it removes everything.
pub struct Workspace {
    dir: RamDir,
    /// Where the cluster answers, with a port.
    host: Ipv4Addr,
    written: Option<Written>,
    /// The directory of the session that this one joins: the kubeconfig is there.
    joined: Option<PathBuf>,
    /// Held while this one is in that session.
    _in_use: Option<File>,
}

/// A session that another process of this user holds on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// That process.
    pub pid: u32,
    /// The cluster's name.
    pub cluster: String,
    dir: PathBuf,
    kind: Kind,
}

impl Live {
    /// All of them, in `parent` or in the usual places.
    #[must_use]
    pub fn all(parent: Option<&Path>) -> Vec<Self> {
        ramdir::held(parent).into_iter().filter_map(|(dir, pid)| Self::read(dir, pid)).collect()
    }

    fn read(dir: PathBuf, pid: u32) -> Option<Self> {
        let config: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(dir.join(KUBECONFIG)).ok()?).ok()?;
        // The user may have changed the current context in it; the cluster's name stays.
        let cluster = config["clusters"][0]["name"].as_str().filter(|name| is_plain_name(name))?.to_owned();
        let name = std::fs::read_to_string(dir.join(KIND)).ok()?;
        let kind = [Kind::Guarded, Kind::Recorded, Kind::Shared].into_iter().find(|kind| kind.name() == name)?;
        Some(Self { pid, cluster, dir, kind })
    }

    /// Why that session waits for its connection, while it does.
    #[must_use]
    pub fn away(&self) -> Option<String> {
        std::fs::read_to_string(self.dir.join(AWAY)).ok().filter(|reason| !reason.is_empty())
    }

    /// Returns once that session ends, or is over. Blocks.
    pub fn wait_for_end(&self) {
        // An error means that it is gone already.
        let _ = terminals::wait_for_end(&self.dir);
    }
}

/// What is on RAM now.
struct Written {
    port: u16,
    cluster: String,
    kind: Kind,
    kubeconfig: Zeroizing<String>,
    /// Nobody joins what has joined itself.
    terminals: Option<Terminals>,
}

impl Workspace {
    /// Makes the directory, in `parent` or on RAM. Call it before pairing: a machine without RAM directory should not
    /// cost a code.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn create(parent: Option<&Path>) -> Result<Self, WorkspaceError> {
        let (dir, host) = (RamDir::create(parent)?, Ipv4Addr::LOCALHOST);
        Ok(Self { dir, host, written: None, joined: None, _in_use: None })
    }

    /// A place beside a session that runs already, with its kubeconfig.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn join(live: &Live, parent: Option<&Path>) -> Result<Self, WorkspaceError> {
        let Live { cluster, kind, .. } = live.clone();
        let written = Written { port: 0, cluster, kind, kubeconfig: Zeroizing::default(), terminals: None };
        let (dir, host) = (RamDir::create(parent)?, Ipv4Addr::LOCALHOST);
        let in_use = terminals::join(&live.dir);
        Ok(Self { dir, host, written: Some(written), joined: Some(live.dir.clone()), _in_use: in_use })
    }

    /// Something the user should know about the place.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.dir.warning()
    }

    /// The cluster will answer at this address of the loopback network instead of 127.0.0.1.
    pub fn answer_at(&mut self, host: Ipv4Addr) {
        self.host = host;
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.host, port)
    }

    /// Writes the kubeconfig of a cluster that answers on the loopback `port`; gives its path.
    ///
    /// # Errors
    /// The welcome holds something that cannot go into it, or writing failed.
    pub fn write(&mut self, welcome: &Welcome, port: u16) -> Result<PathBuf, WorkspaceError> {
        let Rendered { kubeconfig, files } = kubeconfig::render(welcome, self.address(port), self.dir.path())?;
        for (name, content) in &files {
            self.store(name, content)?;
        }
        // What the user changed in it (`kubectl config set-context`) stays, unless it must change.
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
        let (cluster, terminals) = (welcome.cluster.clone(), Some(terminals));
        self.written = Some(Written { port, cluster, kind, kubeconfig, terminals });
        Ok(self.kubeconfig())
    }

    /// Replaces the credentials by those of a later welcome. Does nothing before the first [`Self::write`].
    ///
    /// # Errors
    /// As [`Self::write`]; what was there stays.
    pub fn update(&mut self, welcome: &Welcome) -> Result<(), WorkspaceError> {
        match &self.written {
            Some(written) => self.write(welcome, written.port).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Where the kubeconfig is.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.joined.as_deref().unwrap_or(self.dir.path()).join(KUBECONFIG)
    }

    /// Where kubectl may keep what it learns of the cluster: gone with the session.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.joined.as_deref().unwrap_or(self.dir.path()).join(CACHE)
    }

    /// Tells shells that have joined why the session is away, or that it is not.
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

    /// Removes everything now and tells whether that worked. Dropping does the same in silence.
    ///
    /// # Errors
    /// What the system said: the directory may still be there.
    pub fn close(self) -> io::Result<()> {
        self.dir.close()
    }

    /// Those that may join, once written.
    pub(crate) fn terminals(&self) -> Option<Terminals> {
        self.written.as_ref()?.terminals.clone()
    }

    /// The directory, for what a shell needs beside the kubeconfig.
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
        let path = workspace.write(&welcome("one", false), 40123).unwrap();
        let live = Live::all(Some(parent.path()));
        assert_eq!(live.len(), 1);
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
