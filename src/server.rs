//! `mykube server`: flags, and what its operator sees.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mykube_agent::{
    announce::Announcer,
    control_socket::{About, Review},
    serve::{self, Absent, Access, Answer, BURNED_BACKOFF, Config, Ended, Event, Invitation, Offer, ServeError, serve},
};
use mykube_agent_gateway::{Audit, AuditSettings, Forwarder, Gateway, Recorder};
use mykube_agent_upstream::{Environment, KubeconfigSource, Upstream};
use mykube_dial::{Dialer, Trust};
use mykube_link::pair::HandshakeError;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;
use zeroize::Zeroizing;

use crate::{
    access,
    agents::Name,
    cli::ServerArgs,
    dial,
    doctor::missing_namespaces,
    events::JsonEvent,
    exit::{ExitCode, Failure},
    output::Output,
    prompt, sessions,
    signals::Signals,
    status,
    waiting::{self, Waiting},
};

/// How long an orderly end may take after a signal: the five seconds, without what the last output and the audit log
/// need.
const STOP_LIMIT: Duration = Duration::from_millis(3800);
/// How long the audit log may take to write its last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Serves clients until a signal comes, the access expires, or no more codes can be made and the last client has left;
/// without `--stay`, and with one client at a time, also no longer than until that client has left.
pub(crate) async fn run(args: ServerArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let dialer = dial::dialer(args.relay_url.clone(), ca_file.clone())?;
    let attended = prompt::can_ask();
    if args.verify && !attended {
        return Err(failure(&ServeError::NobodyToAsk));
    }
    if output.is_json() && args.audit_log.as_deref() == Some(Path::new("-")) {
        return Err(Failure::usage(
            "--audit-log - and --output json would both write to standard output, and their lines would mix: give \
             --audit-log a FILE, or leave out --output json",
        ));
    }
    let audit = audit(args.audit_log.as_deref(), args.limits.audit())?;
    let mut signals = Signals::new(output).map_err(Failure::failed)?;
    let (signal, mut stop) = watch::channel(None);
    tokio::spawn(async move {
        let name = signals.any().await;
        signal.send_replace(Some(name));
        signal.closed().await;
    });
    let mut stop_late = stop.clone();
    let stopped = async move {
        let _ = stop.wait_for(Option::is_some).await;
    };
    let overdue = async move {
        let _ = stop_late.wait_for(Option::is_some).await;
        sleep(STOP_LIMIT).await;
    };
    let ended = tokio::select! {
        ended = share(args, ca_file, &dialer, &audit, output, stopped) => ended,
        () = overdue => Ok(Ended::Stopped),
    };
    // The task of a client that is given up here writes that it left; the task ends a moment later.
    if timeout(FLUSH_LIMIT / 2, audit.finish()).await.is_err() {
        let _ = timeout(FLUSH_LIMIT / 2, audit.flush()).await;
    }
    let (reason, result) = match ended {
        Ok(Ended::Client(reason) | Ended::ByServer(reason)) => (reason, Ok(())),
        Ok(Ended::Stopped) => ("stopped by a signal".to_owned(), Ok(())),
        Err(failure) => (failure.message.clone(), Err(failure)),
    };
    output.event(&JsonEvent::Stopped { reason: &reason });
    if result.is_ok() {
        output.say(&format!("Stopped: {reason}."));
    }
    result
}

