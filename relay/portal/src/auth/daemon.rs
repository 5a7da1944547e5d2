//! A sign-in of a published daemon: one token, for as long as that lives.

use mykube_relay_accounts::jwt::Class;
use serde_json::{Value, json};

use super::begin::Begun;
use crate::{failure::Failure, shared::Shared};

/// Keeps the sign-in. The answer is the published one.
pub(super) async fn begin(portal: &Shared, begun: Begun) -> Result<Value, Failure> {
    let Begun { transaction, account, subject, now } = begun;
    transaction.commit().await?;
    let issued = portal.issue(Class::Daemon, &subject, now);
    Ok(json!({"token": issued.token.expose(), "userId": account.id.to_string(), "email": account.identity.email}))
}
