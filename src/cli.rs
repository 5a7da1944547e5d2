//! The command line. Every flag can also be set by an environment variable `MYKUBE_<FLAG>`; the code cannot.
//!
//! Over 500 lines because all flags are read in one piece, and their tests stand below.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint,
    builder::BoolishValueParser,
    builder::styling::{AnsiColor, Styles},
};
use mykube_protocol::units;
use mykube_relay::logs::LogFormat;

use crate::access::unsigned;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  A relay, on a machine that both sides reach:
    mykube relay --listen 0.0.0.0:8000 --tls-cert relay.crt --tls-key relay.key

  Beside the cluster; it shows a code:
    mykube server --relay-url https://relay.example:8000

  On the laptop; it asks for the code and opens a shell where kubectl works:
    mykube client --relay-url https://relay.example:8000

Exit codes: 0 done, 1 failed, 2 usage, 3 wrong or expired code, 4 relay unreachable, 5 session lost or \
ended by the other end; after `--`, the command's own, 126 if it cannot be run, 127 if there is no such command.";

const RELAY_EXAMPLES: &str = "\
Examples:
  On this machine, to try it out:
    mykube relay

  For everybody, with a certificate:
    mykube relay --listen 0.0.0.0:443 --tls-cert relay.crt --tls-key relay.key

  Behind a proxy on this machine that ends TLS:
    mykube relay --listen 127.0.0.1:8000 --trusted-proxy 127.0.0.1";

const SERVER_EXAMPLES: &str = "\
Examples:
  The current context of your kubeconfig; its credentials stay here:
    mykube server --relay-url https://relay.example

  A colleague may look, in one namespace, for a day; every request is logged:
    mykube server --relay-url https://relay.example --read-only --namespace staging --expires 24h --audit-log audit.jsonl

  Another context, a code that waits ten minutes, and words to compare at pairing:
    mykube server --relay-url https://relay.example --context staging --code-ttl 10m --verify

  For a script: one JSON object a line on standard output, the code among them:
    mykube server --relay-url https://relay.example --output json";

const SHELL_EXAMPLES: &str = "\
Examples:
  A second terminal:
    mykube shell

  One command, where several sessions run:
    mykube shell prod -- kubectl get pods";

const SESSIONS_EXAMPLES: &str = "\
Examples:
  The clients: server, number, name, state, since, what it may do
    mykube sessions

  A code for a colleague who may only look (the server needs a free place: --max-clients):
    mykube sessions new --name alice --read-only

  End one:
    mykube sessions kill 2";

const AGENTS_EXAMPLES: &str = "\
Examples:
  A server with a name, signed in (`mykube login`):
    mykube server --name prod

  Which are there: name, state, for how long, key
    mykube agents

  One for a pod, whose token goes into a Secret:
    mykube agents add prod > token && kubectl create secret generic mykube --from-file token

live: it is connected. away: it is not. unknown: the relay has started anew, and has not seen it since.
A name is good for this list, for now: clients need a code all the same.";

const CLIENT_EXAMPLES: &str = "\
Examples:
  Ask for the code, then open a shell where kubectl works:
    mykube client --relay-url https://relay.example

  One command, with its own exit code:
    mykube client --relay-url https://relay.example -- kubectl get pods -A

  For Lens, k9s or Headlamp: a fixed port, and the kubeconfig's path on standard output:
    mykube client --relay-url https://relay.example --no-shell --port 16443

  The same, and a context in your own kubeconfig until the session ends:
    mykube client --relay-url https://relay.example --no-shell --merge

  From a script, with the code where other users cannot see it, as they can see a command line:
    mykube client --relay-url https://relay.example --no-shell < code.txt";

const LOGIN_EXAMPLES: &str = "\
Examples:
  With the browser of this machine:
    mykube login --relay-url https://relay.example

  Over SSH, or where there is no display: a code that is typed in a browser anywhere
    mykube login --relay-url https://relay.example --device

  In a script, with a token that was made elsewhere:
    mykube login --relay-url https://relay.example --with-token < token

  At a relay in dev mode on this machine:
    mykube login --relay-url http://127.0.0.1:8000 --dev-email alice@example.com --dev-secret-file dev-secret

The relay is remembered: other commands need no --relay-url then.";

