//! `mykube relay`.

use mykube_relay::Event;

use crate::{
    cli::RelayCommand,
    events::JsonEvent,
    exit::{ExitCode, Failure},
    output::Output,
};

pub(crate) async fn run(args: RelayCommand, output: Output) -> Result<(), Failure> {
    let announce = |event: Event| {
        output.say(&event.text());
        output.event(&JsonEvent::Relay(&event));
    };
    let done = mykube_relay_node::run(args.node, announce).await.map_err(|error| {
        let code = if error.is_usage() { ExitCode::Usage } else { ExitCode::Failed };
        Failure::new(code, error)
    })?;
    if let Some(done) = done {
        output.say(&done);
    }
    Ok(())
}
