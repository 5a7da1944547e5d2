//! mykube's laptop side: a loopback port, a temporary kubeconfig on RAM, and a subshell that uses it.

#[cfg(not(unix))]
compile_error!("mykube's client runs on Linux and macOS; on Windows use it inside WSL");

mod busy;
mod family;
pub mod guard;
pub mod harden;
pub mod keepalive;
pub mod kubeconfig;
pub mod merge;
pub mod port;
pub mod ramdir;
mod rc;
pub mod session;
pub mod shell;
pub mod signals;
mod terminal;
mod terminals;
pub mod users;
pub mod workspace;

pub use shell::{Exit, Launch, ShellError};
pub use workspace::{Kind, Live, Workspace, WorkspaceError};
