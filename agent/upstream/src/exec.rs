//! Exec credential plugins (KEP 541, `client.authentication.k8s.io` v1 and v1beta1).
//!
//! The rules are client-go's (`plugin/pkg/client/auth/exec`). Only one run of a plugin goes on at a time, and the next
//! comes when its credential is due. Its standard output is a secret and never shown. Its standard error goes to the
//! terminal, if there is one, as it may hold a login's address; without a terminal, its end is shown if the plugin
//! fails.

mod timestamp;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::Mutex,
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    environment::Environment,
    error::{KubeconfigError, Place, Shown},
    expiry::{Expiry, checked_token},
    kubeconfig::types::ExecConfig,
    pem, yaml,
};

/// The API group of plugins; the version in an answer is shown only if it is of this group.
const GROUP: &str = "client.authentication.k8s.io/";
/// Longest answer of a plugin: a longer one would not fit a welcome.
pub(crate) const OUTPUT_MAX: usize = mykube_protocol::limits::WELCOME_MAX;
/// How much of a failing plugin's standard error is shown.
const STDERR_SHOWN: usize = 500;

/// A plugin, with its command, arguments and environment.
pub(crate) struct ExecPlugin {
    command: PathBuf,
    args: Vec<String>,
    env: BTreeMap<OsString, OsString>,
    /// Our own `PATH`, in which the command is looked for.
    path: Option<OsString>,
    api_version: &'static str,
    /// Whether it may read from the terminal; `None` if it must and there is none.
    interactive: Option<bool>,
    /// Whether its standard error goes to a person's terminal directly.
    seen: bool,
    hint: Option<String>,
    timeout: Duration,
    place: Place,
    last: Mutex<Option<ExecCredential>>,
}

/// A plugin's answer.
#[derive(Clone)]
pub(crate) struct ExecCredential {
    pub(crate) token: Option<Zeroizing<String>>,
    pub(crate) certificate: Option<(String, Zeroizing<String>)>,
    pub(crate) expiry: Option<Expiry>,
}

/// The cluster, as a plugin is told of it (client-go `pkg/apis/clientauthentication/v1`).
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ExecCluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) insecure_skip_tls_verify: Option<bool>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disable_compression: Option<bool>,
    /// The content of the cluster's reserved extension; a null is passed on too, as client-go does.
    pub(crate) config: serde_json::Value,
}

impl ExecPlugin {
    /// Checks the plugin's settings; `cluster` is passed to the plugin if `provideClusterInfo` asks for it.
    pub(crate) fn new(
        config: ExecConfig,
        cluster: ExecCluster,
        place: Place,
        env: &Environment,
        timeout: Duration,
    ) -> Result<Self, KubeconfigError> {
        let field = |field, problem| KubeconfigError::Field { field, place: place.clone(), problem };
        let api_version = match config.api_version.as_deref() {
            Some("client.authentication.k8s.io/v1") => "client.authentication.k8s.io/v1",
            Some("client.authentication.k8s.io/v1beta1") => "client.authentication.k8s.io/v1beta1",
            Some("client.authentication.k8s.io/v1alpha1") => {
                return Err(field(
                    "exec.apiVersion",
                    "is v1alpha1, which Kubernetes 1.24 removed: update the plugin and make it v1 or v1beta1",
                ));
            }
            _ => {
                return Err(field(
                    "exec.apiVersion",
                    "must be client.authentication.k8s.io/v1 or client.authentication.k8s.io/v1beta1",
                ));
            }
        };
        let command = config.command.filter(|command| !command.is_empty());
        let command = command.ok_or_else(|| field("exec.command", "is missing: name the plugin"))?;
        let command = if command.contains(std::path::is_separator) { place.resolve(&command) } else { command.into() };

        let interactive = match (config.interactive_mode.as_deref().unwrap_or_default(), api_version) {
            ("Always", _) => env.attended.then_some(true),
            ("Never", _) => Some(false),
            ("IfAvailable", _) | ("", "client.authentication.k8s.io/v1beta1") => Some(env.attended),
            ("", _) => {
                return Err(field("exec.interactiveMode", "is missing: make it Never, IfAvailable or Always"));
            }
            _ => return Err(field("exec.interactiveMode", "must be Never, IfAvailable or Always")),
        };

        let mut vars = env.vars.clone();
        for pair in config.env {
            let name = pair.name.filter(|name| !name.is_empty() && !name.contains(['=', '\0']));
            let name = name.ok_or_else(|| field("exec.env", "has an entry without a usable name: correct it"))?;
            let value = pair.value.unwrap_or_default();
            if value.contains('\0') {
                return Err(field("exec.env", "has a value with a NUL character: correct it"));
            }
            vars.insert(name.into(), value.into());
        }
        let args = config.args.to_vec();
        if args.iter().any(|arg| arg.contains('\0')) {
            return Err(field("exec.args", "has a NUL character: correct it"));
        }
        let mut spec = serde_json::json!({ "interactive": interactive.unwrap_or(false) });
        if config.provide_cluster_info.unwrap_or(false) {
            spec["cluster"] = serde_json::to_value(cluster)
                .map_err(|_| field("exec.provideClusterInfo", "cannot be met: the cluster's settings are not text"))?;
        }
        let info = serde_json::json!({ "apiVersion": api_version, "kind": "ExecCredential", "spec": spec });
        vars.insert("KUBERNETES_EXEC_INFO".into(), info.to_string().into());
        Ok(Self {
            command,
            args,
            env: vars,
            path: env.var_os("PATH").map(OsStr::to_owned),
            api_version,
            interactive,
            seen: env.terminal,
            hint: config.install_hint.filter(|hint| !hint.is_empty()),
            timeout,
            place,
            last: Mutex::new(None),
        })
    }

