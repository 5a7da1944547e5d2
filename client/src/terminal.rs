//! The terminal that a child uses: its modes, and its foreground group. Both are restored when the child is gone, and
//! while it is stopped.

use std::fs::File;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Raised, raise};
use rustix::{
    process::{Pid, Signal, kill_current_process_group, kill_process, kill_process_group, test_kill_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

/// How often we may be sent to the background with a child that wants the terminal before we run on without it. Nobody
/// types `bg` so often, and where no shell handles stopped jobs, this ends the loop quickly.
const BACKGROUND_MAX: usize = 1000;

/// The controlling terminal, if there is one.
pub(crate) struct Terminal(Option<(File, Termios)>);

impl Terminal {
    /// The terminal as it is now.
    pub(crate) fn save() -> Self {
        let saved = || {
            let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
            let modes = tcgetattr(&terminal).ok()?;
            Some((terminal, modes))
        };
        Self(saved())
    }

    /// Whether there is a terminal.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the terminal back from a group that is gone, and restores its modes. Another group's terminal is left
    /// alone: if we are in the background, it is our shell's.
    pub(crate) fn restore(&self) {
        let Some((terminal, modes)) = &self.0 else { return };
        let taken = match (tcgetpgrp(terminal).ok(), our_group()) {
            (group, None) => group.is_none(),
            (Some(group), Some(ours)) if group == ours => true,
            (Some(group), _) if test_kill_process_group(group).is_ok() => false,
            (_, Some(ours)) => unstopped(|| tcsetpgrp(terminal, ours)).is_ok(),
        };
        if taken {
            let _ = tcsetattr(terminal, OptionalActions::Now, modes);
        }
    }

    /// The child has stopped itself: stops us too, so that the shell that waits for us gets its terminal, and continues
    /// the child once we are continued.
    pub(crate) fn suspend(&self, child: Pid) {
        let Some((terminal, modes)) = &self.0 else { return };
        let (group, theirs) = (tcgetpgrp(terminal).ok(), tcgetattr(terminal));
        // Our own group, or that of the stopped child.
        if group.is_none_or(|group| [our_group(), group_of(child)].contains(&Some(group))) {
            unstopped(|| {
                if let Some(ours) = our_group() {
                    let _ = tcsetpgrp(terminal, ours);
                }
                let _ = tcsetattr(terminal, OptionalActions::Now, modes);
            });
        }
        stop(Signal::TSTP, Raised::SIGTSTP);
        for _ in 0..BACKGROUND_MAX {
            if tcgetpgrp(terminal).ok() == our_group() {
                break;
            }
            stop(Signal::TTIN, Raised::SIGTTIN);
        }
        unstopped(|| {
            if let Ok(theirs) = &theirs {
                let _ = tcsetattr(terminal, OptionalActions::Now, theirs);
            }
            if let Some(group) = group {
                let _ = tcsetpgrp(terminal, group);
            }
        });
        let _ = match group_of(child) {
            Some(group) if Some(group) != our_group() => kill_process_group(group, Signal::CONT),
            _ => kill_process(child, Signal::CONT),
        };
    }
}

/// `None` if the group was made outside of our PID namespace: it has no number here, and a terminal's group reads as
/// none.
fn our_group() -> Option<Pid> {
    Pid::from_raw(nix::unistd::getpgrp().as_raw())
}

/// `None` also for a group that is gone.
fn group_of(child: Pid) -> Option<Pid> {
    let child = nix::unistd::Pid::from_raw(child.as_raw_nonzero().get());
    Pid::from_raw(nix::unistd::getpgid(Some(child)).ok()?.as_raw())
}

/// Stops the whole job, as Ctrl-Z does. Returns when it is continued, or at once if nobody could continue it (an
/// orphaned process group).
fn stop(signal: Signal, raised: Raised) {
    // A pipeline, or a script around us, is stopped only if all of it is. The group's signal may take effect later, on
    // another thread; this thread's own signal, blocked until both are sent, has taken effect when it is unblocked.
    // Continuing discards the other one.
    held(raised, || {
        let _ = raise(raised);
        let _ = kill_current_process_group(signal);
    });
}

/// A process in the background may change the terminal too; otherwise it would be stopped.
fn unstopped<T>(change: impl FnOnce() -> T) -> T {
    held(Raised::SIGTTOU, change)
}

/// Runs `work` while this signal is blocked for this thread.
fn held<T>(signal: Raised, change: impl FnOnce() -> T) -> T {
    let mut blocked = SigSet::empty();
    blocked.add(signal);
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let done = change();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    done
}
