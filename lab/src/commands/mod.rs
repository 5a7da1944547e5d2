//! The subcommands, and how the long-running ones take commands.

pub(crate) mod load;
pub(crate) mod net;
pub(crate) mod proxy;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod sign_ins;
pub(crate) mod stand_in;

use std::{io, path::PathBuf};

use mykube_lab::LabError;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// A command line, and where its answer goes.
type Order = (String, oneshot::Sender<Value>);

/// How a command that keeps running is told things.
#[derive(Debug, clap::Args)]
pub(crate) struct ControlArgs {
    /// Take commands on this Unix socket too, one a line, each answered by a line of JSON
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Keep running when standard input ends; without it, that ends everything
    #[arg(long)]
    detached: bool,
}

/// Prints `ready`, then passes each line to `obey` until input ends or a signal comes.
fn control(
    args: &ControlArgs,
    ready: &Value,
    mut obey: impl FnMut(&str) -> Result<Value, LabError>,
) -> Result<(), LabError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source: io::Error| LabError::Io { what, source }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed("start a runtime"))?;
    let result = runtime.block_on(async {
        let (orders, mut ordered) = mpsc::channel::<Order>(1);
        let socket = match &args.control {
            Some(path) => Some(UnixListener::bind(path).map_err(failed(&format!("listen on {}", path.display())))?),
            None => None,
        };
        let (done, mut input_ended) = oneshot::channel();
        let stdin_orders = orders.clone();
        tokio::spawn(async move {
            let _ = obey_lines(tokio::io::stdin(), tokio::io::stdout(), &stdin_orders).await;
            let _ = done.send(());
        });
        if let Some(socket) = socket {
            tokio::spawn(async move {
                while let Ok((connection, _)) = socket.accept().await {
                    let orders = orders.clone();
                    tokio::spawn(async move { obey_socket(connection, &orders).await });
                }
            });
        }
        let mut terminated = signal(SignalKind::terminate()).map_err(failed("wait for signals"))?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed("wait for signals"))?;
        println!("{ready}");
        loop {
            tokio::select! {
                _ = terminated.recv() => return Ok(()),
                _ = interrupted.recv() => return Ok(()),
                _ = &mut input_ended, if !args.detached => return Ok(()),
                order = ordered.recv() => {
                    let Some((line, answer)) = order else { return std::future::pending().await };
                    let said = obey(&line).unwrap_or_else(|error| json!({"error": error.to_string()}));
                    let _ = answer.send(said);
                }
            }
        }
    });
    if let Some(path) = &args.control {
        let _ = std::fs::remove_file(path);
    }
    // Standard input may be in the middle of a read.
    runtime.shutdown_background();
    result
}

async fn obey_socket(connection: UnixStream, orders: &mpsc::Sender<Order>) {
    let (read, write) = connection.into_split();
    let _ = obey_lines(read, write, orders).await;
}

async fn obey_lines(
    from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    orders: &mpsc::Sender<Order>,
) -> io::Result<()> {
    let mut lines = BufReader::new(from).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        let (answer, answered) = oneshot::channel();
        if orders.send((line, answer)).await.is_err() {
            break;
        }
        let Ok(said) = answered.await else { break };
        to.write_all(format!("{said}\n").as_bytes()).await?;
        to.flush().await?;
    }
    Ok(())
}
