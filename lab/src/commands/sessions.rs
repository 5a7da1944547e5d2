//! `lab sessions`: what many sessions cost a relay, and what ended ones leave behind.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use clap::{Args as ClapArgs, ValueEnum};
use mykube_lab::{
    LabError, parse_duration,
    process_stats::{ProcessStats, Use, Watched},
    sessions::{OpenSession, Opener, RelayAt},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};

use super::load::watched;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// `--count` paired sessions that say nothing: memory and descriptors of each
    Idle,
    /// One session whose client sends for `--flow`: what arrives
    Flow,
    /// `--turns` sessions opened, paired and closed: what is left of them
    Leftover,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The relay
    #[arg(long)]
    relay: SocketAddr,
    /// It speaks TLS, with a certificate of this CA for its address
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Its /metrics
    #[arg(long, required_unless_present = "hold")]
    metrics: Option<SocketAddr>,
    /// Its process
    #[arg(long, value_delimiter = ',', value_name = "NAME=PID", value_parser = watched)]
    procs: Vec<Watched>,
    #[arg(long, value_delimiter = ',', default_value = "idle,leftover")]
    phases: Vec<Phase>,
    /// Idle sessions
    #[arg(long, default_value_t = 9000)]
    count: usize,
    /// Processes that hold these sessions: each connection is a descriptor here too
    #[arg(long, default_value_t = 2)]
    processes: usize,
    /// How long they are idle before memory is read, so that each was pinged
    #[arg(long, value_parser = parse_duration, default_value = "20s")]
    settle: Duration,
    /// Sessions that come and go
    #[arg(long, default_value_t = 10_000)]
    turns: usize,
    /// How long the one session sends
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    flow: Duration,
    /// Opened at the same time
    #[arg(long, default_value_t = 8)]
    at_once: usize,
    /// Only hold so many sessions until standard input ends
    #[arg(long, hide = true)]
    hold: Option<usize>,
}

/// How long the sessions' resources may take to be freed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two reads of what is left.
const LOOK: Duration = Duration::from_millis(300);

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    raise_descriptors().map_err(failed("raise the limit of open files"))?;
    let relay = RelayAt::new(args.relay, args.ca.as_deref())?;
    if let Some(count) = args.hold {
        return hold(args, &relay, count).map_err(failed("hold sessions"));
    }
    let mut out = Map::new();
    for phase in &args.phases {
        let (name, figures) = match phase {
            Phase::Idle => ("idle", idle(args)),
            Phase::Flow => ("flow", flow(args, &relay)),
            Phase::Leftover => ("leftover", leftover(args, &relay)),
        };
        let figures = figures.map_err(failed(name))?;
        eprintln!("{name}: {figures}");
        out.insert(name.into(), figures);
    }
    let gone: Vec<_> = ProcessStats::take(&args.procs)
        .by_name
        .into_iter()
        .filter(|(_, it)| it.threads == 0)
        .map(|(name, _)| name)
        .collect();
    out.insert("died".into(), json!(gone));
    println!("{}", Value::Object(out));
    Ok(())
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> LabError {
    let what = what.to_owned();
    move |source| LabError::Io { what, source }
}

fn idle(args: &Args) -> io::Result<Value> {
    let before = used(args);
    let start = Instant::now();
    let shares: Vec<usize> = (0..args.processes)
        .map(|part| args.count * (part + 1) / args.processes - args.count * part / args.processes)
        .collect();
    let mut holders = shares.iter().map(|share| Holder::start(args, *share)).collect::<io::Result<Vec<_>>>()?;
    for holder in &mut holders {
        holder.wait()?;
    }
    let opened = start.elapsed();
    thread::sleep(args.settle);
    let now = used(args);
    let sessions = sessions(args)?;
    let expected = u32::try_from(args.count).map_or(f64::INFINITY, f64::from);
    if (sessions - expected).abs() > 0.5 {
        return Err(io::Error::other(format!("of {} sessions {sessions} are left", args.count)));
    }
    drop(holders);
    wait_until_gone(args, &before)?;
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / args.count as f64;
    Ok(json!({
        "sessions": args.count,
        "kib_each": each(now.rss_bytes, before.rss_bytes) / 1024.0,
        "descriptors_each": each(now.descriptors, before.descriptors),
        "empty_mib": mib(before.rss_bytes),
        "rss_mib": mib(now.rss_bytes),
        "opened_per_s": args.count as f64 / opened.as_secs_f64(),
    }))
}

fn flow(args: &Args, relay: &RelayAt) -> io::Result<Value> {
    const FRAME: usize = 32 * 1024;
    let before = used(args);
    let (bytes, took) =
        runtime()?.block_on(async { Opener::new(relay.clone()).open().await?.flow(FRAME, args.flow).await })?;
    let cpu = used(args).cpu_s - before.cpu_s;
    let gib = bytes as f64 / (1024.0 * 1024.0 * 1024.0);
    Ok(json!({"mb_s": bytes as f64 / 1e6 / took.as_secs_f64(), "cpu_s_per_gib": cpu / gib}))
}

