//! `mykube relay`.

use mykube_relay::Event;

use crate::{
    cli::RelayCommand,
    events::JsonEvent,
    exit::{Failure, Status},
    output::Output,
};

pub(crate) async fn run(args: RelayCommand, output: Output) -> Result<(), Failure> {
    let announce = |event: Event| {
        output.say(&event.text());
        output.event(&JsonEvent::Relay(&event));
    };
    let done = mykube_relay_node::run(args.node, announce).await.map_err(|error| {
        let code = if error.is_usage() { Status::Usage } else { Status::Failed };
        Failure::new(code, error)
    })?;
    if let Some(done) = done {
        output.say(&done);
    }
    Ok(())
}
