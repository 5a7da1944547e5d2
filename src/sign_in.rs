//! `mykube login`, `whoami` and `logout`.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
};

use mykube_sign_in::{Account, BrowserSignIn, DeviceSignIn, Home, Session, SignInError, Standing, TOKEN_MAX};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::process::Child;
use zeroize::Zeroizing;

use crate::{
    browser::{self, Opened},
    cli::{EndArgs, LoginArgs, RelayUrlArgs},
    dial,
    events::JsonEvent,
    exit::Failure,
    here,
    output::Output,
    signals::Signals,
};

/// Signs in, and remembers the relay.
pub(crate) async fn log_in(args: LoginArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args.relay, ca_file)?;
    let standing = match (args.dev_email, args.dev_secret_file) {
        (Some(email), Some(file)) => by_dev_secret(&session, &email, &file).await?,
        _ if args.with_token => by_token(&session).await?,
        _ if args.device => by_code(&session, output).await?,
        _ => by_browser(&session, args.provider.as_deref(), output).await?,
    };
    output.say(&format!("Signed in at {}: {}.", session.relay(), line(&standing)));
    tell(&session, &standing, output);
    Ok(())
}

async fn by_dev_secret(session: &Session, email: &str, file: &std::path::Path) -> Result<Standing, Failure> {
    let secret = fs::read_to_string(file).map(Zeroizing::new);
    let secret = secret.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    let standing = session.log_in_by_dev_secret(email, secret.trim_end_matches(['\r', '\n'])).await;
    standing.map_err(|error| failure(&error))
}

async fn by_token(session: &Session) -> Result<Standing, Failure> {
    if io::stdin().is_terminal() {
        return Err(Failure::usage("--with-token reads a token from standard input: mykube login --with-token < FILE"));
    }
    let mut token = Zeroizing::new(String::with_capacity(TOKEN_MAX));
    let most = u64::try_from(TOKEN_MAX).unwrap_or(u64::MAX);
    let read = io::stdin().lock().take(most).read_to_string(&mut token);
    read.map_err(|error| Failure::failed(format!("cannot read a token from standard input: {error}")))?;
    session.log_in_by_token(&token).await.map_err(|error| failure(&error))
}

async fn by_browser(session: &Session, provider: Option<&str>, output: Output) -> Result<Standing, Failure> {
    let mut signals = Signals::new(output).map_err(Failure::failed)?;
    let begun = tokio::select! {
        begun = BrowserSignIn::begin(session, provider) => begun.map_err(|error| failure(&error))?,
        _ = signals.any() => return Err(failure(&SignInError::Stopped)),
    };
    output.essential(&format!("Sign in here: {}", begun.url()));
    output.event(&JsonEvent::SignInAt { url: begun.url() });
    match browser::open(begun.url()) {
        Opened::By(child) => drop(tokio::spawn(warn_if_failed(child, output))),
        Opened::Nowhere(why) => {
            let device =
                format!("{why}, and that address works on this machine alone: `mykube login --device` is for that");
            // A script that reads events may open it.
            if !output.terminal && !output.is_json() {
                return Err(Failure::failed(device));
            }
            output.warn(&device);
        }
    }
    let code = tokio::select! {
        code = begun.wait() => code.map_err(|error| failure(&error))?,
        _ = signals.any() => return Err(failure(&SignInError::Stopped)),
    };
    code.redeem().await.map_err(|error| failure(&error))
}

async fn warn_if_failed(mut child: Child, output: Output) {
    if !child.wait().await.is_ok_and(|status| status.success()) {
        output.warn("the browser could not be opened: open that address yourself, or use `mykube login --device`");
    }
}

async fn by_code(session: &Session, output: Output) -> Result<Standing, Failure> {
    let mut signals = Signals::new(output).map_err(Failure::failed)?;
    let begun = tokio::select! {
        begun = DeviceSignIn::begin(session) => begun.map_err(|error| failure(&error))?,
        _ = signals.any() => return Err(failure(&SignInError::Stopped)),
    };
    let (url, user_code, left) = (begun.url(), begun.user_code(), begun.left().as_secs());
    output.essential(&format!(
        "In a browser on any machine open {url} and type this code, good for {} min:",
        left.div_ceil(60)
    ));
    output.show("Code: ", user_code);
    output.event(&JsonEvent::DeviceCode { url, user_code, expires_in: left });
    let stop = async {
        let _name = signals.any().await;
    };
    let trouble = |error: &SignInError| output.warn(&format!("{error}; trying again while the code is good"));
    begun.wait(stop, trouble).await.map_err(|error| failure(&error))
}

/// Says who is signed in, by the relay's word.
pub(crate) async fn who_am_i(args: RelayUrlArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args, ca_file)?;
    let standing = session.who_am_i().await.map_err(|error| failure(&error))?;
    output.result(&format!("{} at {}", line(&standing), session.relay()));
    tell(&session, &standing, output);
    Ok(())
}

/// Ends the sign-in at the relay and here, then this machine's servers and clients there.
pub(crate) async fn log_out(args: EndArgs, ca_file: Option<PathBuf>, output: Output) -> Result<(), Failure> {
    let session = session(args.here.relay, ca_file)?;
    let relay = session.relay();
    let here = match here::all(args.here.kubeconfig_dir.as_deref()).await {
        Ok(all) => here::at(&relay, all),
        Err(error) => {
            output.warn(&format!("this machine's servers and clients are left alone: {error}"));
            Vec::new()
        }
    };
    if let Some(some) = here::count(&here) {
        let question = format!("Sign out at {relay}, and end {some} of this machine there?");
        here::confirm(&question, args.yes, output).await?;
    }
    session.log_out().await.map_err(|error| failure(&error))?;
    output.say(&format!("Signed out at {relay}."));
    output.event(&JsonEvent::SignedOut { relay: &relay });
    if here::end(here, output).await {
        Ok(())
    } else {
        Err(Failure::failed(format!("signed out, but not all of this machine at {relay} have ended")))
    }
}

pub(crate) fn session(args: RelayUrlArgs, ca_file: Option<PathBuf>) -> Result<Session, Failure> {
    let home = Home::of_user()
        .ok_or_else(|| Failure::failed("there is neither $XDG_CONFIG_HOME nor $HOME: nothing could be kept here"))?;
    Ok(Session::new(home, dial::dialer(args.relay_url, ca_file)?))
}

/// `alice@example.com (google:alice@example.com)`, and until when.
pub(crate) fn line(standing: &Standing) -> String {
    let Account { user_id, email, organisation, .. } = &standing.account;
    let until = standing.until.and_then(rfc3339).map(|time| format!(", until {time}")).unwrap_or_default();
    format!("{email} ({user_id}), organisation {organisation}{until}")
}

pub(crate) fn tell(session: &Session, standing: &Standing, output: Output) {
    let Account { account, user_id, email, organisation, signed_in_at } = &standing.account;
    let (relay, until) = (session.relay(), standing.until.and_then(rfc3339));
    let until = until.as_deref();
    output.event(&JsonEvent::Account { relay: &relay, account, user_id, email, organisation, signed_in_at, until });
}

fn rfc3339(seconds: u64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?.format(&Rfc3339).ok()
}

pub(crate) fn failure(error: &SignInError) -> Failure {
    match error {
        SignInError::Dial(error) => dial::failure(error),
        SignInError::Provider => Failure::usage(error),
        error => Failure::failed(error),
    }
}
