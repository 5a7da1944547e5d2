//! `lab proxy`: a forwarder that cuts.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use clap::Args as ClapArgs;
use mykube_lab::{Cut, ForwardOptions, ForwardTarget, Forwarder, LabError, parse_bytes, parse_duration};
use serde_json::{Value, json};

use super::{ControlArgs, control};

const USAGE: &str = "\
Commands, one a line:
  pause on|off     stop reading from all connections
  refuse on|off    close new connections at once
  kill             cut all connections
  stats";

#[derive(Debug, ClapArgs)]
#[command(after_help = USAGE)]
pub(crate) struct Args {
    /// Where to listen; port 0 for any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Forward all connections to this address; without it, be an HTTP proxy for CONNECT
    #[arg(long, conflicts_with = "route")]
    to: Option<SocketAddr>,
    /// As an HTTP proxy, where `CONNECT NAME:PORT` leads
    #[arg(long, value_name = "NAME:PORT=ADDRESS", value_parser = route)]
    route: Vec<(String, SocketAddr)>,
    /// Cut a connection on which nothing moved for this long
    #[arg(long, value_parser = parse_duration)]
    idle: Option<Duration>,
    /// Cut a connection of this age
    #[arg(long, value_parser = parse_duration)]
    life: Option<Duration>,
    /// Bytes a second of each connection and direction, such as 1MiB
    #[arg(long)]
    rate: Option<String>,
    /// Cut with a reset instead of an end of file
    #[arg(long)]
    reset: bool,
    /// Of each direction
    #[arg(long, default_value = "256KiB")]
    buffer: String,
    /// Threads that forward
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Make connections from this namespace, by its name or path
    #[arg(long, value_name = "NETNS")]
    connect_in: Option<PathBuf>,
    #[command(flatten)]
    control: ControlArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    let target = match args.to {
        Some(address) => ForwardTarget::To(address),
        None => ForwardTarget::Connect(args.route.iter().cloned().collect::<HashMap<_, _>>()),
    };
    let options = ForwardOptions {
        idle: args.idle,
        life: args.life,
        rate: args.rate.as_deref().map(parse_bytes).transpose()?.flatten(),
        cut: if args.reset { Cut::Reset } else { Cut::Close },
        buffer: parse_bytes(&args.buffer)?.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(256 * 1024),
        threads: args.threads,
        // A name without slashes is below the folder of iproute2.
        connect_in: args.connect_in.as_ref().map(|path| PathBuf::from("/run/netns").join(path)),
        ..ForwardOptions::new(target)
    };
    let listener = TcpListener::bind(args.listen)
        .map_err(|source| LabError::Io { what: format!("listen on {}", args.listen), source })?;
    let forwarder = Forwarder::start(listener, options)?;
    let ready = json!({"event": "ready", "listen": forwarder.address()});
    control(&args.control, &ready, |line| obey(&forwarder, line))
}

fn obey(forwarder: &Forwarder, line: &str) -> Result<Value, LabError> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["pause", "on"] => forwarder.pause(true),
        ["pause", "off"] => forwarder.pause(false),
        ["refuse", "on"] => forwarder.refuse(true),
        ["refuse", "off"] => forwarder.refuse(false),
        ["kill"] => forwarder.kill_all(),
        ["stats"] => return Ok(json!(forwarder.counts())),
        _ => return Err(LabError::Words(format!("{line:?} is no command.\n{USAGE}"))),
    }
    Ok(json!({"ok": true}))
}

fn route(text: &str) -> Result<(String, SocketAddr), String> {
    let (name, address) = text.split_once('=').ok_or("use NAME:PORT=ADDRESS")?;
    Ok((name.to_owned(), address.parse().map_err(|_| format!("{address:?} is no address with a port"))?))
}