fn leftover(args: &Args, relay: &RelayAt) -> io::Result<Value> {
    // Not counted: what the allocator and the runtime allocate once, for the first sessions.
    turns(args, relay, args.turns / 5)?;
    wait_until_gone(args, &Use::default())?;
    let before = used(args);
    let start = Instant::now();
    turns(args, relay, args.turns)?;
    let took = start.elapsed();
    wait_until_gone(args, &before)?;
    let now = used(args);
    let sessions = sessions(args)?;
    let descriptors = now.descriptors.saturating_sub(before.descriptors);
    let threads = now.threads.saturating_sub(before.threads);
    let grown = mib(now.rss_bytes) - mib(before.rss_bytes);
    Ok(json!({
        "turns": args.turns,
        "sessions": sessions,
        "descriptors": descriptors,
        "threads": threads,
        "grown_mib": grown,
        // A hundred bytes for each session would be a MiB.
        "left": sessions + descriptors as f64 + threads as f64 + grown.max(0.0).floor(),
        "per_s": args.turns as f64 / took.as_secs_f64(),
    }))
}

/// Opens and closes this many sessions.
fn turns(args: &Args, relay: &RelayAt, count: usize) -> io::Result<()> {
    runtime()?.block_on(open_all(args, relay, count, OpenSession::close))
}

/// Opens this many sessions, a few at a time, and passes each to `each`.
async fn open_all<W, F>(args: &Args, relay: &RelayAt, count: usize, with: F) -> io::Result<()>
where
    F: Fn(OpenSession) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = io::Result<()>> + Send,
{
    let left = Arc::new(AtomicUsize::new(count));
    let mut workers = Vec::new();
    for _ in 0..args.at_once {
        let (left, mut opener, with) = (Arc::clone(&left), Opener::new(relay.clone()), with.clone());
        workers.push(tokio::spawn(async move {
            while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                with(opener.open().await?).await?;
            }
            io::Result::Ok(())
        }));
    }
    for worker in workers {
        worker.await.map_err(io::Error::other)??;
    }
    Ok(())
}

/// Opens sessions, says that they are open, and holds them until standard input ends.
fn hold(args: &Args, relay: &RelayAt, count: usize) -> io::Result<()> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let keep = |session: OpenSession| {
            tokio::spawn(session.hold());
            std::future::ready(Ok(()))
        };
        open_all(args, relay, count, keep).await?;
        println!("open");
        let mut input = Vec::new();
        tokio::task::spawn_blocking(move || io::stdin().read_to_end(&mut input)).await.map_err(io::Error::other)?
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// A process of ours that holds a part of the sessions. Ends when dropped.
struct Holder(Child);

impl Holder {
    fn start(args: &Args, share: usize) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["sessions", "--relay", &args.relay.to_string(), "--hold", &share.to_string()]);
        command.args(["--at-once", &args.at_once.to_string()]);
        if let Some(ca) = &args.ca {
            command.arg("--ca").arg(ca);
        }
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?))
    }

    /// Waits until it has opened them.
    fn wait(&mut self) -> io::Result<()> {
        let output = self.0.stdout.as_mut().ok_or_else(|| io::Error::other("no output"))?;
        let mut line = String::new();
        io::BufReader::new(output).read_line(&mut line)?;
        if line.trim() == "open" { Ok(()) } else { Err(io::Error::other("sessions could not be opened; see above")) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits until the relay has no session, and no more descriptors than before (or, without a before, a steady number of
/// them).
fn wait_until_gone(args: &Args, before: &Use) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut same) = (u64::MAX, 0);
    loop {
        // Asked first, so that the connection of this request is gone when descriptors are counted.
        let none = sessions(args)? == 0.0;
        thread::sleep(LOOK);
        let descriptors = used(args).descriptors;
        same = if descriptors == last { same + 1 } else { 0 };
        last = descriptors;
        let rests = if before.descriptors > 0 { descriptors <= before.descriptors } else { same >= 4 };
        if (none && rests) || Instant::now() > deadline {
            return Ok(());
        }
    }
}

/// What all its processes use together.
fn used(args: &Args) -> Use {
    let by_name: BTreeMap<String, Use> = ProcessStats::take(&args.procs).by_name;
    by_name.values().fold(Use::default(), |sum, it| Use {
        cpu_s: sum.cpu_s + it.cpu_s,
        rss_bytes: sum.rss_bytes + it.rss_bytes,
        peak_rss_bytes: sum.peak_rss_bytes + it.peak_rss_bytes,
        descriptors: sum.descriptors + it.descriptors,
        threads: sum.threads + it.threads,
    })
}

/// Sessions the relay knows, in any state.
fn sessions(args: &Args) -> io::Result<f64> {
    let metrics = args.metrics.ok_or_else(|| io::Error::other("no --metrics"))?;
    let mut stream = TcpStream::connect(metrics)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {metrics}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("mykube_relay_sessions{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    if values.is_empty() { Err(io::Error::other("/metrics names no sessions")) } else { Ok(values.iter().sum()) }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn raise_descriptors() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
