//! Why somebody is not signed in, and what to do.

use std::{io, path::PathBuf, time::Duration};

use mykube_dial::DialError;

/// What failed. It holds no token.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The relay was not reached, or did not answer as one.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Nobody signed in here.
    #[error("you are not signed in at {0}: `mykube login`")]
    NotSignedIn(String),
    /// Whoever runs the relay, or another of one's own programs, ended it.
    #[error("the relay {0} does not know this sign-in any more (it has ended, or was ended): `mykube login`")]
    Ended(String),
    /// What was shown to sign in is not good.
    #[error("the relay {relay} refuses: {reason}")]
    Refused {
        /// Its address.
        relay: String,
        /// In its words.
        reason: String,
    },
    /// What a browser brought is not good at the relay.
    #[error(
        "the relay {relay} refuses: {reason}. Codes are good once and for a minute: `mykube login` begins anew. If it says so \
         again, the relay knows itself by another address than this one (`public_url` and `aliases` in its relay.toml)"
    )]
    NotExchanged {
        /// Its address.
        relay: String,
        /// In its words.
        reason: String,
    },
    /// Whoever sat at the browser, the provider or the relay said no there.
    #[error("the sign-in was not finished in the browser: {0}")]
    Declined(String),
    /// Nobody finished it.
    #[error("nobody signed in within {minutes} minutes: `mykube login` begins anew", minutes = .0.as_secs() / 60)]
    TooLate(Duration),
    /// The code is over.
    #[error(
        "this code is over: nobody confirmed it in time, or its answer was lost on the way. `mykube login --device` begins anew"
    )]
    CodeOver,
    /// Somebody said no.
    #[error("whoever was asked to confirm this code said no")]
    Denied,
    /// A signal came.
    #[error("stopped before anybody was signed in: nothing has changed")]
    Stopped,
    /// No port of this machine's could be had.
    #[error("cannot wait for the browser on a port of 127.0.0.1 ({0}): `mykube login --device` needs none")]
    Listen(io::Error),
    /// A provider's name is a part of an address.
    #[error("a provider's name has lower-case letters, digits, - and _ only, as the relay's relay.toml names it")]
    Provider,
    /// This way in is newer than the relay, or turned off there.
    #[error(
        "one cannot {what} at the relay {relay}: it is too old for that, or has no such way in; see `mykube login --help` for others"
    )]
    TooOld {
        /// Its address.
        relay: String,
        /// What one cannot do.
        what: &'static str,
    },
    /// Standard input was no token that a sign-in can be made of.
    #[error("{0}")]
    NoToken(&'static str),
    /// Tokens go to the relay that made them.
    #[error("this token is of the relay {issuer}, and is not sent to {relay}: give its own address with --relay-url")]
    OtherRelay {
        /// The token's.
        issuer: String,
        /// The one that is meant.
        relay: String,
    },
    /// Of another class.
    #[error("this is a token of class `{0}`: only one of class `mykube` signs in here; `mykube login` makes one")]
    Class(String),
    /// A token that was brought, and cannot be renewed.
    #[error("the token that was signed in with at {0} has ended, and cannot be renewed: `mykube login`")]
    TokenOver(String),
    /// This machine's key for the relay was replaced meanwhile.
    #[error("{path} was replaced during the sign-in: `mykube login` begins anew", path = path.display())]
    KeyReplaced {
        /// The file.
        path: PathBuf,
    },
    /// Where nothing can be kept, nothing is renewed: the old token would be worth nothing, and the new one lost.
    #[error(
        "the token has to be renewed, and its successor cannot be kept: {0}. Make that place writable, or name another by \
         XDG_CONFIG_HOME and `mykube login` there"
    )]
    NotRenewed(Box<SignInError>),
    /// The relay did not end it.
    #[error("the sign-in has not ended, and is kept: {reason}; to forget it on this machine alone, delete {path}", path = path.display())]
    NotEnded {
        /// Its credentials.
        path: PathBuf,
        /// Why.
        reason: Box<SignInError>,
    },
    /// The relay is one of codes only.
    #[error("the relay {0} has no accounts: codes work there without signing in")]
    NoAccounts(String),
    /// A relay in dev mode is on its user's machine.
    #[error("dev mode is of a relay on this machine (http://127.0.0.1:8000, say): its secret is not sent to {0}")]
    DevFarAway(String),
    /// Refresh tokens are signed for an address, and this is none of the relay's.
    #[error(
        "this relay calls itself {known}, not {used}: use that with --relay-url, or have {used} added to `aliases` in its relay.toml"
    )]
    OtherName {
        /// Its own.
        known: String,
        /// The one that was dialed.
        used: String,
    },
    /// A file of the sign-in.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process of the user's has it.
    #[error("another mykube of yours has held {path} for half a minute: try again when it is done, or end it", path = path.display())]
    Busy {
        /// The lock's file.
        path: PathBuf,
    },
    /// Others could sign in with it.
    #[error("other users may read {path} (mode {mode:o}): run `chmod 600 {path}`, or have it replaced by `mykube logout`, which reads it all the same, and `mykube login`", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user made it.
    #[error("{path} belongs to another user (uid {owner}): delete it, then `mykube login`", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// A directory or pipe, say.
    #[error("{path} is no regular file (or a link to one): delete it, then `mykube login`", path = path.display())]
    NoFile {
        /// What is there.
        path: PathBuf,
    },
    /// Not what this program wrote.
    #[error("{path} is damaged: delete it, then `mykube login`", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// `config.toml` was edited, and is not what this program reads.
    #[error("{path}:{line}: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}
