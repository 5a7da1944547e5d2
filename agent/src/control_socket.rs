//! The socket with which the operator asks a running server: a Unix socket that no other user of the machine can open.
//!
//! A connection has one question and one answer, a line of JSON each. Sockets are named by the server's pid, in a
//! directory of mode 0700 in `XDG_RUNTIME_DIR`, or in `/tmp` under the user's number.
//!
//! The asking program may be of another release. A question with a field that this release does not know is refused:
//! the field may be a restriction, and no client may get more than the operator meant.

use std::{
    future::Future,
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mykube_agent_gateway::Policy;
use mykube_protocol::text::{is_plain_name, printable};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::serve::{Command, Invitation, Listed, State};

/// Longest line either way: a policy with its rules.
pub const LINE_MAX: u64 = 2 * 1024 * 1024;
/// How long a question may take to arrive.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take: a new code needs the relay.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for the warnings about a policy before its code is made: they need the API server.
pub const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions answered at once.
const ASKING_MAX: usize = 8;

/// A question to a server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// Lists the clients.
    List {},
    /// Which server this is. One of an older release refuses.
    About {},
    /// Ends a client.
    Kill {
        /// Its number.
        id: u64,
    },
    /// Makes a code for one more client.
    New {
        /// Its name.
        name: Option<String>,
        /// What it may do.
        policy: Box<Policy>,
    },
}

/// A server's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The clients.
    Clients {
        /// All of them.
        clients: Vec<ListedClient>,
    },
    /// Which server this is.
    About(About),
    /// The client is being ended.
    Killed,
    /// A code, which waits.
    Code {
        /// The client's number.
        id: u64,
        /// `483 20417`.
        code: String,
        /// What works, but maybe not as the operator expects. Older servers leave it out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// The question was refused.
    Error {
        /// Why.
        error: String,
    },
}

/// Which server this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The relay's address.
    pub relay: String,
    /// The cluster's name.
    pub cluster: String,
}

/// One client of the list.
#[derive(Debug, Serialize, Deserialize)]
pub struct ListedClient {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `waiting` or `connected`.
    pub state: String,
    /// Since when.
    pub since: SystemTime,
    /// What it may do.
    pub policy: Policy,
}

impl From<Listed> for ListedClient {
    fn from(listed: Listed) -> Self {
        let state = match listed.state {
            State::Waiting => "waiting",
            State::Connected => "connected",
            State::Lost => "lost",
        };
        let Listed { id, name, since, policy, .. } = listed;
        Self { id, name, state: state.to_owned(), since, policy: (*policy).clone() }
    }
}