const STATUS_EXAMPLES: &str = "\
Example:
  Does the relay answer, who is signed in, and what of this machine is there?
    mykube relay status";

const DISCONNECT_EXAMPLES: &str = "\
Example:
  End this machine's servers and clients at the relay; the sign-in stays, and other relays are left alone
    mykube relay disconnect --yes";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  On the laptop: is the way to the relay clear?
    mykube doctor --relay-url https://relay.example

  Beside the cluster: the relay, and the cluster with the credentials that would be used:
    mykube doctor --relay-url https://relay.example --context staging

Nothing is paired and no code is shown. Exit code 0 only when every check that could be made is well, else 1.";

/// kubectl to a private Kubernetes cluster from anywhere, through a relay that can read none of it.
#[derive(Parser)]
#[command(name = "mykube", version, styles = STYLES, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Join servers and clients, without being able to read their traffic.
    #[command(after_help = RELAY_EXAMPLES)]
    Relay(Box<RelayCommand>),
    /// Run beside the cluster: shows a code, then carries a client to the API server.
    #[command(after_help = SERVER_EXAMPLES)]
    Server(Box<ServerArgs>),
    /// Run on the laptop: takes the code, then opens a shell where kubectl works.
    #[command(after_help = CLIENT_EXAMPLES)]
    Client(ClientArgs),
    /// Open another shell in a session that runs on this machine; no new code is needed.
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(ShellArgs),
    /// List the clients of the servers that run here, end one, or make a code for one more.
    #[command(after_help = SESSIONS_EXAMPLES)]
    Sessions(SessionsArgs),
    /// Test what a session needs: DNS, proxy, TLS, WebSockets, clock, relay, kubeconfig, API server and rights.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Sign in at a relay that has accounts; sessions by code need none.
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// List the agents that have a name at the relay, and whether they are there; make one, replace its token, remove it.
    #[command(after_help = AGENTS_EXAMPLES)]
    Agents(AgentsArgs),
    /// Say who is signed in at the relay.
    Whoami(RelayUrlArgs),
    /// End the sign-in at the relay, and this machine's servers and clients there.
    Logout(EndArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  mykube completions bash > ~/.local/share/bash-completion/completions/mykube")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Everywhere.
#[derive(Args)]
pub(crate) struct Global {
    /// Trust the PEM certificates in FILE besides the system's, for a relay or a proxy with a CA of its own
    #[arg(long, global = true, env = "MYKUBE_CA_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Say more on standard error; -vv and -vvv still more
    #[arg(short, long, global = true, env = "MYKUBE_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but errors, prompts and the code
    #[arg(short, long, global = true, env = "MYKUBE_QUIET", value_parser = BoolishValueParser::new())]
    pub(crate) quiet: bool,
    /// text for people on standard error, or json: one object a line on standard output
    #[arg(long, global = true, env = "MYKUBE_OUTPUT", value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
    /// Colours on standard error
    #[arg(long, global = true, env = "MYKUBE_COLOR", value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Args)]
pub(crate) struct RelayCommand {
    #[command(flatten)]
    pub(crate) node: mykube_relay_node::NodeArgs,
    /// The form of the log lines on standard error
    #[arg(long, env = "MYKUBE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Option<RelaySubcommand>,
}

/// What can be asked of a relay's program, and of this machine about a relay somewhere.
#[derive(Subcommand)]
pub(crate) enum RelaySubcommand {
    #[command(flatten)]
    Node(mykube_relay_node::NodeCommand),
    /// Say whether a relay answers, who is signed in there, and which servers and clients of this machine are
    #[command(after_help = STATUS_EXAMPLES)]
    Status(HereArgs),
    /// End the servers and clients of this machine that are at a relay; the sign-in stays
    #[command(after_help = DISCONNECT_EXAMPLES)]
    Disconnect(EndArgs),
}

/// Which relay, and where else to look for this machine's clients.
#[derive(Args)]
pub(crate) struct HereArgs {
    #[command(flatten)]
    pub(crate) relay: RelayUrlArgs,
    /// Look for clients that were given this --kubeconfig-dir too
    #[arg(long, env = "MYKUBE_KUBECONFIG_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) kubeconfig_dir: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct EndArgs {
    #[command(flatten)]
    pub(crate) here: HereArgs,
    /// Do not ask before servers and clients are ended
    #[arg(short, long, env = "MYKUBE_YES", value_parser = BoolishValueParser::new())]
    pub(crate) yes: bool,
}

#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The relay both sides reach
    #[arg(long, env = "MYKUBE_RELAY_URL", hide_env_values = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) relay_url: Option<String>,
    /// Read this kubeconfig instead of KUBECONFIG or ~/.kube/config
    #[arg(long, env = "MYKUBE_KUBECONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Use this context instead of the current one
    #[arg(long, env = "MYKUBE_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Give the client this kubeconfig's credentials, and TCP to the API server, instead of making its requests here
    #[arg(long, env = "MYKUBE_SHARE_CREDENTIALS", value_parser = BoolishValueParser::new())]
    pub(crate) share_credentials: bool,
    #[command(flatten)]
    pub(crate) policy: crate::access::PolicyArgs,
    /// Write one JSON line a request to FILE, or to standard output with -
    #[arg(long, env = "MYKUBE_AUDIT_LOG", value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "What clients may do")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Record what exec and attach show, one asciicast file a session, in DIR; clients are told
    #[arg(long, env = "MYKUBE_RECORD", value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "What clients may do")]
    pub(crate) record: Option<PathBuf>,
    /// In a pod: publish each code as an Event of the pod too; anyone who may read Events in its namespace can use it
    #[arg(long, env = "MYKUBE_ANNOUNCE_EVENT", value_parser = BoolishValueParser::new())]
    pub(crate) announce_event: bool,
    /// Clients at once, each with a code of its own; above 1 the server keeps running when a client leaves
    #[arg(long, env = "MYKUBE_MAX_CLIENTS", value_name = "N", default_value_t = 1, value_parser = max_clients)]
    pub(crate) max_clients: usize,
    /// When the client has left, show a new code instead of ending
    #[arg(long, env = "MYKUBE_STAY", value_parser = BoolishValueParser::new())]
    pub(crate) stay: bool,
    /// How long a session waits for a lost connection to come back, like 30m or 4h; 0s ends it at once
    #[arg(long, env = "MYKUBE_RESUME_WINDOW", value_name = "TIME", default_value = "4h", value_parser = resume_window)]
    pub(crate) resume_window: Duration,
    /// When all places are taken: how long a client must be away before a new code is shown for its place, like 30s or 10m;
    /// 0s: at once; never: not at all
    #[arg(long, env = "MYKUBE_REPLACE_AFTER", value_name = "TIME", default_value = "1m", value_parser = replace_after)]
    pub(crate) replace_after: ReplaceAfter,
    /// How long the code waits to be typed, like 90s or 10m
    #[arg(long, env = "MYKUBE_CODE_TTL", value_name = "TIME", default_value = "120s", value_parser = code_ttl)]
    pub(crate) code_ttl: Duration,
    /// Show four words on both ends and go on only when both people say they are the same
    #[arg(long, env = "MYKUBE_VERIFY", value_parser = BoolishValueParser::new())]
    pub(crate) verify: bool,
    /// Show the code as a QR code too, on a terminal
    #[arg(long, env = "MYKUBE_QR", value_parser = BoolishValueParser::new())]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) name: NameArgs,
    #[command(flatten)]
    pub(crate) limits: crate::limits::LimitArgs,
}

/// A server's name at the relay.
#[derive(Args)]
pub(crate) struct NameArgs {
    /// Hold this name at a relay that has accounts: `mykube agents` shows then whether this server is there. Clients need a code
    /// all the same
    #[arg(long, env = "MYKUBE_NAME", value_name = "NAME", value_parser = agent_name, help_heading = "A name at the relay")]
    pub(crate) name: Option<AgentName>,
    /// The file with the token of the agent of this name; without it, whoever is signed in here makes the agent, once
    #[arg(long, env = "MYKUBE_TOKEN_FILE", value_name = "FILE", requires = "name", value_hint = ValueHint::FilePath, help_heading = "A name at the relay")]
    pub(crate) token_file: Option<PathBuf>,
    /// Keep the keys of named agents, and tokens that they made, in DIR instead of ~/.local/state/mykube
    #[arg(long, env = "MYKUBE_STATE_DIR", value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "A name at the relay")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// A name as relays have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentName(pub(crate) String);

/// No name looks like a code.
fn agent_name(text: &str) -> Result<AgentName, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let is_name = (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.starts_with(['_', '-']);
    let wanted = "1 to 63 lower-case letters, digits, - and _, at least one letter, beginning with a letter or digit";
    is_name.then(|| AgentName(text.to_owned())).ok_or_else(|| wanted.to_owned())
}

#[derive(Args)]
pub(crate) struct AgentsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AgentsCommand>,
    /// The relay [default: the one that was signed in at last]
    #[arg(long, global = true, env = "MYKUBE_RELAY_URL", hide_env_values = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) relay_url: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum AgentsCommand {
    /// List them: name, state, for how long, key (as without a command)
    List,
    /// Make an agent for a server that is not signed in; prints its token, once
    Add {
        /// Its name
        #[arg(value_parser = agent_name)]
        name: AgentName,
    },
    /// Make an agent another token, and print it, once; the one before works for an hour more
    Rotate {
        /// Its name
        #[arg(value_parser = agent_name)]
        name: AgentName,
        /// The one before is worth nothing at once, and what it has opened ends: for a token that others may have seen
        #[arg(long, env = "MYKUBE_NOW", value_parser = BoolishValueParser::new())]
        now: bool,
    },
    /// Remove an agent and its tokens; its name is free then
    Remove {
        /// Its name
        #[arg(value_parser = agent_name)]
        name: AgentName,
    },
}

#[derive(Args)]
pub(crate) struct ShellArgs {
    /// The cluster's name, where several sessions run
    #[arg(value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// The session of this `mykube client`, where several run
    #[arg(long, env = "MYKUBE_PID", value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// The --kubeconfig-dir of that client, if it was given one
    #[arg(long, env = "MYKUBE_KUBECONFIG_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) kubeconfig_dir: Option<PathBuf>,
    /// Run this instead of a shell, and exit with its code
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct SessionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SessionsCommand>,
    /// The server with this process id, where several run
    #[arg(long, global = true, env = "MYKUBE_SERVER", value_name = "PID")]
    pub(crate) server: Option<u32>,
}

#[derive(Subcommand)]
pub(crate) enum SessionsCommand {
    /// List clients and waiting codes.
    List,
    /// End a client's session, or withdraw a code that waits for its client.
    Kill {
        /// Its number in the list.
        id: u64,
    },
    /// Make a code for one more client.
    New {
        /// The client's name, in lists and in the audit log.
        #[arg(long, env = "MYKUBE_NAME", value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        policy: crate::access::PolicyArgs,
    },
}

#[derive(Args)]
pub(crate) struct ClientArgs {
    /// The code that `mykube server` shows; without it you are asked. Other users of this machine can see arguments
    #[arg(value_name = "CODE", num_args = 0..)]
    pub(crate) code: Vec<String>,
    /// The relay both sides reach
    #[arg(long, env = "MYKUBE_RELAY_URL", hide_env_values = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) relay_url: Option<String>,
    /// Print the kubeconfig's path and wait, instead of opening a shell
    #[arg(long, env = "MYKUBE_NO_SHELL", value_parser = BoolishValueParser::new(), conflicts_with = "command")]
    pub(crate) no_shell: bool,
    /// Add a context to your own kubeconfig too, without making it the current one, until the session ends
    #[arg(long, env = "MYKUBE_MERGE", value_parser = BoolishValueParser::new())]
    pub(crate) merge: bool,
    /// Listen on this port of 127.0.0.1 instead of any free one
    #[arg(long, env = "MYKUBE_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// How long the session waits for a lost connection to come back, like 30m or 4h; 0s ends it at once
    #[arg(long, env = "MYKUBE_RESUME_WINDOW", value_name = "TIME", default_value = "4h", value_parser = resume_window)]
    pub(crate) resume_window: Duration,
    /// Show four words on both ends and go on only when both people say they are the same
    #[arg(long, env = "MYKUBE_VERIFY", value_parser = BoolishValueParser::new())]
    pub(crate) verify: bool,
    /// Keep the temporary kubeconfig in a fresh directory in DIR instead of on RAM
    #[arg(long, env = "MYKUBE_KUBECONFIG_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) kubeconfig_dir: Option<PathBuf>,
    /// Run this with the cluster's kubeconfig instead of a shell, and exit with its code
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// Which relay a sign-in is at.
#[derive(Args)]
pub(crate) struct RelayUrlArgs {
    /// The relay [default: the one that was signed in at last]
    #[arg(long, env = "MYKUBE_RELAY_URL", hide_env_values = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) relay_url: Option<String>,
}

#[derive(Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) relay: RelayUrlArgs,
    /// Show a code, which is typed in a browser on any machine
    #[arg(long, visible_alias = "remote", env = "MYKUBE_DEVICE", value_parser = BoolishValueParser::new())]
    pub(crate) device: bool,
    /// Go to this provider of the relay's at once, as its configuration names it, like google
    #[arg(long, env = "MYKUBE_PROVIDER", value_name = "NAME", conflicts_with_all = ["device", "with_token", "dev_email"])]
    pub(crate) provider: Option<String>,
    /// Read a token of the relay's (class mykube) from standard input; it works until it ends
    #[arg(long, env = "MYKUBE_WITH_TOKEN", value_parser = BoolishValueParser::new(), conflicts_with_all = ["device", "dev_email"])]
    pub(crate) with_token: bool,
    /// At a relay in dev mode: sign in as whoever has this address
    #[arg(long, env = "MYKUBE_DEV_EMAIL", value_name = "EMAIL", requires = "dev_secret_file", conflicts_with = "device", value_hint = ValueHint::EmailAddress)]
    pub(crate) dev_email: Option<String>,
    /// The file with that relay's dev secret
    #[arg(long, env = "MYKUBE_DEV_SECRET_FILE", value_name = "FILE", requires = "dev_email", value_hint = ValueHint::FilePath)]
    pub(crate) dev_secret_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// The relay both sides reach; without it, and where none was signed in at, only the cluster is checked
    #[arg(long, env = "MYKUBE_RELAY_URL", hide_env_values = true, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) relay_url: Option<String>,
    /// Read this kubeconfig instead of KUBECONFIG or ~/.kube/config
    #[arg(long, env = "MYKUBE_KUBECONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Use this context instead of the current one
    #[arg(long, env = "MYKUBE_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// The arguments, with the environment. A variable that is set to nothing counts as not set.
pub(crate) fn parse() -> Cli {
    let command = without_empty(Cli::command(), &|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    let matches = command.try_get_matches().unwrap_or_else(|error| as_typed(error).exit());
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The same error as without the environment, if there is one then: a usage text shows what was given, and variables
/// were not typed.
fn as_typed(error: clap::Error) -> clap::Error {
    if !error.use_stderr() {
        return error;
    }
    match without_empty(Cli::command(), &|_| true).try_get_matches() {
        Err(typed) if typed.kind() == error.kind() => typed,
        _ => error,
    }
}

/// `MYKUBE_*` variables among `set` that nothing reads, each with the name that was probably meant: a typo must not
/// pass for a restriction. Not reported are those that Kubernetes sets in pods for services of such names, and those of
/// `scripts/cluster env`.
pub(crate) fn unread(set: impl Iterator<Item = (OsString, OsString)>) -> Vec<(String, Option<String>)> {
    let mut known = OTHERS.map(str::to_owned).to_vec();
    read_by(&Cli::command(), &mut known);
    let ours =
        set.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().unwrap_or_default())));
    let unread = ours.filter(|(name, value)| {
        let of_a_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_PORT_");
        name.starts_with("MYKUBE_")
            && !name.starts_with(TEST_CLUSTER)
            && !known.contains(name)
            && !of_a_service
            && !value.contains("://")
    });
    let meant = |name: &str| known.iter().find(|known| distance(known, name) <= TYPOS_MAX).cloned();
    unread
        .map(|(name, _)| (meant(&name).filter(|meant| *meant != name), name))
        .map(|(meant, name)| (name, meant))
        .collect()
}

/// Variables that are no flags: `mykube client` sets them for its shell, our manifests for a pod, and the relay's log and
/// its `[dev]` read one each.
const OTHERS: [&str; 5] = ["MYKUBE_CLUSTER", "MYKUBE_POD_NAME", "MYKUBE_POD_UID", "MYKUBE_LOG", "MYKUBE_DEV_SECRET"];
/// How the variables of `scripts/cluster env` begin.
const TEST_CLUSTER: &str = "MYKUBE_CLUSTER_";
/// Most characters that a typo changes: with more, it is another name.
const TYPOS_MAX: usize = 2;

fn read_by(command: &clap::Command, names: &mut Vec<String>) {
    names.extend(command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned)));
    command.get_subcommands().for_each(|sub| read_by(sub, names));
}

