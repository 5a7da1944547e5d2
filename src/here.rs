//! This machine's servers and clients, and which relay they are at. They are asked as `mykube sessions` and `mykube shell` ask
//! them; those of other users are not seen.

use std::{io, path::Path, time::Duration};

use mykube_agent::control_socket::{self, About, Answer, ListedClient, Question};
use mykube_client::Live;
use tokio::{net::UnixStream, time::timeout};

use crate::{events::JsonEvent, exit::Failure, other_process::Process, output::Output, prompt};

/// How long one may take to say which it is: it needs nobody else for that.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long one may take to end: the five seconds that are promised, and one.
const END_LIMIT: Duration = Duration::from_secs(6);

/// A server or client.
pub(crate) struct Here {
    pid: u32,
    /// Where it tells.
    relay: Option<String>,
    what: What,
}

enum What {
    /// Its socket, and what it said.
    Server {
        socket: std::path::PathBuf,
        cluster: Option<String>,
        connected: usize,
        waiting: usize,
    },
    Client(Live),
}

/// All of this user's, servers first.
pub(crate) async fn all(kubeconfig_dir: Option<&Path>) -> io::Result<Vec<Here>> {
    let mut found = Vec::new();
    for (pid, socket) in control_socket::servers().await? {
        let about = match ask(&socket, &Question::About {}).await {
            Some(Answer::About(about)) => Some(about),
            // Of an older release.
            _ => None,
        };
        let clients = match ask(&socket, &Question::List {}).await {
            Some(Answer::Clients { clients }) => clients,
            _ => Vec::new(),
        };
        let waiting = clients.iter().filter(|client: &&ListedClient| client.state == "waiting").count();
        let connected = clients.len() - waiting;
        let (relay, cluster) = about.map(|About { relay, cluster }| (relay, cluster)).unzip();
        found.push(Here { pid, relay, what: What::Server { socket, cluster, connected, waiting } });
    }
    let mut clients = Live::all(None);
    if let Some(dir) = kubeconfig_dir {
        clients.extend(Live::all(Some(dir)));
        clients.dedup();
    }
    let clients =
        clients.into_iter().map(|live| Here { pid: live.pid, relay: live.relay.clone(), what: What::Client(live) });
    found.extend(clients);
    Ok(found)
}

async fn ask(socket: &Path, question: &Question) -> Option<Answer> {
    timeout(ASK_LIMIT, control_socket::ask(socket, question)).await.ok()?.ok()
}

/// Those at this relay.
pub(crate) fn at(relay: &str, all: Vec<Here>) -> Vec<Here> {
    all.into_iter().filter(|here| here.relay.as_deref() == Some(relay)).collect()
}

/// `1 server and 2 clients`, if there are any.
pub(crate) fn count(here: &[Here]) -> Option<String> {
    let clients = here.iter().filter(|here| matches!(here.what, What::Client(_))).count();
    let some = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    match (some(here.len() - clients, "server"), some(clients, "client")) {
        (Some(servers), Some(clients)) => Some(format!("{servers} and {clients}")),
        (servers, clients) => servers.or(clients),
    }
}

/// Asks, where there is somebody to ask.
pub(crate) async fn confirm(question: &str, yes: bool, output: Output) -> Result<(), Failure> {
    if yes || !prompt::can_ask() || prompt::yes(output, question).await.map_err(Failure::failed)? {
        return Ok(());
    }
    Err(Failure::failed("nothing was ended"))
}

impl Here {
    pub(crate) fn is_at(&self, relay: &str) -> bool {
        self.relay.as_deref() == Some(relay)
    }

    /// Whether its relay is known.
    pub(crate) fn tells(&self) -> bool {
        self.relay.is_some()
    }

