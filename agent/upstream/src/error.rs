//! What can be wrong with a kubeconfig, its credentials or the way to the API server, and what to do about it.
//!
//! Messages name files, fields, contexts, clusters and users, all cleaned for a terminal. Of a user entry they show an
//! exec plugin's command and install hint, and no other value.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mykube_protocol::text::printable;

const NAME_MAX: usize = 120;
const PATH_MAX: usize = 300;
const CAUSE_MAX: usize = 200;

/// A name or a cause, cleaned for a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    pub(crate) fn name(text: &str) -> Self {
        Self(printable(text, NAME_MAX))
    }

    pub(crate) fn path(path: &Path) -> Self {
        Self(printable(&path.to_string_lossy(), PATH_MAX))
    }

    pub(crate) fn cause(error: &io::Error) -> Self {
        Self(printable(&error.to_string(), CAUSE_MAX))
    }

    /// A text of several lines, made one line. A long text keeps its end, where the cause of a failure stands.
    pub(crate) fn tail(text: &str, max: usize) -> Self {
        let lines: Vec<_> =
            text.lines().map(|line| printable(line.trim(), max)).filter(|line| !line.is_empty()).collect();
        let joined = lines.join(" / ");
        let start = (0..=joined.len()).find(|at| joined.len() - at <= max && joined.is_char_boundary(*at));
        Self(joined[start.unwrap_or(joined.len())..].to_owned())
    }

    /// `; it has: a, b` or that there is none.
    pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        const MOST: usize = 12;
        let mut names: Vec<_> = names.map(|name| format!("\"{}\"", printable(name, 63))).collect();
        let more = names.len().saturating_sub(MOST);
        names.truncate(MOST);
        if names.is_empty() {
            return Self("there is none".into());
        }
        let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
        Self(format!("there is {}{tail}", names.join(", ")))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a setting stands: `user "dev" in /home/me/.kube/config`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    owner: String,
    /// The name in the file.
    name: String,
    file: PathBuf,
}

impl Place {
    pub(crate) fn named(kind: &str, name: &str, file: &Path) -> Self {
        let owner = format!("{kind} \"{}\"", printable(name, NAME_MAX));
        Self(Arc::new(Inner { owner, name: name.to_owned(), file: file.to_owned() }))
    }

