//! The relay's address and certificates, as both ends take them from the command line.

use std::path::PathBuf;

use mykube_dial::{DialError, DialOptions, Dialer, ErrorClass, ProxyEnv, RelayUrl};
use mykube_sign_in::{Home, remembered_relay};

use crate::exit::{ExitCode, Failure};

/// The error if no relay is named: there is no default.
const NO_RELAY: &str = "no relay is named: give the address of one with --relay-url URL (or MYKUBE_RELAY_URL). \
    There is no public one; to run your own, type `mykube relay` on a machine that both sides reach (see `mykube relay --help`)";

/// Reads the address, certificates and proxy settings; touches no network. Where no relay is named, it is the one that was
/// signed in at last.
pub(crate) fn dialer(relay_url: Option<String>, ca_file: Option<PathBuf>) -> Result<Dialer, Failure> {
    let text = named(relay_url).map_or_else(remembered, |url| Ok(Some(url)))?;
    to(text.ok_or_else(|| Failure::usage(NO_RELAY))?, ca_file)
}

/// The relay that was named, if any was.
pub(crate) fn named(relay_url: Option<String>) -> Option<String> {
    relay_url.filter(|url| !url.is_empty())
}

/// The relay that was signed in at last.
pub(crate) fn remembered() -> Result<Option<String>, Failure> {
    Home::of_user().map_or(Ok(None), |home| remembered_relay(&home)).map_err(Failure::usage)
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
        for nothing in [None, Some(String::new())] {
            assert_eq!(named(nothing), None);
        }
        assert!(NO_RELAY.contains("mykube relay"));
        assert_eq!(dialer(Some("ftp://x".to_owned()), None).unwrap_err().code, ExitCode::Usage);
        assert!(dialer(Some("http://127.0.0.1:8000".to_owned()), None).is_ok());
    }
}
