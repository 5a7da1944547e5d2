//! `lab serve`: a target alone.

use std::net::{SocketAddr, TcpListener};

use clap::Args as ClapArgs;
use mykube_lab::{LabError, load::Target};
use serde_json::json;

use super::{ControlArgs, control};

const SERVICES: &str = "\
The first byte of a connection says what is wanted:
  e  echo, to the end of file
  u  sink: at the end of file it answers how many bytes it was, in decimal
  d  source: sends without end
  x  reads nothing";

#[derive(Debug, ClapArgs)]
#[command(after_help = SERVICES)]
pub(crate) struct Args {
    /// Where to listen; port 0 for any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    control: ControlArgs,
}

pub(crate) fn run(args: &Args) -> Result<(), LabError> {
    let listener = TcpListener::bind(args.listen)
        .map_err(|source| LabError::Io { what: format!("listen on {}", args.listen), source })?;
    let target = Target::start(listener)?;
    let ready = json!({"event": "ready", "listen": target.address()});
    control(&args.control, &ready, |line| Err(LabError::Words(format!("{line:?}: a target takes no commands"))))
}
