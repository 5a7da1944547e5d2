//! The operator, as the server sees one.

use std::{pin::Pin, time::Duration};

use mykube_dial::SocketLost;
use mykube_link::pair::{HandshakeError, Spent};
use zeroize::Zeroizing;

/// What the operator is told.
#[derive(Debug)]
pub enum Event {
    /// A code to pass on.
    Code {
        /// As shown to people, `483 20417`.
        code: Zeroizing<String>,
        /// How long it waits.
        expires_in: Duration,
        /// The client that this code replaces, if it does.
        instead_of: Option<Absent>,
    },
    /// The code is of no use any more: the client that it was to replace is back.
    Withdrawn,
    /// A client is pairing with the code.
    Attempt,
    /// It did not know the code.
    Refused {
        /// What was wrong.
        why: HandshakeError,
        /// Wrong guesses that the code still survives.
        left: u32,
    },
    /// The code is spent without a pairing.
    Spent(Spent),
    /// The code is of no use any more, in the relay's words.
    CodeLost(SocketLost),
    /// The relay is out of reach while a code waits; it is dialled again.
    RelayLost(String),
    /// The relay is back, and the code waits as before.
    RelayBack,
    /// A burned code: the next one comes after this long.
    BackingOff(Duration),
    /// A client has paired.
    Paired,
    /// The connection to the client is lost; its session waits.
    Lost(String),
    /// The client is back after this long, and nothing was lost.
    Back(Duration),
    /// The client has left or was lost, for this reason.
    ClientGone(String),
    /// A stream could not be served; the client is told too.
    StreamFailed(String),
}

/// A client that is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// Its name.
    pub client: String,
    /// How long it has been away.
    pub lasting: Duration,
}

/// The operator's answer to a question, awaited beside everything else. Drop it when it is no longer wanted.
pub type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The operator, as the server sees one. `client` is the client's name. No call blocks.
pub trait Ui {
    /// Something happened.
    fn event(&mut self, client: &str, event: Event);
    /// Whether these four words stand at the other end too. Only asked of an attended server.
    fn confirm_words(&mut self, client: &str, words: &str) -> Answer;
    /// Whether to make another code after one was burned. Only asked of an attended server.
    fn another_code(&mut self) -> Answer;
}
