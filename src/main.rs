//! The front door: the `mykube` command line. Parses, wires, prints; decides nothing.

mod access;
mod cli;
mod client;
mod control;
mod dial;
mod doctor;
mod events;
mod exit;
mod limits;
mod logs;
mod outlet;
mod output;
mod prompt;
mod relay;
mod server;
mod shell;
mod sign_in;
mod signals;
mod status;
mod waiting;

use std::{io::Write as _, process::ExitCode, thread, time::Duration};

use tokio::runtime::Builder;

use crate::{
    cli::{Cli, Command},
    exit::{Failure, Status},
    output::Output,
};

/// Half of the processors: the other half is for those whose bytes these are. A session is work for one or two threads, and
/// where processors are few one that passes bytes to the next only makes all of them wait (docs/decisions/0013).
fn threads() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// What is still running when a command has ended (a name being resolved, a question nobody answers) is not waited for.
const LEFTOVERS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let Cli { command, global } = cli::parse();
    let output = match Output::new(&global) {
        Ok(output) => output,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot start: {error}");
            return Status::Failed.into();
        }
    };
    let logs = match &command {
        Command::Relay(args) => {
            mykube_relay::logs::init(args.log_format, i16::from(global.verbose) - i16::from(global.quiet))
        }
        _ => {
            keep_freed_memory();
            logs::start(global.verbose, output.color)
        }
    };
    let _logs = match logs {
        Ok(logs) => logs,
        Err(error) => return fail(output, &Failure::failed(format!("cannot start: {error}"))),
    };
    for (name, meant) in cli::unread(std::env::vars_os()) {
        let hint = meant.map(|meant| format!(": did you mean {meant}?")).unwrap_or_default();
        output.warn(&format!("{name} is set, and nothing reads it{hint}"));
    }
    if let Err(error) = mykube_client::harden::forbid_dumps() {
        output.warn(&format!("this process may be dumped by a debugger: {error}"));
    }
    let runtime = match &command {
        // It only takes connections in; others carry them.
        Command::Relay(_) => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads()).enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(output, &Failure::failed(format!("cannot start: {error}"))),
    };
    let result = runtime.block_on(async {
        let result = match command {
            Command::Relay(args) => relay::run(*args, output).await.map(|()| 0),
            Command::Server(args) => server::run(*args, global.ca_file, output).await.map(|()| 0),
            Command::Client(args) => client::run(args, global.ca_file, output).await,
            Command::Shell(args) => shell::run(args, output).await,
            Command::Sessions(args) => control::run(args, output).await.map(|()| 0),
            Command::Doctor(args) => doctor::run(args, global.ca_file, output).await.map(|()| 0),
            Command::Login(args) => sign_in::log_in(args, global.ca_file, output).await.map(|()| 0),
            Command::Whoami(args) => sign_in::who_am_i(args, global.ca_file, output).await.map(|()| 0),
            Command::Logout(args) => sign_in::log_out(args, global.ca_file, output).await.map(|()| 0),
            Command::Completions { shell } => {
                cli::completions(shell, &mut std::io::stdout());
                Ok(0)
            }
        };
        output.finish(result, signals::first()).await
    });
    runtime.shutdown_timeout(LEFTOVERS);
    match result {
        Ok(code) => code.into(),
        Err(failure) => failure.status.into(),
    }
}

fn fail(output: Output, failure: &Failure) -> ExitCode {
    output.error(&failure.message);
    output.wait(None);
    failure.status.into()
}

/// Buffers of bulk are freed and taken again all the time. glibc returns what is free at the end of a heap to the system
/// as soon as it is more than twice the largest block that was ever freed, at most 64 MiB (mallopt(3),
/// `M_MMAP_THRESHOLD`): with one of 4 MiB, which nobody touches, it is not the same pages over and over. A quarter of a
/// sender's processor time otherwise.
fn keep_freed_memory() {
    const BLOCK: usize = 4 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}
