//! `mykube server`: codes on the screen, clients, and their streams to the API server.
//!
//! One task a client: it waits with a code (`pairing`), then serves the channel (`client`). `clients` knows them all,
//! keeps one code waiting while a slot is free (`slots`), and does what the operator asks for. The tasks' events and
//! questions reach the operator through one queue (`operator`). Questions are put one at a time, and nothing else waits
//! for their answers.

mod client;
mod clients;
mod command;
mod config;
mod error;
mod eviction;
mod offer;
mod operator;
mod pairing;
mod slots;
mod ui;

use mykube_dial::Dialer;
use tokio::sync::mpsc;

pub use command::{Command, Invitation, Listed, State};
pub use config::{
    BURNED_BACKOFF, BURNED_BACKOFF_MAX, BURNED_MAX, Config, MAX_CLIENTS, RECONNECT, RECONNECT_MAX, REPLACE_AFTER,
};
pub use error::{Ended, ServeError};
pub use offer::{Access, Offer};
pub use ui::{Absent, Answer, Event, Ui};

/// Serves clients until `stop` resolves; without [`Config::stay`] until the first client has left. `commands` are the
/// operator's.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    dialer: &Dialer,
    offer: Offer,
    config: Config,
    commands: mpsc::Receiver<Command>,
    ui: &mut impl Ui,
    stop: impl Future<Output = ()>,
) -> Result<Ended, ServeError> {
    // Before a code is shown: credentials that cannot be used should not cost anybody a pairing.
    match offer.access {
        Access::Shared => drop(offer.upstream.shared_welcome().await?),
        Access::Guarded(_) => drop(offer.upstream.credentials.current().await?),
    }
    clients::Clients::new(dialer.clone(), offer, config).run(commands, ui, stop).await
}
