//! The keys file: made at the first start, read at every other one, and nobody else's.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use mykube_relay_accounts::keys::{Keys, KeysFileError};
use tracing::info;
use zeroize::Zeroizing;

/// Longest file that is read: far more than it may hold.
const LONGEST: usize = 64 * 1024;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file, or its directory.
    #[error("cannot use the relay's keys file {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could sign in as anybody.
    #[error("other users may read the relay's keys file {path} (mode {mode:o}): run `chmod 600 {path}`, and have its secrets replaced if anybody did", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not as it was written.
    #[error("the relay's keys file {path} cannot be used: {source}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeysFileError,
    },
}

/// Reads the keys, or makes them where there are none.
pub(crate) fn load_or_create(path: &Path) -> Result<Keys, KeysError> {
    let at = |source| KeysError::File { path: path.to_owned(), source };
    if let Some(file) = open(path).map_err(at)? {
        return read(path, file);
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_directory(directory).map_err(at)?;
    // Another node may start on the same file: whoever links first wins, and both use those keys.
    let draft = directory.join(format!(".keys.{}", std::process::id()));
    let written = write_private(&draft, Keys::generate(&mut rand::rng()).serialise().as_bytes());
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.inspect(|()| info!(file = %path.display(), "keys made")),
    });
    let removed = fs::remove_file(&draft);
    linked.and(removed).and_then(|()| sync_directory(directory)).map_err(at)?;
    let file = open(path).map_err(at)?.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
    read(path, file)
}

fn read(path: &Path, file: fs::File) -> Result<Keys, KeysError> {
    let at = |source| KeysError::File { path: path.to_owned(), source };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = file.metadata().map_err(at)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeysError::Exposed { path: path.to_owned(), mode });
        }
    }
    // All at once: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST));
    file.take(LONGEST as u64).read_to_string(&mut text).map_err(at)?;
    Keys::parse(&text).map_err(|source| KeysError::Content { path: path.to_owned(), source })
}

fn open(path: &Path) -> io::Result<Option<fs::File>> {
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    // A draft that a crash left behind is nobody's: it was never linked.
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/keys");
        let made = load_or_create(&path).unwrap().serialise();
        assert_eq!(*load_or_create(&path).unwrap().serialise(), *made);
        assert_eq!(fs::read_dir(dir.path().join("data")).unwrap().count(), 1, "no draft stays");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load_or_create(&path), Err(KeysError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(load_or_create(&path), Err(KeysError::Content { .. })));
    }
}
