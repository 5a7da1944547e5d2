//! The session behind the loopback port: pairing, the agent's welcome, and kubectl's connections.

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mykube_dial::{Abort, Coalescing, DialError, Dialer, ErrorClass, SocketLost, transport::tune_local};
use mykube_link::{
    Channel, ChannelStream, CopyError, End, PeerStatus, clock, copy,
    pair::{self, ClientFailure, ClientPairError, ClientPairing, HandshakeError},
};
use mykube_protocol::{
    PairingCode,
    channel::{Mode, Welcome},
    close::{self, Stage, Verdict, verdict},
    limits::STREAMS_MAX_ASKED,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use crate::{
    busy,
    guard::{Guard, GuardError},
    keepalive::Kept,
    port::Port,
};

/// How long the agent may take to tell of its cluster once the channel stands.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
/// How long connections have, once the session is over, to be given what has come for them. Programs that read are through at
/// once.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How long a pairing goes on that was stopped after the code was shown to be known: the other end may hold a session by then, and
/// is told that nobody comes. It is some round trips, and as long as the farewell itself may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long to wait after the system refused to accept a connection (out of descriptors, mostly).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The relay, or nothing waits under this code.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The code was not the right one: exit code 3.
    #[error(transparent)]
    Code(HandshakeError),
    /// The agent refused this attempt: exit code 3.
    #[error("the other end refused this code: retry only if you mistyped, else ask for a new code")]
    Refused,
    /// Pairing failed otherwise.
    #[error(transparent)]
    Pairing(#[from] ClientPairError),
    /// The words differ.
    #[error("the four words were not confirmed as equal, so nothing was sent: someone may be in the middle")]
    WordsDiffer,
    /// Words to compare and nobody to ask.
    #[error("the four words must be compared, and there is no terminal to ask at: run the client on a terminal")]
    NobodyToAsk,
    /// The channel ended before the agent told of its cluster.
    #[error("the session ended before it began: {0}")]
    Ended(End),
    /// The loopback port's certificates.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// By a signal, here.
    #[error("stopped by {0} before the session began")]
    Stopped(&'static str),
    /// Nothing came.
    #[error("the other end paired but told nothing of its cluster within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
}

impl ConnectError {
    /// Whether another code may help: wrong, expired, used or burned.
    #[must_use]
    pub fn is_code(&self) -> bool {
        match self {
            Self::Dial(error) => error.class() == ErrorClass::Code,
            Self::Code(HandshakeError::WrongCode) | Self::Refused => true,
            Self::Pairing(ClientPairError::Failure(ClientFailure::SecondHello)) => true,
            Self::Pairing(ClientPairError::Lost(lost)) => {
                verdict(lost.code(), Stage::ClientPairing) == Verdict::NewCode
            }
            _ => false,
        }
    }

    /// Whether the relay is out of reach, or what answers is none.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Dial(error) if error.class() == ErrorClass::Unreachable)
    }
}

/// The person, as a session sees one.
pub trait Ui {
    /// The code was right; both ends have the same keys.
    fn paired(&mut self);
    /// Whether these four words stand at the other end too; `None` where nobody can be asked.
    fn confirm_words(&mut self, words: &str) -> impl Future<Output = Option<bool>>;
}

/// A session whose agent has told of its cluster.
pub struct Session {
    channel: Channel,
    /// In guarded mode, what the loopback port asks for.
    guard: Option<Arc<Guard>>,
    /// What the agent said first.
    first: Arc<Welcome>,
}

/// Connections that may wait for their handshake, or for a stream's place and then be told that there is none; those
/// after them wait in the kernel.
const WAITING_MAX: usize = 64;

impl Session {
    /// Claims the code's nameplate, shows that the secret is known, and waits for the agent's welcome, or until `stop` gives a
    /// signal's name. Once paired, or where it may be, the other end is told of every failure: it would wait for this one
    /// otherwise.
    ///
    /// # Errors
    /// See [`ConnectError`]. A code is used up by one call.
    pub async fn connect(
        dialer: &Dialer,
        code: PairingCode,
        verify: bool,
        resume_window: Duration,
        port: &Port,
        ui: &mut impl Ui,
        stop: impl Future<Output = &'static str>,
    ) -> Result<Self, ConnectError> {
        tokio::pin!(stop);
        let shown = AtomicBool::new(false);
        let paired = async {
            let claim = dialer.pair(&code.nameplate).await?;
            let mut pairing = ClientPairing::new(clock::now(), claim.session_id, code, verify);
            pair::client(dialer, claim, &mut pairing, resume_window, &shown).await.map_err(pairing_failed)
        };
        tokio::pin!(paired);
        let (established, socket, reconnect) = tokio::select! {
            paired = &mut paired => paired?,
            name = &mut stop => {
                let stopped = ConnectError::Stopped(name);
                if shown.load(Ordering::Relaxed)
                    && let Ok(Ok((established, socket, reconnect))) = timeout(FAREWELL, paired).await
                {
                    Channel::start(*established, socket, reconnect).bye(&stopped.to_string()).await;
                }
                return Err(stopped);
            }
        };
        let (compares, mut agreed) = (established.verify, Ok(()));
        if compares {
            agreed = tokio::select! {
                said = ui.confirm_words(&established.words) => match said {
                    Some(true) => Ok(()),
                    Some(false) => Err(ConnectError::WordsDiffer),
                    None => Err(ConnectError::NobodyToAsk),
                },
                name = &mut stop => Err(ConnectError::Stopped(name)),
            };
        }
        let channel = Channel::start(*established, socket, reconnect);
        let begun = match agreed {
            Ok(()) => {
                ui.paired();
                let wait = if compares { Duration::from_secs(3600) } else { WELCOME_TIMEOUT };
                Self::begin(&channel, wait, port, stop).await
            }
            Err(error) => Err(error),
        };
        match begun {
            Ok((guard, first)) => Ok(Self { channel, guard, first }),
            Err(error) => {
                channel.bye(&error.to_string()).await;
                Err(error)
            }
        }
    }

    /// From the agent's first word: the loopback port's side, if it needs one.
    async fn begin(
        channel: &Channel,
        wait: Duration,
        port: &Port,
        stop: impl Future<Output = &'static str>,
    ) -> Result<(Option<Arc<Guard>>, Arc<Welcome>), ConnectError> {
        let mut welcomes = channel.welcome();
        let first = tokio::select! {
            first = timeout(wait, welcomes.wait_for(Option::is_some)) => match first {
                Ok(Ok(welcome)) => welcome.clone(),
                Ok(Err(_)) | Err(_) => None,
            },
            end = channel.ended() => return Err(ConnectError::Ended(end)),
            name = stop => return Err(ConnectError::Stopped(name)),
        };
        let first = first.ok_or(ConnectError::NoWelcome)?;
        let guard = match first.mode {
            Mode::Guarded => Some(Arc::new(Guard::new(port.host())?)),
            Mode::Shared => None,
        };
        Ok((guard, first))
    }

    /// What goes into the kubeconfig, as the agent said it first.
    #[must_use]
    pub fn welcome(&self) -> Arc<Welcome> {
        self.local(&self.first)
    }

    /// In guarded mode the kubeconfig is about the loopback port; in shared mode about the API server.
    fn local(&self, welcome: &Arc<Welcome>) -> Arc<Welcome> {
        match &self.guard {
            Some(guard) => Arc::new(guard.localise(welcome)),
            None => welcome.clone(),
        }
    }

    /// The agent's later words on its cluster, in the order of calls.
    #[must_use]
    pub fn news(&self) -> News<'_> {
        let mut welcomes = self.channel.welcome();
        // The first is known.
        welcomes.mark_unchanged();
        News { session: self, welcomes, last: self.first.clone() }
    }

    /// Whoever uses the session is stopped before it sees the session's end: [`Self::forward`] does not end by itself
    /// then, and the connections wait until it is dropped.
    pub(crate) fn hold(&self) {
        self.channel.hold();
    }

    /// Whoever was to be stopped first is: the connections of others end now.
    pub(crate) fn let_go(&self) {
        self.channel.let_go();
    }

    /// Carries the connections of `port` to the API server until the session ends. What a
    /// person should know of those that fail is told to `failures`.
    pub async fn forward(&self, port: Port, failures: mpsc::Sender<String>) -> End {
        let mut tasks = JoinSet::new();
        let mut refused = false;
        loop {
            tokio::select! {
                accepted = port.accept(), if tasks.len() < STREAMS_MAX_ASKED + WAITING_MAX => match accepted {
                    Ok(connection) => {
                        // Fails only on a connection that is gone already.
                        let _ = tune_local(&connection);
                        tasks.spawn(carry(self.channel.clone(), self.guard.clone(), connection, failures.clone()));
                    }
                    Err(error) => {
                        debug!(%error, "cannot accept");
                        if !std::mem::replace(&mut refused, true) {
                            let why = format!("no more connections can be taken ({error}): try again with `ulimit -n 4096`");
                            let _ = failures.try_send(why);
                        }
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
                Some((stream, _)) = self.channel.accept() => stream.fail("this client serves no streams"),
                end = self.channel.failed() => {
                    // What came for a connection before is still its own.
                    let _ = timeout(LAST_BYTES, async { while tasks.join_next().await.is_some() {} }).await;
                    tasks.shutdown().await;
                    return end;
                }
            }
        }
    }

    /// Whether the two ends hear each other, and every change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<PeerStatus> {
        self.channel.status()
    }

    /// How the session ended, once it has.
    pub async fn ended(&self) -> End {
        self.channel.ended().await
    }

    /// Leaves, and tells the other end so.
    pub async fn bye(&self, reason: &str) {
        self.channel.bye(reason).await;
    }
}

/// See [`Session::news`].
pub struct News<'s> {
    session: &'s Session,
    welcomes: watch::Receiver<Option<Arc<Welcome>>>,
    last: Arc<Welcome>,
}

