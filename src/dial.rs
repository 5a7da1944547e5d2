//! The relay's address and certificates, as both ends take them from the command line.

use std::path::PathBuf;

use mykube_dial::{DialError, DialOptions, Dialer, ErrorClass, ProxyEnv, RelayUrl};
use mykube_sign_in::{Home, remembered as remembered_config};

use crate::exit::{ExitCode, Failure};

/// The error if no relay is named: there is no default.
const NO_RELAY: &str = "no relay is named: give the address of one with --relay-url URL (or MYKUBE_RELAY_URL). \
    There is no public one; to run your own, type `mykube relay` on a machine that both sides reach (see `mykube relay --help`)";

/// Reads the address, certificates and proxy settings; touches no network. Where no relay is named, it is the one that was
/// signed in at last.
pub(crate) fn dialer(relay_url: Option<String>, ca_file: Option<PathBuf>) -> Result<Dialer, Failure> {
    let text = wanted(relay_url)?;
    to(text.ok_or_else(|| Failure::usage(NO_RELAY))?, ca_file)
}

/// The relay that was named, else the one that was signed in at last. An address that is empty, as the flag or the variable,
/// names none, whatever is remembered.
pub(crate) fn wanted(relay_url: Option<String>) -> Result<Option<String>, Failure> {
    let is_none = || std::env::var_os("MYKUBE_RELAY_URL").is_some_and(|url| url.is_empty());
    match relay_url {
        Some(url) => Ok(Some(url).filter(|url| !url.is_empty())),
        None if is_none() => Ok(None),
        None => remembered(),
    }
}

fn remembered() -> Result<Option<String>, Failure> {
    let config = Home::of_user().map_or(Ok(None), |home| remembered_config(&home).map(Some));
    config.map(|config| config.and_then(|config| config.relay)).map_err(Failure::usage)
}

fn to(text: String, ca_file: Option<PathBuf>) -> Result<Dialer, Failure> {
    let url: RelayUrl = text.parse().map_err(Failure::usage)?;
    let options = DialOptions { ca_file, proxies: ProxyEnv::from_env(), ..DialOptions::default() };
    Dialer::new(url, options).map_err(|error| failure(&error))
}

/// A failure with the exit code of its class.
pub(crate) fn failure(error: &DialError) -> Failure {
    let code = match error.class() {
        ErrorClass::Unreachable => ExitCode::RelayUnreachable,
        ErrorClass::Code => ExitCode::WrongCode,
        ErrorClass::Other => ExitCode::Failed,
    };
    Failure::new(code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_relay_the_message_says_how_to_start_one() {
        assert_eq!(wanted(Some(String::new())).unwrap(), None);
        assert!(NO_RELAY.contains("mykube relay"));
        assert_eq!(dialer(Some("ftp://x".to_owned()), None).unwrap_err().code, ExitCode::Usage);
        assert!(dialer(Some("http://127.0.0.1:8000".to_owned()), None).is_ok());
    }
}
