//! `mykube shell`: another terminal in a session that runs on this machine.

use std::{convert::Infallible, time::Duration};

use mykube_client::{Exit, Launch, Live, Workspace, shell, users::run_joined};
use mykube_link::{PeerStatus, clock};
use tokio::{sync::watch, time::interval};

use crate::{
    cli::ShellArgs,
    exit::{Failure, Status},
    output::Output,
    signals::Signals,
    status,
};

/// How often it is looked whether the session is away.
const LOOK: Duration = Duration::from_millis(500);

/// Opens a shell, or runs a command, beside a running `mykube client`; no new code is needed.
pub(crate) async fn run(args: ShellArgs, output: Output) -> Result<u8, Failure> {
    let is_command = !args.command.is_empty();
    let launch = if is_command { Launch::Command(args.command.clone()) } else { Launch::Shell };
    shell::check(&launch).map_err(|error| Failure::shell(&error))?;
    let live = choose(Live::all(args.kubeconfig_dir.as_deref()), &args)?;
    let mut signals = Signals::new(output).map_err(Failure::failed)?;
    let workspace = Workspace::join(&live, args.kubeconfig_dir.as_deref()).map_err(Failure::failed)?;
    if !is_command {
        output.say(&format!(
            "A shell in the session of process {} with {}; it ends with that session.",
            live.pid, live.cluster
        ));
    }
    let child = shell::prepare(&workspace, launch).map_err(|error| Failure::shell(&error))?;
    output.settle().await;
    let mut stopped_by = None;
    let stop = async { stopped_by = Some(signals.but_interrupt().await) };
    let (line, status) = watch::channel(PeerStatus::Up);
    let exit = tokio::select! {
        exit = run_joined(&live, workspace, child, stop) => exit,
        never = follow(&live, line) => match never {},
        never = status::tell(status, output.beside_a_child(), true) => match never {},
    };
    match exit.map_err(|error| Failure::shell(&error))? {
        Exit::Code(code) => Ok(if is_command { code } else { 0 }),
        Exit::Stopped => Err(match stopped_by {
            Some(name) => Failure::failed(format!("stopped by {name}")),
            None => Failure::new(Status::SessionLost, format!("the session with {} has ended", live.cluster)),
        }),
    }
}

/// Looks how the other process's session is.
async fn follow(live: &Live, line: watch::Sender<PeerStatus>) -> Infallible {
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        let away = live.away();
        line.send_if_modified(|now| {
            let changes = now.is_up() == away.is_some();
            if changes {
                *now = match away {
                    Some(reason) => PeerStatus::Away { since: clock::now(), reason },
                    None => PeerStatus::Up,
                };
            }
            changes
        });
    }
}

fn choose(live: Vec<Live>, args: &ShellArgs) -> Result<Live, Failure> {
    let fits = |live: &Live| {
        args.cluster.as_ref().is_none_or(|cluster| *cluster == live.cluster)
            && args.pid.is_none_or(|pid| pid == live.pid)
    };
    let mut fitting: Vec<_> = live.into_iter().filter(fits).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Failure::failed("no such session of yours runs here: start one with `mykube client`")),
        (Some(last), false) => {
            fitting.push(last);
            let list: Vec<_> = fitting.iter().map(|live| format!("{} (--pid {})", live.cluster, live.pid)).collect();
            Err(Failure::usage(format!("several sessions run here, choose one: {}", list.join(", "))))
        }
    }
}
