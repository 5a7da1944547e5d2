//! `--merge`: while a session lasts, the user's own kubeconfig has its cluster, user and context.
//!
//! No credential goes there: the user entry names files in the session's directory on RAM. Each entry is marked with
//! that directory, which a live process has locked, and with what was written in place of its list if there was none.
//! The next run removes entries whose process has gone. `current-context` stays, and so does every byte that is not
//! ours (`document`).

mod document;
mod error;
mod file;
mod limits;
mod yaml;

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use mykube_protocol::channel::Welcome;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::{
    Workspace,
    kubeconfig::{self, Rendered},
};
use document::{Document, LISTS};
use file::{Locked, Target};
use yaml::Node;

pub use error::{DocumentError, MergeError};
pub use file::Places;
pub use limits::{FILE_MAX, LOCK_WAIT, SHORT_LOCK_WAIT};

/// How our entries' names begin; the cluster's name follows.
const PREFIX: &str = "mykube-";
/// The name of the extension that marks our entries.
const EXTENSION: &str = "mykube";
/// Key in that mark: what was written in place of the list.
const ABSENCE: &str = "was";
/// A kubeconfig that we made. Once it is like this again, it is removed.
const SKELETON: &str =
    "# Made by mykube client --merge.\napiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n";
/// How often a change is tried again because a program that ignores the lock has changed the file meanwhile.
const TRIES: usize = 5;
/// Fields that a merged user may have: names of files, no secret.
const USER_FIELDS: [&str; 3] = ["tokenFile", "client-certificate", "client-key"];

/// One session's entries in the user's kubeconfig. Dropping it removes them.
pub struct Merge {
    target: Target,
    /// The other files that kubectl reads: names in them are taken too.
    others: Vec<PathBuf>,
    owner: Owner,
    lock_wait: Duration,
    added: Option<Added>,
}

struct Added {
    name: String,
    entries: Entries,
}

/// The result of removing the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// `current-context` names our removed context. The user chose it, and must change it.
    pub was_current: bool,
}

impl Merge {
    /// Finds the file, removes what killed sessions left in it, and checks that it can be changed. Call it before
    /// pairing: a kubeconfig that cannot be changed should not cost a code.
    ///
    /// # Errors
    /// See [`MergeError`].
    pub fn prepare(places: &Places, workspace: &Workspace) -> Result<Self, MergeError> {
        let target = Target::find(places)?;
        let others = places.files().into_iter().filter(|file| *file != target.named).collect();
        edit(&target, places.lock_wait, true, |text| {
            text.remove_all(Owner::is_gone)?;
            let mut trial = Text { text: text.text.clone() };
            for (list, inner) in LISTS {
                trial.insert(list, &json!({"name": "mykube", inner: {}}))?;
            }
            Ok(())
        })?;
        Ok(Self { target, others, owner: Owner::of(workspace), lock_wait: places.lock_wait, added: None })
    }

    /// Removes what killed sessions left, if anything; returns the names of their contexts. Without such entries no
    /// file is locked or written.
    ///
    /// # Errors
    /// There are such entries, and they cannot be removed.
    pub fn recover(places: &Places) -> Result<Vec<String>, MergeError> {
        let mut recovered = Vec::new();
        for file in places.files() {
            let Ok(target) = Target::at(file) else { continue };
            let Ok(content) = target.read() else { continue };
            // An unreadable file that has none of our entries is not our concern here.
            if !content.text.contains(PREFIX) || Text::of(&content.text).remove_all(Owner::is_gone) == Ok(Vec::new()) {
                continue;
            }
            recovered.extend(edit(&target, places.lock_wait.min(SHORT_LOCK_WAIT), false, |text| {
                text.remove_all(Owner::is_gone)
            })?);
        }
        Ok(recovered)
    }

