//! The `mykube` command line. Parses, wires, prints; decides nothing.

mod access;
mod agents;
mod browser;
mod cli;
mod client;
mod dial;
mod doctor;
mod events;
mod exit;
mod here;
mod limits;
mod logs;
mod other_process;
mod outlet;
mod output;
mod prompt;
mod relay;
mod server;
mod sessions;
mod shell;
mod sign_in;
mod signals;
mod status;
mod waiting;

use std::{io::Write as _, process, thread, time::Duration};

use tokio::runtime::Builder;

use crate::{
    cli::{Cli, Command},
    exit::{ExitCode, Failure},
    output::Output,
};

/// Half of the processors: the other half is for the programs whose bytes these are. A session keeps one or two threads
/// busy, and on a machine with few processors, passing bytes between threads only makes all of them wait
/// (docs/decisions/0013).
fn threads() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// A command's end does not wait longer than this for what still runs: a name being resolved, an open question.
const LEFTOVERS: Duration = Duration::from_millis(100);

fn main() -> process::ExitCode {
    let Cli { command, global } = cli::parse();
    let output = match Output::new(&global) {
        Ok(output) => output,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot start: {error}");
            return ExitCode::Failed.into();
        }
    };
    let logs = match &command {
        Command::Relay(args) if args.is_node() => {
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
        // This thread only accepts connections; others serve them.
        Command::Relay(args) if args.is_node() => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(threads()).enable_all().build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(output, &Failure::failed(format!("cannot start: {error}"))),
    };
    let result = runtime.block_on(async {
        let result = match command {
            Command::Relay(args) => relay::run(*args, global.ca_file, output).await.map(|()| 0),
            Command::Server(args) => server::run(*args, global.ca_file, output).await.map(|()| 0),
            Command::Client(args) => client::run(args, global.ca_file, output).await,
            Command::Shell(args) => shell::run(args, output).await,
            Command::Sessions(args) => sessions::run(args, output).await.map(|()| 0),
            Command::Doctor(args) => doctor::run(args, global.ca_file, output).await.map(|()| 0),
            Command::Agents(args) => agents::run(args, global.ca_file, output).await.map(|()| 0),
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
        Err(failure) => failure.code.into(),
    }
}

fn fail(output: Output, failure: &Failure) -> process::ExitCode {
    output.error(&failure.message);
    output.wait(None);
    failure.code.into()
}

/// Buffers of bulk data are freed and allocated all the time. glibc returns free memory at the end of a heap to the
/// system as soon as it is more than twice the largest block that was ever freed, at most 64 MiB (mallopt(3),
/// `M_MMAP_THRESHOLD`). After this block of 4 MiB, which is never written to, it keeps 8 MiB. Otherwise returning the
/// same pages over and over takes a quarter of a sender's processor time.
fn keep_freed_memory() {
    const BLOCK: usize = 4 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
}
