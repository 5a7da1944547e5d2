//! The user's kubeconfig as a file: found as kubectl finds it, locked as kubectl locks it, replaced as a whole.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    iter,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mykube_protocol::text;
use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use super::{
    error::MergeError,
    limits::{FILE_MAX, LOCK_WAIT},
};

/// How often we try again to take a lock that another program holds.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Where to look for kubeconfigs, and how long to wait for their locks.
#[derive(Clone, Debug)]
pub struct Places {
    /// `KUBECONFIG`: a list of files.
    pub kubeconfig: Option<OsString>,
    /// The home directory, for `.kube/config`.
    pub home: Option<PathBuf>,
    /// How long to wait for another program's lock: [`LOCK_WAIT`]; in a session at most
    /// [`super::limits::SHORT_LOCK_WAIT`].
    pub lock_wait: Duration,
}

impl Places {
    /// As this process's environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Self { kubeconfig: std::env::var_os("KUBECONFIG"), home, lock_wait: LOCK_WAIT }
    }

    /// The files that kubectl reads, the first one first.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files: Vec<PathBuf> = match self.kubeconfig.as_ref().filter(|list| !list.is_empty()) {
            // A list without a file (`:`) is a list, too.
            Some(list) => std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect(),
            None => self.home.iter().map(|home| home.join(".kube").join("config")).collect(),
        };
        files.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
    }
}

/// The file to change.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// As the user named it; this may be a symbolic link.
    pub(super) named: PathBuf,
    /// The file itself.
    real: PathBuf,
}

/// The content of a file when it was read.
pub(super) struct Content {
    /// Without a byte order mark.
    pub(super) text: Zeroizing<String>,
    encoding: Encoding,
    /// `None` if there was no file.
    meta: Option<Metadata>,
}

/// A text's encoding, by its byte order mark: those that kubectl reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Utf8Marked,
    Utf16Le,
    Utf16Be,
}

impl Encoding {
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0xff, 0xfe, ..] => Self::Utf16Le,
            [0xfe, 0xff, ..] => Self::Utf16Be,
            [0xef, 0xbb, 0xbf, ..] => Self::Utf8Marked,
            _ => Self::Utf8,
        }
    }

    fn encode(self, text: &str) -> Zeroizing<Vec<u8>> {
        let utf16 = |unit: fn(u16) -> [u8; 2]| iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect();
        Zeroizing::new(match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf8Marked => [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            Self::Utf16Le => utf16(u16::to_le_bytes),
            Self::Utf16Be => utf16(u16::to_be_bytes),
        })
    }
}

impl Content {
    pub(super) fn exists(&self) -> bool {
        self.meta.is_some()
    }
}

impl Target {
    /// The first file that exists, else the last of the list (client-go `ClientConfigLoadingRules`).
    pub(super) fn find(places: &Places) -> Result<Self, MergeError> {
        let files = places.files();
        let named = files.iter().find(|file| file.exists()).or(files.last()).ok_or(MergeError::NoHome)?.clone();
        Self::at(named)
    }

    /// This file, which need not exist yet.
    pub(super) fn at(named: PathBuf) -> Result<Self, MergeError> {
        match fs::canonicalize(&named) {
            Ok(real) => Ok(Self { named, real }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !named.is_symlink() => {
                Ok(Self { real: named.clone(), named })
            }
            Err(source) => Err(MergeError::Io { what: "find", path: named, source }),
        }
    }

    /// Whether it is named by a symbolic link, which would be left dangling if the file were removed.
    pub(super) fn is_link(&self) -> bool {
        self.named.is_symlink()
    }

    /// Reads its content. Without the lock that may change at any time.
    pub(super) fn read(&self) -> Result<Content, MergeError> {
        let failed = |source| self.failed("read", source);
        let meta = match fs::metadata(&self.real) {
            Ok(meta) if meta.is_file() => meta,
            // Opening a pipe would block.
            Ok(_) => return Err(MergeError::NotAFile(self.named.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Content { text: Zeroizing::default(), encoding: Encoding::Utf8, meta: None });
            }
            Err(error) => return Err(failed(error)),
        };
        let file = File::open(&self.real).map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(MergeError::TooLarge(self.named.clone()));
        }
        let text = text::decode(&bytes).ok_or_else(|| MergeError::NotText(self.named.clone()))?;
        Ok(Content { text: Zeroizing::new(text), encoding: Encoding::of(&bytes), meta: Some(meta) })
    }