    fn kind(&self) -> &'static str {
        match self.what {
            What::Server { .. } => "server",
            What::Client(_) => "client",
        }
    }

    /// One line for a person, one event for a script.
    pub(crate) fn tell(&self, output: Output) {
        let (pid, relay) = (self.pid, self.relay.as_deref());
        let (cluster, state) = match &self.what {
            What::Server { cluster, connected, waiting, .. } => {
                let (cluster, connected, waiting) = (cluster.as_deref(), *connected, *waiting);
                output.event(&JsonEvent::ServerHere { pid, relay, cluster, connected, waiting });
                (cluster.unwrap_or("?"), format!("{connected} connected, {waiting} waiting"))
            }
            What::Client(live) => {
                let away = live.away();
                output.event(&JsonEvent::ClientHere { pid, relay, cluster: &live.cluster, away: away.as_deref() });
                (live.cluster.as_str(), away.map_or("connected".to_owned(), |why| format!("away: {why}")))
            }
        };
        output.result(&format!("{:<8} {pid:>8}  {cluster:<20} {state}", self.kind()));
    }

    /// Asks it to end, as SIGTERM does; whether it has. One end may end with the other, before it is asked.
    async fn end(&self) -> io::Result<bool> {
        let process = match self.process().await {
            Ok(Some(process)) => process,
            Ok(None) => return Ok(true),
            Err(error) => return has_ended(&error),
        };
        match process.terminate() {
            Ok(()) => Ok(process.ends_within(END_LIMIT).await),
            Err(error) => has_ended(&error),
        }
    }

    /// Its process, and no other one of that number; none where it has ended.
    async fn process(&self) -> io::Result<Option<Process>> {
        match &self.what {
            // The process that answers, whatever the socket is called.
            What::Server { socket, .. } => {
                let pid = peer(socket).await?;
                let process = Process::open(pid)?;
                Ok((peer(socket).await? == pid).then_some(process))
            }
            What::Client(live) => {
                let process = Process::open(live.pid)?;
                match (live.is_held(), live.has_ended()) {
                    (true, _) => Ok(Some(process)),
                    (false, true) => Ok(None),
                    (false, false) => {
                        let why = "its session belongs to no process of this number here: it runs in another container";
                        Err(io::Error::other(why))
                    }
                }
            }
        }
    }
}

/// The number of the process that answers at a socket.
async fn peer(socket: &Path) -> io::Result<u32> {
    let pid = UnixStream::connect(socket).await?.peer_cred()?.pid();
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    pid.ok_or_else(|| io::Error::other("its process has no number here: it runs in another container"))
}

/// Whether this is what the system says of a process that has ended, or of its socket.
fn has_ended(error: &io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(true),
        _ if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(true),
        kind => Err(io::Error::new(kind, error.to_string())),
    }
}

/// Ends them, all at once; says which, and returns whether all have ended.
pub(crate) async fn end(here: Vec<Here>, output: Output) -> bool {
    let mut ending = tokio::task::JoinSet::new();
    for one in here {
        ending.spawn(async move { (one.end().await, one) });
    }
    let mut all = true;
    while let Some(ended) = ending.join_next().await {
        let Ok((ended, one)) = ended else { continue };
        let (pid, kind) = (one.pid, one.kind());
        match &ended {
            Ok(true) => output.say(&format!("Ended: {kind} {pid}.")),
            Ok(false) => {
                let limit = END_LIMIT.as_secs();
                output.warn(&format!("the {kind} {pid} was asked to end, and had not after {limit} s"));
            }
            Err(error) => output.warn(&format!("the {kind} {pid} could not be ended: {error}")),
        }
        let ended = matches!(ended, Ok(true));
        output.event(&JsonEvent::Disconnected { pid, kind, ended });
        all &= ended;
    }
    all
}

#[cfg(test)]
mod tests {
    use mykube_client::Workspace;
    use serde_json::json;

    use super::*;

    /// One end may end with the other, and nobody else is signalled in its place: here that would be this test.
    #[tokio::test]
    async fn one_that_has_ended_by_itself_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut workspace = Workspace::create(Some(dir.path())).unwrap();
        let welcome = json!({"mode": "shared", "cluster": "prod", "credentials": {"token": "t", "expiring": false}});
        workspace.write(&serde_json::from_value(welcome).unwrap(), 40123).unwrap();
        let live = Live::all(Some(dir.path())).remove(0);
        workspace.close().unwrap();
        let client = Here { pid: live.pid, relay: None, what: What::Client(live) };
        assert!(client.end().await.unwrap());
        let socket = dir.path().join("server-1.sock");
        let server = |socket| {
            let what = What::Server { socket, cluster: None, connected: 0, waiting: 0 };
            Here { pid: 1, relay: None, what }
        };
        assert!(server(socket.clone()).end().await.unwrap(), "its socket is gone");
        drop(tokio::net::UnixListener::bind(&socket).unwrap());
        assert!(server(socket).end().await.unwrap(), "nobody answers there");
    }
}