    /// The file's path, as the user named it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.target.named
    }

    /// Adds the entries of a cluster that is reached at the loopback `port`; returns the context's name.
    ///
    /// # Errors
    /// See [`MergeError`]; then nothing was added.
    pub fn add(&mut self, workspace: &Workspace, welcome: &Welcome, port: u16) -> Result<&str, MergeError> {
        let entries = self.entries(workspace, welcome, port)?;
        self.owner.port = port;
        let name = edit(&self.target, self.lock_wait, false, |text| {
            let name = self.free_name(text, &welcome.cluster)?;
            for (list, item) in entries.items(&name, &self.owner) {
                text.insert(list, &item)?;
            }
            Ok(name)
        })?;
        Ok(&self.added.insert(Added { name, entries }).name)
    }

    /// Replaces the credentials. Does nothing before [`Merge::add`].
    ///
    /// # Errors
    /// See [`MergeError`]; the old credentials stay.
    pub fn update(&mut self, workspace: &Workspace, welcome: &Welcome) -> Result<(), MergeError> {
        if self.added.is_none() {
            return Ok(());
        }
        let entries = self.entries(workspace, welcome, self.owner.port)?;
        let Some(added) = self.added.as_mut().filter(|added| added.entries != entries) else { return Ok(()) };
        edit(&self.target, self.lock_wait.min(SHORT_LOCK_WAIT), false, |text| {
            text.remove_all(|owner| *owner == self.owner)?;
            for (list, item) in entries.items(&added.name, &self.owner) {
                text.insert(list, &item)?;
            }
            Ok(())
        })?;
        added.entries = entries;
        Ok(())
    }

    /// Removes the entries, wherever they are in the file by now, and nothing else. Dropping does the same without
    /// reporting errors.
    ///
    /// # Errors
    /// See [`MergeError`]; the next run tries again.
    pub fn undo(&mut self) -> Result<Undone, MergeError> {
        let Some(added) = &self.added else { return Ok(Undone::default()) };
        let undone = edit(&self.target, self.lock_wait.min(SHORT_LOCK_WAIT), false, |text| {
            text.remove_all(|owner| *owner == self.owner)?;
            let was_current = text.document()?.current_context() == Some(added.name.as_str());
            Ok(Undone { was_current })
        });
        self.added = None;
        undone
    }

    /// Writes the credentials' files and returns the entries that name them.
    fn entries(&self, workspace: &Workspace, welcome: &Welcome, port: u16) -> Result<Entries, MergeError> {
        let mut welcome = welcome.clone();
        if let Some(credentials) = &mut welcome.credentials {
            if credentials.username.is_some() || credentials.password.is_some() {
                return Err(MergeError::Password);
            }
            // Elsewhere only credentials that expire are in files; here all are.
            credentials.expiring = true;
        }
        let dir = workspace.dir();
        let Rendered { kubeconfig, files } = kubeconfig::render(&welcome, workspace.address(port), dir.path())?;
        let mut config: Value = serde_json::from_str(&kubeconfig).expect("the kubeconfig was rendered as JSON");
        let entries = Entries {
            cluster: config["clusters"][0]["cluster"].take(),
            user: config["users"][0]["user"].take(),
            namespace: config["contexts"][0]["context"]["namespace"].take(),
        };
        let fields = entries.user.as_object().into_iter().flat_map(Map::keys);
        assert!(fields.into_iter().all(|field| USER_FIELDS.contains(&field.as_str())), "a merged user has no secret");
        for (name, content) in &files {
            dir.write(name, content.as_bytes()).map_err(|source| MergeError::Io {
                what: "write",
                path: dir.path().join(name),
                source,
            })?;
        }
        Ok(entries)
    }

    /// `mykube-<cluster>`, with a number if that is taken.
    fn free_name(&self, text: &Text, cluster: &str) -> Result<String, DocumentError> {
        let document = text.document()?;
        let mut taken: Vec<String> = document.names().map(str::to_owned).collect();
        for file in &self.others {
            // A file that kubectl cannot read has no names.
            if let Ok(content) = Target::at(file.clone()).and_then(|target| target.read())
                && let Ok(document) = Document::parse(&content.text)
            {
                taken.extend(document.names().map(str::to_owned));
            }
        }
        let first = format!("{PREFIX}{cluster}");
        let names = std::iter::once(first.clone()).chain((2..).map(|number: u64| format!("{first}-{number}")));
        Ok(names.into_iter().find(|name| !taken.contains(name)).expect("there are more numbers than names"))
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            tracing::warn!(%error, "the merged kubeconfig entries could not be removed");
        }
    }
}

/// Our items in a kubeconfig, without their names.
#[derive(PartialEq)]
struct Entries {
    cluster: Value,
    user: Value,
    namespace: Value,
}

impl Entries {
    fn items(&self, name: &str, owner: &Owner) -> [(&'static str, Value); 3] {
        let mut context = json!({"cluster": name, "user": name});
        if !self.namespace.is_null() {
            context["namespace"] = self.namespace.clone();
        }
        let bodies = [self.cluster.clone(), context, self.user.clone()];
        let mut bodies = bodies.into_iter();
        LISTS.map(|(list, inner)| {
            let mut body = bodies.next().unwrap_or_default();
            body["extensions"] = json!([{"name": EXTENSION, "extension": owner.to_json()}]);
            (list, json!({"name": name, inner: body}))
        })
    }
}

/// The owner of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// The session's directory, which a live process has locked.
    dir: String,
    /// The machine: homes are shared, locks and processes are not.
    host: String,
    pid: u32,
    port: u16,
}

