//! The operator, as the server sees one.

use std::{pin::Pin, time::Duration};

use mykube_dial::SocketLost;
use mykube_link::pair::{HandshakeError, Spent};
use zeroize::Zeroizing;

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