    /// The last credential until it is due, then a new one.
    pub(crate) async fn current(&self) -> Result<ExecCredential, KubeconfigError> {
        let mut last = self.last.lock().await;
        if let Some(credential) = last.as_ref().filter(|last| !last.expiry.is_some_and(|expiry| expiry.is_due())) {
            return Ok(credential.clone());
        }
        tracing::debug!(plugin = %self.shown(), "running the exec plugin");
        let credential = self.read(&self.run().await?)?;
        *last = Some(credential.clone());
        Ok(credential)
    }

    /// The API server refused its credential: the next call gets a new one.
    pub(crate) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    /// Runs the plugin to its end and returns what it printed.
    async fn run(&self) -> Result<Zeroizing<Vec<u8>>, KubeconfigError> {
        let Some(interactive) = self.interactive else {
            return Err(KubeconfigError::ExecNeedsTerminal(self.shown(), self.place.clone()));
        };
        let program = self.program().ok_or_else(|| self.not_started(&std::io::ErrorKind::NotFound.into()))?;
        let mut plugin = Plugin::start(self, &program, interactive).map_err(|cause| self.not_started(&cause))?;
        let mut stderr = Vec::new();
        let ended = tokio::time::timeout(self.timeout, plugin.finish(&mut stderr)).await;
        let said = || match (self.seen || interactive, Shown::tail(&String::from_utf8_lossy(&stderr), STDERR_SHOWN)) {
            (true, _) => Shown::name("see what it said above"),
            (false, said) if said.to_string().is_empty() => Shown::name("it said nothing on standard error"),
            (false, said) => said,
        };
        match ended {
            Err(_) => Err(KubeconfigError::ExecTimeout {
                place: self.place.clone(),
                command: self.shown(),
                seconds: self.timeout.as_secs(),
                stderr: said(),
            }),
            Ok(Err(cause)) => Err(self.not_started(&cause)),
            // The plugin found its output closed, so its exit status says nothing.
            Ok(Ok((_, stdout))) if stdout.len() > OUTPUT_MAX => Err(self.output("printed far more than a credential")),
            Ok(Ok((status, _))) if !status.success() => Err(KubeconfigError::ExecFailed {
                place: self.place.clone(),
                command: self.shown(),
                status: status.to_string(),
                stderr: said(),
            }),
            Ok(Ok((_, stdout))) => Ok(stdout),
        }
    }

    /// Finds the program: a name without a slash in our own `PATH`, like kubectl, whatever `exec.env` says of it. As Go
    /// does, skips files that cannot be executed, and refuses what only a relative entry of `PATH` has.
    fn program(&self) -> Option<PathBuf> {
        if self.command.components().nth(1).is_some() {
            return Some(self.command.clone());
        }
        let found = std::env::split_paths(self.path.as_deref()?)
            .map(|dir| dir.join(&self.command))
            .find(|file| is_program(file))?;
        found.is_absolute().then_some(found)
    }

