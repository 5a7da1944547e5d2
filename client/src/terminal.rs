//! The terminal that a child is lent: its modes, and whose it is. Both are put back when the child is gone, and while it is stopped.

use std::fs::File;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Raised, raise};
use rustix::{
    process::{Pid, Signal, kill_current_process_group, kill_process, kill_process_group, test_kill_process_group},
    termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp},
};

/// How often one may be sent to the background with a child that wants the terminal before it is let go without. Nobody
/// types `bg` so often, and where no shell takes notice of a stop it is over at once.
const BACKGROUND_MAX: usize = 1000;

/// The controlling terminal, if there is one.
pub(crate) struct Terminal(Option<(File, Termios)>);

impl Terminal {
    /// As it is now.
    pub(crate) fn save() -> Self {
        let saved = || {
            let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
            let modes = tcgetattr(&terminal).ok()?;
            Some((terminal, modes))
        };
        Self(saved())
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Takes it back from a group that is gone, and puts back its modes. Somebody else's is left alone: in the background
    /// it is our shell's.
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

    /// The child has stopped itself: stops us too, so that the shell that waits for us has its terminal, and lets the
    /// child go on once we do.
    pub(crate) fn suspend(&self, child: Pid) {
        let Some((terminal, modes)) = &self.0 else { return };
        let (group, theirs) = (tcgetpgrp(terminal).ok(), tcgetattr(terminal));
        // Ours, or that of whoever has stopped.
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

/// None where it was begun outside of our PID namespace: such a group has no number here, and a terminal's reads as none.
fn our_group() -> Option<Pid> {
    Pid::from_raw(nix::unistd::getpgrp().as_raw())
}

/// None for one that is gone as well.
fn group_of(child: Pid) -> Option<Pid> {
    let child = nix::unistd::Pid::from_raw(child.as_raw_nonzero().get());
    Pid::from_raw(nix::unistd::getpgid(Some(child)).ok()?.as_raw())
}

/// Stops the whole job, as Ctrl-Z does; returns when it goes on, or at once where nobody could let it go on (an orphaned
/// process group).
fn stop(signal: Signal, raised: Raised) {
    // A pipeline, or a script around us, is stopped when all of it is. The group's signal may take effect later, on another
    // thread; this thread's own, held back until both are there, has when it is let go. Who goes on forgets the other.
    held(raised, || {
        let _ = raise(raised);
        let _ = kill_current_process_group(signal);
    });
}

/// The terminal is changed from the background too, which stops a process otherwise.
fn unstopped<T>(change: impl FnOnce() -> T) -> T {
    held(Raised::SIGTTOU, change)
}

/// Does something while a signal waits for this thread.
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
