//! What a program says of itself.

use http::{HeaderMap, header};
use mykube_protocol::account::CLIENT;
use mykube_relay_accounts::{device_code::Client, sign_in::plain_program};

use super::family;
use crate::failure::Failure;

/// What whoever asks calls itself: a claim, as it is shown to people.
pub(super) fn program(headers: &HeaderMap) -> String {
    headers.get(header::USER_AGENT).map(|agent| plain_program(agent.as_bytes())).unwrap_or_default()
}

/// Whose program asks: one of ours names itself so, and brings its machine's key.
pub(super) fn client(client: Option<&str>, key: Option<&str>) -> Result<Client, Failure> {
    match (client, key) {
        (None, None) => Ok(Client::Daemon),
        (Some(CLIENT), Some(key)) => Ok(Client::Mykube(family::key(key)?)),
        (Some(CLIENT), None) => Err(Failure::unprocessable("`client` wants a `key`")),
        (Some(_), _) => Err(Failure::unprocessable("no such `client`")),
        (None, Some(_)) => Err(Failure::unprocessable("`key` is for `client`")),
    }
}
