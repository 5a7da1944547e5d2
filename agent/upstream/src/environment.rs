//! The process's surroundings, as an argument: tests bring their own.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::IsTerminal as _,
    path::PathBuf,
};

/// Where a pod finds its service account (Kubernetes, "Accessing the API from a Pod").
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Environment variables, home directory, service account and terminal of this process.
#[derive(Clone)]
pub struct Environment {
    /// Environment variables; exec plugins inherit them.
    pub vars: BTreeMap<OsString, OsString>,
    /// The home directory, for `~/.kube/config`.
    pub home: Option<PathBuf>,
    /// The directory with a pod's `token`, `ca.crt` and `namespace`.
    pub service_account: PathBuf,
    /// A person sits at the terminal: interactive exec plugins may ask on standard input.
    pub attended: bool,
    /// Standard error is a terminal: an exec plugin writes to the person there directly, not through us.
    pub terminal: bool,
}

impl Environment {
    /// This process's environment.
    #[must_use]
    pub fn from_system(attended: bool) -> Self {
        Self {
            vars: std::env::vars_os().collect(),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            service_account: SERVICE_ACCOUNT.into(),
            attended,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// A variable that is set and not empty.
    pub(crate) fn var_os(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that is set, not empty and UTF-8.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.var_os(name)?.to_str()
    }
}
