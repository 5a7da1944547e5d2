//! SQLite's file: nobody else's, and one relay's at a time.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    path::Path,
};

use crate::error::StoreError;

/// Holds the file `FILE.lock`, until this program ends, however it ends.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    let at = |source| StoreError::File { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(at)?;
    }
    // SQLite makes files as the process may: these hold addresses of people, which are nobody else's.
    check_private(&create_private(path).map_err(at)?, path).map_err(at)?;
    // Beside the file itself, whatever link led to it: by each it is the same.
    let mut beside = path.canonicalize().map_err(at)?.into_os_string();
    beside.push(".lock");
    let file = create_private(Path::new(&beside)).map_err(at)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(at(source)),
    }
}

/// Whether there is one, that is nobody else's.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    let at = |source| StoreError::File { path: path.to_owned(), source };
    check_private(&File::open(path).map_err(at)?, path).map_err(at)
}

/// SQLite gives its other files the mode of this one.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Refuses a database that others may read, or that has a second name, by which another relay would not see the lock.
fn check_private(file: &File, path: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let text = format!("other users may read or write it (mode {mode:o}): run `chmod 600 {}`", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if metadata.nlink() > 1 {
            return Err(io::Error::other("it has another name (a hard link): remove that"));
        }
    }
    Ok(())
}