/// How many characters must be added, removed or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The command, but without the variables that are empty.
fn without_empty(command: clap::Command, is_empty: &impl Fn(&OsStr) -> bool) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if is_empty(name) => arg.env(None::<&'static str>),
        _ => arg,
    });
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |sub| without_empty(sub, is_empty)))
}

/// Writes a completion script.
pub(crate) fn completions(shell: clap_complete::Shell, out: &mut dyn std::io::Write) {
    clap_complete::generate(shell, &mut Cli::command(), "mykube", out);
}

/// One server process takes this many clients; for more, start a second one.
const CLIENTS_MAX: usize = 100;

fn max_clients(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=CLIENTS_MAX).contains(n)).ok_or(format!("a number from 1 to {CLIENTS_MAX}"))
}

/// Shorter than it takes to read a code aloud, or longer than anyone should leave one lying about.
const CODE_TTL_RANGE: std::ops::RangeInclusive<u64> = 10..=3600;

fn code_ttl(text: &str) -> Result<Duration, String> {
    time(text, CODE_TTL_RANGE).ok_or("a time from 10s to 1h, like 90s or 10m".to_owned())
}

/// Zero, or as long as the relay's tickets surely live (a day of their 48 hours).
const RESUME_WINDOW_RANGE: std::ops::RangeInclusive<u64> = 0..=24 * 3600;

