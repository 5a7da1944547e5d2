//! A fresh directory on RAM that only this user can read, gone when it is dropped.
//!
//! It holds credentials, so it is never on a disk unless the user names a directory there. A live process holds a
//! lock on its directory; the next start removes directories whose process died without removing them (`kill -9`).

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, geteuid, test_kill_process},
};
use tempfile::TempDir;

/// Start of the directory's name; the process id and random characters follow.
const PREFIX: &str = "mykube-";

/// Why there is no directory for the kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum RamDirError {
    /// None of the usual directories can be used.
    #[error(
        "no directory on RAM for the kubeconfig ({tried}): set XDG_RUNTIME_DIR to a directory of your own on a tmpfs, \
         or name any directory with --kubeconfig-dir (it will hold the cluster's credentials while mykube runs)"
    )]
    NoRam {
        /// The directories that were tried, each with its fault.
        tried: String,
    },
    /// The directory that the user named, or the one made in it, cannot be used.
    #[error("cannot make a private directory in {parent}: {source}")]
    Create {
        /// Where it was tried.
        parent: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another user owns it, or others may read it.
    #[error(
        "the directory made in {parent} is not private (owner {owner}, mode {mode:o}): use another --kubeconfig-dir"
    )]
    NotPrivate {
        /// Where it was made.
        parent: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
}

/// The directory. Dropping it removes it with everything inside.
#[derive(Debug)]
pub struct RamDir {
    /// The lock on the directory; the system releases it when the process ends, in whatever way.
    _lock: File,
    dir: TempDir,
    warning: Option<String>,
}

impl RamDir {
    /// Makes a fresh directory in `parent`, or on RAM if that is `None`.
    ///
    /// # Errors
    /// There is no usable RAM directory, or the directory would not be private.
    pub fn create(parent: Option<&Path>) -> Result<Self, RamDirError> {
        if let Some(parent) = parent {
            let warning = (cfg!(target_os = "linux") && !is_ram(parent))
                .then(|| format!("{} is not on RAM: credentials may reach the disk", parent.display()));
            return Self::create_in(parent, warning);
        }
        let mut tried = Vec::new();
        for place in places() {
            match place.and_then(|parent| Self::create_in(&parent, None).map_err(|error| error.to_string())) {
                Ok(dir) => return Ok(dir),
                Err(why) => tried.push(why),
            }
        }
        if cfg!(target_os = "linux") {
            return Err(RamDirError::NoRam { tried: tried.join("; ") });
        }
        let warning = "this system has no directory on RAM: the kubeconfig is in a private temporary directory";
        Self::create_in(&std::env::temp_dir(), Some(warning.to_owned()))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A warning about the directory for the user.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Writes a file that only its owner can read. Readers see the old content or the new, never a part.
    ///
    /// # Errors
    /// The system's error.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<PathBuf> {
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(self.path())?;
        file.write_all(content)?;
        let path = self.path().join(name);
        file.persist(&path).map_err(|error| error.error)?;
        Ok(path)
    }

    /// Removes the directory now; returns whether that worked.
    ///
    /// # Errors
    /// The system's error.
    pub fn close(self) -> io::Result<()> {
        self.dir.close()
    }

    fn create_in(parent: &Path, warning: Option<String>) -> Result<Self, RamDirError> {
        let failed = |source| RamDirError::Create { parent: parent.to_owned(), source };
        let parent_path = parent.canonicalize().map_err(failed)?;
        remove_stale(&parent_path);
        let dir = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent_path)
            .map_err(failed)?;
        let lock = File::open(dir.path()).map_err(failed)?;
        let meta = lock.metadata().map_err(failed)?;
        if meta.uid() != geteuid().as_raw() || meta.mode() & 0o7777 != 0o700 {
            return Err(RamDirError::NotPrivate {
                parent: parent.to_owned(),
                owner: meta.uid(),
                mode: meta.mode() & 0o7777,
            });
        }
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self { _lock: lock, dir, warning })
    }
}

/// The usual directories, each with its fault if it cannot be used.
fn places() -> Vec<Result<PathBuf, String>> {
    let runtime = match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
        None => Err("XDG_RUNTIME_DIR is not set".to_owned()),
        Some(value) => own_ram(PathBuf::from(value)),
    };
    let shm = PathBuf::from("/dev/shm");
    let shm = if is_ram(&shm) { Ok(shm) } else { Err("/dev/shm is not on RAM".to_owned()) };
    vec![runtime, shm]
}

/// XDG base directory specification: the runtime directory is absolute, the user's own, and mode 0700.
fn own_ram(path: PathBuf) -> Result<PathBuf, String> {
    let shown = path.display();
    let Ok(meta) = fs::metadata(&path) else { return Err(format!("XDG_RUNTIME_DIR={shown} cannot be read")) };
    if !path.is_absolute() || !meta.is_dir() {
        return Err(format!("XDG_RUNTIME_DIR={shown} is not an absolute path of a directory"));
    }
    if meta.uid() != geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(format!("XDG_RUNTIME_DIR={shown} is not yours alone"));
    }
    if is_ram(&path) { Ok(path) } else { Err(format!("XDG_RUNTIME_DIR={shown} is not on RAM")) }
}

