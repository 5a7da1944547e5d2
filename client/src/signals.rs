//! Which signals a process ignores. A signal that was ignored when a program was started must stay ignored (nohup(1),
//! POSIX `sh`).

use rustix::process::{Pid, Signal};

/// Whether this program was started with `signal` ignored. Call it before setting a handler.
#[must_use]
pub fn ignored_at_start(signal: Signal) -> bool {
    #[cfg(target_os = "linux")]
    return is_ignored(rustix::process::getpid(), signal);
    // A shell that was started so cannot change it, and lives on.
    #[cfg(not(target_os = "linux"))]
    return std::process::Command::new("/bin/sh")
        .args(["-c", &format!("kill -{} $$", signal.as_raw())])
        .status()
        .is_ok_and(|status| status.success());
}

/// proc_pid_status(5).
#[cfg(target_os = "linux")]
pub(crate) fn is_ignored(process: Pid, signal: Signal) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw() - 1) & 1 == 1
}
