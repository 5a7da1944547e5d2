//! A directory with a kubeconfig in it, and an environment with nothing else.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a fixture that fails should stop its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mykube_agent_upstream::{Credentialer, Environment, KubeconfigError, KubeconfigSource, Upstream};
use mykube_dial::Trust;
use mykube_protocol::channel::{Credentials, Welcome};
use tempfile::TempDir;

mod version_1;

pub(crate) struct Fixture {
    pub dir: TempDir,
    pub env: Environment,
    pub source: KubeconfigSource,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment {
            vars: [("PATH".into(), std::env::var_os("PATH").unwrap_or_default())].into(),
            home: Some(dir.path().join("home")),
            service_account: dir.path().join("serviceaccount"),
            attended: false,
            terminal: false,
        };
        Self { dir, env, source: KubeconfigSource::default() }
    }

    /// With one context `ctx` of cluster `prod` at `server` and the user `dev` as given in YAML flow or block form.
    pub(crate) fn with_user(user: &str) -> Self {
        let mut this = Self::new();
        this.source.kubeconfig = Some(this.write("config", config("server: https://10.1.2.3:6443", user)));
        this
    }

    pub(crate) fn with_cluster(cluster: &str) -> Self {
        let mut this = Self::new();
        this.source.kubeconfig = Some(this.write("config", config(cluster, "token: t0k3n")));
        this
    }

    /// With something else in the kubeconfig.
    pub(crate) fn changed(self, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(self.path("config")).unwrap();
        assert!(text.contains(from), "{text}");
        self.write("config", text.replace(from, to));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn var(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) {
        self.env.vars.insert(name.into(), value.as_ref().to_owned());
    }

    pub(crate) async fn load(&self) -> Result<Upstream, KubeconfigError> {
        Upstream::load(&self.source, &self.env, trust(self.dir.path())).await
    }

    pub(crate) async fn credentialer(&self) -> Result<Credentialer, KubeconfigError> {
        Ok(Credentialer::new(Arc::new(self.load().await?)))
    }

    pub(crate) async fn welcome(&self) -> Result<Welcome, KubeconfigError> {
        self.credentialer().await?.welcome().await
    }

    pub(crate) async fn credentials(&self) -> Result<Credentials, KubeconfigError> {
        Ok(self.welcome().await?.credentials.unwrap())
    }

    /// The failure's message, together with its debug form.
    pub(crate) async fn failure(&self) -> String {
        let error = self.welcome().await.unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        let message = error.to_string();
        assert!(!message.contains("hunter2"), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
        message
    }
}

pub(crate) fn config(cluster: &str, user: &str) -> String {
    let indent = |text: &str| text.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: ctx\n\
         clusters:\n- name: prod\n  cluster:\n    {}\n\
         users:\n- name: dev\n  user:\n    {}\n\
         contexts:\n- name: ctx\n  context: {{cluster: prod, user: dev}}\n",
        indent(cluster),
        indent(user)
    )
}

/// A certificate and its key, in PEM form.
pub(crate) fn identity() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

pub(crate) fn trust(dir: &Path) -> Trust {
    let path = dir.join("trusted.pem");
    fs::write(&path, identity().0).unwrap();
    Trust::new(Some(&path)).unwrap()
}

/// The same as a certificate of version 1.
pub(crate) fn version_1() -> (String, String) {
    version_1::version_1(|der| STANDARD.encode(der))
}