    pub(crate) fn of(owner: &str, file: &Path) -> Self {
        Self(Arc::new(Inner { owner: owner.to_owned(), name: String::new(), file: file.to_owned() }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn file(&self) -> &Path {
        &self.0.file
    }

    /// A path written at this place: a relative one starts at the file's own directory.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.0.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.0.owner, Shown::path(&self.0.file))
    }
}

/// Why the API server or its credentials cannot be found or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// `--kubeconfig` names a file that does not exist.
    #[error("there is no kubeconfig at {0}: check --kubeconfig")]
    Missing(Shown),
    /// There is no kubeconfig, and this is not a pod.
    #[error(
        "no kubeconfig was found (looked for {0}) and this is not a pod with a service account: pass --kubeconfig FILE \
         or set KUBECONFIG"
    )]
    NoneFound(Shown),
    /// The file exists but cannot be read.
    #[error("the kubeconfig {path} cannot be read: {cause}")]
    Unreadable {
        /// The file.
        path: Shown,
        /// The system's error.
        cause: Shown,
    },
    /// Longer than a kubeconfig may be.
    #[error("{path} has more than {max} bytes: that is no kubeconfig, check the path")]
    TooLarge {
        /// The file.
        path: Shown,
        /// [`crate::kubeconfig::KUBECONFIG_MAX`] or [`crate::sourced::FILE_MAX`].
        max: u64,
    },
    /// The kubeconfig has no cluster, no user, no context.
    #[error(
        "the kubeconfig {0} is empty: fill it with your cluster's tool (`kubectl config view` shows what kubectl sees), \
         or pass another with --kubeconfig"
    )]
    Empty(Shown),
    /// The file is not YAML, or has not a kubeconfig's form. The content is not shown.
    #[error("{path} is not a valid kubeconfig{at}: compare with `kubectl config view --kubeconfig` of that file")]
    Invalid {
        /// The file.
        path: Shown,
        /// ` (line 7, column 3)` or ` (at users[3].user.token)`, where known.
        at: String,
    },
    /// Two entries have the same name: kubectl refuses the whole file.
    #[error("`{list}` of {path} has two entries with the name \"{name}\", which kubectl refuses: remove or rename one")]
    Twice {
        /// The file.
        path: Shown,
        /// Which list.
        list: &'static str,
        /// The name.
        name: Shown,
    },
    /// The file is another Kubernetes object.
    #[error("{0} is not a kubeconfig (those have `kind: Config` and `apiVersion: v1`): check the path")]
    WrongKind(Shown),
    /// There is neither `--context` nor `current-context`.
    #[error("{path} has no current-context: choose one with --context ({contexts})")]
    NoCurrentContext {
        /// The file or files.
        path: Shown,
        /// Contexts to choose from.
        contexts: Shown,
    },
    /// The chosen context does not exist.
    #[error("there is no context \"{name}\" in {path}: choose another with --context ({contexts})")]
    NoContext {
        /// The context.
        name: Shown,
        /// The file or files.
        path: Shown,
        /// Contexts to choose from.
        contexts: Shown,
    },
    /// The context has no `cluster`.
    #[error("{0} names no cluster: add `cluster`, or choose another context with --context")]
    NoCluster(Place),
    /// The context names a cluster or user that does not exist.
    #[error(
        "{context} names the {kind} \"{name}\", which is not there: add it, or choose another context with --context"
    )]
    Dangling {
        /// The context.
        context: Place,
        /// `cluster` or `user`.
        kind: &'static str,
        /// Its name.
        name: Shown,
    },
    /// The cluster has no `server`.
    #[error("{0} has no `server`: set it with `kubectl config set-cluster NAME --server=https://HOST:PORT`")]
    NoServer(Place),
    /// A setting whose value cannot be used. The value is not shown.
    #[error("`{field}` of {place} {problem}")]
    Field {
        /// The setting.
        field: &'static str,
        /// Where it stands.
        place: Place,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// A setting names a file that cannot be read.
    #[error("`{field}` of {place} names {file}, which cannot be read: {cause}")]
    FileReference {
        /// The setting.
        field: &'static str,
        /// Where it stands.
        place: Place,
        /// The file.
        file: Shown,
        /// The system's error.
        cause: Shown,
    },
    /// `http://`: credentials would cross the network unencrypted.
    #[error(
        "`server` of {0} is http://, unencrypted, and mykube shares credentials only for https:// servers: use the API \
         server's https address"
    )]
    Unencrypted(Place),
    /// Auth providers that Kubernetes 1.26 removed.
    #[error(
        "{0} uses `auth-provider: {1}`, which Kubernetes 1.26 removed: replace it with your provider's exec plugin (for GKE \
         gke-gcloud-auth-plugin, for Azure kubelogin)"
    )]
    AuthProvider(Place, &'static str),
    /// An auth provider that kubectl never had.
    #[error(
        "`auth-provider` of {0} has a `name` that kubectl does not know either (only oidc is left): correct it, or use an exec plugin"
    )]
    UnknownAuthProvider(Place),
    /// `auth-provider: oidc` gives no token. Neither tokens nor what the provider said about them is shown.
    #[error("`auth-provider: oidc` of {place} gives no token: {problem}")]
    Oidc {
        /// The user.
        place: Place,
        /// What is wrong and what to do.
        problem: String,
    },
    /// `as` with `--share-credentials`: dropping it would give away more rights than the context has.
    #[error(
        "{0} impersonates (`as`), which shared credentials cannot express; the client would have the rights behind it: \
         leave out --share-credentials, or use a context without `as`"
    )]
    Impersonates(Place),
    /// The plugin's command was not found.
    #[error("the exec plugin \"{command}\" of {place} was not found: install it, or correct `command` or PATH{hint}")]
    ExecNotFound {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// `. The kubeconfig says: ...`, with the plugin's install hint.
        hint: Shown,
    },
    /// The plugin does not start.
    #[error("the exec plugin \"{command}\" of {place} cannot be started: {cause}")]
    ExecStart {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// The system's error.
        cause: Shown,
    },
    /// The plugin ended with a failure.
    #[error("the exec plugin \"{command}\" of {place} failed ({status}): {stderr}")]
    ExecFailed {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// Exit status.
        status: String,
        /// The end of its standard error.
        stderr: Shown,
    },
    /// The plugin took too long and was ended.
    #[error(
        "the exec plugin \"{command}\" of {place} gave no credential within {seconds} s and was stopped (it may wait for \
         a login; run it by hand once): {stderr}"
    )]
    ExecTimeout {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// [`crate::KubeconfigSource::exec_timeout`].
        seconds: u64,
        /// The end of its standard error.
        stderr: Shown,
    },
    /// The plugin needs a person at a terminal, and there is none.
    #[error(
        "the exec plugin \"{0}\" of {1} needs a terminal (`interactiveMode: Always`): start mykube server in one, or use \
         credentials that need none"
    )]
    ExecNeedsTerminal(Shown, Place),
    /// The plugin's output is not an ExecCredential. It is not shown.
    #[error("the exec plugin \"{command}\" of {place} {problem}: run it by hand and compare with `apiVersion` there")]
    ExecOutput {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// What is wrong.
        problem: &'static str,
    },
    /// The plugin answered in another version than the kubeconfig's.
    #[error(
        "the exec plugin \"{command}\" of {place} answered in another apiVersion ({got}) than the kubeconfig's ({wanted}): \
         make `apiVersion` there the plugin's"
    )]
    ExecVersion {
        /// The user.
        place: Place,
        /// The command.
        command: Shown,
        /// The kubeconfig's version.
        wanted: &'static str,
        /// The plugin's version.
        got: Shown,
    },
    /// `HTTPS_PROXY` cannot be read.
    #[error(transparent)]
    Proxy(Box<mykube_dial::DialError>),
    /// CA, certificates and key together do not fit the channel.
    #[error("the certificates of {0} have more than {1} bytes together: give only the cluster's own CA")]
    WelcomeTooLarge(Place, usize),
}

/// Why the API server cannot be reached. The operator's text names addresses and proxies; the text for the other end
/// must not. Each has at most 200 bytes and is fit for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{full}")]
pub struct ConnectError {
    full: String,
    told: String,
}

impl ConnectError {
    /// `told` has no address and no name of this side.
    #[must_use]
    pub fn new(full: &str, told: &str) -> Self {
        Self { full: printable(full, CAUSE_MAX), told: printable(told, CAUSE_MAX) }
    }

    /// For the client's user.
    #[must_use]
    pub fn told(&self) -> &str {
        &self.told
    }
}