async fn share(
    args: ServerArgs,
    ca_file: Option<PathBuf>,
    dialer: &Dialer,
    audit: &Audit,
    output: Output,
    stop: impl Future<Output = ()>,
) -> Result<Ended, Failure> {
    let attended = prompt::can_ask();
    let source = KubeconfigSource { kubeconfig: args.kubeconfig, context: args.context, ..Default::default() };
    let source = args.limits.bound(source);
    let trust = Trust::new(ca_file.as_deref()).map_err(|error| dial::failure(&error))?;
    let environment = Environment::from_system(attended);
    let announcer = args.announce_event.then(|| Announcer::for_this_pod(&environment, trust.clone())).transpose();
    let announcer = announcer.map_err(Failure::failed)?.map(Arc::new);
    let upstream = Upstream::load(&source, &environment, trust);
    tokio::pin!(stop);
    let _name = tokio::select! {
        name = Name::hold(args.name, dialer, output) => name?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    let upstream = tokio::select! {
        upstream = upstream => upstream.map_err(Failure::failed)?,
        () = &mut stop => return Ok(Ended::Stopped),
    };
    let upstream = Arc::new(upstream);
    let config = Config {
        code_ttl: args.code_ttl,
        verify: args.verify,
        attended,
        burned_backoff: BURNED_BACKOFF,
        max_clients: args.max_clients,
        stay: args.stay || args.max_clients > 1,
        resume_window: args.resume_window,
        replace_after: args.replace_after.0,
    };
    let namespaces = args.policy.namespace.clone();
    let mut forwarder = None;
    let (access, invitation) = if args.share_credentials {
        if args.policy.is_given() || args.audit_log.is_some() || args.record.is_some() {
            return Err(Failure::usage(
                "--share-credentials hands the credentials over, and what is done with them then passes unseen: leave \
                 out the policy flags, --audit-log and --record, or --share-credentials",
            ));
        }
        (Access::Shared, Invitation::default())
    } else {
        let policy = Arc::new(args.policy.policy()?.or_as(upstream.impersonation.as_ref()));
        let forwarder = &*forwarder.insert(Arc::new(Forwarder::new(upstream.clone(), args.limits.settings())));
        forwarder.check().await.map_err(Failure::failed)?;
        if upstream.insecure {
            output.warn("this kubeconfig says not to verify the API server: it could be anyone's");
        }
        output.say(&format!("Clients may do: {}", access::summary(&policy)));
        let mut gateway = Gateway::new(forwarder.clone(), audit.clone());
        if let Some(dir) = args.record {
            let recorder = Recorder::new(&dir).map_err(|error| Failure::failed(format!("--record: {error}")))?;
            output.say(&format!("What exec and attach show is recorded in {}", recorder.dir().display()));
            gateway = gateway.recording(recorder);
        }
        (Access::Guarded(gateway), Invitation { name: None, policy })
    };
    output.say(&format!("Cluster {} at {}", upstream.cluster_name, upstream.address()));
    match upstream.check().await {
        Err(error) => output.warn(&error.to_string()),
        Ok(()) => {
            if let Some(warning) = missing(&namespaces, forwarder.as_ref(), &upstream).await {
                output.warn(&warning);
            }
        }
    }
    let mut ui = Ui { output, relay_url: dialer.url().to_string(), qr: args.qr, waiting: None, announcer };
    let about = About { relay: dialer.url().to_string(), cluster: upstream.cluster_name.clone() };
    let commands = sessions::open(about, review(forwarder, upstream.clone()), output);
    let offer = Offer { upstream, access, standing: invitation };
    serve(dialer, offer, config, commands, &mut ui, stop).await.map_err(|error| failure(&error))
}

/// Warns of namespaces that do not exist: one may be created later, but a typo never is.
async fn missing(names: &[String], forwarder: Option<&Arc<Forwarder>>, upstream: &Upstream) -> Option<String> {
    let forwarder = forwarder.filter(|_| !names.is_empty())?.clone();
    let missing = missing_namespaces(forwarder, upstream, names).await;
    (!missing.is_empty()).then(|| {
        let missing = missing.join(", ");
        format!("--namespace names what is not there: {missing}. Clients may do nothing in it until it is")
    })
}

/// The warnings about a policy of `mykube sessions new`.
fn review(forwarder: Option<Arc<Forwarder>>, upstream: Arc<Upstream>) -> Review {
    Arc::new(move |policy| {
        let (names, forwarder, upstream) = (policy.namespaces.clone(), forwarder.clone(), upstream.clone());
        Box::pin(async move { missing(&names, forwarder.as_ref(), &upstream).await.into_iter().collect() })
    })
}

fn audit(path: Option<&Path>, settings: AuditSettings) -> Result<Audit, Failure> {
    match path {
        None => Ok(Audit::off()),
        Some(path) if path == Path::new("-") => Audit::stdout(settings).map_err(Failure::failed),
        Some(path) => Audit::file(path, settings)
            .map_err(|error| Failure::failed(format!("--audit-log {}: {error}", path.display()))),
    }
}

fn failure(error: &ServeError) -> Failure {
    let code = match error {
        ServeError::Dial(error) => return dial::failure(error),
        ServeError::Burned | ServeError::Guessing => ExitCode::WrongCode,
        ServeError::Lost(_) => ExitCode::SessionLost,
        _ => ExitCode::Failed,
    };
    Failure::new(code, error)
}

/// The operator's screen and events.
struct Ui {
    output: Output,
    relay_url: String,
    qr: bool,
    waiting: Option<Waiting>,
    announcer: Option<Arc<Announcer>>,
}

impl serve::Ui for Ui {
    fn event(&mut self, client: &str, event: Event) {
        let output = self.output;
        match event {
            Event::Code { code, expires_in, instead_of } => {
                self.show_code(client, &code, expires_in, instead_of);
                self.announce(code, expires_in);
            }
            Event::Withdrawn => {
                self.waiting = None;
                output.say(&format!("The code for {client} is withdrawn."));
                output.event(&JsonEvent::Withdrawn { client });
            }
            Event::Attempt => debug!("a client is trying the code"),
            // With no guesses left, the next event says that the code is spent.
            Event::Refused { left: 0, .. } => {}
            Event::Refused { why, left } => {
                output.warn(&match why {
                    HandshakeError::WrongCode => {
                        format!("somebody typed a wrong code (or is in the middle); {left} more and it is burned")
                    }
                    _ => format!("a client was refused: {why} (it may try {left} times more)"),
                });
                output.event(&JsonEvent::CodeRefused { client, reason: &why.to_string(), left });
            }
            Event::Spent(spent) => self.code_ended(client, &spent.to_string(), &spent.to_string()),
            Event::CodeLost(lost) => {
                self.code_ended(client, &lost.to_string(), &format!("the code cannot be used any more: {lost}"));
            }
            Event::RelayLost(why) => output.warn(&format!("{why}; trying again")),
            Event::RelayBack => output.say("The relay is back; the code waits."),
            Event::BackingOff(delay) => {
                output.warn(&format!("the next code comes in {:.0} s", delay.as_secs_f64().ceil()));
            }
            Event::Paired => {
                self.waiting = None;
                output.say(&format!("{client} is in. Ctrl-C ends the server."));
                output.event(&JsonEvent::Paired { client });
            }
            Event::Lost(reason) => {
                output.say(&format!("{client} is lost: {reason}. Its session waits for it."));
                output.event(&JsonEvent::Lost { client: Some(client), reason: &reason });
            }
            Event::Back(after) => {
                output.say(&format!("{client} is back after {}, nothing lost.", status::told(after)));
                output.event(&JsonEvent::Back { client: Some(client), after: after.as_secs_f64() });
            }
            Event::ClientGone(reason) => {
                output.say(&format!("{client} is gone: {reason}."));
                output.event(&JsonEvent::ClientGone { client, reason: &reason });
            }
            Event::StreamFailed(reason) => output.warn(&reason),
        }
    }

    fn confirm_words(&mut self, client: &str, words: &str) -> Answer {
        self.waiting = None;
        let (output, words, client) = (self.output, Zeroizing::new(words.to_owned()), client.to_owned());
        Box::pin(async move { prompt::same_words(output, &words, &client).await })
    }

    fn another_code(&mut self) -> Answer {
        let output = self.output;
        Box::pin(async move { prompt::yes(output, "Make a new code?").await.unwrap_or(false) })
    }
}

impl Ui {
    fn show_code(&mut self, client: &str, code: &str, expires_in: Duration, instead_of: Option<Absent>) {
        self.waiting = None;
        let output = self.output;
        if let Some(Absent { client, lasting }) = &instead_of {
            let lasting = status::told(*lasting);
            output.say(&format!("{client} has been away for {lasting}; with this code another can take its place."));
        }
        output.say(&format!("On the laptop type: mykube client --relay-url {}", self.relay_url));
        output.show("Code: ", code);
        if let Some(qr) = Some(code).filter(|_| self.qr && output.terminal).and_then(waiting::qr) {
            output.drawing(&qr);
        }
        let digits: String = code.chars().filter(char::is_ascii_digit).collect();
        let replaces = instead_of.as_ref().map(|absent| absent.client.as_str());
        output.event(&JsonEvent::Code { code: &digits, expires_in: expires_in.as_secs(), client, replaces });
        if output.spinner {
            self.waiting = Some(Waiting::start(output.screen(), expires_in));
        }
    }

    /// Announces the code as an Event, in a task of its own.
    fn announce(&self, code: Zeroizing<String>, expires_in: Duration) {
        let Some(announcer) = self.announcer.clone() else { return };
        let (output, relay_url) = (self.output, self.relay_url.clone());
        tokio::spawn(async move {
            if let Err(error) = announcer.announce(&code, expires_in, &relay_url).await {
                output.warn(&error.to_string());
            }
        });
    }

    fn code_ended(&mut self, client: &str, reason: &str, warning: &str) {
        self.waiting = None;
        self.output.warn(warning);
        self.output.event(&JsonEvent::CodeEnded { client, reason });
    }
}