/// The directory of this user's sockets.
///
/// # Errors
/// The directory cannot be made, or belongs to another user.
pub fn directory() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()) {
        Some(runtime) => PathBuf::from(runtime).join("mykube"),
        None => PathBuf::from(format!("/tmp/mykube-{uid}")),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o077 != 0 {
        let why = format!("{} is not a directory of yours alone: remove it, or set XDG_RUNTIME_DIR", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(dir)
}

/// Finds what an operator should know of a valid policy. The server does this: the asking program cannot reach the API
/// server.
pub type Review = Arc<dyn Fn(&Policy) -> Pin<Box<dyn Future<Output = Vec<String>> + Send>> + Send + Sync>;

/// A server's socket; removed when dropped.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Opens the socket of this process.
    ///
    /// # Errors
    /// See [`directory`].
    pub fn open() -> io::Result<Self> {
        let path = directory()?.join(format!("server-{}.sock", std::process::id()));
        match std::fs::remove_file(&path) {
            // A process with this number was killed before.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Answers until the server no longer takes commands.
    pub async fn serve(self, about: About, commands: mpsc::Sender<Command>, review: Review) {
        let slots = Arc::new(Semaphore::new(ASKING_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = commands.closed() => return,
            };
            let Ok((connection, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (about, commands, review) = (about.clone(), commands.clone(), review.clone());
            tokio::spawn(async move {
                if let Err(error) = answer(connection, about, &commands, &review).await {
                    tracing::debug!(%error, "a question on the control socket had no answer");
                }
                drop(slot);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(
    mut connection: UnixStream,
    about: About,
    commands: &mpsc::Sender<Command>,
    review: &Review,
) -> io::Result<()> {
    let line = timeout(ASK_TIMEOUT, read_line(&mut connection)).await??;
    let answer = match understood(&line) {
        Err(unknown) => Answer::Error {
            error: format!(
                "the server ({}) does not understand this ({unknown}): use `mykube sessions` of its own release, or \
                 start it anew with yours",
                env!("CARGO_PKG_VERSION")
            ),
        },
        Ok(question) => match timeout(ANSWER_TIMEOUT, ask_server(question, about, commands, review)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Answer::Error { error: "the server is ending".into() },
            Err(_) => Answer::Error { error: "the server did not answer in time: is the relay reachable?".into() },
        },
    };
    let written = timeout(ASK_TIMEOUT, write(&mut connection, &answer)).await.unwrap_or_else(|late| Err(late.into()));
    if let (Err(_), Answer::Code { id, .. }) = (&written, &answer) {
        // The operator's program has gone: nobody would ever see this code.
        let _ = commands.send(Command::Kill(*id, oneshot::channel().0)).await;
    }
    written
}

async fn ask_server(
    question: Question,
    about: About,
    commands: &mpsc::Sender<Command>,
    review: &Review,
) -> Option<Answer> {
    match question {
        Question::List {} => {
            let (reply, answer) = oneshot::channel();
            commands.send(Command::List(reply)).await.ok()?;
            let clients = answer.await.ok()?.into_iter().map(ListedClient::from).collect();
            Some(Answer::Clients { clients })
        }
        Question::About {} => Some(Answer::About(about)),
        Question::Kill { id } => {
            let (reply, answer) = oneshot::channel();
            commands.send(Command::Kill(id, reply)).await.ok()?;
            Some(match answer.await.ok()? {
                true => Answer::Killed,
                false => Answer::Error { error: format!("there is no client {id}: see `mykube sessions`") },
            })
        }
        Question::New { name, policy } => {
            if !name.as_deref().is_none_or(is_plain_name) {
                let error = "a client's name has 1 to 63 letters, digits, '.', '_' or '-'".into();
                return Some(Answer::Error { error });
            }
            // The warnings come first: a code's time runs from when it is made, and the operator should see it at once.
            let warnings = timeout(REVIEW_TIMEOUT, review(&policy)).await.unwrap_or_default();
            let (reply, answer) = oneshot::channel();
            commands.send(Command::Invite(Invitation { name, policy: Arc::from(policy) }, reply)).await.ok()?;
            Some(match answer.await {
                Ok(Ok((id, code))) => Answer::Code { id, code, warnings },
                Ok(Err(error)) => Answer::Error { error },
                Err(_) => Answer::Error { error: "no code could be had; the server says why".into() },
            })
        }
    }
}

/// Asks one server.
///
/// # Errors
/// Nothing listens on the socket, or the answer does not come.
pub async fn ask(socket: &Path, question: &Question) -> io::Result<Answer> {
    let mut connection = UnixStream::connect(socket).await?;
    write(&mut connection, question).await?;
    let line = timeout(ANSWER_TIMEOUT + ASK_TIMEOUT, read_line(&mut connection)).await??;
    understood(&line).map_err(|why| {
        let text = format!("the server's answer is of another release ({why}): use that of the server");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

async fn read_line(connection: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(connection.take(LINE_MAX)).read_until(b'\n', &mut line).await?;
    Ok(line)
}

fn understood<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| printable(&error.to_string(), 200))
}

async fn write(connection: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    connection.write_all(&line).await
}

/// This user's running servers: pid and socket. Removes the sockets of killed ones.
///
/// # Errors
/// See [`directory`].
pub async fn servers() -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory()?)? {
        let path = entry?.path();
        let pid = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("server-")?.strip_suffix(".sock")?.parse().ok());
        let Some(pid) = pid else { continue };
        match UnixStream::connect(&path).await {
            Ok(_) => found.push((pid, path)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {}
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { relay: "https://relay.example".into(), cluster: "prod".into() }
    }

    #[tokio::test]
    async fn questions_reach_the_server_and_answers_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server-1.sock");
        let socket = Socket { listener: UnixListener::bind(&path).unwrap(), path: path.clone() };
        let (commands, mut received) = mpsc::channel(1);
        let review: Review = Arc::new(|policy| {
            let said = policy.namespaces.iter().map(|name| format!("no {name}")).collect();
            Box::pin(async { said })
        });
        let serving = tokio::spawn(socket.serve(about(), commands, review));
        assert!(matches!(ask(&path, &Question::About {}).await.unwrap(), Answer::About(answer) if answer == about()));
        let at_server = tokio::spawn(async move {
            match received.recv().await {
                Some(Command::Invite(invitation, reply)) => {
                    assert_eq!(invitation.name.as_deref(), Some("alice"));
                    assert!(invitation.policy.read_only);
                    reply.send(Ok((2, "483 20417".into()))).unwrap();
                }
                _ => panic!("not an invitation"),
            }
            match received.recv().await {
                Some(Command::Kill(7, reply)) => reply.send(false).unwrap(),
                _ => panic!("not a kill"),
            }
            received
        });
        let policy = Box::new(Policy { read_only: true, namespaces: vec!["nosuch".into()], ..Policy::default() });
        let new = Question::New { name: Some("alice".into()), policy: policy.clone() };
        match ask(&path, &new).await.unwrap() {
            Answer::Code { id: 2, code, warnings } => {
                assert_eq!((code.as_str(), warnings), ("483 20417", vec!["no nosuch".to_owned()]));
            }
            other => panic!("{other:?}"),
        }
        // The answer of an older server.
        let older = understood::<Answer>(br#"{"answer":"code","id":2,"code":"483 20417"}"#);
        assert!(matches!(older, Ok(Answer::Code { warnings, .. }) if warnings.is_empty()));
        let kill = ask(&path, &Question::Kill { id: 7 }).await.unwrap();
        assert!(matches!(kill, Answer::Error { error } if error.contains("no client 7")));
        let hostile = Question::New { name: Some("../x\n".into()), policy };
        assert!(matches!(ask(&path, &hostile).await.unwrap(), Answer::Error { .. }));
        drop(at_server.await.unwrap());
        serving.await.unwrap();
        assert!(!path.exists(), "the socket is removed with its server");
    }

    #[tokio::test]
    async fn a_code_is_made_once_its_policy_is_reviewed_and_withdrawn_where_nobody_hears_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server-1.sock");
        let socket = Socket { listener: UnixListener::bind(&path).unwrap(), path: path.clone() };
        let (commands, mut received) = mpsc::channel(1);
        let (begin, mut begun) = mpsc::channel(1);
        let review: Review = Arc::new(move |_| {
            let begin = begin.clone();
            Box::pin(async move {
                let (end, ended) = oneshot::channel::<()>();
                begin.send(end).await.unwrap();
                ended.await.unwrap();
                Vec::new()
            })
        });
        let serving = tokio::spawn(socket.serve(about(), commands, review));
        let mut asking = UnixStream::connect(&path).await.unwrap();
        write(&mut asking, &Question::New { name: None, policy: Box::default() }).await.unwrap();
        let end = tokio::select! {
            biased;
            _ = received.recv() => panic!("a code is made while its policy is looked at"),
            end = begun.recv() => end.unwrap(),
        };
        drop(asking);
        end.send(()).unwrap();
        let Some(Command::Invite(_, reply)) = received.recv().await else { panic!("not an invitation") };
        reply.send(Ok((7, "483 20417".into()))).unwrap();
        let next = timeout(ANSWER_TIMEOUT, received.recv()).await;
        assert!(matches!(next, Ok(Some(Command::Kill(7, _)))), "the code stands");
        drop(received);
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_newer_release_restricts_is_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server-1.sock");
        let socket = Socket { listener: UnixListener::bind(&path).unwrap(), path: path.clone() };
        let (commands, mut received) = mpsc::channel(1);
        let serving = tokio::spawn(socket.serve(about(), commands, Arc::new(|_| Box::pin(async { Vec::new() }))));
        let new = serde_json::to_value(Question::New { name: None, policy: Box::default() }).unwrap();
        let with = |at: &[&str], value: serde_json::Value| {
            let mut question = new.clone();
            let (last, way) = at.split_last().unwrap();
            way.iter().fold(&mut question, |into, key| &mut into[key])[last] = value;
            question
        };
        let rule = serde_json::json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "times": ["day"]});
        for (question, unknown) in [
            (with(&["policy", "max_bytes"], 1.into()), "max_bytes"),
            (with(&["policy", "deny"], vec![rule].into()), "times"),
            (with(&["only_once"], true.into()), "only_once"),
            (serde_json::json!({"ask": "list", "of": "alice"}), "of"),
            (serde_json::json!({"ask": "kill", "id": 1, "unless": "busy"}), "unless"),
            (serde_json::json!({"ask": "pause"}), "pause"),
        ] {
            let mut connection = UnixStream::connect(&path).await.unwrap();
            write(&mut connection, &question).await.unwrap();
            match understood(&read_line(&mut connection).await.unwrap()) {
                Ok(Answer::Error { error }) => {
                    assert!(error.contains(unknown) && error.contains("does not understand"), "{error}");
                }
                other => panic!("{question}: {other:?}"),
            }
        }
        assert!(received.try_recv().is_err(), "nothing reached the server");
        // Empty fields are left out, so that a server that does not know them accepts the rest.
        let text = new.to_string();
        assert!(!text.contains("as_uid") && !text.contains("as_extra"), "{text}");
        drop(received);
        serving.await.unwrap();
    }
}
