//! The longest kubeconfig, and how long to wait for its lock.

use std::time::Duration;

/// Longest kubeconfig that is changed. Ten thousand clusters fit; a wrong path to a disk image does not.
pub const FILE_MAX: u64 = 16 * 1024 * 1024;
/// How long to wait for another program's lock before a session begins.
pub const LOCK_WAIT: Duration = Duration::from_secs(3);
/// How long to wait during a session, and at its end, which has five seconds in all.
pub const SHORT_LOCK_WAIT: Duration = Duration::from_millis(500);
