//! A network namespace with an owner: the process that made it. It is removed with its owner, at the latest when the
//! next lab starts.

use std::{
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::{
    process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::LabError;

/// The directory in which iproute2 keeps namespaces.
const DIR: &str = "/run/netns";
/// Prefix of `PID-START-NUMBER-LABEL`, the name that tells the owner.
const PREFIX: &str = "mykube-lab-";
/// The maximum of TCP's receive and send buffers: as much as 200 ms at 1 Gbit/s and more need.
const TCP_BUFFER: &str = "67108864";

/// A network of its own: loopback, its links, its sysctls. Removed when dropped, with every process still in it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Loopback is up, packets are forwarded, TCP buffers may grow to 64 MiB.
    pub(crate) fn create(label: &str) -> Result<Self, LabError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        if label.is_empty() || !label.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(LabError::Words(format!("{label:?} is no name for a namespace; use letters and digits")));
        }
        let pid = std::process::id();
        let start = start_time(pid).ok_or_else(|| LabError::Words("cannot read /proc/self/stat".into()))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{pid}-{start}-{number}-{label}");
        ip(&["netns", "add", &name])?;
        let made = Self { name };
        made.ip(&["link", "set", "lo", "up"])?;
        made.sysctl("net/ipv4/ip_forward", "1")?;
        made.sysctl("net/ipv4/tcp_rmem", &format!("4096 131072 {TCP_BUFFER}"))?;
        made.sysctl("net/ipv4/tcp_wmem", &format!("4096 16384 {TCP_BUFFER}"))?;
        Ok(made)
    }

    /// Its name for `ip netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path for `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIR).join(&self.name)
    }

    /// The prefix that makes a command line run in it. The process keeps its number: nothing forks.
    #[must_use]
    pub fn prefix(&self) -> [String; 2] {
        ["nsenter".into(), format!("--net={}", self.path().display())]
    }

    /// A command that will run in it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let [nsenter, option] = self.prefix();
        let mut command = Command::new(nsenter);
        command.arg(option).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread in the namespace. The sockets, threads and processes that `work` makes stay in it.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        Self::enter_named(&self.path(), work)
    }

    /// Does the same in a namespace of another process, by its path or its name in `ip netns`.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn enter_named<T: Send>(name: &Path, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let path = Path::new(DIR).join(name);
        thread::scope(|scope| {
            let inside = scope.spawn(move || enter_path(&path).map(|()| work()));
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A socket that listens in the namespace, for use from anywhere in this process.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener, LabError> {
        self.enter(|| TcpListener::bind(address))?
            .map_err(LabError::io(format!("listen on {address} in {}", self.name)))
    }

    /// `ip -n NAME ARGS...`
    pub fn ip(&self, args: &[&str]) -> Result<String, LabError> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Sets a value of the network below `/proc/sys`, such as `net/ipv4/tcp_rmem`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        let file = Path::new("/proc/sys").join(name);
        self.enter(|| fs::write(&file, value))?.map_err(LabError::io(format!("set {name} to {value:?}")))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // If this fails, the next lab removes it.
        let _ = remove(&self.name);
    }
}

/// Moves the calling thread, and what it starts from now on, into the namespace with this path.
pub(crate) fn enter_path(path: &Path) -> Result<(), LabError> {
    let what = || format!("enter the network namespace {}", path.display());
    let file = File::open(path).map_err(LabError::io(what()))?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .map_err(LabError::io(what()))
}

/// Removes the namespaces whose owners are gone, and returns their names.
pub(crate) fn sweep() -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    let Ok(entries) = fs::read_dir(DIR) else { return Ok(removed) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if owner_is_gone(&name) && remove(&name)? {
            removed.push(name);
        }
    }
    Ok(removed)
}

/// Whether it is a lab's namespace whose process no longer runs.
fn owner_is_gone(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let mut parts = rest.split('-');
    let (Some(pid), Some(start)) = (parts.next(), parts.next()) else { return false };
    let (Ok(pid), Ok(start)) = (pid.parse::<u32>(), start.parse::<u64>()) else { return false };
    start_time(pid) != Some(start)
}

/// When a process started, in ticks since boot: pid and start together identify a process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = &stat[stat.rfind(')')? + 1..];
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Ends the processes in it and removes its name. False if another lab was faster.
fn remove(name: &str) -> Result<bool, LabError> {
    end_processes(&Path::new(DIR).join(name));
    match ip(&["netns", "delete", name]) {
        Ok(_) => Ok(true),
        Err(_) if !Path::new(DIR).join(name).exists() => Ok(false),
        Err(error) => Err(error),
    }
}

fn end_processes(namespace: &Path) {
    let Ok(namespace) = fs::metadata(namespace) else { return };
    let is_inside = |pid: u32| {
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|its| its.ino() == namespace.ino() && its.dev() == namespace.dev())
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| *pid != std::process::id() && is_inside(*pid)) {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // Held by a descriptor and checked again, so that no other process with this number is hit.
        let Ok(held) = pidfd_open(number, PidfdFlags::empty()) else { continue };
        if is_inside(pid) {
            let _ = pidfd_send_signal(held, Signal::KILL);
        }
    }
}

/// Runs iproute2's `ip`.
pub(crate) fn ip(args: &[&str]) -> Result<String, LabError> {
    let command = format!("ip {}", args.join(" "));
    let output = match Command::new("ip").args(args).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LabError::Command { command, said: "`ip` is not there: install iproute2".into() });
        }
        Err(source) => return Err(LabError::Io { what: format!("run `{command}`"), source }),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Command { command, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_the_dead_are_swept() {
        let me = std::process::id();
        let start = start_time(me).unwrap();
        assert!(!owner_is_gone(&format!("{PREFIX}{me}-{start}-0-a")));
        assert!(owner_is_gone(&format!("{PREFIX}{me}-{}-0-a", start + 1)), "another process had this number");
        assert!(owner_is_gone(&format!("{PREFIX}4294967295-1-0-a")));
        for foreign in ["cni-1234", "mykube-lab-", "mykube-lab-x-y-0-a"] {
            assert!(!owner_is_gone(foreign), "{foreign}");
        }
    }
}
