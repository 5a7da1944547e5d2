//! Which API server, with which credentials, and how to reach it: kubeconfigs and pods as kubectl reads them.

mod credentials;
mod environment;
pub mod error;
mod exec;
pub mod expiry;
pub mod impersonation;
pub mod incluster;
pub mod kubeconfig;
pub mod moment;
mod oidc;
mod pem;
mod proxy;
pub mod refresh;
mod server_url;
pub mod sourced;
mod upstream;
mod yaml;

pub use credentials::CredentialSource;
pub use environment::Environment;
pub use error::{ConnectError, KubeconfigError};
pub use impersonation::Impersonation;
pub use kubeconfig::KubeconfigSource;
pub use refresh::Credentialer;
pub use upstream::Upstream;
