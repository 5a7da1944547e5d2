//! The process holds credentials and keys: no debugger may attach to it, and a crash leaves no core file.

/// Makes this process not dumpable. Children that run another program are dumpable again.
///
/// # Errors
/// The system's error. The caller warns and goes on.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn forbid_dumps() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes this process write no core file. The system has no way to refuse a debugger without unsafe code.
///
/// # Errors
/// The system's error. The caller warns and goes on.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn forbid_dumps() -> std::io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Core);
    Ok(setrlimit(Resource::Core, rustix::process::Rlimit { current: Some(0), ..limit })?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_process_is_not_dumpable() {
        super::forbid_dumps().unwrap();
        let now = rustix::process::dumpable_behavior().unwrap();
        assert!(matches!(now, rustix::process::DumpableBehavior::NotDumpable));
    }
}
