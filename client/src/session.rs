//! The session behind the loopback port: pairing, the agent's welcome, and kubectl's connections.

use std::{sync::Arc, time::Duration};

use mykube_link::{
    Abort, Channel, CopyError, DialError, Dialer, End, Filling, Status, clock, copy,
    pair::{self, ClientFailure, ClientPairError, ClientPairing, HandshakeError, SocketLost},
    transport::tune_local,
};
use mykube_protocol::{
    PairingCode,
    channel::{Mode, Welcome},
    close,
    limits::STREAMS_MAX,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use crate::{
    guard::{Guard, GuardError},
    keepalive::Kept,
    port::Port,
};

/// How long the agent may take to tell of its cluster once the channel stands.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(20);
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
    /// Nothing came.
    #[error("the other end paired but told nothing of its cluster within {} s", WELCOME_TIMEOUT.as_secs())]
    NoWelcome,
}

impl ConnectError {
    /// Whether another code may help: wrong, expired, used or burned.
    #[must_use]
    pub fn is_code(&self) -> bool {
        match self {
            Self::Dial(error) => error.class() == mykube_link::ErrorClass::Code,
            Self::Code(HandshakeError::WrongCode) | Self::Refused => true,
            Self::Pairing(ClientPairError::Failure(ClientFailure::SecondHello)) => true,
            Self::Pairing(ClientPairError::Lost(lost)) => {
                lost.code().is_some_and(|code| [close::REFUSED, close::EXPIRED, close::NO_SESSION].contains(&code))
            }
            _ => false,
        }
    }

    /// Whether the relay is out of reach, or what answers is none.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Dial(error) if error.class() == mykube_link::ErrorClass::Unreachable)
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

/// Connections that may wait for a stream's place or for their handshake; those after them wait in the kernel.
const WAITING_MAX: usize = 64;

impl Session {
    /// Claims the code's nameplate, shows that the secret is known, and waits for the agent's welcome.
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
    ) -> Result<Self, ConnectError> {
        let claim = dialer.pair(&code.nameplate).await?;
        let mut pairing = ClientPairing::new(clock::now(), claim.session_id, code, verify);
        let (established, socket, rejoin) =
            pair::client(dialer, claim, &mut pairing, resume_window).await.map_err(pairing_failed)?;
        if established.verify {
            match ui.confirm_words(&established.words).await {
                Some(true) => {}
                Some(false) => return Err(ConnectError::WordsDiffer),
                None => return Err(ConnectError::NobodyToAsk),
            }
        }
        ui.paired();
        let wait = if established.verify { Duration::from_secs(3600) } else { WELCOME_TIMEOUT };
        let channel = Channel::start(*established, socket, rejoin);
        let mut welcomes = channel.welcome();
        let first = tokio::select! {
            first = timeout(wait, welcomes.wait_for(Option::is_some)) => match first {
                Ok(Ok(welcome)) => welcome.clone(),
                Ok(Err(_)) => None,
                Err(_) => return Err(ConnectError::NoWelcome),
            },
            end = channel.ended() => return Err(ConnectError::Ended(end)),
        };
        let first = first.ok_or(ConnectError::NoWelcome)?;
        let guard = match first.mode {
            Mode::Guarded => Some(Arc::new(Guard::new(port.host())?)),
            Mode::Shared => None,
        };
        Ok(Self { channel, guard, first })
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
    pub fn hold(&self) {
        self.channel.hold();
    }

    /// Carries the connections of `port` to the API server until the session ends. A stream's failure is told to
    /// `failures` in the other end's words.
    pub async fn forward(&self, port: Port, failures: mpsc::Sender<String>) -> End {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = port.accept(), if tasks.len() < STREAMS_MAX + WAITING_MAX => match accepted {
                    Ok(connection) => {
                        // Fails only on a connection that is gone already.
                        let _ = tune_local(&connection);
                        tasks.spawn(carry(self.channel.clone(), self.guard.clone(), connection, failures.clone()));
                    }
                    Err(error) => {
                        debug!(%error, "cannot accept");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
                Some((stream, _)) = self.channel.accept() => stream.fail("this client serves no streams"),
                end = self.channel.ended() => {
                    if self.channel.is_held() {
                        return std::future::pending().await;
                    }
                    tasks.shutdown().await;
                    return end;
                }
            }
        }
    }

    /// Whether the two ends hear each other, and every change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
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

/// One connection of kubectl's. At 256 streams it waits for a place.
async fn carry(channel: Channel, guard: Option<Arc<Guard>>, connection: TcpStream, failures: mpsc::Sender<String>) {
    let copied = match guard {
        None => match channel.open().await {
            Ok(stream) => copy(connection, stream).await,
            Err(_) => return connection.abort(),
        },
        Some(guard) => {
            // A stream is opened only for whoever has the certificate.
            let connection = match guard.accept(connection).await {
                Ok(connection) => connection,
                Err(error) => return debug!(%error, "a connection without this session's certificate was refused"),
            };
            let connection = Kept::new(Filling::new(connection), channel.status(), |status| !status.is_up());
            match channel.open().await {
                Ok(stream) => copy(connection, stream).await,
                Err(_) => return connection.abort(),
            }
        }
    };
    if let Err(error) = copied {
        debug!(%error, "connection ended early");
        if let CopyError::Refused(reason) = error {
            // A full queue means that the person is being told already.
            let _ = failures.try_send(reason.0);
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
