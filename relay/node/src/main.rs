//! `mykube-relay`: the relay alone, for a server that runs nothing else of mykube.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;
use mykube_relay::{
    Event,
    logs::{self, LogFormat},
};
use mykube_relay_node::{NodeArgs, NodeCommand};

/// mykube's public relay: joins two sockets it cannot read.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  mykube-relay --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem")]
struct Cli {
    #[command(flatten)]
    node: NodeArgs,
    #[command(subcommand)]
    command: Option<NodeCommand>,
    /// What standard output is for: a person, or one JSON object a line
    #[arg(long, env = "MYKUBE_OUTPUT", value_enum, default_value = "text")]
    output: Output,
    /// The form of the log lines on standard error
    #[arg(long, env = "MYKUBE_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Log more (repeat for more still)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log less
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logs = match logs::init(cli.log_format, i16::from(cli.verbose) - i16::from(cli.quiet)) {
        Ok(logs) => logs,
        Err(error) => {
            eprintln!("mykube-relay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // This thread only accepts connections; the relay's workers serve them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("mykube-relay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(mykube_relay_node::run(cli.node, cli.command, |event| announce(&event, cli.output))) {
        Ok(done) => {
            if let Some(done) = done {
                let _ = writeln!(std::io::stderr(), "{done}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mykube-relay: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

/// Errors of writing are ignored: the relay goes on without a reader of its output.
fn announce(event: &Event, output: Output) {
    match (output, event) {
        (Output::Json, event) => {
            if let Ok(line) = serde_json::to_string(event) {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
        (Output::Text, event) => {
            let _ = writeln!(std::io::stderr(), "{}", event.text());
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn it_asks_nothing_of_other_relays() {
        let command = Cli::command();
        for of_mykube in ["status", "disconnect"] {
            assert!(command.find_subcommand(of_mykube).is_none(), "{of_mykube}");
        }
    }
}
