//! A sign-in begins: whoever it is has proved it, and nothing is kept yet.

use std::net::IpAddr;

use mykube_relay_accounts::{id::SignInId, jwt::Subject, sign_in::Method, time::UnixTime};
use mykube_relay_store::{Account, Actor, Identity, SignIn, StoreError, Transaction};

use crate::shared::Shared;

/// A sign-in, in a transaction that waits to be kept.
pub(super) struct Begun {
    pub(super) transaction: Transaction,
    pub(super) account: Account,
    pub(super) subject: Subject,
    pub(super) now: UnixTime,
}

/// `by`: what proved it, and for what, for the audit log.
pub(super) async fn begin(
    portal: &Shared,
    identity: &Identity,
    address: IpAddr,
    method: Method,
    by: &str,
) -> Result<Begun, StoreError> {
    let now = portal.now();
    let mut transaction = portal.store.begin().await?;
    let account = transaction.account_of(identity, now).await?;
    begin_as(portal, transaction, account, address, (method, now), by).await
}

/// The same for somebody whose account is known, with how and when they proved who they are.
pub(super) async fn begin_as(
    portal: &Shared,
    mut transaction: Transaction,
    account: Account,
    address: IpAddr,
    (method, auth_time): (Method, UnixTime),
    by: &str,
) -> Result<Begun, StoreError> {
    let now = portal.now();
    let id = SignInId::random(&mut rand::rng());
    let sign_in = SignIn { id, account: account.id, method, signed_in_at: now };
    transaction.begin_sign_in(sign_in, address).await?;
    let actor = Actor { account: account.id, sign_in: id, address };
    transaction.record(account.organisation, actor, ("sign_in.begin", by), now).await?;
    let subject = account.subject(id, auth_time);
    Ok(Begun { transaction, account, subject, now })
}
