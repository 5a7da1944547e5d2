//! One kubeconfig of the zoo, and how it is written down.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use rustls::ServerConfig;

use crate::support::Sandbox;

/// One kubeconfig, with the files and settings that belong to it.
///
/// In every text `$SERVER` is the API server's `127.0.0.1:PORT`, `$PORT` its port, `$CA` its CA in base64, `$HOME` the
/// directory of the files, `$CERT` and `$KEY` a client certificate and its key in base64; `$PEM`, `$CRTPEM` and `$KEYPEM`
/// are the same three in PEM.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) files: Vec<(&'static str, String)>,
    pub(super) programs: Vec<(&'static str, String)>,
    pub(super) encode: fn(String) -> Vec<u8>,
    /// Without it, the file `config` is named on the command line.
    pub(super) by_environment: bool,
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) context: Option<&'static str>,
    pub(super) server: Option<Arc<ServerConfig>>,
    pub(super) reason: Option<&'static str>,
}

impl Entry {
    /// The kubeconfig is this text.
    pub(super) fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self {
            name,
            files: vec![("config", text.into())],
            programs: Vec::new(),
            encode: String::into_bytes,
            by_environment: false,
            env: Vec::new(),
            context: None,
            server: None,
            reason: None,
        }
    }

    /// One more file in the same directory.
    pub(super) fn file(mut self, name: &'static str, content: impl Into<String>) -> Self {
        self.files.push((name, content.into()));
        self
    }

    /// A variable of both programs. With `KUBECONFIG` no file is named on the command line.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.by_environment |= name == "KUBECONFIG";
        self.env.push((name, value.into()));
        self
    }

    /// `--context`.
    pub(super) fn context(self, name: &'static str) -> Self {
        Self { context: Some(name), ..self }
    }

    /// How the kubeconfig becomes bytes, if not as UTF-8.
    pub(super) fn encoded(self, encode: fn(String) -> Vec<u8>) -> Self {
        Self { encode, ..self }
    }

    /// kubectl and mykube do not do the same, for this reason.
    pub(super) fn differs(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// For entries that need more than data.
impl Entry {
    /// Changes the kubeconfig's text.
    pub(super) fn with(mut self, from: &str, to: &str) -> Self {
        let text = &mut self.files[0].1;
        assert!(text.contains(from), "{text}");
        *text = text.replace(from, to);
        self
    }

    /// An executable file in the same directory.
    pub(super) fn program(mut self, name: &'static str, script: impl Into<String>) -> Self {
        self.programs.push((name, script.into()));
        self
    }

    /// The API server of this entry alone: another certificate.
    pub(super) fn served_by(self, server: Arc<ServerConfig>) -> Self {
        Self { server: Some(server), ..self }
    }
}

/// A kubeconfig with one context `ctx` of cluster `c` and user `u`, each given in YAML flow form without braces.
pub(super) fn config(cluster: &str, user: &str, context: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: ctx\nclusters:\n- name: c\n  cluster: {{{cluster}}}\n\
         contexts:\n- name: ctx\n  context: {{{context}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

pub(super) const CLUSTER: &str = "server: 'https://$SERVER', certificate-authority-data: $CA";
pub(super) const USER: &str = "token: tok";
pub(super) const CONTEXT: &str = "cluster: c, user: u";

/// The plainest kubeconfig that works.
pub(super) fn plain() -> String {
    config(CLUSTER, USER, CONTEXT)
}

pub(super) fn with_cluster(cluster: &str) -> String {
    config(cluster, USER, CONTEXT)
}

pub(super) fn with_user(user: &str) -> String {
    config(CLUSTER, user, CONTEXT)
}

impl Entry {
    pub(super) fn write(&self, sandbox: &Sandbox, fill: &impl Fn(&str, &Path) -> String) {
        for (at, (name, text)) in self.files.iter().enumerate() {
            let text = fill(text, sandbox.home());
            let bytes = if at == 0 { (self.encode)(text) } else { text.into_bytes() };
            let path = sandbox.home().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        for (name, script) in &self.programs {
            fs::create_dir_all(sandbox.home().join(name).parent().unwrap()).unwrap();
            let path = sandbox.file(name, fill(script, sandbox.home()));
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}
