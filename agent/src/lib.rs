//! mykube's cluster side: which API server, with which credentials, and how to reach it.

pub mod announce;
#[cfg(unix)]
pub mod control;
pub mod credentials;
mod environment;
pub mod error;
mod exec;
pub mod guarded;
mod impersonation;
mod incluster;
pub mod kubeconfig;
pub mod moment;
mod oidc;
mod pem;
mod refresh;
pub mod serve;
mod server;
mod upstream;
mod yaml;

pub use credentials::Credentialer;
pub use environment::Environment;
pub use error::{ConnectError, KubeconfigError};
pub use impersonation::Impersonation;
pub use kubeconfig::KubeconfigSource;
pub use upstream::Upstream;