impl News<'_> {
    /// The next word; never if there is none. Safe to cancel.
    pub async fn next(&mut self) -> Arc<Welcome> {
        loop {
            if self.welcomes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let newest = self.welcomes.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|newest| newest.mode == self.last.mode && *newest != self.last) {
                self.last = newest;
                return self.session.local(&self.last);
            }
        }
    }
}

/// One connection of kubectl's.
async fn carry(channel: Channel, guard: Option<Arc<Guard>>, connection: TcpStream, failures: mpsc::Sender<String>) {
    // A full queue means that the person is being told already.
    let tell = |what: String| drop(failures.try_send(what));
    let copied = match guard {
        None => match place(&channel).await {
            Ok(Some(stream)) => copy(connection, stream).await,
            Ok(None) => {
                tell(busy::NO_PLACE.to_owned());
                return connection.abort();
            }
            Err(_) => return connection.abort(),
        },
        Some(guard) => {
            // A stream is opened only for whoever has the certificate.
            let accepted = tokio::select! {
                accepted = guard.accept(connection) => accepted,
                _ = channel.failed() => return,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => return debug!(%error, "a connection without this session's certificate was refused"),
            };
            match place(&channel).await {
                Ok(Some(stream)) => {
                    let kept = Kept::new(Coalescing::new(connection), channel.status(), |status| !status.is_up());
                    copy(kept, stream).await
                }
                Ok(None) => {
                    tell(busy::NO_PLACE.to_owned());
                    return busy::refuse(connection).await;
                }
                Err(_) => return connection.abort(),
            }
        }
    };
    if let Err(error) = copied {
        debug!(%error, "connection ended early");
        if let CopyError::Refused(reason) = error {
            tell(format!("the API server cannot be reached through the other end: {}", reason.0));
        }
    }
}

/// A stream, or nothing where all stay in use while the two ends hear each other.
async fn place(channel: &Channel) -> Result<Option<ChannelStream>, End> {
    let opening = channel.open();
    tokio::pin!(opening);
    let mut status = channel.status();
    loop {
        match timeout(busy::PATIENCE, &mut opening).await {
            Ok(opened) => return opened.map(Some),
            Err(_) if status.borrow().is_up() => return Ok(None),
            // Whether there may be more is not answered meanwhile.
            Err(_) => tokio::select! {
                opened = &mut opening => return opened.map(Some),
                _ = status.wait_for(PeerStatus::is_up) => {}
            },
        }
    }
}

fn pairing_failed(error: ClientPairError) -> ConnectError {
    match error {
        ClientPairError::Failure(ClientFailure::Handshake(error)) => ConnectError::Code(error),
        ClientPairError::Lost(SocketLost::Closed { code: close::REFUSED, .. }) => ConnectError::Refused,
        ClientPairError::Dial(error) => ConnectError::Dial(error),
        other => ConnectError::Pairing(other),
    }
}
