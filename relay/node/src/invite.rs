//! `invite`: somebody is let in once, by whoever may read the relay's files. The relay may be running meanwhile.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use mykube_relay_accounts::{
    email::Email,
    sign_up::{Invitation, LIFE},
};
use mykube_relay_portal::system_time;
use mykube_relay_store::{Store, StoreError};

use crate::config::Accounts;

/// Whom to let in.
#[derive(Clone, Debug, clap::Args)]
pub struct InviteArgs {
    /// Whose address it is for: only who proves it takes the invitation
    #[arg(value_name = "EMAIL")]
    pub(crate) email: Email,
    /// They are to operate the relay
    #[arg(long)]
    pub(crate) operator: bool,
    /// The relay's own configuration file
    #[arg(long, env = "MYKUBE_CONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The relay's own --data-dir
    #[arg(long, env = "MYKUBE_DATA_DIR", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Why nobody is invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// Nothing says which relay.
    #[error("which relay? Give --config with the relay's own file, which has [accounts]")]
    NoAccounts,
    /// They could not take it.
    #[error(
        "nothing at this relay proves {email}, so nobody could take the invitation: configure [mail] (codes by email), or a \
         [[provider]] with email_domains = [\"{domain}\"], and start the relay again", domain = email.domain()
    )]
    NothingProves {
        /// Whose it would be.
        email: Email,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Whoever reads the link is gone.
    #[error("the link cannot be written: {0}")]
    Output(io::Error),
}

/// Writes the link to standard output, and says what it is worth.
pub(crate) async fn invite(accounts: Accounts, email: Email, operator: bool) -> Result<String, InviteError> {
    if !accounts.settings.proves(&email) {
        return Err(InviteError::NothingProves { email });
    }
    let store = Store::open_beside(&accounts.database).await?;
    let mut transaction = store.begin().await?;
    transaction.invite(&Invitation::new(email.clone(), operator, system_time())).await?;
    transaction.commit().await?;
    store.close().await;
    let link = format!("{}/portal/invitation", accounts.settings.public_url.as_str());
    writeln!(io::stdout(), "{link}").map_err(InviteError::Output)?;
    let rights = if operator { ", and operates the relay from then on" } else { "" };
    let days = LIFE.as_secs() / 86_400;
    Ok(format!(
        "Send this link to {email}. Whoever proves that address within {days} days, once, gets an account{rights}. There is no secret in it."
    ))
}
