//! The zoo: kubeconfigs of every kind, each used by the real kubectl and by the real `mykube`, which must do the same.
//!
//! What is compared is the request that arrives at an API server (path, credentials, client certificate, server name),
//! or that none does. Where the two differ an entry says why; a reason that no longer holds is a failure too. The
//! tables are left in `target/e2e-zoo-*.md`.

mod api;
mod certificates;
mod credentials;
mod entry;
mod files;
mod merges;
mod nulls;
mod plugins;
mod servers;
mod yaml;

use std::{fmt::Write as _, fs, path::Path, process::Stdio};

use self::{
    api::{Api, Seen},
    entry::Entry,
};
use crate::support::{Sandbox, certs::Authority};

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
