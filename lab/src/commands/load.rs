//! `lab load`: the target and the clients, through whatever is between.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, ValueEnum};
use mykube_lab::{
    LabError, Namespace,
    load::{Direction, Load, Target},
    parse_duration,
    process_stats::Watched,
};
use serde_json::{Map, Value, json};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    /// 8 MiB there and back, and a half-close
    Integrity,
    /// Round trips of 1, 64 and 1024 bytes
    Echo,
    /// New connections, one after another
    Connections,
    /// One stream down, then up
    Bulk,
    /// `--streams` streams down, then up
    Streams,
    /// Round trips of one byte beside a bulk stream, down, then up
    Loaded,
    /// Keystrokes, one each `--every`, beside a bulk stream down
    Keystrokes,
    /// Readers that do not read, beside an echo
    Stall,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where the target listens, behind the tunnel
    #[arg(long)]
    target: SocketAddr,
    /// The tunnel's entry
    #[arg(long)]
    via: SocketAddr,
    /// The namespace the target is in, by its name or path
    #[arg(long, value_name = "NETNS")]
    target_in: Option<PathBuf>,
    /// The namespace to connect from
    #[arg(long, value_name = "NETNS")]
    via_in: Option<PathBuf>,
    /// Whose CPU and memory are reported, with their descendants
    #[arg(long, value_delimiter = ',', value_name = "NAME=PID,...", value_parser = watched)]
    procs: Vec<Watched>,
    /// What to measure, in this order
    #[arg(long, value_delimiter = ',', default_value = "integrity,echo,connections,bulk,streams,loaded")]
    phases: Vec<Phase>,
    /// How long the tunnel may take until a byte comes back
    #[arg(long, value_parser = parse_duration, default_value = "20s")]
    ready: Duration,
    /// After how long without a reply the tunnel hangs
    #[arg(long, value_parser = parse_duration, default_value = "3s")]
    patience: Duration,
    /// Of each size of echo
    #[arg(long, value_parser = parse_duration, default_value = "800ms")]
    echo: Duration,
    /// Of the new connections
    #[arg(long, value_parser = parse_duration, default_value = "1500ms")]
    connections: Duration,
    /// Of one stream, each direction
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    bulk: Duration,
    /// Of many streams, each direction
    #[arg(long, value_parser = parse_duration, default_value = "1600ms")]
    many: Duration,
    /// How many streams, one figure for each
    #[arg(long, value_delimiter = ',', default_value = "16")]
    streams: Vec<usize>,
    /// Of the echo beside bulk, each direction, and of the keystrokes
    #[arg(long, value_parser = parse_duration, default_value = "1250ms")]
    loaded: Duration,
    /// Between keystrokes
    #[arg(long, value_parser = parse_duration, default_value = "20ms")]
    every: Duration,
    /// Of the stalled readers
    #[arg(long, value_parser = parse_duration, default_value = "4s")]
    stall: Duration,
    /// Stall up first, then both, instead of down first
    #[arg(long)]
    stall_up_first: bool,
    /// Of bulk, before it is counted
    #[arg(long, value_parser = parse_duration, default_value = "400ms")]
    warm: Duration,
}

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    let failed = |what: String| move |source| LabError::Io { what, source };
    let bind = || TcpListener::bind(args.target);
    let listener = inside(args.target_in.as_ref(), bind)?.map_err(failed(format!("listen on {}", args.target)))?;
    let target = Target::start(listener)?;
    let load = Load::new(args.via, &target, args.procs.clone(), args.patience);
    inside(args.via_in.as_ref(), || measure(args, &load))?.map_err(failed("use the tunnel".into()))
}

/// Runs `work` in a namespace, if there is one to run it in.
fn inside<T: Send>(namespace: Option<&PathBuf>, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
    match namespace {
        Some(path) => Namespace::enter_named(path, work),
        None => Ok(work()),
    }
}

fn measure(args: &Args, load: &Load) -> std::io::Result<()> {
    let ready = load.wait_ready(args.ready)?;
    std::thread::sleep(Duration::from_millis(300));
    let mut out = Map::new();
    out.insert("ready_s".into(), json!(ready.as_secs_f64()));
    out.insert("idle_rss_mib".into(), json!(load.memory()));
    for phase in &args.phases {
        for (name, figures) in run_phase(args, load, *phase) {
            eprintln!("{name}: {figures}");
            out.insert(name, figures);
        }
    }
    // A process that has gone counts nothing.
    let gone: Vec<_> =
        load.process_stats().by_name.into_iter().filter(|(_, it)| it.threads == 0).map(|(name, _)| name).collect();
    out.insert("died".into(), json!(gone));
    println!("{}", Value::Object(out));
    Ok(())
}

fn run_phase(args: &Args, load: &Load, phase: Phase) -> Vec<(String, Value)> {
    let both = |name: &str, measure: &dyn Fn(Direction) -> Value| {
        [("down", Direction::Down), ("up", Direction::Up)]
            .map(|(way, it)| (format!("{name}_{way}"), measure(it)))
            .to_vec()
    };
    match phase {
        Phase::Integrity => vec![("integrity".into(), json!(load.integrity()))],
        Phase::Echo => [1, 64, 1024]
            .map(|size| (format!("echo_{size}"), json!(load.echo(size, args.echo, Duration::ZERO))))
            .to_vec(),
        Phase::Connections => vec![("connections".into(), json!(load.connections(args.connections)))],
        Phase::Bulk => both("bulk_1", &|way| json!(load.bulk(way, 1, args.warm, args.bulk))),
        Phase::Streams => args
            .streams
            .iter()
            .flat_map(|count| {
                both(&format!("bulk_{count}"), &|way| json!(load.bulk(way, *count, args.warm, args.many)))
            })
            .collect(),
        Phase::Loaded => {
            both("loaded", &|way| json!(load.echo_under_bulk(way, 1, args.warm, args.loaded, Duration::ZERO)))
        }
        Phase::Keystrokes => {
            let figures = load.echo_under_bulk(Direction::Down, 1, args.warm, args.loaded, args.every);
            vec![("keystrokes".into(), json!(figures))]
        }
        Phase::Stall => {
            let first = if args.stall_up_first { Direction::Up } else { Direction::Down };
            vec![("stall".into(), json!(load.stall(first, args.stall)))]
        }
    }
}

pub(crate) fn watched(text: &str) -> Result<Watched, String> {
    let (name, pid) = text.split_once('=').ok_or("use NAME=PID")?;
    Ok(Watched { name: name.to_owned(), pid: pid.parse().map_err(|_| format!("{pid:?} is no process number"))? })
}
