//! `mykube server`: codes on the screen, clients, and their streams to the API server.
//!
//! One task a client: it waits with a code (`pairing`), then serves the channel (`visit`). The desk (`desk`)
//! knows them all, keeps one code waiting while there is a place (`places`), and does what the operator asks for. What
//! the tasks have to say or to ask reaches the operator through one queue. Questions are put one at a time, and nothing
//! else waits for their answers.

mod command;
mod config;
mod desk;
mod dismiss;
mod error;
mod front;
mod offer;
mod pairing;
mod places;
mod ui;
mod visit;

use mykube_dial::Dialer;
use tokio::sync::mpsc;

pub use command::{Command, Invitation, Listed, State};
pub use config::{
    BURNED_BACKOFF, BURNED_BACKOFF_MAX, BURNED_MAX, Config, MAX_CLIENTS, RECONNECT, RECONNECT_MAX, REPLACE_AFTER,
};
pub use error::{Ended, ServeError};
pub use offer::{Access, Offer};
pub use ui::{Absent, Answer, Event, Ui};

/// Serves clients until `stop`; without [`Config::stay`] until the first one has left. `commands` are the operator's.
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
    // Before a code is shown: what cannot be used should not cost anybody a pairing.
    match offer.access {
        Access::Shared => drop(offer.upstream.shared_welcome().await?),
        Access::Guarded(_) => drop(offer.upstream.credentials.current().await?),
    }
    desk::Desk::new(dialer.clone(), offer, config).run(commands, ui, stop).await
}