    /// Reads an ExecCredential from JSON or, as kubectl does, YAML. One without a `kind` is accepted.
    fn read(&self, stdout: &[u8]) -> Result<ExecCredential, KubeconfigError> {
        const UNREADABLE: &str = "did not print an ExecCredential";
        // apimachinery reads a text that begins with a brace as JSON, up to its closing brace; YAML may have more
        // documents.
        let document = match stdout.trim_ascii_start().starts_with(b"{") {
            true => yaml::json(stdout),
            false => yaml::read(stdout).ok(),
        };
        let document = document.ok_or_else(|| self.output(UNREADABLE))?;
        let printed = Printed::deserialize(&*document).map_err(|_| self.output(UNREADABLE))?;
        if printed.kind.as_deref().is_some_and(|kind| !kind.is_empty() && kind != "ExecCredential") {
            return Err(self.output(UNREADABLE));
        }
        let api_version = printed.api_version.as_deref().unwrap_or_default();
        if api_version != self.api_version {
            return Err(KubeconfigError::ExecVersion {
                place: self.place.clone(),
                command: self.shown(),
                wanted: self.api_version,
                got: Shown::name(if api_version.starts_with(GROUP) { api_version } else { "none of its" }),
            });
        }
        let status = printed.status.ok_or_else(|| self.output("gave no credential (`status` is missing)"))?;
        let given = |value: &Option<String>| value.clone().map(Zeroizing::new).filter(|value| !value.is_empty());
        let token = match given(&status.token) {
            Some(token) => Some(
                checked_token(&token).ok_or_else(|| self.output("gave a token with spaces, line ends or the like"))?,
            ),
            None => None,
        };
        let certificate = match (given(&status.client_certificate_data), given(&status.client_key_data)) {
            (Some(chain), Some(key)) => {
                let chain = pem::certificates(chain.as_bytes())
                    .map_err(|_| self.output("gave `clientCertificateData` that is no PEM certificate"))?;
                let key = pem::private_key(key.as_bytes())
                    .map_err(|_| self.output("gave `clientKeyData` that is no usable PEM key"))?;
                pem::belongs(&chain, &key)
                    .map_err(|_| self.output("gave a certificate and a key that do not belong together"))?;
                Some((chain, key))
            }
            (None, None) => None,
            _ => return Err(self.output("gave only one of `clientCertificateData` and `clientKeyData`")),
        };
        if token.is_none() && certificate.is_none() {
            return Err(self.output("gave no credential (neither `token` nor `clientCertificateData` in `status`)"));
        }
        let expiry = match status.expiration_timestamp.as_deref() {
            Some(text) => {
                let expires = timestamp::parse(text).ok_or_else(|| {
                    self.output("gave an `expirationTimestamp` that is not like 2030-01-31T18:00:00Z")
                })?;
                let expiry = Expiry::until(expires.into());
                if expiry.is_over() {
                    tracing::warn!(plugin = %self.shown(), "the exec plugin gave a credential that has expired; is the clock right?");
                }
                Some(expiry)
            }
            None => None,
        };
        Ok(ExecCredential { token, certificate, expiry })
    }

    fn shown(&self) -> Shown {
        Shown::path(&self.command)
    }

    fn output(&self, problem: &'static str) -> KubeconfigError {
        KubeconfigError::ExecOutput { place: self.place.clone(), command: self.shown(), problem }
    }

    fn not_started(&self, cause: &std::io::Error) -> KubeconfigError {
        let (place, command) = (self.place.clone(), self.shown());
        if cause.kind() != std::io::ErrorKind::NotFound {
            return KubeconfigError::ExecStart { place, command, cause: Shown::cause(cause) };
        }
        let hint = self.hint.as_deref().map(|hint| Shown::tail(hint, STDERR_SHOWN).to_string());
        let hint = hint.map_or_else(String::new, |hint| format!(". The kubeconfig says: {hint}"));
        KubeconfigError::ExecNotFound { place, command, hint: Shown::tail(&hint, STDERR_SHOWN * 2) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    api_version: Option<String>,
    kind: Option<String>,
    status: Option<ExecCredentialStatus>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(rename_all = "camelCase")]
struct ExecCredentialStatus {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    expiration_timestamp: Option<String>,
}

/// A running plugin. Dropped before its end, it is killed; unless it reads from the terminal, with all processes that
/// it started.
struct Plugin {
    child: Child,
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
}

impl Plugin {
    fn start(plugin: &ExecPlugin, program: &Path, interactive: bool) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(&plugin.args).env_clear().envs(&plugin.env).kill_on_drop(true).stdout(Stdio::piped());
        command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
        command.stderr(if interactive || plugin.seen { Stdio::inherit() } else { Stdio::piped() });
        #[cfg(unix)]
        {
            // kubectl starts a plugin under its name as it is written.
            command.arg0(&plugin.command);
            // A process group of its own, so that all of it can be killed. A plugin that reads from the terminal must
            // stay in the terminal's group, or it would be stopped when it reads; writing is allowed from any group.
            if !interactive {
                command.process_group(0);
            }
        }
        let child = command.spawn()?;
        Ok(Self {
            #[cfg(unix)]
            group: child
                .id()
                .filter(|_| !interactive)
                .and_then(|id| i32::try_from(id).ok())
                .and_then(rustix::process::Pid::from_raw),
            child,
        })
    }

    async fn finish(
        &mut self,
        stderr: &mut Vec<u8>,
    ) -> std::io::Result<(std::process::ExitStatus, Zeroizing<Vec<u8>>)> {
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let (stdout, (), status) = tokio::join!(whole(out), tail(err, stderr), self.child.wait());
        #[cfg(unix)]
        {
            self.group = None;
        }
        Ok((status?, stdout?))
    }
}

#[cfg(unix)]
impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Whether we may execute this file (Go's `os/exec.findExecutable`).
fn is_program(file: &Path) -> bool {
    #[cfg(unix)]
    let executable = || rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok();
    #[cfg(not(unix))]
    let executable = || true;
    file.is_file() && executable()
}

/// Reads to the end, but at most one byte more than the limit.
async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Allocated at once, as growth would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX + 64));
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// Returns the end of the output; the rest is read and thrown away.
async fn tail(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    const KEPT: usize = 4 * STDERR_SHOWN;
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        kept.drain(..kept.len().saturating_sub(KEPT));
    }
}
