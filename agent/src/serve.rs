//! `mykube server`: a code on the screen, one client, its streams to the API server.

use std::{sync::Arc, time::Duration};

use mykube_link::{
    Channel, ChannelStream, DialError, Dialer, End, RelaySocket, clock, copy,
    pair::{self, AgentEvent, AgentOutcome, AgentPairing, Established, HandshakeError, SocketLost, Spent},
};
use mykube_protocol::{PairingCode, Role, Secret, close, http::SessionCreated};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tracing::{debug, info};
use zeroize::Zeroizing;

use crate::{Credentialer, KubeconfigError, Upstream};

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
/// Said to a client that asks for anything but the API server.
const NOT_ALLOWED: &str = "target not allowed";

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
    },
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
    /// A burned code: the next one comes after this long.
    BackingOff(Duration),
    /// A client is in.
    Paired,
    /// It has left.
    ClientGone,
    /// A stream could not be served; the client has heard it too.
    StreamFailed(String),
}

/// The operator, as the server sees one.
pub trait Ui {
    /// Something happened.
    fn event(&mut self, event: Event);
    /// Whether these four words stand at the other end too. Only asked of an attended server.
    fn confirm_words(&mut self, words: &str) -> impl Future<Output = bool>;
    /// Whether to make another code after one was burned. Only asked of an attended server.
    fn another_code(&mut self) -> impl Future<Output = bool>;
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
    #[error(
        "{BURNED_MAX} codes in a row were burned by wrong guesses: somebody is guessing; start again when you know who"
    )]
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
    /// The welcome cannot be sent.
    #[error("{0}")]
    Welcome(String),
}

/// How a server ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The client said bye.
    Client(String),
    /// `stop` came.
    Stopped,
}

/// Waits for a client and serves it until it leaves, or until `stop`.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    dialer: &Dialer,
    upstream: Arc<Upstream>,
    config: Config,
    ui: &mut impl Ui,
    stop: impl Future<Output = ()>,
) -> Result<Ended, ServeError> {
    let mut credentials = Credentialer::new(upstream.clone());
    // Before a code is shown: what cannot be shared should not cost anybody a pairing.
    credentials.welcome().await?;
    tokio::pin!(stop);
    let (established, socket) = tokio::select! {
        paired = Pairing { dialer, config, wrong: 0, burned: 0 }.run(ui) => paired?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    if established.verify {
        if !config.attended {
            return Err(ServeError::NobodyToAsk);
        }
        let agreed = tokio::select! {
            agreed = ui.confirm_words(&established.words) => agreed,
            () = &mut stop => return Ok(Ended::Stopped),
        };
        if !agreed {
            return Err(ServeError::WordsDiffer);
        }
    }
    ui.event(Event::Paired);
    let channel = Channel::start(*established, socket);
    let ended = streams(&channel, upstream, &mut credentials, ui, stop).await;
    if matches!(ended, Ok(Ended::Client(_)) | Err(ServeError::Lost(_))) {
        ui.event(Event::ClientGone);
    }
    ended
}

/// Serves the channel's streams until it ends.
async fn streams(
    channel: &Channel,
    upstream: Arc<Upstream>,
    credentials: &mut Credentialer,
    ui: &mut impl Ui,
    mut stop: impl Future<Output = ()> + Unpin,
) -> Result<Ended, ServeError> {
    let welcome = credentials.welcome().await?;
    channel.send_welcome(&welcome).map_err(|error| ServeError::Welcome(error.to_string()))?;
    let mut tasks = JoinSet::new();
    let (failed, mut failures) = mpsc::channel(16);
    loop {
        tokio::select! {
            accepted = channel.accept() => if let Some((stream, target)) = accepted {
                tasks.spawn(serve_stream(upstream.clone(), stream, target, failed.clone()));
            },
            welcome = credentials.changed() => {
                channel.send_welcome(&welcome).map_err(|error| ServeError::Welcome(error.to_string()))?;
            }
            Some(reason) = failures.recv() => ui.event(Event::StreamFailed(reason)),
            Some(_) = tasks.join_next() => {}
            end = channel.ended() => return match end {
                End::Bye(reason) => Ok(Ended::Client(reason)),
                end => Err(ServeError::Lost(end)),
            },
            () = &mut stop => {
                channel.bye("the server was stopped").await;
                return Ok(Ended::Stopped);
            }
        }
    }
}

/// Joins one stream to the API server.
async fn serve_stream(
    upstream: Arc<Upstream>,
    stream: ChannelStream,
    target: Option<String>,
    failed: mpsc::Sender<String>,
) {
    if target.is_some() {
        stream.fail(NOT_ALLOWED);
        return;
    }
    match upstream.connect().await {
        Ok(connection) => {
            if let Err(error) = copy(connection, stream).await {
                debug!(%error, "stream ended early");
            }
        }
        Err(error) => {
            let reason = error.to_string();
            stream.fail(&reason);
            // A full queue means that the operator is being told already.
            let _ = failed.try_send(reason);
        }
    }
}

/// One code after the other until a client is in.
struct Pairing<'a> {
    dialer: &'a Dialer,
    config: Config,
    /// Wrong secrets since the last burned code: a guesser gains nothing by waiting for the next code.
    wrong: u32,
    burned: u32,
}