impl Owner {
    fn of(workspace: &Workspace) -> Self {
        Self {
            dir: workspace.dir().path().to_string_lossy().into_owned(),
            host: host(),
            pid: std::process::id(),
            port: 0,
        }
    }

    fn to_json(&self) -> Value {
        json!({"dir": self.dir, "host": self.host, "pid": self.pid, "port": self.port})
    }

    /// Reads the owner from an item with our mark.
    fn read(item: &Node, inner: &str) -> Option<Self> {
        let mark = mark(item, inner)?;
        let field = |name| mark.get(name)?.scalar();
        Some(Self {
            dir: field("dir")?.to_owned(),
            host: field("host")?.to_owned(),
            pid: field("pid")?.parse().ok()?,
            port: field("port")?.parse().ok()?,
        })
    }

    /// Whether its process has gone. For another machine this cannot be told.
    fn is_gone(&self) -> bool {
        self.host == host() && !is_held(Path::new(&self.dir))
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a live process has locked this session directory. If that cannot be told: yes.
fn is_held(dir: &Path) -> bool {
    if !dir.is_absolute() {
        return true;
    }
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    match OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(dir) {
        Ok(dir) => flock(&dir, FlockOperation::NonBlockingLockShared).is_err(),
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// A kubeconfig that is being changed.
struct Text {
    text: Zeroizing<String>,
}

impl Text {
    fn of(text: &str) -> Self {
        Self { text: Zeroizing::new(text.to_owned()) }
    }

    fn document(&self) -> Result<Document<'_>, DocumentError> {
        Document::parse(&self.text)
    }

    fn insert(&mut self, list: &'static str, item: &Value) -> Result<(), DocumentError> {
        let document = self.document()?;
        let mut item = item.clone();
        let inner = LISTS.iter().find(|(name, _)| *name == list).map_or("", |(_, inner)| inner);
        // Of several sessions, the last one to leave restores it.
        let inherited = || document.items(list).iter().find_map(|item| absence(item, inner));
        if let Some(was) = document.absence(list).or_else(inherited)
            && let Some(mark) = item.pointer_mut(&format!("/{inner}/extensions/0/extension"))
        {
            mark[ABSENCE] = json!(was);
        }
        let text = document.insert(list, &item)?;
        self.set(text);
        Ok(())
    }

    /// Removes the entries of some owners; returns the names of their contexts.
    fn remove_all(&mut self, which: impl Fn(&Owner) -> bool) -> Result<Vec<String>, DocumentError> {
        let mut contexts = Vec::new();
        for (list, inner) in LISTS {
            loop {
                let document = self.document()?;
                let items = document.items(list);
                let ours = |item: &Node| Owner::read(item, inner).is_some_and(|owner| which(&owner));
                let Some(index) = items.iter().position(ours) else { break };
                if list == "contexts" {
                    contexts.extend(items[index].get("name").and_then(Node::scalar).map(str::to_owned));
                }
                let text = document.remove(list, index, absence(&items[index], inner))?;
                self.set(text);
            }
        }
        Ok(contexts)
    }

    fn set(&mut self, text: String) {
        self.text = Zeroizing::new(text);
    }
}

/// What was written in place of the list before it was made for this item, as [`Document::absence`] returns it.
fn absence<'n>(item: &'n Node, inner: &str) -> Option<&'n str> {
    mark(item, inner)?.get(ABSENCE)?.scalar()
}

/// The extension that marks an item as ours.
fn mark<'n>(item: &'n Node, inner: &str) -> Option<&'n Node> {
    item.get("name")?.scalar()?.strip_prefix(PREFIX)?;
    let marks = item.get(inner)?.get("extensions")?.items();
    marks.iter().find(|mark| mark.get("name").and_then(Node::scalar) == Some(EXTENSION))?.get("extension")
}

/// Changes the file under its lock. With `check`, makes sure that it can be written even if nothing changes.
fn edit<T>(
    target: &Target,
    wait: Duration,
    check: bool,
    change: impl Fn(&mut Text) -> Result<T, DocumentError>,
) -> Result<T, MergeError> {
    let locked: Locked<'_> = target.lock(wait)?;
    for _ in 0..TRIES {
        let content = target.read()?;
        let before: &str = if content.exists() { &content.text } else { SKELETON };
        let mut text = Text::of(before);
        let changed =
            change(&mut text).map_err(|problem| MergeError::Document { path: target.named.clone(), problem })?;
        if check {
            locked.check(&content)?;
        }
        let done = match *text.text == before {
            true => true,
            false if *text.text == SKELETON && content.exists() && !target.is_link() => locked.remove(&content)?,
            false => locked.replace(&content, &text.text)?,
        };
        if done {
            return Ok(changed);
        }
    }
    Err(MergeError::Busy(target.named.clone()))
}
