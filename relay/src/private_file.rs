//! Files of secrets: made whole, and read only where nobody else can have read or made them.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// What the name of a draft ends in.
const DRAFT: &str = ".draft";

/// Why a file of secrets is not read.
#[derive(Debug)]
pub enum NotPrivate {
    /// The system refuses.
    Io(io::Error),
    /// Others may read it: its permission bits.
    Exposed(u32),
    /// Another user made it, or the file system gives root's files to another user (NFS with `root_squash`): whose it is.
    Foreign(u32),
    /// It is no regular file of its directory: a link may lead to somebody else's file.
    NoFile,
}

/// Opens a private file; nothing where there is none. A link is followed if it stays in the directory, as in the mount of a
/// Kubernetes Secret. A pipe's writer is not waited for.
///
/// # Errors
/// It is not this user's alone, or cannot be opened.
pub fn open(path: &Path) -> Result<Option<fs::File>, NotPrivate> {
    let file = if path.is_symlink() { behind_link(path) } else { Some(path.to_owned()) };
    let file = match open_itself(&file.ok_or(NotPrivate::NoFile)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(NotPrivate::Io)?,
    };
    let metadata = file.metadata().map_err(NotPrivate::Io)?;
    if !metadata.is_file() {
        return Err(NotPrivate::NoFile);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        if metadata.uid() != own_uid() {
            return Err(NotPrivate::Foreign(metadata.uid()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(NotPrivate::Exposed(mode));
        }
    }
    Ok(Some(file))
}

/// Makes a private file with this content (0600), unless there is one. Of many that do so at once one wins, on other machines
/// too. Says whether it was this one.
///
/// # Errors
/// The system refuses.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let directory = directory(path);
    // Its name is random, as process ids are not: in a container it is always 1.
    let mut draft = tempfile::Builder::new().prefix(&prefix(path)).suffix(DRAFT).tempfile_in(directory)?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(path) {
        Ok(_) => {}
        // Whoever won may have removed this draft as one that a crash left behind.
        Err(_) if fs::symlink_metadata(path).is_ok() => return Ok(false),
        Err(error) => return Err(error.error),
    }
    fs::File::open(directory)?.sync_all()?;
    Ok(true)
}

/// Puts this content (0600) in the place of a private file, at once: whoever opens it reads the one or the other, whole.
///
/// # Errors
/// The system refuses.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = directory(path);
    let mut draft = tempfile::Builder::new().prefix(&prefix(path)).suffix(DRAFT).tempfile_in(directory)?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    fs::File::open(directory)?.sync_all()
}

/// Removes the drafts that crashes left behind: they hold secrets too, those of the file itself perhaps. To be called where
/// the file is there: no draft will take its place.
///
/// # Errors
/// The system refuses.
pub fn remove_drafts(path: &Path) -> io::Result<()> {
    let prefix = prefix(path);
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(DRAFT)) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn prefix(path: &Path) -> String {
    format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy())
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn behind_link(link: &Path) -> Option<PathBuf> {
    let (file, directory) = (fs::canonicalize(link).ok()?, fs::canonicalize(directory(link)).ok()?);
    file.starts_with(directory).then_some(file)
}

/// Opens the file itself: follows no link, and does not wait for a pipe's writer.
fn open_itself(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    }
    options.open(path)
}

#[cfg(unix)]
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_make_one_at_once_one_wins_and_no_draft_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let wins = std::thread::scope(|scope| {
            let make = |n: u8| {
                let path = &path;
                scope.spawn(move || create(path, &[n]).unwrap().then_some(n))
            };
            let all: Vec<_> = (0..8).map(make).collect();
            all.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!((wins.len(), fs::read(&path).unwrap()), (1, wins));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn drafts_of_a_crash_go_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["keys", ".keys.a1B2c3.draft", ".keys.mine", "other.draft", ".other.x.draft"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        remove_drafts(&dir.path().join("keys")).unwrap();
        let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, [".keys.mine", ".other.x.draft", "keys", "other.draft"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_draft_is_never_written_through_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("keys"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(!create(&path, b"secret").unwrap());
        assert!(!elsewhere.exists(), "not at the target of a link");
        assert!(matches!(open(&path), Err(NotPrivate::NoFile)));
    }
}
