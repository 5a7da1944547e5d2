//! The zoo: kubeconfigs of every kind, each used by the real kubectl and by the real `mykube`, which must do the same.
//!
//! What is compared is the request that arrives at an API server (path, credentials, client certificate, server name),
//! or that none does. Where the two differ an entry says why; a reason that no longer holds is a failure too. The
//! tables are left in `target/e2e-zoo-*.md`.

mod api;
mod certificates;
mod credentials;
mod files;
mod merges;
mod nulls;
mod plugins;
mod servers;
mod yaml;

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio, sync::Arc};

use rustls::ServerConfig;

use self::api::{Api, Seen};
use crate::support::{Sandbox, certs::Authority};

/// One kubeconfig with what belongs to it.
///
/// In every text `$SERVER` is the API server's `127.0.0.1:PORT`, `$PORT` its port, `$CA` its CA in base64, `$HOME` the
/// directory of the files, `$CERT` and `$KEY` a client certificate and its key in base64; `$PEM`, `$CRTPEM` and `$KEYPEM`
/// are the same three in PEM.
struct Entry {
    name: &'static str,
    files: Vec<(&'static str, String)>,
    programs: Vec<(&'static str, String)>,
    encode: fn(String) -> Vec<u8>,
    /// Else the file `config` is named on the command line.
    by_environment: bool,
    env: Vec<(&'static str, String)>,
    context: Option<&'static str>,
    server: Option<Arc<ServerConfig>>,
    reason: Option<&'static str>,
}

impl Entry {
    /// The kubeconfig is this text.
    fn new(name: &'static str, text: impl Into<String>) -> Self {
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
    fn file(mut self, name: &'static str, content: impl Into<String>) -> Self {
        self.files.push((name, content.into()));
        self
    }

    /// A variable of both programs. With `KUBECONFIG` nothing is named on the command line.
    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.by_environment |= name == "KUBECONFIG";
        self.env.push((name, value.into()));
        self
    }

    /// `--context`.
    fn context(self, name: &'static str) -> Self {
        Self { context: Some(name), ..self }
    }

    /// How the kubeconfig becomes bytes, if not as UTF-8.
    fn encoded(self, encode: fn(String) -> Vec<u8>) -> Self {
        Self { encode, ..self }
    }

    /// The two do not do the same, for this reason.
    fn differs(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }
}

/// For entries that need more than data.
impl Entry {
    /// The kubeconfig with something else in it.
    fn with(mut self, from: &str, to: &str) -> Self {
        let text = &mut self.files[0].1;
        assert!(text.contains(from), "{text}");
        *text = text.replace(from, to);
        self
    }

    /// An executable file in the same directory.
    fn program(mut self, name: &'static str, script: impl Into<String>) -> Self {
        self.programs.push((name, script.into()));
        self
    }

    /// The API server of this entry alone: another certificate.
    fn served_by(self, server: Arc<ServerConfig>) -> Self {
        Self { server: Some(server), ..self }
    }
}

/// A kubeconfig with one context `ctx` of cluster `c` and user `u`, each given in YAML flow form without braces.
fn config(cluster: &str, user: &str, context: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: ctx\nclusters:\n- name: c\n  cluster: {{{cluster}}}\n\
         contexts:\n- name: ctx\n  context: {{{context}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

const CLUSTER: &str = "server: 'https://$SERVER', certificate-authority-data: $CA";
const USER: &str = "token: tok";
const CONTEXT: &str = "cluster: c, user: u";

/// The plainest one that works.
fn plain() -> String {
    config(CLUSTER, USER, CONTEXT)
}

fn with_cluster(cluster: &str) -> String {
    config(cluster, USER, CONTEXT)
}

fn with_user(user: &str) -> String {
    config(CLUSTER, user, CONTEXT)
}

/// Uses each entry both ways. Entries of a group use one API server, one after the other.
#[track_caller]
fn judge(group: &str, entries: Vec<Entry>) {
    let authority = Authority::new("zoo");
    let api = Api::start(authority.sign(&["127.0.0.1", "localhost"]).server_for_all());
    let client = authority.sign(&["zoo-client"]);
    let mut table = format!("# Zoo: {group}\n\n| kubeconfig | kubectl | mykube | |\n| --- | --- | --- | --- |\n");
    let (mut wrong, mut counts) = (Vec::new(), [0; 3]);
    for entry in &entries {
        let own = entry.server.clone().map(Api::start);
        let api = own.as_ref().unwrap_or(&api);
        let base64 = |text: &str| data_encoding::BASE64.encode(text.as_bytes());
        let port = api.address.port().to_string();
        let fill = |text: &str, home: &Path| {
            text.replace("$SERVER", &api.address.to_string())
                .replace("$PORT", &port)
                .replace("$CA", &base64(&authority.pem()))
                .replace("$PEM", &authority.pem())
                .replace("$CRTPEM", &client.certificate)
                .replace("$KEYPEM", &client.key)
                .replace("$CERT", &base64(&client.certificate))
                .replace("$KEY", &base64(&client.key))
                .replace("$HOME", home.to_str().unwrap())
        };
        let run = |program: &str, args: &[&str]| {
            let sandbox = Sandbox::new();
            entry.write(&sandbox, &fill);
            let mut command = sandbox.command(program);
            command.args(args).stdin(Stdio::null());
            if !entry.by_environment {
                command.arg("--kubeconfig").arg(sandbox.home().join("config"));
            }
            if let Some(name) = entry.context {
                command.args(["--context", name]);
            }
            for (name, value) in &entry.env {
                command.env(name, fill(value, sandbox.home()));
            }
            let said = command.output().unwrap();
            let seen = api.take();
            let said = [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            (seen, said.replace(&port, "PORT"))
        };
        let kubectl = run("kubectl", &["version", "--request-timeout", "20s"]);
        let mykube = run(env!("CARGO_BIN_EXE_mykube"), &["doctor"]);
        let equal = kubectl.0 == mykube.0;
        counts[match (equal, &kubectl.0) {
            (true, Some(_)) => 0,
            (true, None) => 1,
            (false, _) => 2,
        }] += 1;
        let show = |seen: &Option<Seen>| match seen {
            Some(seen) => format!("`{}`", seen.to_string().replace(&port, "PORT").replace('|', "\\|")),
            None => "no request".into(),
        };
        let mykubes = if equal { "the same".into() } else { show(&mykube.0) };
        let reason = entry.reason.unwrap_or_default();
        writeln!(table, "| {} | {} | {mykubes} | {reason} |", entry.name, show(&kubectl.0)).unwrap();
        if equal == entry.reason.is_some() {
            wrong.push(format!("{}: {kubectl:#?}\n{mykube:#?}", entry.name));
        }
    }
    let [sent, refused, different] = counts;
    writeln!(table, "\n{sent} are sent the same, {refused} are refused by both, {different} differ.").unwrap();
    println!("{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target");
    fs::write(target.join(format!("e2e-zoo-{group}.md")), table).unwrap();
    assert!(wrong.is_empty(), "{} are judged otherwise than expected:\n{}", wrong.len(), wrong.join("\n"));
}

impl Entry {
    fn write(&self, sandbox: &Sandbox, fill: &impl Fn(&str, &Path) -> String) {
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

#[test]
fn null_and_missing_fields() {
    judge("nulls", nulls::entries());
}

#[test]
fn ways_to_write_yaml() {
    judge("yaml", yaml::entries());
}

#[test]
fn servers_and_clusters() {
    judge("servers", servers::entries());
}

#[test]
fn users_and_credentials() {
    judge("credentials", credentials::entries());
}

#[test]
fn exec_plugins_and_providers() {
    judge("plugins", plugins::entries());
}

#[test]
fn servers_authorities_and_client_certificates() {
    judge("certificates", certificates::entries());
}

#[test]
fn several_files() {
    judge("files", files::entries());
}
