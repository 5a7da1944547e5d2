//! The terminals that have joined a session (`mykube shell`): how they learn of its end, and how the session learns
//! that they are gone.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use crate::{
    family::{KILLED, STOP_GRACE},
    ramdir::RamDir,
};

/// Locked by the session's own process until the session ends.
const RUNNING: &str = "running";
/// Locked by each terminal that has joined.
const JOINED: &str = "joined";

/// A session's side of its joined terminals. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Terminals {
    joined: PathBuf,
    told: Arc<Mutex<Told>>,
}

#[derive(Debug)]
struct Told {
    /// Unlocked when the session ends.
    running: Option<File>,
    at: Option<Instant>,
}

impl Terminals {
    /// From here on terminals may join.
    pub(crate) fn open(dir: &RamDir) -> io::Result<Self> {
        let running = File::open(dir.write(RUNNING, b"")?)?;
        flock(&running, FlockOperation::NonBlockingLockExclusive)?;
        let joined = dir.write(JOINED, b"")?;
        Ok(Self { joined, told: Arc::new(Mutex::new(Told { running: Some(running), at: None })) })
    }

    /// Tells all of them, once, that the session is ending.
    pub(crate) fn tell_end(&self) -> Instant {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        drop(told.running.take());
        *told.at.get_or_insert_with(Instant::now)
    }

    /// Waits until no terminal is left, or until their time is over.
    pub(crate) async fn gone(&self) {
        let late = self.tell_end() + STOP_GRACE + KILLED;
        let joined = self.joined.clone();
        let gone =
            spawn_blocking(move || File::open(joined).map(|joined| flock(joined, FlockOperation::LockExclusive)));
        let _ = timeout_at(late, gone).await;
    }
}

/// Locks a terminal's file in the session of `dir`. `None` if that session has ended, or has no such lock (an older
/// release).
pub(crate) fn join(dir: &Path) -> Option<File> {
    let joined = File::open(dir.join(JOINED)).ok()?;
    flock(&joined, FlockOperation::NonBlockingLockShared).ok()?;
    Some(joined)
}

/// Returns once the session of `dir` ends. Blocks.
pub(crate) fn wait_for_end(dir: &Path) -> io::Result<()> {
    // A session of an older release has only its directory to show that it has not ended.
    let running = File::open(dir.join(RUNNING)).or_else(|_| File::open(dir))?;
    Ok(flock(running, FlockOperation::LockShared)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A test that takes longer has failed.
    const DEADLINE: Duration = Duration::from_secs(60);

    fn session() -> (tempfile::TempDir, RamDir, Terminals) {
        let parent = tempfile::tempdir().unwrap();
        let dir = RamDir::create(Some(parent.path())).unwrap();
        let terminals = Terminals::open(&dir).unwrap();
        (parent, dir, terminals)
    }

    #[tokio::test(start_paused = true)]
    async fn terminals_hear_of_the_end_before_anything_is_cut() {
        let (_parent, dir, terminals) = session();
        let (one, other) = (join(dir.path()).unwrap(), join(dir.path()).unwrap());
        let path = dir.path().to_owned();
        let mut heard = spawn_blocking(move || wait_for_end(&path));
        assert!(!heard.is_finished());
        let cut = terminals.gone();
        tokio::pin!(cut);
        tokio::select! {
            biased;
            () = &mut cut => panic!("two terminals are still there"),
            heard = &mut heard => heard.unwrap().unwrap(),
        }
        assert!(futures_util::FutureExt::now_or_never(&mut cut).is_none());
        drop(one);
        assert!(futures_util::FutureExt::now_or_never(&mut cut).is_none());
        drop(other);
        tokio::time::timeout(DEADLINE, cut).await.unwrap();
    }

    /// tokio's clock is paused while the locks are being checked, so a task that waits for the time would wait for
    /// ever.
    #[tokio::test(start_paused = true)]
    async fn a_session_alone_waits_for_nobody_and_one_that_is_over_is_not_joined() {
        let (_parent, dir, terminals) = session();
        terminals.gone().await;
        wait_for_end(dir.path()).unwrap();
        let path = dir.path().to_owned();
        dir.close().unwrap();
        assert!(join(&path).is_none());
        assert!(wait_for_end(&path).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_that_does_not_go_is_not_waited_for_for_ever() {
        let (_parent, dir, terminals) = session();
        let _stopped = join(dir.path()).unwrap();
        let gone = terminals.gone();
        tokio::pin!(gone);
        assert!(futures_util::FutureExt::now_or_never(&mut gone).is_none());
        tokio::time::advance(STOP_GRACE + KILLED).await;
        gone.await;
    }
}
