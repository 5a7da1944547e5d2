//! `mykube login`, `whoami` and `logout`.

use std::{fs, path::PathBuf};

use mykube_sign_in::{Account, Home, Session, SignInError};
use zeroize::Zeroizing;

use crate::{
    cli::{LoginArgs, RelayUrlArgs},
    dial,
    events::JsonEvent,
    exit::Failure,
    output::Output,
};

/// Said where no way to sign in is named that there is.
const NO_WAY: &str = "say how to sign in: only --dev-email EMAIL with --dev-secret-file FILE is built yet, for a relay in dev \
    mode; a browser, a code typed in another one, and a token are not";

/// Signs in, and remembers the relay.
pub(crate) async fn log_in(args: LoginArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args.relay, ca_file)?;
    let (Some(email), Some(file)) = (args.dev_email, args.dev_secret_file) else { return Err(Failure::usage(NO_WAY)) };
    let secret = fs::read_to_string(&file).map(Zeroizing::new);
    let secret = secret.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let account = session.log_in_by_dev_secret(&email, secret.trim_end_matches(['\r', '\n'])).await;
    let account = account.map_err(|error| failure(&error))?;
    output.say(&format!("Signed in at {} as {} ({}).", session.relay(), account.email, account.user_id));
    tell(&session, &account, output);
    Ok(())
}

/// Says who is signed in, by the relay's word.
pub(crate) async fn who_am_i(args: RelayUrlArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args, ca_file)?;
    let account = session.who_am_i().await.map_err(|error| failure(&error))?;
    output.result(&format!("{} ({}) at {}", account.email, account.user_id, session.relay()));
    tell(&session, &account, output);
    Ok(())
}

/// Ends the sign-in at the relay and here.
pub(crate) async fn log_out(args: RelayUrlArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args, ca_file)?;
    session.log_out().await.map_err(|error| failure(&error))?;
    output.say(&format!("Signed out at {}.", session.relay()));
    output.event(&JsonEvent::SignedOut { relay: &session.relay() });
    Ok(())
}

pub(crate) fn session(args: RelayUrlArgs, ca_file: Option<PathBuf>) -> Result<Session, Failure> {
    let home = Home::of_user()
        .ok_or_else(|| Failure::failed("there is neither $XDG_CONFIG_HOME nor $HOME: nothing could be kept here"))?;
    Ok(Session::new(home, dial::dialer(args.relay_url, ca_file)?))
}

fn tell(session: &Session, account: &Account, output: Output) {
    let Account { account, user_id, email, organisation, signed_in_at } = account;
    output.event(&JsonEvent::Account { relay: &session.relay(), account, user_id, email, organisation, signed_in_at });
}

pub(crate) fn failure(error: &SignInError) -> Failure {
    match error {
        SignInError::Dial(error) => dial::failure(error),
        error => Failure::failed(error),
    }
}
