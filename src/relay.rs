//! `mykube relay`: a relay itself; and what this machine has at one somewhere (`status`, `disconnect`).

use std::path::PathBuf;

use http::{Method, StatusCode};
use mykube_relay::Event;
use mykube_relay_node::{NodeArgs, NodeCommand};
use mykube_sign_in::SignInError;

use crate::{
    cli::{EndArgs, HereArgs, RelayCommand, RelaySubcommand},
    dial,
    events::JsonEvent,
    exit::{ExitCode, Failure},
    here,
    output::Output,
    sign_in,
};

impl RelayCommand {
    /// Whether this process is a relay, and not somebody who asks about one.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.command, None | Some(RelaySubcommand::Node(_)))
    }
}

pub(crate) async fn run(args: RelayCommand, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    match args.command {
        None => node(args.node, None, output).await,
        Some(RelaySubcommand::Node(command)) => node(args.node, Some(command), output).await,
        Some(RelaySubcommand::Status(args)) => status(args, ca_file, output).await,
        Some(RelaySubcommand::Disconnect(args)) => disconnect(args, ca_file, output).await,
    }
}

async fn node(args: NodeArgs, command: Option<NodeCommand>, output: Output) -> Result<(), Failure> {
    let announce = |event: Event| {
        output.say(&event.text());
        output.event(&JsonEvent::Relay(&event));
    };
    let done = mykube_relay_node::run(args, command, announce).await.map_err(|error| {
        let code = if error.is_usage() { ExitCode::Usage } else { ExitCode::Failed };
        Failure::new(code, error)
    })?;
    if let Some(done) = done {
        output.say(&done);
    }
    Ok(())
}

/// Tells all that can be told, and fails if the relay does not answer.
async fn status(args: HereArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let dialer = dial::dialer(args.relay.relay_url.clone(), ca_file.clone())?;
    let session = sign_in::session(args.relay, ca_file)?;
    let relay = session.relay();
    let answers = match dialer.call(Method::GET, "/healthz", None, None).await {
        Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
        Ok(answer) => Err(dialer.refusal(&answer)),
        Err(error) => Err(error),
    };
    let standing = match &answers {
        Ok(()) => Some(session.who_am_i().await),
        Err(_) => None,
    };
    let (signed_in, trouble) = match &standing {
        None => (None, answers.as_ref().err().map(ToString::to_string)),
        Some(Ok(_)) => (Some(true), None),
        Some(Err(SignInError::NotSignedIn(_))) => (Some(false), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let (reachable, detail) = (answers.is_ok(), trouble.as_deref());
    output.event(&JsonEvent::RelayStatus { relay: &relay, reachable, detail, signed_in });
    output.result(&format!("{relay}: {}", if reachable { "answers" } else { "does not answer" }));
    match &standing {
        Some(Ok(standing)) => {
            output.result(&sign_in::line(standing));
            sign_in::tell(&session, standing, output);
        }
        Some(Err(error)) => output.result(&format!("not signed in: {error}")),
        None => {}
    }
    let all = here::all(args.kubeconfig_dir.as_deref()).await.map_err(Failure::failed)?;
    let (ours, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.is_at(&relay) || !one.tells());
    if ours.is_empty() {
        output.result("no server or client of this machine is there");
    }
    for one in &ours {
        one.tell(output);
    }
    if ours.iter().any(|one| !one.tells()) {
        output.warn("some are of an older release, which does not tell its relay: they may be at another one");
    }
    if let Some(others) = here::count(&others) {
        output.result(&format!("at other relays: {others}"));
    }
    answers.map_err(|error| dial::failure(&error))
}

/// Ends what this machine has at the relay, which need not answer for that.
async fn disconnect(args: EndArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let relay = dial::dialer(args.here.relay.relay_url, ca_file)?.url().to_string();
    let all = here::all(args.here.kubeconfig_dir.as_deref()).await.map_err(Failure::failed)?;
    let unknown = all.iter().filter(|one| !one.tells()).count();
    let here = here::at(&relay, all);
    match here::count(&here) {
        None => output.say(&format!("No server or client of this machine is at {relay}.")),
        Some(some) => {
            here::confirm(&format!("End {some} of this machine at {relay}?"), args.yes, output).await?;
            if !here::end(here, output).await {
                return Err(Failure::failed(format!("not all at {relay} have ended")));
            }
        }
    }
    if unknown > 0 {
        output.warn(&format!("{unknown} of an older release do not tell their relay, and were left alone"));
    }
    Ok(())
}
