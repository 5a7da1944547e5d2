//! Another process of this user's, which is asked to end. It cannot be mistaken for a later one of the same number, where the
//! system has handles for processes (pidfd_open(2)).

use std::{io, time::Duration};
#[cfg(target_os = "linux")]
use std::{os::fd::OwnedFd, sync::Arc};

use rustix::process::{Pid, Signal};
#[cfg(target_os = "linux")]
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::PidfdFlags,
};
#[cfg(target_os = "linux")]
use tokio::task::spawn_blocking;
#[cfg(not(target_os = "linux"))]
use tokio::time::timeout;

/// A process that was there when it was opened.
pub(crate) struct Process {
    #[cfg(target_os = "linux")]
    handle: Arc<OwnedFd>,
    #[cfg(not(target_os = "linux"))]
    pid: Pid,
}

fn number(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no number here"))
}

#[cfg(target_os = "linux")]
impl Process {
    /// # Errors
    /// There is none of this number.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { handle: Arc::new(rustix::process::pidfd_open(number(pid)?, PidfdFlags::empty())?) })
    }

    /// # Errors
    /// It has ended, or is another user's.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.handle, Signal::TERM)?)
    }

    /// Whether it ends before long.
    pub(crate) async fn ends_within(&self, limit: Duration) -> bool {
        let handle = self.handle.clone();
        let ended = spawn_blocking(move || {
            let limit = Timespec::try_from(limit).ok();
            // Readable once it has ended; a signal to this process ends the wait early, as no end.
            poll(&mut [PollFd::new(&handle, PollFlags::IN)], limit.as_ref())
        });
        matches!(ended.await, Ok(Ok(1..)))
    }
}

#[cfg(not(target_os = "linux"))]
impl Process {
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { pid: number(pid)? })
    }

    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid, Signal::TERM)?)
    }

    pub(crate) async fn ends_within(&self, limit: Duration) -> bool {
        let gone = async {
            while rustix::process::test_kill_process(self.pid).is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(limit, gone).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_is_asked_to_end_and_seen_to() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.ends_within(Duration::ZERO).await);
        process.terminate().unwrap();
        assert!(process.ends_within(Duration::from_secs(60)).await);
        child.wait().unwrap();
        assert!(process.terminate().is_err(), "nothing else is meant by it");
        assert!(Process::open(0).is_err());
    }
}