fn resume_window(text: &str) -> Result<Duration, String> {
    time(text, RESUME_WINDOW_RANGE).ok_or("a time from 0s to 24h, like 30m or 4h".to_owned())
}

/// How long a client may be away before another may take its place; never without a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplaceAfter(pub(crate) Option<Duration>);

/// Zero, or as long as a session may wait.
fn replace_after(text: &str) -> Result<ReplaceAfter, String> {
    match text {
        "never" => Ok(ReplaceAfter(None)),
        text => time(text, RESUME_WINDOW_RANGE)
            .map(|time| ReplaceAfter(Some(time)))
            .ok_or("a time from 0s to 24h, like 30s or 10m, or never".to_owned()),
    }
}

/// `90`, `90s`, `2m`, `1h`.
fn time(text: &str, range: std::ops::RangeInclusive<u64>) -> Option<Duration> {
    units::time(unsigned(text), &["s", "m", "h", ""]).filter(|time| range.contains(&time.as_secs()))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn client(line: &str) -> ClientArgs {
        match parse(line).map(|cli| cli.command) {
            Ok(Command::Client(args)) => args,
            Ok(_) => panic!("not the client"),
            Err(error) => panic!("{error}"),
        }
    }

    fn refused(line: &str) -> ErrorKind {
        parse(line).err().unwrap_or_else(|| panic!("accepted: {line}")).kind()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_code_may_be_typed_as_it_is_shown() {
        assert_eq!(client("mykube client").code, Vec::<String>::new());
        assert_eq!(client("mykube client 48320417").code, ["48320417"]);
        let args = client("mykube client 483 20417 --port 16443 -- kubectl get -w pods");
        assert_eq!(args.code.concat(), "48320417");
        assert_eq!(args.port, Some(16443));
        assert_eq!(args.command, ["kubectl", "get", "-w", "pods"]);
    }

    #[test]
    fn every_flag_is_also_in_the_environment_and_the_code_is_not() {
        let command = Cli::command();
        for sub in std::iter::once(&command).chain(command.get_subcommands()) {
            for arg in sub.get_arguments() {
                let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
                let expected = arg
                    .get_long()
                    .filter(|long| !matches!(*long, "help" | "version"))
                    .map(|long| format!("MYKUBE_{}", long.to_uppercase().replace('-', "_")));
                assert_eq!(env, expected, "{} {}", sub.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn what_is_prose_is_broken_by_the_terminal_alone() {
        let prose = EXAMPLES.lines().next_back().unwrap();
        assert!(prose.starts_with("Exit codes: 0 done") && prose.contains("session lost or ended by"), "{prose}");
    }

    #[test]
    fn an_empty_variable_is_no_variable() {
        let all = without_empty(Cli::command(), &|name| name == "MYKUBE_QUIET" || name == "MYKUBE_PLAIN_FORM");
        let hidden = |sub: &str, id: &str| {
            let sub = all.find_subcommand(sub).unwrap();
            sub.get_arguments().find(|arg| arg.get_id() == id).unwrap().get_env().is_none()
        };
        assert!(all.get_arguments().find(|arg| arg.get_id() == "quiet").unwrap().get_env().is_none());
        assert!(hidden("relay", "plain_form"));
        assert!(!hidden("relay", "listen") && !hidden("client", "no_shell"));
    }

    #[test]
    fn a_variable_that_nothing_reads_is_told_with_what_was_meant() {
        let unread = |set: &[(&str, &str)]| unread(set.iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(
            unread(&[("MYKUBE_READONLY", "1"), ("MYKUBE_NAMESPACES", "a"), ("MYKUBE_XYZZY", "1"), ("HOME", "/")]),
            [
                ("MYKUBE_READONLY".to_owned(), Some("MYKUBE_READ_ONLY".to_owned())),
                ("MYKUBE_NAMESPACES".to_owned(), Some("MYKUBE_NAMESPACE".to_owned())),
                ("MYKUBE_XYZZY".to_owned(), None),
            ]
        );
        let fine = [
            ("MYKUBE_READ_ONLY", "1"),
            ("MYKUBE_CLUSTER", "prod"),
            ("MYKUBE_NAME", "a"),
            ("MYKUBE_CLUSTER_IMAGE", "busybox:1"),
            ("MYKUBE_RELAY_SERVICE_HOST", "10.0.0.1"),
            ("MYKUBE_RELAY_PORT_443_TCP_ADDR", "10.0.0.1"),
            ("MYKUBE_RELAY_PORT", "tcp://10.0.0.1:443"),
        ];
        assert_eq!(unread(&fine), []);
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        assert_eq!(refused("mykube"), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert_eq!(refused("mykube doctor --qr"), ErrorKind::UnknownArgument);
        assert_eq!(refused("mykube client --record recordings"), ErrorKind::UnknownArgument);
        assert_eq!(refused("mykube server --as-group admins"), ErrorKind::MissingRequiredArgument);
        assert_eq!(refused("mykube server --max-clients 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("mykube client --port 0"), ErrorKind::ValueValidation);
        assert_eq!(refused("mykube client --no-shell -- id"), ErrorKind::ArgumentConflict);
        assert_eq!(refused("mykube client --output yaml"), ErrorKind::InvalidValue);
    }

    #[test]
    fn a_resume_window_has_bounds() {
        assert_eq!(resume_window("0s"), Ok(Duration::ZERO));
        assert_eq!(resume_window("4h"), Ok(Duration::from_secs(4 * 3600)));
        assert_eq!(resume_window("24h"), Ok(Duration::from_secs(24 * 3600)));
        for bad in ["", "25h", "-1", "2d", "1h30m"] {
            assert!(resume_window(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_kept_for_a_time_or_for_ever() {
        let server = |line: &str| match parse(line).map(|cli| cli.command) {
            Ok(Command::Server(args)) => args.replace_after.0,
            _ => panic!("not the server"),
        };
        assert_eq!(server("mykube server"), Some(mykube_agent::serve::REPLACE_AFTER));
        assert_eq!(server("mykube server --replace-after 90s"), Some(Duration::from_secs(90)));
        assert_eq!(server("mykube server --replace-after 0s"), Some(Duration::ZERO));
        assert_eq!(server("mykube server --replace-after never"), None);
        for bad in ["", "25h", "-1", "Never", "1d"] {
            assert!(replace_after(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_codes_time_has_bounds() {
        assert_eq!(code_ttl("90"), Ok(Duration::from_secs(90)));
        assert_eq!(code_ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(code_ttl("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(code_ttl("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(code_ttl("+90"), Ok(Duration::from_secs(90)));
        for bad in ["", "s", "9", "61m", "-1", "++90", "90000ms", "18446744073709551615h"] {
            assert_eq!(code_ttl(bad), Err("a time from 10s to 1h, like 90s or 10m".to_owned()), "{bad}");
        }
    }

    #[test]
    fn every_shell_gets_its_completions() {
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            completions(*shell, &mut script);
            assert!(String::from_utf8(script).unwrap().contains("no-shell"), "{shell}");
        }
    }
}
