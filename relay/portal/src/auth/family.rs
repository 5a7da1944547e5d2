//! A sign-in of a program of ours: bound to its machine's key, it goes on by refresh tokens.

use data_encoding::BASE64URL_NOPAD;
use mykube_relay_accounts::{id::TokenId, refresh::Family, statement::MachineKey};
use serde_json::Value;

use super::{begin::Begun, refresh};
use crate::{failure::Failure, shared::Shared};

/// A machine's public key, as a body has it.
pub(super) fn key(text: &str) -> Result<MachineKey, Failure> {
    let key = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let key = key.and_then(|key| MachineKey::from_bytes(&key).ok());
    key.ok_or_else(|| Failure::unprocessable("`key` is no uncompressed point of P-256 in base64url"))
}

/// Keeps the sign-in with its family. The answer is [`SignedIn`](mykube_protocol::account::SignedIn).
pub(super) async fn begin(portal: &Shared, begun: Begun, key: MachineKey) -> Result<Value, Failure> {
    let Begun { mut transaction, account, subject, now } = begun;
    let (family, token) = Family::new(subject.sign_in, account.id, key, &portal.refresh, now, &mut rand::rng());
    transaction.begin_family(&family).await?;
    transaction.commit().await?;
    let access = TokenId::random(&mut rand::rng());
    Ok(refresh::signed_in(portal, &subject, access, &token, now))
}