    /// Takes kubectl's lock, and that of the file behind a symbolic link.
    pub(super) fn lock(&self, wait: Duration) -> Result<Locked<'_>, MergeError> {
        let until = Instant::now() + wait;
        let mut locked = Locked { target: self, locks: Vec::new(), made: None };
        if let Some(dir) = self.real.parent().filter(|dir| !dir.exists()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|source| MergeError::Io { what: "make", path: dir.to_owned(), source })?;
            locked.made = Some(dir.to_owned());
        }
        for file in [&self.named, &self.real] {
            let lock = beside(file, "", ".lock");
            if locked.locks.contains(&lock) {
                continue;
            }
            loop {
                match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
                    Ok(_) => break,
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(MergeError::Io { what: "make", path: lock, source: error });
                    }
                    Err(_) if Instant::now() >= until => return Err(MergeError::Locked { lock, wait }),
                    Err(_) => std::thread::sleep(LOCK_RETRY),
                }
            }
            locked.locks.push(lock);
        }
        Ok(locked)
    }

    fn failed(&self, what: &'static str, source: io::Error) -> MergeError {
        MergeError::Io { what, path: self.named.clone(), source }
    }
}

/// A file whose lock we hold, so that kubectl does not change it. Dropping it unlocks the file.
pub(super) struct Locked<'t> {
    target: &'t Target,
    locks: Vec<PathBuf>,
    /// A directory that was made for the file: removed with the lock if the file was not made.
    made: Option<PathBuf>,
}

impl Locked<'_> {
    /// Checks that [`Locked::replace`] would probably work. Removes what a killed writer left.
    pub(super) fn check(&self, content: &Content) -> Result<(), MergeError> {
        let Target { named, real } = self.target;
        if let Some(meta) = &content.meta {
            // Write access to the directory is not enough: a user who takes the write bit off the file does not want it
            // changed.
            if meta.mode() & 0o222 == 0 || access(real, Access::WRITE_OK).is_err() {
                return Err(MergeError::ReadOnly(named.clone()));
            }
        }
        self.remove_leftovers();
        self.fresh(content).map(drop)
    }

    /// Replaces the file by `text` if it still holds `content`, keeping mode and owner; returns whether it did.
    pub(super) fn replace(&self, content: &Content, text: &str) -> Result<bool, MergeError> {
        let failed = |source| self.target.failed("write", source);
        let mut file = self.fresh(content)?;
        file.write_all(&content.encoding.encode(text)).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        let now = self.target.read()?;
        if now.text != content.text || now.encoding != content.encoding || now.exists() != content.exists() {
            return Ok(false);
        }
        file.persist(&self.target.real).map_err(|error| failed(error.error))?;
        Ok(true)
    }

    /// Removes the file if it still holds `content`; returns whether it did.
    pub(super) fn remove(&self, content: &Content) -> Result<bool, MergeError> {
        if self.target.read()?.text != content.text {
            return Ok(false);
        }
        fs::remove_file(&self.target.real).map_err(|source| self.target.failed("remove", source))?;
        Ok(true)
    }

    /// An empty file beside the target, with the mode and owner of the target, or of a new file.
    fn fresh(&self, content: &Content) -> Result<tempfile::NamedTempFile, MergeError> {
        let failed = |source| self.target.failed("write a new version of", source);
        let dir = self.target.real.parent().unwrap_or(Path::new("/"));
        let file = tempfile::Builder::new()
            .prefix(&self.prefix())
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(dir)
            .map_err(failed)?;
        if let Some(meta) = &content.meta {
            let own = file.as_file().metadata().map_err(failed)?;
            if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
                let owner = (own.uid() != meta.uid()).then_some(meta.uid());
                fchown(file.as_file(), owner, Some(meta.gid()))
                    .map_err(|_| MergeError::Owner(self.target.named.clone()))?;
            }
            file.as_file().set_permissions(Permissions::from_mode(meta.mode() & 0o7777)).map_err(failed)?;
        }
        Ok(file)
    }

    fn prefix(&self) -> OsString {
        let name = beside(&self.target.real, ".", ".mykube-");
        name.file_name().unwrap_or_default().to_owned()
    }

    /// A writer holds the lock while it has such a file, and we hold the lock now: its writer was killed.
    fn remove_leftovers(&self) {
        let Some(dir) = self.target.real.parent() else { return };
        let prefix = self.prefix();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                let removed = fs::remove_file(entry.path());
                tracing::info!(file = %entry.path().display(), ok = removed.is_ok(), "left by a killed mykube");
            }
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        for lock in &self.locks {
            if let Err(error) = fs::remove_file(lock) {
                tracing::warn!(file = %lock.display(), %error, "cannot remove the kubeconfig's lock");
            }
        }
        if let Some(dir) = &self.made {
            // Fails while the directory has files.
            let _ = fs::remove_dir(dir);
        }
    }
}

/// A file in the same directory, with something before and after its name.
fn beside(file: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(file.file_name().unwrap_or_default());
    name.push(after);
    file.with_file_name(name)
}
