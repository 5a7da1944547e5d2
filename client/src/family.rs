//! What a child has started and left behind: ended with it, so that nothing of it has the terminal, or a connection that
//! is cut, when we are gone.
//!
//! Whoever has left the terminal's session (daemons, desktop programs) or ignores a hang-up (`nohup`) is meant to stay.

use std::{collections::BTreeSet, io, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

/// How long a child, and what it has started, has between being asked to end and being killed. Of the five seconds of a SIGTERM
/// to us the goodbye, the kubeconfig and the last words have the rest (`src/signals.rs`).
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(3);
/// How often it is looked who is left: not every end is signalled to us.
const LOOK: Duration = Duration::from_millis(20);
/// How long after that all may take to be gone. What hangs in the kernel is not waited for.
pub(crate) const KILLED: Duration = Duration::from_millis(500);

/// From now on orphans of the family become our children.
pub(crate) fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Asks all that is left to end, kills what has not at `deadline`, and reaps it. There must be no other child.
pub(crate) async fn end(ask: Signal, deadline: Instant) -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    let mut asked = BTreeSet::new();
    let asking = gone(&mut ended, |pid| {
        if asked.insert(pid.as_raw_nonzero()) {
            let _ = kill_process(pid, ask);
            // A stopped one would not see it.
            let _ = kill_process(pid, Signal::CONT);
        }
    });
    if timeout_at(deadline, asking).await.is_err() {
        let killing = gone(&mut ended, |pid| {
            let _ = kill_process(pid, Signal::KILL);
        });
        let _ = timeout_at(deadline + KILLED, killing).await;
    }
    Ok(())
}

/// Returns when nobody is left; until then does something to each, again and again.
async fn gone(ended: &mut tokio::signal::unix::Signal, mut each: impl FnMut(Pid)) {
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(&mut each);
        tokio::select! {
            _ = ended.recv() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Who is left, after reaping whoever has ended.
#[cfg(target_os = "linux")]
fn left() -> Vec<Pid> {
    use nix::unistd::getsid;
    use rustix::process::{WaitId, WaitIdOptions, getpid, waitid};

    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
    let (us, session) = (getpid(), getsid(None).ok().map(nix::unistd::Pid::as_raw));
    // Under `nohup` all of it does, which then says nothing.
    let hang_up_counts = !crate::signals::is_ignored(us, Signal::HUP);
    let all = processes();
    let mut family = BTreeSet::from([us.as_raw_nonzero()]);
    // A child may have a smaller number than its parent.
    while all.iter().any(|process| family.contains(&process.parent) && family.insert(process.id)) {}
    let ours = all.into_iter().filter(|process| {
        process.id != us.as_raw_nonzero() && family.contains(&process.id) && Some(process.session) == session
    });
    let ours = ours.filter_map(|process| Pid::from_raw(process.id.get()));
    ours.filter(|&pid| !(hang_up_counts && crate::signals::is_ignored(pid, Signal::HUP))).collect()
}

/// Elsewhere there is no list of processes that could be read.
#[cfg(not(target_os = "linux"))]
fn left() -> Vec<Pid> {
    Vec::new()
}

#[cfg(target_os = "linux")]
struct Process {
    id: std::num::NonZero<i32>,
    parent: std::num::NonZero<i32>,
    /// 0 where it was begun outside of our PID namespace; of our family, it is then the one that we are in.
    session: i32,
}

/// All that run, and our own that have ended: proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    let read = |stat: &str| {
        let (id, rest) = stat.split_once(" (")?;
        // The name may hold anything.
        let (_, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        // Ours we have yet to reap.
        let is_dead = is_dead && parent != rustix::process::getpid().as_raw_nonzero();
        let session = fields.nth(1)?.parse().ok()?;
        (!is_dead).then_some(Process { id: id.parse().ok()?, parent, session })
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}
