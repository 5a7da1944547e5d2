//! `mykube client`: from the code to a shell, a command or a waiting port.

use std::{
    net::SocketAddrV4,
    path::{Path, PathBuf},
    time::Duration,
};

use mykube_client::{
    Exit, Kind, Launch, Workspace,
    merge::{Merge, Places},
    port::Port,
    session::{self, ClientSession, ConnectError},
    shell::{self, Prepared},
    users::Users,
};
use mykube_dial::Dialer;
use mykube_link::{End, PeerStatus};
use mykube_protocol::{PairingCode, channel::Welcome};
use tokio::{sync::mpsc, sync::oneshot, time::timeout};
use zeroize::Zeroizing;

use crate::{
    cli::ClientArgs,
    dial,
    events::JsonEvent,
    exit::{ExitCode, Failure},
    output::Output,
    prompt,
    signals::Signals,
    status,
};

/// How long the goodbye may take: the child may have had three seconds and a half of the five.
const BYE_LIMIT: Duration = Duration::from_millis(800);
/// Reasons of failed connections that may wait to be shown.
const FAILURES_WAITING: usize = 16;

/// What runs once the session is up.
#[derive(PartialEq, Eq)]
enum Work {
    /// A shell or a command, which has the terminal.
    Child(Launch),
    /// Nothing: other programs use the port.
    Wait,
}

/// Why the session's use ended.
enum Ending {
    /// The child ended by itself.
    Child(u8),
    /// A signal.
    Signal(&'static str),
    /// The session ended, before the child or a signal.
    Session(End),
}

/// Connects, runs, and removes everything again. Returns the command's own exit code.
pub(crate) async fn run(args: ClientArgs, ca_file: Option<PathBuf>, output: Output) -> Result<u8, Failure> {
    let dialer = dial::dialer(args.relay_url.clone(), ca_file)?;
    let typed = typed_code(&args.code, output)?;
    let mut signals = Signals::new(output).map_err(Failure::failed)?;
    let work = match (args.no_shell, args.command) {
        (true, _) => Work::Wait,
        (false, command) if command.is_empty() => Work::Child(Launch::Shell),
        (false, command) => Work::Child(Launch::Command(command)),
    };
    // Everything that can fail on this machine fails before a code is spent.
    if let Work::Child(launch) = &work {
        shell::check(launch).map_err(|error| Failure::shell(&error))?;
    }
    let mut files = Files::create(args.kubeconfig_dir.as_deref(), args.merge, output)?;
    // A child has a cache of its own; kubectl elsewhere must tell this cluster from yesterday's.
    let port = listen(args.port, args.port.is_some() && (work == Work::Wait || args.merge)).await?;
    files.workspace.answer_at(port.host());
    files.workspace.reach_by(dialer.url().to_string());
    if matches!(work, Work::Child(Launch::Shell)) && shell::on_path("kubectl").is_none() {
        output.warn(
            "kubectl is not on the PATH: install it (https://kubernetes.io/docs/tasks/tools/) to use the cluster",
        );
    }
    let mut ui = Ui { output };
    let session = connect(&dialer, typed, args.verify, args.resume_window, &port, &mut ui, &mut signals).await;
    let result = match session {
        Ok(session) => attend(&session, &mut files, port, work, &mut signals, output).await,
        Err(failure) => Err(failure),
    };
    files.close(output);
    if let Err(failure) = &result {
        output.event(&JsonEvent::Closed { reason: &failure.message });
    }
    result
}

/// The files that a session writes: its own kubeconfig, and with `--merge` entries in the user's.
struct Files {
    /// Dropped before the directory to which its entries refer.
    merge: Option<Merge>,
    workspace: Workspace,
}

impl Files {
    fn create(dir: Option<&Path>, merge: bool, output: Output) -> Result<Self, Failure> {
        let workspace = Workspace::create(dir).map_err(Failure::failed)?;
        if let Some(warning) = workspace.warning() {
            output.warn(warning);
        }
        let places = Places::from_env();
        match Merge::recover(&places) {
            Ok(contexts) if contexts.is_empty() => {}
            Ok(contexts) => {
                output.say(&format!("Removed what a killed mykube had left merged: {}", contexts.join(", ")))
            }
            Err(error) => output.warn(&format!("what a killed mykube had left merged could not be removed: {error}")),
        }
        let merge = if merge { Some(Merge::prepare(&places, &workspace).map_err(Failure::failed)?) } else { None };
        Ok(Self { merge, workspace })
    }

    /// Returns the path of the session's own kubeconfig.
    fn write(&mut self, welcome: &Welcome, port: u16, output: Output) -> Result<PathBuf, Failure> {
        let kubeconfig = self.workspace.write(welcome, port).map_err(Failure::failed)?;
        if let Some(merge) = &mut self.merge {
            let context = merge.add(&self.workspace, welcome, port).map_err(Failure::failed)?.to_owned();
            let file = merge.file().to_string_lossy();
            output.event(&JsonEvent::Merged { kubeconfig: &file, context: &context });
            output.say(&format!("Merged into {file} until the end: kubectl --context {context} ..."));
        }
        Ok(kubeconfig)
    }

