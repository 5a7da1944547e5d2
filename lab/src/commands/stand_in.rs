//! `lab certs`, `lab api` and `lab user`: what guarded mode needs on both its sides.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use clap::Args as ClapArgs;
use mykube_lab::{
    LabError,
    stand_in::{Api, Authority, How, User},
};
use serde_json::json;

use super::{ControlArgs, control};

#[derive(Debug, ClapArgs)]
pub(crate) struct CertsArgs {
    /// Where `ca.pem`, `cert.pem` and `key.pem` are written
    #[arg(long)]
    dir: PathBuf,
    /// Names and addresses of the certificate
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1,localhost")]
    names: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApiArgs {
    /// Where to listen; port 0 for any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The target
    #[arg(long)]
    to: SocketAddr,
    /// With `cert.pem` and `key.pem`
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    control: ControlArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct UserArgs {
    /// Where to listen; port 0 for any
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The client's
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Bodies of requests for sources and sinks, instead of upgraded streams
    #[arg(long)]
    bodies: bool,
    #[command(flatten)]
    control: ControlArgs,
}

pub(crate) fn certs(args: &CertsArgs) -> Result<(), LabError> {
    let authority = Authority::new("lab")?;
    let signed = authority.sign(&args.names)?;
    for (name, content) in [("ca.pem", authority.pem()), ("cert.pem", signed.certificate), ("key.pem", signed.key)] {
        let path = args.dir.join(name);
        fs::write(&path, content)
            .map_err(|source| LabError::Io { what: format!("write {}", path.display()), source })?;
    }
    Ok(())
}

pub(crate) fn api(args: &ApiArgs) -> Result<(), LabError> {
    let api = Api::start(listen(args.listen)?, args.to, &args.dir.join("cert.pem"), &args.dir.join("key.pem"))?;
    wait(&args.control, api.address())
}

pub(crate) fn user(args: &UserArgs) -> Result<(), LabError> {
    let how = if args.bodies { How::Bodies } else { How::Upgrade };
    let user = User::start(listen(args.listen)?, &args.kubeconfig, how)?;
    wait(&args.control, user.address())
}

fn listen(address: SocketAddr) -> Result<TcpListener, LabError> {
    TcpListener::bind(address).map_err(|source| LabError::Io { what: format!("listen on {address}"), source })
}

fn wait(args: &ControlArgs, address: SocketAddr) -> Result<(), LabError> {
    let ready = json!({"event": "ready", "listen": address});
    control(args, &ready, |line| Err(LabError::Words(format!("{line:?}: there are no commands here"))))
}
