//! `mykube server`: codes on the screen, clients, and their streams to the API server.
//!
//! One task a client: it waits with a code (`pairing`), then serves the channel (`visit`). The desk (`desk`)
//! knows them all, keeps one code waiting while there is a place (`places`), and does what the operator asks for. What
//! the tasks have to say or to ask reaches the operator through one queue. Questions are put one at a time, and nothing
//! else waits for their answers.

mod desk;
mod dismiss;
mod front;
mod pairing;
mod places;
mod visit;

use std::{pin::Pin, sync::Arc, time::Duration};

use mykube_agent_upstream::{KubeconfigError, Upstream};
use mykube_dial::{DialError, Dialer, SocketLost};
use mykube_link::{
    End,
    pair::{HandshakeError, Spent},
};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

pub use desk::{Command, Invitation, Listed, State};

use mykube_agent_gateway::Gateway;

/// An unattended agent waits this long before a new code after a burned one, doubling ...
pub const BURNED_BACKOFF: Duration = Duration::from_secs(60);
/// ... up to this ...
pub const BURNED_BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// ... and stops after so many burned codes: somebody is guessing.
pub const BURNED_MAX: u32 = 100;
/// While a code waits, a lost relay is dialled again after this long, doubling up to [`REDIAL_MAX`].
pub const REDIAL: Duration = Duration::from_millis(100);
/// See [`REDIAL`].
pub const REDIAL_MAX: Duration = Duration::from_secs(1);
/// Clients at once, unless `--max-clients` says otherwise.
pub const MAX_CLIENTS: usize = 1;
/// How long a client may be away before another may take its place, unless `--replace-after` says otherwise.
pub const REPLACE_AFTER: Duration = Duration::from_secs(60);

/// Settings of a server.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long a code waits to be typed.
    pub code_ttl: Duration,
    /// Compare four words before any data passes.
    pub verify: bool,
    /// Somebody sits at a terminal and can be asked.
    pub attended: bool,
    /// See [`BURNED_BACKOFF`].
    pub burned_backoff: Duration,
    /// Clients at once, waiting codes included.
    pub max_clients: usize,
    /// Show a new code when a client has left, instead of ending with it.
    pub stay: bool,
    /// How long a session outlives its connection.
    pub resume_window: Duration,
    /// When all places are taken and a client has been away for so long, a code is shown with which another can take its
    /// place. Never with `None`.
    pub replace_after: Option<Duration>,
}

/// What clients get.
#[derive(Clone)]
pub enum Access {
    /// The kubeconfig's credentials, and TCP to the API server.
    Shared,
    /// Requests that the agent makes for them, each under its own policy.
    Guarded(Gateway),
}

/// What the operator hears.
#[derive(Debug)]
pub enum Event {
    /// A code to pass on.
    Code {
        /// As shown to people, `483 20417`.
        code: Zeroizing<String>,
        /// How long it waits.
        expires_in: Duration,
        /// Who loses its place to whoever types it.
        instead_of: Option<Absent>,
    },
    /// The code is of no use any more: the client in whose stead it was is back.
    Withdrawn,
    /// Somebody is trying it.
    Attempt,
    /// And did not know it.
    Refused {
        /// What was wrong.
        why: HandshakeError,
        /// Wrong codes that it still stands.
        left: u32,
    },
    /// The code is spent without a pairing.
    Spent(Spent),
    /// The code is of no use any more, in the relay's words.
    CodeLost(SocketLost),
    /// The relay is out of reach while a code waits; it is dialled again.
    RelayLost(String),
    /// It is back, and the code waits as before.
    RelayBack,
    /// A burned code: the next one comes after this long.
    BackingOff(Duration),
    /// A client is in.
    Paired,
    /// The connection to it is lost; its session waits.
    Lost(String),
    /// It is back after so long, and nothing was lost.
    Back(Duration),
    /// It has left, by its own word or not.
    ClientGone(String),
    /// A stream could not be served; the client has heard it too.
    StreamFailed(String),
}

/// A client that is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its name.
    pub client: String,
    /// For how long.
    pub lasting: Duration,
}

/// The operator's answer to a question, waited for beside everything else. Dropped, it is not wanted any more.
pub type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The operator, as the server sees one. `client` is the client's name. No call waits for anything.
pub trait Ui {
    /// Something happened.
    fn event(&mut self, client: &str, event: Event);
    /// Whether these four words stand at the other end too. Only asked of an attended server.
    fn confirm_words(&mut self, client: &str, words: &str) -> Answer;
    /// Whether to make another code after one was burned. Only asked of an attended server.
    fn another_code(&mut self) -> Answer;
}

/// Why a server ended, when not by its client's or its operator's word.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The relay.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The kubeconfig or its credentials.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// The operator wanted no other code after a burned one.
    #[error("the code was burned, and no new one was wanted")]
    Burned,
    /// Too many burned codes, unattended.
    #[error("{BURNED_MAX} codes were burned by wrong guesses: somebody is guessing; start again when you know who")]
    Guessing,
    /// The words differ, or nobody could say.
    #[error("the four words were not confirmed as equal, so nothing was shared: someone may be in the middle")]
    WordsDiffer,
    /// Words to compare and nobody to compare them.
    #[error("the four words must be compared, and there is no terminal to ask at: start the server on a terminal")]
    NobodyToAsk,
    /// The session was lost: exit code 5.
    #[error("the session is lost: {0}; start both ends again with a new code")]
    Lost(End),
    /// Nothing is done that cannot be written down.
    #[error("the audit log takes no more lines: is its disk full?")]
    Audit,
    /// The welcome cannot be sent.
    #[error("{0}")]
    Welcome(String),
}

/// How a server, or one client's visit, ended well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The client said bye.
    #[error("{0}")]
    Client(String),
    /// `stop` came.
    #[error("the server was stopped")]
    Stopped,
    /// The operator ended this client, or its time was over.
    #[error("{0}")]
    Dismissed(String),
}

/// What a server offers, and to whom first.
pub struct Offer {
    /// The API server.
    pub upstream: Arc<Upstream>,
    /// How clients use it.
    pub access: Access,
    /// Whom the standing code is for.
    pub standing: Invitation,
}

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
