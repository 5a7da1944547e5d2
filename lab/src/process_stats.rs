//! CPU time, memory, descriptors and threads of processes with their descendants, read from `/proc`.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::Instant,
};

use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// A process with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The name of its figures; several processes may share one.
    pub name: String,
    /// The process whose descendants count too.
    pub pid: u32,
}

/// What the processes of one name use together.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq)]
pub struct Use {
    /// User and system time since their start, in seconds, with that of children that ended.
    pub cpu_s: f64,
    /// Resident memory now.
    pub rss_bytes: u64,
    /// The sum of the most each had (`VmHWM`).
    pub peak_rss_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// One look at all of them.
#[derive(Debug, Clone)]
pub struct ProcessStats {
    /// The time of the look.
    pub at: Instant,
    /// Figures by name. A process that has gone counts nothing.
    pub by_name: BTreeMap<String, Use>,
    /// CPU seconds of this process.
    pub own_cpu_s: f64,
    /// CPU seconds of the whole machine, without idle.
    pub machine_cpu_s: f64,
}

impl ProcessStats {
    /// Reads the figures of the processes and their descendants.
    #[must_use]
    pub fn take(watched: &[Watched]) -> Self {
        let all = processes();
        let mut by_name: BTreeMap<String, Use> = BTreeMap::new();
        for one in watched {
            let sum = by_name.entry(one.name.clone()).or_default();
            for (pid, stat) in &all {
                if descends(*pid, one.pid, &all) {
                    sum.cpu_s += stat.cpu_s;
                    sum.threads += stat.threads;
                    add_memory(*pid, sum);
                    sum.descriptors += count(fs::read_dir(format!("/proc/{pid}/fd")));
                }
            }
        }
        Self {
            at: Instant::now(),
            by_name,
            own_cpu_s: all.get(&std::process::id()).map_or(0.0, |stat| stat.cpu_s),
            machine_cpu_s: machine_cpu_s(),
        }
    }

    /// Resets the peak of memory (`VmHWM`) of this process and its descendants.
    pub fn forget_peak(one: &Watched) {
        let all = processes();
        for pid in all.keys().filter(|pid| descends(**pid, one.pid, &all)) {
            // 5 resets the peak (proc_pid_clear_refs(5)). Fails for a process that has gone.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// CPU seconds of each name since an earlier look.
    #[must_use]
    pub fn cpu_since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let before = |name: &String| earlier.by_name.get(name).map_or(0.0, |it| it.cpu_s);
        self.by_name.iter().map(|(name, it)| (name.clone(), (it.cpu_s - before(name)).max(0.0))).collect()
    }

    /// Cores that neither this process nor those watched used, since an earlier look.
    #[must_use]
    pub fn foreign_cores_since(&self, earlier: &Self) -> f64 {
        let known: f64 = self.cpu_since(earlier).values().sum::<f64>() + self.own_cpu_s - earlier.own_cpu_s;
        let time = (self.at - earlier.at).as_secs_f64();
        ((self.machine_cpu_s - earlier.machine_cpu_s - known) / time.max(1e-9)).max(0.0)
    }
}

struct Stat {
    parent: u32,
    cpu_s: f64,
    threads: u64,
}

fn processes() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain any character, parentheses too.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        cpu_s: ticks as f64 / clock_ticks_per_second() as f64,
        threads: number(17)?,
    })
}

fn descends(pid: u32, from: u32, all: &HashMap<u32, Stat>) -> bool {
    let mut at = pid;
    // At most 64 steps: processes may change while they are read, so parents could form a loop.
    for _ in 0..64 {
        if at == from {
            return true;
        }
        match all.get(&at) {
            Some(stat) if stat.parent > 1 => at = stat.parent,
            _ => return false,
        }
    }
    false
}

fn add_memory(pid: u32, to: &mut Use) {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    to.rss_bytes += bytes("VmRSS:");
    to.peak_rss_bytes += bytes("VmHWM:");
}

fn machine_cpu_s() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    // user, nice, system, irq, softirq, steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| fields.get(*at)).sum();
    busy as f64 / clock_ticks_per_second() as f64
}

fn count(entries: std::io::Result<fs::ReadDir>) -> u64 {
    entries.map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn processor_time_is_that_of_each_name_and_the_rest_is_foreign() {
        let begun = Instant::now();
        let stats = |after, cpu: &[(&str, f64)], own_cpu_s, machine_cpu_s| ProcessStats {
            at: begun + Duration::from_secs(after),
            by_name: cpu.iter().map(|(name, s)| ((*name).to_owned(), Use { cpu_s: *s, ..Use::default() })).collect(),
            own_cpu_s,
            machine_cpu_s,
        };
        let before = stats(0, &[("relay", 1.0), ("gone", 7.0)], 2.0, 100.0);
        let after = stats(4, &[("relay", 2.5), ("gone", 0.0), ("new", 0.5)], 3.0, 109.0);
        let since = [("gone", 0.0), ("new", 0.5), ("relay", 1.5)].map(|(name, s)| (name.to_owned(), s));
        assert_eq!(after.cpu_since(&before), since.into());
        // 9 s of the machine's, of which 2 are those of the watched and 1 is ours, in 4 s.
        assert!((after.foreign_cores_since(&before) - 1.5).abs() < 1e-9);
        assert!(stats(4, &[], 3.0, 100.0).foreign_cores_since(&before).abs() < 1e-9, "never less than none");
    }

    #[test]
    fn processor_time_is_what_the_clock_of_the_process_says() {
        let used = || {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
        };
        let watched = [Watched { name: "own".into(), pid: std::process::id() }];
        let before = ProcessStats::take(&watched);
        while used() < 0.3 {}
        let least = used();
        let after = ProcessStats::take(&watched);
        // User and system time are each cut to a tick.
        let ticks = 2.0 / clock_ticks_per_second() as f64;
        assert!(after.own_cpu_s >= least - ticks, "{} of {least}", after.own_cpu_s);
        assert!(after.by_name["own"].cpu_s >= after.own_cpu_s, "{after:?}");
        let machine = after.machine_cpu_s - before.machine_cpu_s;
        assert!(machine >= after.own_cpu_s - before.own_cpu_s - 2.0 * ticks, "{machine}");
    }

    #[test]
    fn a_process_and_its_child_are_seen() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut [0]).unwrap();
        let watched = Watched { name: "shell".into(), pid: shell.id() };
        let with_child = ProcessStats::take(std::slice::from_ref(&watched)).by_name["shell"];
        assert_eq!(with_child.threads, 2, "the shell and its child");
        assert!(with_child.rss_bytes > 0 && with_child.peak_rss_bytes >= with_child.rss_bytes);
        assert!(with_child.descriptors >= 6);
        let all = processes();
        for pid in all.keys().filter(|pid| descends(**pid, shell.id(), &all) && **pid != shell.id()) {
            let child = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
            rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(ProcessStats::take(&[watched]).by_name["shell"], Use::default(), "gone");
    }
}
