//! `mykube relay`.

use mykube_relay::{Event, RelayError};

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
    mykube_relay::run(args.relay, announce).await.map_err(|error| {
        let code = if matches!(error, RelayError::Usage(_)) { ExitCode::Usage } else { ExitCode::Failed };
        Failure::new(code, error)
    })
}