/// Whether a path is on tmpfs or ramfs (`linux/magic.h`).
#[cfg(target_os = "linux")]
fn is_ram(path: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "file system magics are 32 bits in a field whose type differs by architecture"
    )]
    rustix::fs::statfs(path).is_ok_and(|stat| matches!(stat.f_type as u32, TMPFS | RAMFS))
}

#[cfg(not(target_os = "linux"))]
fn is_ram(_path: &Path) -> bool {
    false
}

/// This user's directories that a live process has locked, in `parent` or the usual directories, with the process ids.
#[must_use]
pub fn held(parent: Option<&Path>) -> Vec<(PathBuf, u32)> {
    let parents = match parent {
        Some(parent) => vec![parent.to_owned()],
        None => places().into_iter().flatten().chain([std::env::temp_dir()]).collect(),
    };
    let mut held = Vec::new();
    for entry in parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().flatten() {
        let Some(pid) = pid_in(&entry.file_name()) else { continue };
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        let private = meta.is_dir() && meta.uid() == geteuid().as_raw() && meta.mode() & 0o077 == 0;
        if private && !is_unlocked(&entry.path()) {
            held.push((entry.path(), pid.as_raw_nonzero().get().unsigned_abs()));
        }
    }
    held.sort();
    held.dedup();
    held
}

/// Whether this process, as it is numbered here, has locked the directory: the number in its name may be of another container,
/// and mean another process here (proc_locks(5)).
#[cfg(target_os = "linux")]
#[must_use]
pub(crate) fn is_locked_by(dir: &Path, pid: u32) -> bool {
    let Ok(inode) = fs::symlink_metadata(dir).map(|meta| meta.ino().to_string()) else { return false };
    let is_it = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "FLOCK")?;
        let (holder, file) = (words.get(at + 3)?, words.get(at + 4)?);
        let found = file.rsplit(':').next() == Some(inode.as_str());
        (found && holder.parse() == Ok(pid)).then_some(())
    };
    fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.lines().any(|line| is_it(line).is_some()))
}

/// Whether anybody has locked the directory; who has is not told here.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub(crate) fn is_locked_by(dir: &Path, _pid: u32) -> bool {
    dir.is_dir() && !is_unlocked(dir)
}

/// Removes the directories of dead processes of this user in `parent`. Keeps those of other users, and those that
/// cannot be removed.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let Some(pid) = pid_in(&entry.file_name()) else { continue };
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        if meta.is_dir() && meta.uid() == geteuid().as_raw() && !is_alive(pid) && is_unlocked(&entry.path()) {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(dir = %entry.path().display(), "removed what a dead mykube left"),
                Err(error) => {
                    tracing::warn!(dir = %entry.path().display(), %error, "cannot remove what a dead mykube left")
                }
            }
        }
    }
}

/// The process id in `mykube-<pid>-<random>`.
fn pid_in(name: &OsStr) -> Option<Pid> {
    let (pid, random) = name.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    if random.is_empty() || !random.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)
}

fn is_alive(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether nobody has the directory any more.
#[must_use]
pub(crate) fn is_over(dir: &Path) -> bool {
    !dir.exists() || is_unlocked(dir)
}

/// A process in another container that shares this directory has other process ids, but the same lock.
fn is_unlocked(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id of a process that has just ended and been waited for.
    fn dead_pid() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn it_is_private_and_gone_after_drop() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RamDir::create(Some(parent.path())).unwrap();
        let path = dir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let file = dir.write("config", b"first").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        dir.write("config", b"second").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "no temporary file stays");
        drop(dir);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ram_is_told_from_disk() {
        assert!(!is_ram(Path::new("/proc")));
        assert!(!is_ram(Path::new("/nonexistent")));
        assert!(own_ram(PathBuf::from("/proc")).unwrap_err().contains("XDG_RUNTIME_DIR=/proc"));
        assert!(own_ram(PathBuf::from("relative")).is_err());
        if Path::new("/dev/shm").is_dir() && is_ram(Path::new("/dev/shm")) {
            let own =
                tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir_in("/dev/shm").unwrap();
            assert_eq!(own_ram(own.path().to_owned()).unwrap(), own.path());
            fs::set_permissions(own.path(), Permissions::from_mode(0o755)).unwrap();
            assert!(own_ram(own.path().to_owned()).unwrap_err().contains("not yours alone"));
        }
    }

    #[test]
    fn a_named_place_that_does_not_exist_is_an_error() {
        let error = RamDir::create(Some(Path::new("/nonexistent/place"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/place"), "{error}");
    }

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("config"), "x").unwrap();
            path
        };
        let dead = make(format!("mykube-{}-AbC123", dead_pid()));
        let locked = make(format!("mykube-{}-AbC124", dead_pid()));
        let alive = make(format!("mykube-{}-AbC125", std::process::id()));
        let foreign = make("mykube-notes".to_owned());
        let traversal = make(format!("mykube-{}-..", dead_pid()));
        let link = parent.path().join(format!("mykube-{}-AbC126", dead_pid()));
        std::os::unix::fs::symlink(&foreign, &link).unwrap();
        let lock = File::open(&locked).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();

        let _dir = RamDir::create(Some(parent.path())).unwrap();
        assert!(!dead.exists());
        for stays in [locked, alive, foreign.join("config"), traversal, link] {
            assert!(stays.exists(), "{}", stays.display());
        }
    }
}