/// What became of one code.
enum Code {
    Paired(Box<Established>, Box<RelaySocket>),
    Spent(Spent),
    Lost(SocketLost),
}

impl Pairing<'_> {
    async fn run(mut self, ui: &mut impl Ui) -> Result<(Box<Established>, RelaySocket), ServeError> {
        let mut first = true;
        loop {
            let created = self.create(first, ui).await?;
            first = false;
            let code = PairingCode { nameplate: created.nameplate.clone(), secret: Secret::random(&mut rand::rng()) };
            ui.event(Event::Code { code: code.to_display(), expires_in: self.config.code_ttl });
            let mut pairing =
                AgentPairing::new(clock::now(), created.session_id, code, self.config.verify, self.config.code_ttl);
            pairing.carry_wrong(self.wrong);
            let ended = self.wait(&created, &mut pairing, ui).await?;
            self.wrong = pairing.wrong();
            match ended {
                Code::Paired(established, socket) => return Ok((established, *socket)),
                Code::Spent(spent @ Spent::Expired) => ui.event(Event::Spent(spent)),
                Code::Spent(spent) => {
                    ui.event(Event::Spent(spent));
                    self.after_burned(ui).await?;
                }
                Code::Lost(lost) => {
                    let disclosed = lost.code() == Some(close::UPGRADE);
                    ui.event(Event::CodeLost(lost));
                    if disclosed {
                        self.after_burned(ui).await?;
                    }
                }
            }
        }
    }

    /// A new session. Once one was had, a relay that is out of reach is waited for.
    async fn create(&self, first: bool, ui: &mut impl Ui) -> Result<SessionCreated, DialError> {
        let mut delay = REDIAL_MAX;
        loop {
            match self.dialer.create_session().await {
                Err(error) if !first && (error.is_unreachable() || matches!(error, DialError::RateLimited { .. })) => {
                    ui.event(Event::RelayLost(error.to_string()));
                    sleep(delay).await;
                    delay = (delay * 2).min(BURNED_BACKOFF);
                }
                other => return other,
            }
        }
    }

    /// Waits with one code, over as many sockets as it takes.
    async fn wait(
        &self,
        created: &SessionCreated,
        pairing: &mut AgentPairing,
        ui: &mut impl Ui,
    ) -> Result<Code, ServeError> {
        let mut delay = REDIAL;
        let mut first = true;
        loop {
            let lost = match self.dialer.websocket(Role::Agent, &created.session_id, &created.ticket).await {
                Ok(mut socket) => {
                    first = false;
                    delay = REDIAL;
                    let mut notice = |event| match event {
                        AgentEvent::Attempt => ui.event(Event::Attempt),
                        AgentEvent::Refused { why, left } => ui.event(Event::Refused { why, left }),
                        AgentEvent::Spent(_) | AgentEvent::Paired(_) => {}
                    };
                    match pair::agent(&mut socket, pairing, &mut notice).await {
                        Ok(AgentOutcome::Paired(established)) => {
                            return Ok(Code::Paired(established, Box::new(socket)));
                        }
                        Ok(AgentOutcome::Spent(spent)) => {
                            hang_up(socket).await;
                            return Ok(Code::Spent(spent));
                        }
                        Err(lost) => lost,
                    }
                }
                Err(error) if first => return Err(error.into()),
                Err(error) if error.is_unreachable() => SocketLost::Broken(error.to_string()),
                Err(error) => return Ok(Code::Lost(SocketLost::Broken(error.to_string()))),
            };
            const FINAL: [u16; 5] =
                [close::NO_SESSION, close::EXPIRED, close::REPLACED, close::UPGRADE, close::TOO_MANY];
            if lost.code().is_some_and(|code| FINAL.contains(&code)) {
                return Ok(Code::Lost(lost));
            }
            if delay == REDIAL {
                ui.event(Event::RelayLost(lost.to_string()));
            }
            info!(%lost, "dialling the relay again");
            sleep(delay).await;
            delay = (delay * 2).min(REDIAL_MAX);
            pairing.handle_timeout(clock::now());
            if let Some(AgentEvent::Spent(spent)) = pairing.poll_event() {
                return Ok(Code::Spent(spent));
            }
        }
    }

    /// After three wrong secrets: a person decides, or time passes.
    async fn after_burned(&mut self, ui: &mut impl Ui) -> Result<(), ServeError> {
        self.burned += 1;
        self.wrong = 0;
        if self.config.attended {
            return if ui.another_code().await { Ok(()) } else { Err(ServeError::Burned) };
        }
        if self.burned >= BURNED_MAX {
            return Err(ServeError::Guessing);
        }
        let doublings = (self.burned - 1).min(16);
        let delay = self.config.burned_backoff.saturating_mul(1 << doublings).min(BURNED_BACKOFF_MAX);
        ui.event(Event::BackingOff(delay));
        sleep(delay).await;
        Ok(())
    }
}

/// An orderly close, so that what was sent last arrives; a relay that does not answer is not waited for.
async fn hang_up(mut socket: RelaySocket) {
    let _ = tokio::time::timeout(REDIAL_MAX, socket.close(None)).await;
}
