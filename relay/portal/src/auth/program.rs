//! What a program says of itself.

use http::{HeaderMap, header};
use mykube_relay_accounts::sign_in::plain_program;

/// What whoever asks calls itself: a claim, as it is shown to people.
pub(super) fn program(headers: &HeaderMap) -> String {
    headers.get(header::USER_AGENT).map(|agent| plain_program(agent.as_bytes())).unwrap_or_default()
}
