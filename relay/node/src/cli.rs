//! The command line of a node, for `mykube-relay` and `mykube relay` alike.

use std::{path::PathBuf, sync::Arc};

use mykube_relay::{Event, Fallback, RelayArgs, RelayError};
use tracing::warn;

use crate::{
    accounts::{self, AccountsError},
    config::{self, ConfigError},
};

/// Every setting of a node.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    #[command(flatten)]
    relay: RelayArgs,
    /// Read what is too much for flags (accounts, say) from this file; no key of it is a flag
    #[arg(long, env = "MYKUBE_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
}

/// What a node can be asked beside running.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum NodeCommand {
    /// Say what is wrong in a configuration file, by line, and do nothing else
    CheckConfig {
        /// The file, as for --config
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What carries sessions.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Its configuration file.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// What knows people.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl NodeError {
    /// It was asked for something that cannot be.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Relay(RelayError::Usage(_)) | Self::Config(_))
    }
}

/// Runs a node until SIGTERM or Ctrl-C, or does the one thing that was asked instead, of which it then tells a person.
///
/// # Errors
/// It cannot start.
pub async fn run(
    args: NodeArgs,
    command: Option<NodeCommand>,
    output: impl FnMut(Event),
) -> Result<Option<String>, NodeError> {
    let NodeArgs { mut relay, config: file } = args;
    if command.is_some() {
        // Nothing is kept: no directory is needed.
        relay.data_dir.get_or_insert_default();
    }
    let relay = relay.into_config()?;
    if let Some(NodeCommand::CheckConfig { file }) = command {
        config::load(&file, &relay)?;
        return Ok(Some(format!("{}: nothing is wrong with it, with --listen {}", file.display(), relay.listen)));
    }
    let wanted = match file {
        Some(file) => config::load(&file, &relay)?,
        None => None,
    };
    let Some(wanted) = wanted else {
        mykube_relay::run(relay, async || Ok::<_, NodeError>(None), output).await?;
        return Ok(None);
    };
    if wanted.settings.dev.is_some() {
        warn!(
            "DEV MODE: whoever knows the dev secret signs in as anybody; for this machine alone, and never for people"
        );
    }
    if let Some(warning) = wanted.unreachable(&relay) {
        warn!("{warning}");
    }
    let mut opened = None;
    let open = async || {
        let accounts = opened.insert(accounts::open(wanted).await?);
        let fallback: Arc<dyn Fallback> = Arc::new(accounts.clone());
        Ok::<_, NodeError>(Some(fallback))
    };
    let served = mykube_relay::run(relay, open, output).await;
    if let Some(accounts) = opened {
        accounts.close().await;
    }
    served?;
    Ok(None)
}
