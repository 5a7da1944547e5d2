//! The processes that a child has started and left behind. They are ended with it, so that none of them has the
//! terminal, or a connection that is cut, after we have gone.
//!
//! Processes that have left the terminal's session (daemons, desktop programs) or ignore a hang-up (`nohup`) stay.

use std::{collections::BTreeSet, io, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

/// How long a child, and what it has started, has between being asked to end and being killed. Of the five seconds
/// after a SIGTERM the rest is for the goodbye, the kubeconfig and the last output (`src/signals.rs`).
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(3);
/// How often the list of processes is read: not every end is signalled to us.
const LOOK: Duration = Duration::from_millis(20);
/// How long all of them may take to end after being killed. A process that hangs in the kernel is not waited for.
pub(crate) const KILLED: Duration = Duration::from_millis(500);

/// From now on orphans of the family become our children.
pub(crate) fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Asks the remaining processes to end, kills at `deadline` those that have not, and reaps them. There must be no other
/// child.
pub(crate) async fn end(ask: Signal, deadline: Instant) -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    let mut asked = BTreeSet::new();
    let asking = gone(&mut ended, |pid| {
        if asked.insert(pid.as_raw_nonzero()) {
            let _ = kill_process(pid, ask);
            // A stopped process would not see the signal.
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

/// Returns when no process is left; until then calls `act` on each, again and again.
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

/// The remaining processes, after those that have ended were reaped.
#[cfg(target_os = "linux")]
fn left() -> Vec<Pid> {
    use nix::unistd::getsid;
    use rustix::process::{WaitId, WaitIdOptions, getpid, waitid};

    while let Ok(Some(_)) = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {}
    let (us, session) = (getpid(), getsid(None).ok().map(nix::unistd::Pid::as_raw));
    // Under `nohup` every child ignores hang-ups, so that does not tell the two apart.
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

/// On other systems there is no list of processes that could be read.
#[cfg(not(target_os = "linux"))]
fn left() -> Vec<Pid> {
    Vec::new()
}

#[cfg(target_os = "linux")]
struct Process {
    id: std::num::NonZero<i32>,
    parent: std::num::NonZero<i32>,
    /// 0 if the process was started outside of our PID namespace; a member of our family is then in our own session.
    session: i32,
}

/// All processes, with our children that have ended: proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn processes() -> Vec<Process> {
    let read = |stat: &str| {
        let (id, rest) = stat.split_once(" (")?;
        // A process's name may hold any character.
        let (_, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let parent = fields.next()?.parse().ok()?;
        // A child that we have yet to reap.
        let is_dead = is_dead && parent != rustix::process::getpid().as_raw_nonzero();
        let session = fields.nth(1)?.parse().ok()?;
        (!is_dead).then_some(Process { id: id.parse().ok()?, parent, session })
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}
