//! The world of one process: a clean environment, a home of its own, a RAM directory of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A variable that marks every process of a sandbox and its children.
const MARK: &str = "E2E_SANDBOX";

/// Removed on drop.
pub(crate) struct Sandbox {
    home: TempDir,
    ram: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let private = fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        builder.prefix("e2e-").permissions(private);
        let home = builder.tempdir().expect("a temporary directory");
        let ram = builder.tempdir_in("/dev/shm").expect("a directory on /dev/shm");
        fs::create_dir(home.path().join("tmp")).unwrap();
        Self { home, ram }
    }

    /// `HOME` and working directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// `XDG_RUNTIME_DIR`.
    pub(crate) fn ram(&self) -> &Path {
        self.ram.path()
    }

    /// `TMPDIR`.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.home.path().join("tmp")
    }

    /// Writes a file into the home.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.home().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A program that has only this sandbox and the `PATH`.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.home())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", self.tmp())
            .env("XDG_RUNTIME_DIR", self.ram())
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm")
            .env(MARK, self.mark());
        command
    }

    /// Checks that nothing was left on RAM or among the temporary files, and that no process of this sandbox still
    /// runs.
    pub(crate) fn assert_clean(&self) {
        for dir in [self.ram().to_owned(), self.tmp()] {
            let mut left = Vec::new();
            let mut open = vec![dir];
            while let Some(dir) = open.pop() {
                for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
                    // All servers of a user share one directory of sockets, which stays.
                    match entry.file_type().unwrap().is_dir() && entry.file_name() == "mykube" {
                        true => open.push(entry.path()),
                        false => left.push(entry.path()),
                    }
                }
            }
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        let left = self.processes();
        assert!(left.is_empty(), "still running: {left:?}");
    }

    /// Command lines of the live processes that carry this sandbox's mark.
    pub(crate) fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark());
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.bytes().all(|b| b.is_ascii_digit()).then_some(name)
        });
        let marked = pids.filter(|pid| {
            // A zombie has no environment any more, and uses nothing else.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        });
        marked
            .map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                format!("{pid}: {}", String::from_utf8_lossy(&line).replace('\0', " "))
            })
            .collect()
    }

    fn mark(&self) -> String {
        self.home().file_name().unwrap().to_string_lossy().into_owned()
    }
}
