//! The command line of a node, for `mykube-relay` and `mykube relay` alike.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mykube_relay::{Event, Fallback, RelayArgs, RelayError};
use mykube_relay_portal::system_time;
use mykube_relay_store::{BackupError, back_up};
use tracing::warn;

use crate::{
    accounts::{self, AccountsError},
    config::{self, ConfigError, Names},
    invite::{InviteArgs, InviteError, invite},
    keys,
};

/// Heading of `--help`.
const PUBLISHED: &str = "Settings of other relays";

/// Every setting of a node.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    #[command(flatten)]
    relay: RelayArgs,
    /// Read what is too much for flags (accounts, say) from this file; no key of it is a flag. Or a published relay.yaml
    #[arg(long, env = "MYKUBE_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Take names of published relays from the environment, below flags and --config: PORT, RELAY_PUBLIC_URL, JWT_SECRET...
    #[arg(long, help_heading = PUBLISHED, env = "MYKUBE_PUBLISHED_ENV")]
    published_env: bool,
    /// Take them from this file, below those of the environment
    #[arg(long, help_heading = PUBLISHED, env = "MYKUBE_ENV_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    env_file: Option<PathBuf>,
}

/// What a node can be asked beside running.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum NodeCommand {
    /// Say what is wrong in a configuration file, by line, and do nothing else
    CheckConfig {
        /// The file, as for --config, or as for --env-file (a name that is or ends in .env)
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Write a copy of the accounts' database to a file that is not there yet, also while the relay runs
    Backup {
        /// The file to make; put it in the place of the database to restore it
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Add a secret to the accounts' keys file, also while relays run: they take it by themselves
    RotateKeys {
        /// Others have read the secrets: forget them at once, so that everybody signs in again
        #[arg(long)]
        leaked: bool,
    },
    /// Let somebody in, and print the link for them; the relay may be running
    Invite(InviteArgs),
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
    /// The copy of its database.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It was asked for something of accounts.
    #[error("this is of a relay with accounts: name its file with --config, which has [accounts]")]
    NoAccounts,
    /// The secret is not in a file of its own.
    #[error("this relay's secret is JWT_SECRET, and not in a keys file: change it there (everybody signs in again)")]
    ConfiguredKeys,
    /// Nobody is invited.
    #[error(transparent)]
    Invite(#[from] InviteError),
}

impl NodeError {
    /// It was asked for something that cannot be.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Relay(RelayError::Usage(_)) | Self::Config(_) | Self::NoAccounts | Self::ConfiguredKeys => true,
            Self::Invite(error) => matches!(error, InviteError::NoAccounts | InviteError::NothingProves { .. }),
            Self::Relay(_) | Self::Accounts(_) | Self::Backup(_) => false,
        }
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
    let NodeArgs { mut relay, mut config, published_env, env_file } = args;
    let mut names = Names::read(published_env, env_file.as_deref())?;
    let mut checked = None;
    match &command {
        Some(NodeCommand::Invite(invite)) => {
            relay.data_dir = invite.data_dir.clone().or(relay.data_dir);
            config = invite.config.clone().or(config);
        }
        Some(NodeCommand::CheckConfig { file }) => checked = Some(file.clone()),
        None | Some(NodeCommand::Backup { .. } | NodeCommand::RotateKeys { .. }) => {}
    }
    if let Some(file) = &checked {
        // Nothing is kept: no directory is needed.
        relay.data_dir.get_or_insert_default();
        config = Some(file.clone()).filter(|file| !is_env_file(file));
        if config.is_none() {
            names.add_file(file)?;
        }
    }
    let mut file = if checked.is_some() { config } else { config.or_else(|| names.config()) };
    if let Some(yaml) = file.take_if(|file| is_yaml(file)) {
        names.add_yaml(&yaml)?;
    }
    let mut published = names.understand()?;
    published.below(&mut relay);
    let relay = relay.into_config()?;
    let wanted = config::load_with(file.as_deref(), published, &relay)?;
    if let Some(file) = checked {
        return Ok(Some(format!("{}: nothing is wrong with it, with --listen {}", file.display(), relay.listen)));
    }
    if let Some(NodeCommand::Invite(InviteArgs { email, operator, .. })) = command {
        return Ok(Some(invite(wanted.ok_or(InviteError::NoAccounts)?, email, operator).await?));
    }
    match command {
        Some(NodeCommand::Backup { file }) => {
            let wanted = wanted.ok_or(NodeError::NoAccounts)?;
            back_up(&wanted.database, &file).await?;
            return Ok(Some(format!("{}: a copy of {}; the keys file is not in it", file.display(), wanted.database)));
        }
        Some(NodeCommand::RotateKeys { leaked }) => {
            let wanted = wanted.ok_or(NodeError::NoAccounts)?;
            if wanted.keys.is_some() {
                return Err(NodeError::ConfiguredKeys);
            }
            let told = keys::rotate(&wanted.keys_file, system_time(), leaked).map_err(AccountsError::Keys)?;
            return Ok(Some(told));
        }
        None | Some(NodeCommand::CheckConfig { .. } | NodeCommand::Invite(_)) => {}
    }
    let Some(wanted) = wanted else {
        mykube_relay::run(relay, async || Ok::<_, NodeError>(None), output).await?;
        return Ok(None);
    };
    if wanted.settings.dev.is_some() {
        warn!(
            "DEV MODE: whoever knows the dev secret signs in as anybody; for this machine alone, and never for people"
        );
    }
    for warning in [wanted.unreachable(&relay), wanted.exposed()].into_iter().flatten() {
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

fn is_yaml(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn is_env_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".env") || name.starts_with(".env.")
}