    fn update(&mut self, welcome: &Welcome) -> Result<(), String> {
        self.workspace.update(welcome).map_err(|error| error.to_string())?;
        match &mut self.merge {
            Some(merge) => merge.update(&self.workspace, welcome).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    fn close(mut self, output: Output) {
        match self.merge.as_mut().map(Merge::undo) {
            Some(Err(error)) => output.warn(&format!(
                "the merged entries could not be removed, the next mykube client tries again: {error}"
            )),
            Some(Ok(undone)) if undone.was_current => output.warn(
                "the merged context was made the current one, and is gone: choose another with `kubectl config use-context`",
            ),
            _ => {}
        }
        if let Err(error) = self.workspace.close() {
            output.warn(&format!("the temporary kubeconfig could not be removed: {error}"));
        }
    }
}

/// The code among the arguments, if it was given there.
fn typed_code(words: &[String], output: Output) -> Result<Option<PairingCode>, Failure> {
    if words.is_empty() {
        return Ok(None);
    }
    let code = Zeroizing::new(words.concat()).parse().map_err(Failure::usage)?;
    output.warn("other users of this machine can see a code given as an argument: without one, mykube asks for it");
    Ok(Some(code))
}

async fn listen(port: Option<u16>, own: bool) -> Result<Port, Failure> {
    Port::bind(port.unwrap_or(0), own).await.map_err(|error| {
        let port = port.map_or("any port".to_owned(), |port| format!("port {port}"));
        Failure::failed(format!(
            "cannot listen on {port} of 127.0.0.1: {error}; choose another with --port, or none for any free one"
        ))
    })
}

/// Pairs. If a code is wrong, asks for another on a terminal, and claims that one.
async fn connect(
    dialer: &Dialer,
    typed: Option<PairingCode>,
    verify: bool,
    resume_window: Duration,
    port: &Port,
    ui: &mut Ui,
    signals: &mut Signals,
) -> Result<ClientSession, Failure> {
    let output = ui.output;
    if verify && !prompt::can_ask() {
        return Err(failure(&ConnectError::NobodyToAsk));
    }
    let mut next = typed;
    let mut before: Option<Failure> = None;
    loop {
        let code = match next.take() {
            Some(code) => code,
            // Standard input has ended: the last code's failure is the reason.
            None => tokio::select! {
                code = prompt::code(output) => code.map_err(|why| before.take().unwrap_or_else(|| Failure::usage(why)))?,
                name = signals.any() => return Err(failure(&ConnectError::Stopped(name))),
            },
        };
        output.say(&format!("Connecting by way of {} ...", dialer.url()));
        match ClientSession::connect(dialer, code, verify, resume_window, port, ui, signals.any()).await {
            Ok(session) => return Ok(session),
            Err(error) if error.is_code() && prompt::can_ask() => {
                output.error(&error.to_string());
                before = Some(failure(&error));
            }
            Err(error) => return Err(failure(&error)),
        }
    }
}

fn failure(error: &ConnectError) -> Failure {
    let code = match error {
        ConnectError::Dial(error) => return dial::failure(error),
        error if error.is_code() => ExitCode::WrongCode,
        ConnectError::Ended(_) => ExitCode::SessionLost,
        _ => ExitCode::Failed,
    };
    Failure::new(code, error)
}

/// From the welcome to the end.
async fn attend(
    session: &ClientSession,
    files: &mut Files,
    port: Port,
    work: Work,
    signals: &mut Signals,
    output: Output,
) -> Result<u8, Failure> {
    let address = port.number().map(|number| SocketAddrV4::new(port.host(), number)).map_err(Failure::failed);
    let child = match address.and_then(|address| prepare(session, files, address, &work, output)) {
        Ok(child) => child,
        Err(failure) => {
            let _ = timeout(BYE_LIMIT, session.bye("the client could not use the session")).await;
            return Err(failure);
        }
    };
    let has_child = child.is_some();
    let is_command = matches!(work, Work::Child(Launch::Command(_)));
    let beside = if has_child { output.beside_a_child() } else { output };
    if has_child {
        output.settle().await;
    }
    let ending = work_on(session, files, port, child, signals, beside).await;
    let (reason, code) = match ending? {
        // A shell exits with its last command's code, which says nothing about the session.
        Ending::Child(code) => ("the client has left".to_owned(), if is_command { code } else { 0 }),
        Ending::Signal(name) if has_child => return Err(Failure::failed(format!("stopped by {name}"))),
        Ending::Signal(name) => (format!("stopped by {name}"), 0),
        Ending::Session(end) => {
            let what = if matches!(end, End::Bye(_)) { "" } else { "the session is lost: " };
            return Err(Failure::new(ExitCode::SessionLost, format!("{what}{end}; pair again with a new code")));
        }
    };
    output.event(&JsonEvent::Closed { reason: &reason });
    output.say(&format!("Closed: {reason}."));
    Ok(code)
}

/// Writes the kubeconfig, reports it, and prepares the child.
fn prepare(
    session: &ClientSession,
    files: &mut Files,
    address: SocketAddrV4,
    work: &Work,
    output: Output,
) -> Result<Option<Prepared>, Failure> {
    let welcome = session.welcome();
    let kubeconfig = files.write(&welcome, address.port(), output)?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let listen = address.to_string();
    if welcome.insecure_skip_tls_verify {
        output.warn(
            "the cluster's own kubeconfig says not to verify the API server: the other end could be anyone's cluster",
        );
    }
    let environment = shell::environment_for(Kind::of(&welcome));
    let variables: Vec<_> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (cluster, recorded) = (&welcome.cluster, welcome.recorded);
    output.event(&JsonEvent::Connected { kubeconfig: &kubeconfig, listen: &listen, cluster, environment, recorded });
    output.say(&format!("Connected to {cluster} at https://{listen}"));
    if recorded {
        output.essential("What kubectl exec and attach show is recorded at the other end.");
    }
    // A child has them in its environment.
    if !variables.is_empty() && (*work == Work::Wait || files.merge.is_some()) {
        output.say(&format!("For kubectl to outlive an outage elsewhere: export {}", variables.join(" ")));
    }
    match work {
        Work::Child(launch) => {
            if *launch == Launch::Shell {
                output.say("This shell's kubectl uses it; `exit` ends the session.");
            }
            shell::prepare(&files.workspace, launch.clone()).map(Some).map_err(|error| Failure::shell(&error))
        }
        Work::Wait => {
            output.say("KUBECONFIG is on standard output; Ctrl-C ends the session.");
            output.result(&kubeconfig);
            Ok(None)
        }
    }
}

/// Forwards connections, takes new credentials and waits for the first reason to end.
async fn work_on(
    session: &ClientSession,
    files: &mut Files,
    port: Port,
    child: Option<Prepared>,
    signals: &mut Signals,
    output: Output,
) -> Result<Ending, Failure> {
    let has_child = child.is_some();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let users = Users::new(session, &files.workspace, child).run(async {
        // A sender that was dropped has asked for nothing.
        if stopped.await.is_err() {
            std::future::pending().await
        }
    });
    let (failed, mut failures) = mpsc::channel(FAILURES_WAITING);
    let told = status::tell(session.status(), output, has_child);
    tokio::pin!(told);
    let forward = session.forward(port, failed);
    tokio::pin!(users, forward);

    let mut news = session.news();
    let mut status = session.status();
    let mut said = String::new();
    let (mut ending, mut forwards) = (None, true);
    let ended = loop {
        tokio::select! {
            exit = &mut users => break match (exit, ending) {
                (Ok(Exit::Stopped), Some(ending)) => Ok(ending),
                (Ok(Exit::Code(code)), _) => Ok(Ending::Child(code)),
                (Ok(Exit::Stopped), None) => unreachable!("only an ending stops them"),
                (Err(error), _) => Err(Failure::shell(&error)),
            },
            end = &mut forward, if forwards => {
                forwards = false;
                ending.get_or_insert(Ending::Session(end));
            }
            end = session.ended(), if ending.is_none() => ending = Some(Ending::Session(end)),
            name = next_signal(signals, has_child), if ending.is_none() => ending = Some(Ending::Signal(name)),
            never = &mut told => match never {},
            // Joined shells show this on their own terminals.
            Ok(()) = status.changed(), if ending.is_none() => {
                let reason = match &*status.borrow_and_update() {
                    PeerStatus::Up => None,
                    PeerStatus::Away { reason, .. } => Some(reason.clone()),
                };
                files.workspace.tell_away(reason.as_deref());
            }
            newer = news.next(), if ending.is_none() => {
                if let Err(error) = files.update(&newer) {
                    output.warn(&format!("new credentials could not be used: {error}"));
                }
            }
            Some(reason) = failures.recv() => {
                // kubectl tries again and again: one line for each reason, not for each try.
                if reason != said {
                    output.warn(&reason);
                    said = reason;
                }
            }
        }
        if let Some(stop) = stop.take_if(|_| ending.is_some()) {
            let _ = stop.send(());
        }
    };
    // Other programs' connections first get the bytes that came for them, and then see that they are cut.
    let carried = async {
        if forwards {
            forward.await;
        }
    };
    let _ = timeout(BYE_LIMIT, async { tokio::join!(session.bye("the client has left"), carried) }).await;
    ended
}

async fn next_signal(signals: &mut Signals, has_child: bool) -> &'static str {
    if has_child { signals.but_interrupt().await } else { signals.any().await }
}

/// The person at the laptop.
struct Ui {
    output: Output,
}

impl session::Ui for Ui {
    fn paired(&mut self) {
        self.output.say("Paired.");
    }

    async fn confirm_words(&mut self, words: &str) -> Option<bool> {
        if !prompt::can_ask() {
            return None;
        }
        Some(prompt::same_words(self.output, words, "the server").await)
    }
}
