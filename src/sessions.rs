//! `mykube sessions`: the operator's questions to this user's running servers.

use std::path::PathBuf;

use mykube_agent::{
    control_socket::{self, About, Answer, ListedClient, Question, Review, Socket},
    serve::Command,
};
use tokio::sync::mpsc;

use crate::{
    access::summary,
    cli::{SessionsArgs, SessionsCommand},
    events::JsonEvent,
    exit::Failure,
    output::Output,
};

/// How many questions may wait for the server.
const WAITING: usize = 4;

/// Opens this server's socket. Without it a server works, but cannot be asked.
pub(crate) fn open(about: About, review: Review, output: Output) -> mpsc::Receiver<Command> {
    let (sender, commands) = mpsc::channel(WAITING);
    match Socket::open() {
        Ok(socket) => drop(tokio::spawn(socket.serve(about, sender, review))),
        Err(error) => output.warn(&format!("`mykube sessions` will not see this server: {error}")),
    }
    commands
}

/// `mykube sessions [list | kill ID | new]`.
pub(crate) async fn run(args: SessionsArgs, output: Output) -> Result<(), Failure> {
    let servers = control_socket::servers().await.map_err(Failure::failed)?;
    let command = args.command.unwrap_or(SessionsCommand::List);
    if matches!(command, SessionsCommand::List) {
        // If a server is named, it must exist: a pod's probe asks for its own.
        if args.server.is_some() {
            choose(&servers, args.server)?;
        }
        for (pid, socket) in servers.iter().filter(|(pid, _)| args.server.is_none_or(|wanted| wanted == *pid)) {
            match control_socket::ask(socket, &Question::List {}).await.map_err(Failure::failed)? {
                Answer::Clients { clients } => list(*pid, &clients, output),
                other => return Err(unexpected(other)),
            }
        }
        if servers.is_empty() {
            output.say("No server of yours runs here.");
        }
        return Ok(());
    }
    let socket = choose(&servers, args.server)?;
    let question = match command {
        SessionsCommand::Kill { id } => Question::Kill { id },
        SessionsCommand::New { name, policy } => Question::New { name, policy: Box::new(policy.policy()?) },
        SessionsCommand::List => Question::List {},
    };
    match control_socket::ask(&socket, &question).await.map_err(Failure::failed)? {
        Answer::Killed => output.say("It is being ended."),
        Answer::Code { code, warnings, .. } => {
            for warning in warnings {
                output.warn(&warning);
            }
            let digits: String = code.chars().filter(char::is_ascii_digit).collect();
            output.show("Code: ", &code);
            output.event(&JsonEvent::Invited { code: &digits });
        }
        other => return Err(unexpected(other)),
    }
    Ok(())
}

fn list(server: u32, clients: &[ListedClient], output: Output) {
    for ListedClient { id, name, state, since, policy } in clients {
        let seconds = since.elapsed().unwrap_or_default().as_secs();
        let may = summary(policy);
        output.event(&JsonEvent::Session { server, id: *id, name, state, seconds, may: &may });
        output.result(&format!("{server:>8} {id:>4}  {name:<20} {state:<9} {:>8}  {may}", span(seconds)));
    }
}

/// `2h05m`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn choose(servers: &[(u32, PathBuf)], wanted: Option<u32>) -> Result<PathBuf, Failure> {
    let mut fitting = servers.iter().filter(|(pid, _)| wanted.is_none_or(|wanted| wanted == *pid));
    match (fitting.next(), fitting.next()) {
        (Some((_, socket)), None) => Ok(socket.clone()),
        (None, _) => Err(Failure::failed("no such server of yours runs here: start one with `mykube server`")),
        (Some(_), Some(_)) => {
            let pids: Vec<_> = servers.iter().map(|(pid, _)| pid.to_string()).collect();
            Err(Failure::usage(format!("several servers run here: choose one with --server ({})", pids.join(", "))))
        }
    }
}

fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Error { error } => Failure::failed(error),
        _ => Failure::failed("the server answered something else: use the same release of mykube"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([5, 65, 7505].map(span), ["5s", "1m05s", "2h05m"]);
    }
}
