//! The `lab` command: a network, a proxy, a target or load, held until its input or a signal ends it.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{load, net, proxy, serve, sessions, sign_ins, stand_in};

/// Networks with delay, loss and cuts, and load, for the tests and the benchmark.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Network namespaces in a row, joined by lines with delay, rate and loss (root)
    Net(net::Args),
    /// A TCP forwarder or HTTP CONNECT proxy that cuts, pauses or slows connections
    Proxy(proxy::Args),
    /// The target of the load: echo, sink and source on one port
    Serve(serve::Args),
    /// Certificates for a relay or `lab api`
    Certs(stand_in::CertsArgs),
    /// In the API server's place: HTTPS requests become connections to the target
    Api(stand_in::ApiArgs),
    /// In kubectl's place: connections become requests through a client's kubeconfig
    User(stand_in::UserArgs),
    /// Load through a tunnel, measured; JSON on standard output
    Load(load::Args),
    /// Many sessions at a relay, and what ended ones leave behind; JSON on standard output
    Sessions(sessions::Args),
    /// Sign-ins, refreshes and calls a second at a relay in dev mode; JSON on standard output
    SignIns(sign_ins::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Net(args) => net::run(&args),
        Command::Proxy(args) => proxy::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Certs(args) => stand_in::certs(&args),
        Command::Api(args) => stand_in::api(&args),
        Command::User(args) => stand_in::user(&args),
        Command::Load(args) => load::run(&args),
        Command::Sessions(args) => sessions::run(&args),
        Command::SignIns(args) => sign_ins::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
